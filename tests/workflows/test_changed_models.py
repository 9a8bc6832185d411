"""A verdict stays with its model and its record: after a change of what decides an answer, or of the record."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

import robust_nas
from robust_nas.config import read_yaml, tree_hash
from robust_nas.errors import CheckpointError, RecordWarning, RunError, RunExistsError
from robust_nas.evaluation.finished import finished_evaluations
from robust_nas.export.metadata import metadata
from robust_nas.nets import ModelDescription, build_network, inference_state, read_model, save_model
from robust_nas.workflows.config import module_config

CONFIG = module_config(
    "changed",
    [
        "device=cpu",
        "data={name: digits, limit: 100}",
        "evaluation={threat_model: {eps: 0.1}, attacks: [{attack: {name: fgsm}}], images: 8, findings: none}",
    ],
)
CELLS = {"kind": "normal", "nodes": [[["max_pool_3x3", 0], ["avg_pool_3x3", 1]]], "concat": [2]}
ARCHITECTURES = {
    "residual": robust_nas.ResidualArchitecture(name="r", stem=4, depths=(1,), widths=(4,), strides=(1,)),
    "cells": robust_nas.CellArchitecture(
        name="c",
        cells=1,
        channels=4,
        layout={"stages": ["normal"], "filters": [1]},
        genotype=[CELLS],
    ),
}


@pytest.fixture
def model(tmp_path, request):
    """Return the folder of a model with an evaluation in it."""
    architecture = ARCHITECTURES[getattr(request, "param", "residual")]
    network = build_network(architecture, input_shape=(1, 8, 8), classes=10, mean=(0.3,), std=(0.4,), seed=0)
    names = tuple(map(str, range(10)))
    description = ModelDescription(input_shape=(1, 8, 8), class_names=names, mean=(0.3,), std=(0.4,))
    save_model(tmp_path / "m", architecture, inference_state(network), description)
    robust_nas.run_evaluation(CONFIG, tmp_path / "m")
    return tmp_path / "m"


def verdict(folder):
    return metadata(read_model(folder))["verdict"]


def exchange(path, *pairs):
    text = path.read_text()
    for old, _ in pairs:
        assert old in text
    path.write_text(re.sub("|".join(old for old, _ in pairs), lambda found: dict(pairs)[found[0]], text))


@pytest.mark.parametrize(
    ("model", "pairs"),
    [
        ("residual", [("activation: relu", "activation: softplus")]),
        (
            "cells",
            [("max_pool_3x3", "avg_pool_3x3"), ("avg_pool_3x3", "max_pool_3x3")],
        ),
    ],
    indirect=["model"],
)
def test_another_model_of_the_same_weights_has_no_verdict(model, pairs):
    before = verdict(model)
    assert before["images"] == 8
    exchange(model / "architecture.yaml", *pairs)
    assert verdict(model) is None
    assert not list(finished_evaluations(model, read_model(model).digest))  # what compress asks too
    with pytest.raises(RunExistsError, match="different: digest"):
        robust_nas.run_evaluation(CONFIG, model, mode="resume")


def test_a_description_that_contradicts_the_weights_is_refused(model):
    exchange(model / "model.json", ("0.3", "0.4"))
    with pytest.raises(CheckpointError, match=r"model\.json: mean is \[0\.4.*trained with \[0\.3"):
        read_model(model)


def test_a_record_that_was_edited_is_not_taken_over(model):
    path = model / "evaluation" / "evaluation.json"
    tree = json.loads(path.read_text())
    tree["robust"]["accuracy"] = 0.9
    path.write_text(json.dumps(tree))
    with pytest.raises(RunError, match=r"evaluation\.json: was changed after its run ended"):
        robust_nas.run_evaluation(CONFIG, model, mode="resume")
    with pytest.warns(RecordWarning, match=r"not taken over: .*evaluation\.json: was changed"):
        assert verdict(model) is None
    result = model / "evaluation" / "result.json"
    old = json.loads(result.read_text())
    del old["digests"]  # as of an earlier version: the shape alone is known
    result.write_text(json.dumps(old))
    assert verdict(model)["robust"] == 0.9
    path.write_text("{}")
    with pytest.warns(RecordWarning, match=r"evaluation\.json: is damaged: dataset is missing"):
        assert verdict(model) is None


MODULE = """
from pathlib import Path
import torch
from helper import shift
from safetensors.torch import load_file

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(64, 10)
        found = load_file(Path(__file__).with_name("own.safetensors"))
        self.linear.weight.data[:] = found["weight"]
        self.mean, self.calls = found["mean"], 3

    def forward(self, x):
        return self.linear(shift(x - self.mean).flatten(1))
"""


def test_a_module_that_loads_a_checkpoint_of_its_own_or_imports_is_known_as_it_was_built(
    tmp_path, monkeypatch
):
    import sys

    torch.manual_seed(0)
    tensors = {"weight": torch.randn(10, 64), "mean": torch.tensor(0.2)}
    (tmp_path / "net.py").write_text(
        MODULE + "\n\ndef build():\n    torch.manual_seed(0)\n    return Net()\n"
    )

    def resumed(weight=0.0, mean=0.0, text="x"):
        changed = {"weight": tensors["weight"] + weight, "mean": tensors["mean"] + mean}
        save_file(changed, tmp_path / "own.safetensors")
        (tmp_path / "helper.py").write_text(f"def shift(x):\n    return {text}\n")
        monkeypatch.delitem(sys.modules, "helper", raising=False)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        return robust_nas.run_evaluation(
            CONFIG, f"{tmp_path / 'net.py'}:build", tmp_path / "out", mode="resume"
        )

    before = resumed()
    assert resumed() == before
    for change in ({"weight": 0.1}, {"mean": 0.1}, {"text": "-x"}):
        with pytest.raises(RunExistsError, match="different: digest"):
            resumed(**change)
    config = tmp_path / "out" / "config.yaml"
    config.write_text(re.sub(r"(digest: [0-9a-f]{64})\.[0-9a-f]{16}", r"\1", config.read_text()))
    assert resumed(mean=0.1) == before  # of an earlier version, which knew no plain values
    with pytest.raises(RunExistsError, match="different: digest"):
        resumed(weight=0.1)


@pytest.mark.parametrize("records", [None, 7, {"clean": 7}])
def test_a_checkpoint_without_records_is_named(model, records):
    folder = model / "evaluation"
    path = folder / "checkpoint.pt"
    stored = tree_hash(read_yaml(folder / "config.yaml"))
    state = {"job": "evaluate", "config_hash": stored, "metrics_bytes": 0}  # as earlier versions wrote it
    torch.save({**state, "records": records}, path)
    (folder / "result.json").unlink()
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: does not fit this run"):
        robust_nas.run_evaluation(CONFIG, model, mode="resume")
