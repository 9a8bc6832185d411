"""The sampled loop: windows, evaluators, scores that are missing, and a strategy with a state of its own."""

from typing import Literal

import pytest
import torch
from cases import SHORT, SHORT_SUPERNET, SHORT_ZERO_COST
from small_search import CLASSES, SMALL, Stopped, context, images, searched, trained

from robust_nas.config import check
from robust_nas.errors import ConfigError, DivergenceError, SearchSpaceError
from robust_nas.run_folder import Run
from robust_nas.search import EVALUATORS, PROXIES, RandomSearch, SampledStrategy, Trained
from robust_nas.spaces import count

VALUES = {**SMALL, "evaluations": 5}
EVERY_EVALUATOR = {
    "short-training": {},
    "train": {**SHORT, "steps": 4},
    "supernet": {**SHORT_SUPERNET, "reference": 10, "zero_cost": SHORT_ZERO_COST["method"]},
    "proxy": {"proxy": PROXIES.make("params")},
    "zero-cost": SHORT_ZERO_COST,
}


def test_every_candidate_is_in_the_window_at_the_final_size_and_the_best_is_the_result(tmp_path):
    values = RandomSearch(**VALUES, macs=(30_000, 40_000))
    outcome, records = searched(tmp_path, values)
    assert [record["name"] for record in records] == [f"found-{number}" for number in range(5)]
    assert all(30_000 <= record["macs"] <= 40_000 for record in records)
    best = max(records, key=lambda record: record["score"])
    cost = count(outcome.architecture, (1, 8, 8), CLASSES)
    assert (outcome.architecture.channels, cost.macs, cost.params) == (4, best["macs"], best["params"])
    assert all(record["score"] == record["robust"] for record in records)


def test_a_window_that_nothing_fits_is_refused(tmp_path):
    with pytest.raises(SearchSpaceError, match=r"no architecture with 1 to 2 MACs"):
        searched(tmp_path, RandomSearch(**VALUES, macs="1:2"))


@pytest.mark.parametrize(
    ("window", "expected"), [("1k:2M", (1e3, 2e6)), ([5, 6.5], (5, 6.5)), ("0:1G", (0, 1e9)), (None, None)]
)
def test_a_window_is_a_text_or_two_numbers(window, expected):
    assert RandomSearch(macs=window).macs == expected


@pytest.mark.parametrize("window", ["2:1", "a:b", "1", [3, 2], [-1, 2], "1:2:3", 5, ["1x", "2"]])
def test_a_window_that_is_none_is_refused(window):
    with pytest.raises(ConfigError, match="macs"):
        RandomSearch(macs=window)


def test_every_evaluator_is_tried_here():
    assert set(EVALUATORS.built_in) == {*EVERY_EVALUATOR, "table"}  # which test_table_readers.py tries


@pytest.mark.parametrize("name", EVERY_EVALUATOR)
@pytest.mark.usefixtures("short_trainings")
def test_an_evaluator_repeats_itself_and_fills_its_columns(name, tmp_path):
    evaluator = EVALUATORS.make(name, **EVERY_EVALUATOR[name])
    candidate = RandomSearch(**VALUES)
    outcome, _ = searched(tmp_path / "a", candidate)
    with Run(tmp_path / "b", candidate) as run:
        here = context(run)
        scored = [evaluator.evaluate(outcome.architecture, here) for _ in range(2)]
    assert scored[0] == scored[1]
    assert scored[0].measured.keys() == set(evaluator.columns)
    assert evaluator.label


def test_a_short_training_never_scores_on_images_that_it_trains_on(tmp_path):
    seen = []

    def train(architecture, images, validation, epochs):
        seen.append((images, validation, epochs, architecture.cells, architecture.channels))
        return trained(architecture, images, validation, epochs)

    evaluator = EVALUATORS.make("short-training", epochs=7)
    searched(tmp_path, RandomSearch(**VALUES, evaluator=evaluator), train=train)
    for kept, held_out, epochs, cells, channels in seen:
        assert (epochs, cells, channels, len(kept) + len(held_out)) == (7, 3, 2, len(images()))
        together = torch.cat([kept.pixels, held_out.pixels]).flatten(1)
        assert len(together.unique(dim=0)) == len(images())
        assert torch.equal(held_out.pixels, seen[0][1].pixels)


def test_a_candidate_whose_training_diverges_has_no_score_and_is_not_the_result(tmp_path):
    calls = []

    def train(architecture, *_):
        calls.append(architecture.name)
        if len(calls) in (2, 3):
            raise DivergenceError("diverged")
        return Trained(0.5, 0.4 if len(calls) > 1 else float("nan"))

    outcome, records = searched(tmp_path, RandomSearch(**VALUES), train=train)
    assert [record["score"] for record in records] == [None, None, None, 0.4, 0.4]
    assert outcome.last["name"] == "found-4"
    assert RandomSearch(**VALUES).result(records)["score"] == 0.4


def test_a_search_in_which_nothing_can_be_scored_says_so(tmp_path):
    def train(*_):
        raise DivergenceError("diverged")

    with pytest.raises(DivergenceError, match="none of 5 candidates could be scored"):
        searched(tmp_path, RandomSearch(**VALUES), train=train)


def test_an_error_of_one_candidate_does_not_cost_those_before_it(tmp_path):
    calls = []

    def train(architecture, *_):
        calls.append(architecture.name)
        if len(calls) == 4:
            raise ValueError("broken")
        return Trained(0.5, 0.4)

    with pytest.raises(ValueError, match="broken"):
        searched(tmp_path, RandomSearch(**VALUES), train=train, checkpoint_seconds=60.0)
    _, records = searched(tmp_path, RandomSearch(**VALUES), train=train, mode="resume")
    assert calls == [f"found-{number}" for number in (0, 1, 2, 3, 3, 4)]
    assert len(records) == 5


def test_without_one_who_trains_a_short_training_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"SearchContext\.train is None"):
        searched(tmp_path, RandomSearch(**VALUES), train=None)


class InPairs(SampledStrategy):
    """Asks for two at a time, counts the scores that it gets, and stops by itself after three pairs."""

    name: Literal["in-pairs"] = "in-pairs"

    def ask(self, search):
        return [] if search.state.get("answered", 0) == 6 else search.random_batch(most=2)

    def tell(self, search, candidates):
        assert search.candidates[-len(candidates) :] == list(candidates)
        search.state["answered"] = search.state.get("answered", 0) + len(candidates)


@pytest.mark.parametrize("at", [1, 2, 3, 6])
@pytest.mark.parametrize("evaluations", [5, 20])
def test_a_strategy_with_a_state_resumes_within_what_it_asked_for(tmp_path, at, evaluations):
    strategy = InPairs(**{**VALUES, "evaluations": evaluations})
    expected, records = searched(tmp_path / "whole", strategy)
    assert len(records) == min(evaluations, 6)
    if at <= len(records):
        with pytest.raises(Stopped):
            searched(tmp_path / "cut", strategy, stop_at=at)
    again, same = searched(tmp_path / "cut", strategy, mode="resume")
    assert (again.architecture, again.last, same) == (expected.architecture, expected.last, records)
    assert again.stopped == {
        "reason": "evaluations" if evaluations == 5 else "no proposals",
        "evaluations": len(records),
    }


def test_the_evaluator_of_a_config_is_chosen_by_name():
    found = check(RandomSearch, {"evaluator": {"name": "proxy", "proxy": {"name": "synflow"}}}, "test")
    assert found.evaluator.label == "proxy synflow"
    with pytest.raises(
        ConfigError, match=r"evaluator\.proxy: got name 'zen'; allowed: params, macs, synflow"
    ):
        check(RandomSearch, {"evaluator": {"name": "proxy", "proxy": "zen"}}, "test")


def test_draws_differ_between_candidates_and_between_seeds(tmp_path):
    names = {}
    for seed in (1, 2):
        _, records = searched(tmp_path / str(seed), RandomSearch(**VALUES), seed=seed)
        names[seed] = [record["macs"] for record in records]
    assert len(set(names[1])) > 1
    assert names[1] != names[2]


def test_a_search_whose_time_is_over_before_its_first_candidate_says_so(tmp_path):
    with pytest.raises(SearchSpaceError, match=r"budget: got 1e-09 s, .*no candidate was evaluated"):
        searched(tmp_path, RandomSearch(**VALUES, budget=1e-9))
