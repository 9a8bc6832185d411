"""Search and training as jobs of two ranks: killed, resumed, resumed alone; errors that one rank or all meet."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import forks
import pytest
import torch
from cases import SMALL_LAYOUT
from in_ranks import in_ranks, results

from robust_nas import distributed, load_config, run_search, train
from robust_nas.cli import main
from robust_nas.config import to_yaml
from robust_nas.figures import style
from robust_nas.run_folder import CHECKPOINT, METRICS, read_checkpoint
from robust_nas.spaces import ResidualArchitecture

ATTACK = {"name": "pgd", "eps": 0.1, "steps": 1}
CONFIG = {
    "schema_version": 1,
    "name": "tiny",
    "device": "cpu",
    "threads": 1,
    "checkpoint_seconds": 0,
    "data": {"name": "digits", "limit": 100, "validation": 0.2, "augment": {"crop": 1}},
    "space": {
        "name": "dsara",
        "changes": {
            "nodes": 1,
            "operations": ["skip_connect", "sep_conv_3x3"],
            "layout": SMALL_LAYOUT,
        },
    },
    "search": {
        "epochs": 2,
        "stage1_epochs": 1,
        "batch_size": 19,
        "cells": 3,
        "channels": 2,
        "attack": dict(ATTACK),
    },
    "network": {"cells": 3, "channels": 2},
    "training": {
        "epochs": 2,
        "batch_size": 39,
        "loss": {"name": "pgd-at", "attack": dict(ATTACK)},
        "ema": 0.5,
        "validation_attack": dict(ATTACK),
    },
    "evaluation": {"threat_model": {"norm": "linf", "eps": 0.1}, "attacks": [{"attack": {"name": "fgsm"}}]},
}
NETWORK = ResidualArchitecture(name="residual", stem=2, depths=(1, 1), widths=(2, 4))


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(to_yaml(CONFIG))
    return path


def work(ranks, recipe, out, kind, mode="new", kill=None, overrides=()):
    """A job of `kind`; `kill` is a rank and the step in which it kills itself."""
    config, folder = load_config(recipe, overrides), Path(out)
    style._rendered = lambda *_, **__: b""  # which takes longer than all the rest

    def progress(name, done, total, note=""):
        if kill == [ranks.rank, done]:
            os.kill(os.getpid(), signal.SIGKILL)

    if kind == "search":
        found = run_search(config, folder, mode=mode, progress=progress)
        return {"found": str(found.architecture), "record": json.dumps(found.record)}
    train(config, NETWORK, folder, mode=mode, progress=progress)
    return None


def state(folder):
    """The tensors that a checkpoint holds, by name."""

    def flat(tree, name):
        if isinstance(tree, torch.Tensor):
            return {name: tree}
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
        return {key: tensor for part, value in pairs for key, tensor in flat(value, f"{name}.{part}").items()}

    return flat(read_checkpoint(folder / CHECKPOINT), "")


def start(tmp_path, recipe, folder, kind, counts, **more):
    """The job in so many ranks."""
    return in_ranks(work, tmp_path / "ranks", counts, recipe=recipe, out=folder, kind=kind, **more)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "victim"), [("search", 1), ("train", 0)])
def test_a_killed_rank_ends_the_job_which_resumes_to_the_same_bits_and_alone_to_the_same_numbers(
    tmp_path, recipe, kind, victim
):
    whole, cut, alone = tmp_path / "whole", tmp_path / "cut", tmp_path / "alone"
    done = results(start(tmp_path, recipe, whole, kind, [2]))[2]
    assert done[0] == done[1]  # every rank returns what rank 0 found
    broken = start(tmp_path, recipe, cut, kind, [2], kill=[victim, 3])[2]
    _, code, text = broken[1 - victim]
    assert broken[victim][1] == -signal.SIGKILL
    assert code == 1
    assert f"error: rank {1 - victim} of 2: no life in rank {victim};" in text
    assert "the same command and --resume" in text
    assert (cut / CHECKPOINT).exists()
    assert not (cut / "result.json").exists()
    shutil.copytree(cut, alone)

    results(start(tmp_path, recipe, cut, kind, [2], mode="resume"))
    results(start(tmp_path, recipe, alone, kind, [1], mode="resume"))
    expected = state(whole)
    again, other = state(cut), state(alone)
    assert expected.keys() == again.keys() == other.keys()
    assert (cut / METRICS).read_bytes() == (whole / METRICS).read_bytes()
    for name, tensor in expected.items():
        assert torch.equal(again[name], tensor), name
        torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    assert sorted(path.name for path in whole.iterdir()) == sorted(path.name for path in alone.iterdir())


def test_what_rank_0_alone_meets_every_rank_raises_and_one_tells(tmp_path, recipe):
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    ranks = start(tmp_path, recipe, folder, "search", [2])[2]
    assert [code for _, code, _ in ranks] == [2, 2]
    text = "".join(text for _, _, text in ranks)
    assert text.count("error:") == 1
    assert "exists already" in text


@pytest.mark.parametrize("kind", ["search", "train"])
def test_a_batch_too_small_for_the_ranks_is_refused_before_a_step(tmp_path, recipe, kind):
    options = {"search": "search.batch_size=3", "train": "training.batch_size=3"}
    ranks = start(tmp_path, recipe, tmp_path / "new", kind, [2], overrides=[options[kind]])[2]
    assert [code for _, code, _ in ranks] == [2, 2]
    text = "".join(text for _, _, text in ranks)
    assert "batch_size: the batch has 3 images for 2 ranks; at least 4 are needed" in text
    assert not (tmp_path / "new").exists()


def torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "-m", "robust_nas", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def test_torchrun_starts_a_training_which_rank_0_writes_and_prints(tmp_path, recipe):
    (tmp_path / "architecture.yaml").write_text(NETWORK.to_yaml())
    folder = tmp_path / "model"
    done = torchrun("train", str(recipe), "-a", str(tmp_path), "--out", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["folder"] == str(folder)
    assert json.loads((folder / "environment.json").read_text())["ranks"] == 2
    assert done.stderr.count("train: 4/4") == 1


def test_torchrun_and_a_mistake_end_with_one_message(recipe):
    done = torchrun("search", str(recipe), "search.epochs=0")
    assert done.returncode == 1  # torchrun's own
    assert done.stderr.count("error: ") == 1
    assert "search.epochs: got 0" in done.stderr
    assert "exitcode  : 2" in done.stderr


def command(*arguments):
    """The command line in a fork, which ends with its exit code; who does not speak first waits to be ended."""
    distributed.PATIENCE = forks.SECONDS
    sys.argv = ["robust-nas", *arguments]
    try:
        main()
    except SystemExit as stopped:
        sys.stderr.flush()
        os._exit(stopped.code)


def test_a_verb_of_one_process_is_refused_where_torchrun_started_several_in_one_message(tmp_path, recipe):
    logs = [tmp_path / f"{rank}.txt" for rank in range(2)]
    started = [
        forks.start(log, command, "run", str(recipe), WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank))
        for rank, log in enumerate(logs)
    ]
    assert forks.end(started[0]) == 2
    os.kill(started[1].pid, signal.SIGTERM)  # as torchrun does then
    assert forks.end(started[1]) != 0
    text = "".join(log.read_text() for log in logs)
    assert text.count("error: ") == 1
    assert "error: run: started by torchrun with 2 processes" in text
