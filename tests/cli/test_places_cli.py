"""Verbs alone on a run folder: they take its model, write next to it, and find again what `run` and they wrote."""

import json
import shutil

import numpy as np
import pytest
from cases import config
from PIL import Image

import robust_nas
from robust_nas.export import latency

QUICK = ("evaluation.suite=quick", "evaluation.findings=none", "--images", "8")
SHORT = [f"compression.cstar.{key}" for key in ("epochs=1", "finetune_epochs=1", "baselines=[]")]
CSTAR = ("--method", "cstar", *SHORT, "compression.max_loss=0.99", *QUICK[:2], "evaluation.images=8")
NETWORK = robust_nas.MLPArchitecture(name="mlp", depth=1, width=24)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The parts of a finished run that verbs read (tests/workflows/test_pipeline.py has a whole one)."""
    folder = tmp_path_factory.mktemp("made") / "tiny"
    chosen = config("evaluation.findings=none")
    robust_nas.train(chosen, NETWORK, folder / "model")
    robust_nas.run_evaluation(chosen, folder / "model", folder / "evaluation")
    for name in ("config.yaml", "result.json"):
        shutil.copy(folder / "model" / name, folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it, which a test may write into."""
    return shutil.copytree(finished, tmp_path / "tiny")


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def folder_of(call, *arguments):
    """Return where a call wrote, by its JSON, as a name in its run folder."""
    done = call(*arguments, "--json", "--quiet")
    assert done.code == 0, done.err
    return json.loads(done.out)["folder"].removeprefix("tiny/")


def test_evaluations_with_other_settings_are_next_to_that_of_the_run(call, run):
    assert folder_of(call, "evaluate", "tiny", "--resume") == "evaluation"  # the one of the run
    before = files_of(run / "evaluation")
    refused = call("evaluate", "tiny")
    assert refused.code == 2
    assert "tiny/evaluation: exists already; continue it with --resume" in refused.err
    assert folder_of(call, "evaluate", "tiny", *QUICK) == "evaluation-quick-linf-0.1-8"
    assert folder_of(call, "evaluate", "tiny/model", *QUICK, "seed=3") == "evaluation-quick-linf-0.1-8-2"
    assert folder_of(call, "evaluate", "tiny", *QUICK, "--resume") == "evaluation-quick-linf-0.1-8"
    assert files_of(run / "evaluation") == before
    assert not (run / "model" / "evaluation").exists()


def test_compressions_are_in_the_run_folder_and_are_models(call, run, monkeypatch):
    monkeypatch.setattr(latency, "SECONDS", 0.001)
    monkeypatch.setattr(latency, "PACKAGES", ("none_such",))
    assert folder_of(call, "compress", "tiny", "--ratio", "1.5", *CSTAR) == "compressed"
    assert folder_of(call, "compress", "tiny", "--ratio", "1.2", *CSTAR) == "compressed-cstar"
    for mode in ("--quiet", "--resume"):
        assert folder_of(call, "evaluate", "tiny/compressed", *QUICK, mode) == "compressed/evaluation"


def test_a_defended_model_is_in_the_run_folder_and_is_a_model(call, run):
    assert folder_of(call, "defend", "tiny", "--with", "blur") == "defended"
    assert folder_of(call, "defend", "tiny", "--with", "jpeg") == "defended-jpeg"
    assert folder_of(call, "evaluate", "tiny/defended", *QUICK) == "defended/evaluation"


def test_a_saved_set_is_in_the_run_folder_and_a_second_one_next_to_it(call, run):
    attack = ("attack", "run", "fgsm", "tiny", "--images", "4")
    assert folder_of(call, *attack) == "attack-fgsm"
    assert folder_of(call, *attack) == "attack-fgsm-2"
    assert call("evaluate", "tiny", "--images", "tiny/attack-fgsm/set.npz", "-q").code == 0


def test_a_run_folder_is_exported_counted_and_asked(call, run):
    done = call("export", "tiny", "--overwrite", "-q")
    assert done.code == 0, done.err
    assert "tiny/export/network.py" in done.out
    counted = call("count", "tiny", "--json")
    assert counted.out == call("count", "tiny/model", "--json").out
    pixels = np.zeros((8, 8), np.uint8)
    Image.fromarray(pixels).save("black.png")
    assert call("predict", "tiny", "black.png").code == 0


def test_a_model_is_trained_again_with_the_parts_that_verbs_added(call, run):
    attack = ("attack", "run", "fgsm", "alone", "--images", "4")
    shutil.copytree(run / "model", run.parent / "alone")
    for arguments in (attack, ("export", "alone", "--format", "hub"), ("evaluate", "alone", *QUICK)):
        assert call(*arguments, "-q").code == 0
    robust_nas.train(config(), NETWORK, run.parent / "alone", mode="overwrite")
    assert not any((run.parent / "alone" / name).exists() for name in ("attack-fgsm", "export", "evaluation"))


VERBS = {
    "evaluate": ("evaluate",),
    "compress": ("compress",),
    "defend": ("defend", "--with", "jpeg"),
    "export": ("export",),
    "attack run": ("attack", "run", "fgsm"),
    "attack train": ("attack", "train"),
    "predict": ("predict",),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_of_several_models_is_refused_with_their_names_and_nothing_is_written(
    call, verb, finished, tmp_path
):
    for name in ("a", "b"):
        shutil.copytree(finished / "model", tmp_path / "both" / name)
    before = files_of(tmp_path)
    more = ("black.png",) if verb == "predict" else ()
    done = call(*VERBS[verb], "both", *more)
    assert done.code == 2
    assert (
        "both: is no model folder and has no model/; name one of the models in it: both/a, both/b" in done.err
    )
    assert files_of(tmp_path) == before


def test_a_mistake_leaves_nothing_in_the_run_folder(call, run):
    before = files_of(run)
    for arguments in (
        ("evaluate", "tiny", "--suite", "none.yaml"),
        ("compress", "tiny", "--ratio", "0.5"),
        ("attack", "run", "fgsm", "tiny", "steps=x"),
        ("defend", "tiny", "--with", "jpeg", "quality=0"),
        ("export", "tiny", "--format", "onxx"),
        ("evaluate", "tiny", *QUICK, "--out", "tiny"),
    ):
        assert call(*arguments).code == 2, arguments
    assert files_of(run) == before
