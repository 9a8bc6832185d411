"""`kill -9` at random moments of both stages and of training, then resume: the same bits as without a kill.

Each process searches and trains where the one before it was killed. It arms a timer in a chosen step, and the timer
kills it some milliseconds later, wherever it then is: in an attack, a step, a write. Every step writes a checkpoint.
"""

import json
import os
import random
import signal
import threading

import forks
import pytest
import torch
from cases import SMALL_LAYOUT

from robust_nas import run_search, train
from robust_nas.checkpoints import read_checkpoint
from robust_nas.config import apply_overrides, to_yaml
from robust_nas.run_folder import CHECKPOINT, METRICS
from robust_nas.workflows.config import load_config

CONFIG = {
    "schema_version": 1,
    "name": "tiny",
    "seed": 5,
    "device": "cpu",
    "threads": 1,
    "checkpoint_seconds": 0,
    "data": {"name": "digits", "limit": 250, "validation": 0.2, "augment": {"crop": 1, "cutout": 2}},
    "space": {
        "name": "dsara",
        "changes": {
            "nodes": 2,
            "operations": ["max_pool_3x3", "skip_connect", "sep_conv_3x3"],
            "layout": SMALL_LAYOUT,
        },
    },
    "search": {
        "epochs": 4,
        "stage1_epochs": 2,
        "batch_size": 50,
        "cells": 3,
        "channels": 2,
        "attack": {"name": "fgsm-rs", "eps": 0.1},
        "alphas": {"learning_rate": 0.05},
    },
    "network": {"cells": 3, "channels": 4},
    "training": {
        "epochs": 2,
        "batch_size": 32,
        "loss": {"name": "pgd-at", "attack": {"name": "pgd", "eps": 0.1, "steps": 2, "keep": "last"}},
        "validation_attack": {"name": "pgd", "eps": 0.1, "steps": 2},
    },
    "evaluation": {"threat_model": {"norm": "linf", "eps": 0.1}, "attacks": [{"attack": {"name": "fgsm"}}]},
}
VARIANTS = {
    "second-order-trades-ema": [
        "search.order=2",
        "training.loss={name: trades, attack: {name: pgd, loss: kl, eps: 0.1, steps: 2, keep: last}}",
        "training.ema=0.9",
        "training.drop_path=0.3",
        "training.auxiliary_weight=0.4",
        "training.clip_norm=5",
        "training.nesterov=true",
    ],
}
# (job, step in which the timer is armed), in the order of the processes; a search has 8 steps, a training 12.
MOMENTS = [
    ("search", 1),
    ("search", 3),
    ("search", 5),
    ("search", 7),
    ("train", 2),
    ("train", 6),
    ("train", 10),
]
FOLDERS = {"search": "search", "train": "model"}


def work(recipe, folder, job=None, step=None, delay=None):
    """Searches and trains; `delay` seconds after `step` of `job` it is killed."""

    def progress(name, done, total, note=""):
        if (name, done) == (job, step):
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    config = load_config(recipe)
    found = run_search(config, folder / "search", mode="resume", progress=progress)
    train(config, found.architecture, folder / "model", mode="resume", progress=progress)


def killed(log, recipe, folder, job, step, delay):
    """Starts the job, which is killed at that moment; returns its exit code and the epoch of the checkpoint."""
    code = forks.exit_code(log, work, recipe, folder, job, step, delay)
    return code, read_checkpoint(folder / FOLDERS[job] / CHECKPOINT)["epoch"]


def equal(one, other, path="checkpoint"):
    """Compares two trees bit for bit; what takes time may differ."""
    assert type(one) is type(other), path
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one.keys() - {"seconds"}:
            equal(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for index, pair in enumerate(zip(one, other, strict=True)):
            equal(*pair, f"{path}.{index}")
    else:
        assert one == other, path


@pytest.mark.slow
@pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)
def test_killed_again_and_again_a_run_ends_in_the_same_bits(tmp_path, overrides):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(to_yaml(apply_overrides(CONFIG, overrides)))
    config = load_config(recipe)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    log = tmp_path / "log.txt"
    forks.run(log, work, recipe, whole)
    delay = random.Random(0)  # noqa: S311 - moments, not secrets
    stages = set()
    for job, step in MOMENTS:
        code, epoch = killed(log, recipe, cut, job, step, delay.uniform(0, 0.06))
        assert code == -signal.SIGKILL, log.read_text()
        if job == "search":
            stages.add(1 if epoch < config.search.stage1_epochs else 2)
    assert stages == {1, 2}
    assert not (cut / "model" / "model.safetensors").exists()
    forks.run(log, work, recipe, cut)

    for name in (
        "search/architecture.yaml",
        "search/alphas.json",
        f"search/{METRICS}",
        "model/architecture.yaml",
        "model/model.safetensors",
        "model/model.json",
        f"model/{METRICS}",
    ):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    for folder in ("search", "model"):
        equal(
            read_checkpoint(cut / folder / CHECKPOINT), read_checkpoint(whole / folder / CHECKPOINT), folder
        )
        results = [json.loads((root / folder / "result.json").read_text()) for root in (cut, whole)]
        equal(*results, folder)
        assert sorted(path.name for path in (cut / folder).iterdir()) == sorted(
            path.name for path in (whole / folder).iterdir()
        )
