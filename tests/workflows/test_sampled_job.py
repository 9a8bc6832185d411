"""A sampled search as a job: on every shipped space with every evaluator, resumed, and what its record holds."""

import dataclasses
import itertools
import json

import pytest
import torch
from cases import SHORT, SHORT_SUPERNET, SHORT_ZERO_COST, config

from robust_nas import run_search
from robust_nas.config import check, read_yaml, to_dict
from robust_nas.errors import CheckpointError, ConfigError, RunExistsError
from robust_nas.run_folder import CHECKPOINT, read_json
from robust_nas.search import EVALUATORS
from robust_nas.spaces import load_space, shipped_names
from robust_nas.workflows.candidates import CandidateRecipe
from robust_nas.workflows.context import load_context

EVERY_EVALUATOR = {
    "short-training": {"name": "short-training", "epochs": 1},
    "train": {"name": "train", **SHORT, "steps": 2},
    "supernet": {
        "name": "supernet",
        **SHORT_SUPERNET,
        "reference": 10,
        "zero_cost": SHORT_ZERO_COST["method"],
    },
    "proxy": {"name": "proxy", "proxy": "params", "images": 8},
    "zero-cost": {"name": "zero-cost", **SHORT_ZERO_COST},
}
FEWER = {"nodes": 2}  # instead of 4
# Every space and every evaluator; what is resumed of the one does not depend on the other.
RESUMED = set(zip(itertools.cycle(shipped_names()), EVERY_EVALUATOR, strict=False))
SEARCH = {"name": "random", "cells": 4, "channels": 2, "evaluations": 2}
NB201 = "space={name: nas-bench-201, changes: {operations: [none, nor_conv_1x1, skip_connect]}}"


class Stopped(Exception):  # noqa: N818 - no error
    """Stands for a kill."""


def sampled(*overrides, evaluator="short-training"):
    search = {**SEARCH, "evaluator": EVERY_EVALUATOR[evaluator]}
    return config(f"search={json.dumps(search)}", "checkpoint_seconds=0", *overrides)


def killed_after_one(values, folder):
    def progress(job, done, total, note=""):
        raise Stopped

    with pytest.raises(Stopped):
        run_search(values, folder, progress=progress)


def test_every_evaluator_is_tried_here():
    assert EVALUATORS.built_in.keys() == {*EVERY_EVALUATOR, "table"}  # which test_table_readers.py tries


@pytest.mark.usefixtures("short_trainings")
@pytest.mark.parametrize("evaluator", EVERY_EVALUATOR)
@pytest.mark.parametrize("space", shipped_names())
def test_every_shipped_space_is_searched_with_every_evaluator_and_some_are_resumed(
    space, evaluator, tmp_path
):
    fewer = evaluator != "proxy" and load_space(space).nodes == 4
    changed = {"name": space, "changes": FEWER if fewer else {}}
    values = sampled(f"space={json.dumps(changed)}", evaluator=evaluator)
    whole = run_search(values, tmp_path / "whole")
    assert whole.architecture.type == load_space(space).type
    assert whole.record["candidates"] == 2
    if (space, evaluator) not in RESUMED:
        return
    killed_after_one(values, tmp_path / "cut")
    cut = run_search(values, tmp_path / "cut", mode="resume")
    assert cut.architecture == whole.architecture
    assert (cut.folder / "metrics.jsonl").read_bytes() == (whole.folder / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("code", [1, 2], "a code of .* integers is needed"),
        ("code", [9] * 6, "integer 0 of a code: got 9; allowed: 0.."),
        ("code", 3, "got 3; a code of"),
        ("record", {"score": 1.0}, "lacks candidate, macs, name, params"),
        ("record", 3, "has no attribute"),
    ],
)
def test_a_damaged_candidate_in_a_checkpoint_is_an_error_of_the_checkpoint(key, value, message, tmp_path):
    values = sampled(evaluator="proxy")
    killed_after_one(values, tmp_path)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert len(state["evaluated"][0]["code"]) == 6
    state["evaluated"][0][key] = value
    torch.save(state, tmp_path / CHECKPOINT)
    with pytest.raises(CheckpointError, match=rf"checkpoint\.pt: does not fit this run: .*{message}"):
        run_search(values, tmp_path, mode="resume")


def test_another_final_training_leaves_a_search_as_it_is(tmp_path):
    killed_after_one(sampled(), tmp_path)
    final = ("training.epochs=9", "training.validate_every=2", "training.validate_from=3")
    found = run_search(sampled(*final), tmp_path, mode="resume")
    assert {"epochs", "validate_every", "validate_from"}.isdisjoint(
        read_yaml(tmp_path / "config.yaml")["training"]
    )
    assert run_search(sampled("training.epochs=8"), tmp_path, mode="resume").record == found.record
    training = read_yaml(tmp_path / "candidates" / "tiny-1" / "config.yaml")["training"]
    assert [training[key] for key in ("epochs", "validate_every", "validate_from")] == [1, 1, 0]
    assert read_json(tmp_path / "result.json")["candidates"] == 2


@pytest.mark.parametrize(
    "change", ["training.learning_rate=0.2", "training.validation_images=5", "search.evaluator.epochs=2"]
)
def test_what_candidates_depend_on_is_another_search(change, tmp_path):
    run_search(sampled(), tmp_path / "run")
    with pytest.raises(RunExistsError, match=f"different: {change.partition('=')[0]}"):
        run_search(sampled(change), tmp_path / "run", mode="resume")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((NB201, "training.auxiliary_weight=0.4"), "a network of NAS-Bench-201, which has no auxiliary head"),
        (("training.auxiliary_weight=0.4",), "feature maps of at least 4x4"),
        (("training.precision=bf16",), "bf16 is not supported by an old GPU"),
    ],
)
@pytest.mark.parametrize("seeds", [1, 2])
def test_a_recipe_that_no_candidate_can_have_is_refused_before_the_folder_is_made(
    overrides, message, seeds, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old GPU")
    values = sampled(*overrides)
    context = dataclasses.replace(load_context(values), device=torch.device("cuda"))
    monkeypatch.setattr("robust_nas.workflows.context.choose_device", lambda name: torch.device("cuda"))
    with pytest.raises(ConfigError, match=message):
        run_search(values, tmp_path / "run", context=context, seeds=seeds)
    assert not (tmp_path / "run").exists()


def test_a_recipe_is_no_matter_where_nothing_is_trained(tmp_path):
    values = sampled(NB201, "training.auxiliary_weight=0.4", evaluator="proxy")
    assert run_search(values, tmp_path).record["candidates"] == 2


def test_a_hook_of_late_epochs_fits_the_final_training_and_is_refused_in_shorter_ones(tmp_path):
    late = ("training.epochs=200", "training.hooks=[{name: swa, from_epoch: 150}]", "training.ema=null")
    values = sampled(*late, "search.evaluator.epochs=2")
    assert check(CandidateRecipe, to_dict(CandidateRecipe.of(values.training)), "again").hooks
    with pytest.raises(ConfigError, match="from_epoch is 150, counted from 0, but the training has 2 epochs"):
        run_search(values, tmp_path)
    assert not list(tmp_path.glob("candidates/*/metrics.jsonl"))


@pytest.mark.parametrize("evaluator", EVERY_EVALUATOR)
def test_the_epochs_of_candidates_are_an_option_of_their_evaluator(evaluator):
    with pytest.raises(
        ConfigError, match=r"search\.epochs: .*it is now evaluator\.epochs, of the evaluator short-"
    ):
        sampled("search.epochs=3", evaluator=evaluator)


@pytest.mark.parametrize(
    "key", ["search.augment={crop: 1}", "search.precision=float32", "search.evaluator.epochs=2"]
)
def test_an_option_that_would_do_nothing_is_refused(key):
    with pytest.raises(ConfigError, match=rf"{key.partition('=')[0]}: unknown key .*allowed: "):
        sampled(key, evaluator="proxy")


@pytest.mark.parametrize("search", ["{name: nni}", "{name: random}"])
def test_an_execution_of_a_supernet_that_is_not_ours_is_refused(search):
    with pytest.raises(
        ConfigError, match=r"supernet\.execution: got 'plain'; strategy .* trains no supernet of ours"
    ):
        config(f"search={search}", "supernet.execution=plain")
