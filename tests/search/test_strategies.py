"""Every strategy of the registry keeps the contract of its kind."""

import importlib.util
import json
import os

import pytest
import torch
from cases import SHORT_SUPERNET, SHORT_ZERO
from small_search import CLASSES, ONE_SHOT, SMALL, SPACE, Stopped, found, images, searched

from robust_nas import figures
from robust_nas.config import check, to_dict
from robust_nas.errors import CheckpointError, ConfigError
from robust_nas.run_folder import CHECKPOINT
from robust_nas.search import (
    EVALUATORS,
    STRATEGIES,
    Batch,
    OneShotSearch,
    Strategy,
    strategy_names,
    with_strategy,
)
from robust_nas.search.ranking import paths
from robust_nas.workflows.config import RunConfig

NNI = os.environ.get("ROBUST_NAS_HIDE_NNI") != "1" and importlib.util.find_spec("nni") is not None
SAMPLED = {
    **SMALL,
    "evaluations": 4,
    "macs": "10k:1M",
    "evaluator": EVALUATORS.make("short-training", epochs=2),
}
PROXY = {"evaluator": EVALUATORS.make("proxy", proxy="params")}
PATHS = {
    "name": "supernet",
    **SHORT_SUPERNET,
    "reference": 10,
    "zero_cost": {**SHORT_ZERO, "proxies": ["params"]},
}
OPTIONS = {
    "dsara": {**ONE_SHOT, "stage1_epochs": 1},
    "darts": ONE_SHOT,
    "advrush": {**ONE_SHOT, "stage1_epochs": 1},
    "pc-darts": {**ONE_SHOT, "k": 2, "warmup_epochs": 1},
    "gdas": ONE_SHOT,
    "nni:darts": ONE_SHOT,
    "nni:gumbel-darts": ONE_SHOT,
    "nni:proxyless": ONE_SHOT,
    "random": SAMPLED,
    "local-search": SAMPLED,
    "evolution": {**SAMPLED, "population": 2, "batch": 2},
    "single-path": {**SAMPLED, "population": 2, "batch": 2, "evaluator": PATHS},
    "successive-halving": {**SAMPLED, "rungs": 2, "eta": 2},
    "nsga2": {**SAMPLED, "population": 2, "batch": 2},
    "tpe": {**SAMPLED, "startup": 2, "batch": 2},
    "nni:random": SAMPLED,
    "nni:evolution": {**SAMPLED, "population": 2, "batch": 2},
}
with pytest.MonkeyPatch.context() as patch:
    patch.setattr(paths, "LEAST_IMAGES", 4)  # as the fixture `short_trainings`
    CASES = {
        name: check(STRATEGIES.get(section["name"]), section, name)
        for name, section in ((name, with_strategy(options, name)) for name, options in OPTIONS.items())
    }
pytestmark = pytest.mark.usefixtures("short_trainings")
every_strategy = pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(case, id=name, marks=pytest.mark.skipif(name.startswith("nni") and not NNI, reason="no NNI"))
        for name, case in CASES.items()
    ],
)  # fmt: skip


def test_the_suite_has_every_strategy():
    assert list(CASES) == [name for name in strategy_names() if name.partition(":")[0] in STRATEGIES.built_in]


def steps(strategy):
    """How often progress is reported in a whole search."""
    return 4 if strategy.kind == "one-shot" else strategy.evaluations


@every_strategy
def test_a_search_repeats_itself_leaves_torchs_generator_and_resumes_to_the_same_bits(strategy, tmp_path):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    outcome, records = searched(tmp_path / "whole", strategy)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    for mode, at in (
        ("new", 1),
        ("resume", 3),
        ("resume", steps(strategy)),
    ):  # one search, killed three times
        with pytest.raises(Stopped):
            searched(tmp_path / "cut", strategy, mode=mode, stop_at=at)
    again, same = searched(tmp_path / "cut", strategy, mode="resume")
    assert (found(again), same) == (found(outcome), records)
    other, _ = searched(tmp_path / "other", strategy, seed=4)
    assert found(other) != found(outcome)


@every_strategy
def test_what_a_search_finds_is_said_by_its_strategy(strategy, tmp_path):
    outcome, records = searched(tmp_path, strategy)
    architecture = outcome.architecture
    assert (architecture.name, architecture.layout) == ("found", SPACE.layout)
    assert outcome.last == records[-1]
    if strategy.kind == "one-shot":
        columns = ("epoch", "step", "stage", "learning_rate", *strategy.columns, "entropy", "skips")
        steps = len(records) // strategy.epochs
        ends = records[steps - 1 :: steps]
        assert [one for one in records if "edge_weights" in one] == ends
        records = [{key: one[key] for key in one if key != "edge_weights"} for one in records]
        assert outcome.edge_weights.keys() == set(SPACE.layout.kinds)
    else:
        columns = (*strategy.columns, *strategy.evaluator.columns)
        assert outcome.edge_weights is None
    assert [tuple(record) for record in records] == [columns] * len(records)
    result = json.loads(json.dumps(strategy.result(records)))
    assert isinstance(result[strategy.criterion.key], float)
    assert strategy.criterion.best([result, result]) == 0
    figure = figures.FIGURES.make(strategy.figure)
    drawn = figure.draw({strategy.drawn_as: records}, tmp_path / "figure", caption=strategy.describe())
    assert all(path.exists() for path in drawn)


@every_strategy
def test_options_print_themselves_completely(strategy):
    assert check(type(strategy), to_dict(strategy), "again") == strategy


@every_strategy
def test_a_checkpoint_of_another_kind_is_refused(strategy, tmp_path):
    with pytest.raises(Stopped):
        searched(tmp_path, strategy, stop_at=2)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    torch.save({**state, "job": "train"}, tmp_path / CHECKPOINT)
    with pytest.raises(CheckpointError, match="its checkpoint is of job 'train'"):
        searched(tmp_path, strategy, mode="resume")


@every_strategy
def test_a_one_shot_step_reads_back_what_its_strategy_says_and_gives_no_unknown_column(strategy, monkeypatch):
    if strategy.kind != "one-shot":
        pytest.skip("a sampled strategy has no step")
    torch.manual_seed(0)
    supernet = strategy.build_supernet(SPACE, classes=CLASSES, mean=(0.0,), std=(1.0,), seed=0)
    with torch.random.fork_rng():
        search = OneShotSearch(strategy, supernet, SPACE)
        search.epoch = strategy.epochs - 1
        strategy.begin_epoch(search)
        some = images()
        batch = Batch(some.float(), some.float(), some.labels)
        # Not the optimisers' own steps: on a CPU they count on the host.
        search.alpha_optimiser.step = search.weight_optimiser.step = lambda: None

        def refuse(*_):
            raise AssertionError("a synchronisation")

        read_back, tolist = [], torch.Tensor.tolist

        def count(tensor):
            read_back.append(tensor)
            return tolist(tensor)

        for name in ("item", "cpu", "__bool__", "__float__", "__int__", "nonzero"):
            monkeypatch.setattr(torch.Tensor, name, refuse)
        monkeypatch.setattr(torch.Tensor, "tolist", count)
        measured = strategy.step(search, lambda *halves: [batch for _ in halves])
        monkeypatch.undo()
    assert len(read_back) == strategy.reads_back
    assert measured.keys() <= set(strategy.columns)
    assert all(value.dim() == 0 for value in measured.values())


@pytest.mark.parametrize("name", [name for name in strategy_names() if name.startswith("nni:")])
def test_a_limit_on_skips_stays_behind_where_a_strategy_derives_by_itself(name):
    section = with_strategy({"name": "dsara", "max_skips": 2, "derive_by": "perturbation", "epochs": 7}, name)
    assert section.keys() & {"max_skips", "derive_by"} == set()
    assert with_strategy({"name": "dsara", "max_skips": 2}, "gdas")["max_skips"] == 2


@pytest.mark.parametrize("text", ["ray", "nni", "nni:x", "dsara:x", "", "x" * 1000])
def test_an_unknown_strategy_is_answered_with_the_known_ones(text):
    with pytest.raises(ConfigError, match=r"strategy: got '.*'; allowed: .*dsara.*nni:darts.*random"):
        with_strategy({}, text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nni:enas", "NNI's ENAS chooses one source a node.*; use evolution"),
        ("nni:policy-based-rl", "needs the package tianshou; use evolution"),
        ("nni:random-one-shot", "returns an arbitrary network; single-path"),
        ("nni:grid-search", "enumerates a space from its first network; use random"),
        ("nni:tpe", "use tpe"),
        ("nni:regularized-evolution", "called nni:evolution"),
    ],
)
def test_a_strategy_of_nnis_that_is_not_here_is_refused_with_the_reason(text, reason):
    with pytest.raises(ConfigError, match=rf"strategy: got '{text}', which is .*{reason}.*; allowed: dsara"):
        with_strategy({}, text)
    with pytest.raises(ConfigError, match=rf"got name '{text}'; it is .*{reason}"):
        check(RunConfig, {"name": "x", "search": {"name": text}}, "mine.yaml")


def test_another_strategy_keeps_methods_whole_and_drops_foreign_keys():
    section = {"name": "dsara", "epochs": 3, "stage1_epochs": 1, "attack": {"name": "pgd", "steps": 3},
               "alphas": {"learning_rate": 0.1, "betas": [0.1, 0.2]}}  # fmt: skip
    assert with_strategy(section, "nni:darts") == {
        "name": "nni",
        "epochs": 3,
        "attack": {"name": "pgd", "steps": 3},
        "alphas": {"learning_rate": 0.1},
        "strategy": "darts",
    }
    assert with_strategy({**section, "cells": 4}, "random") == {"name": "random", "cells": 4}


def test_the_base_class_says_what_is_missing():
    with pytest.raises(NotImplementedError, match="what its records amount to"):
        Strategy().result([])
