"""Ranks, and the contract of ranking methods: every one of the registry, on a handful of candidates."""

import math

import numpy as np
import pytest
import torch
from cases import SHORT, SHORT_SUPERNET, SHORT_ZERO
from scipy import stats
from small_search import CLASSES, images

from robust_nas.data import Images
from robust_nas.errors import ConfigError
from robust_nas.run_folder import Run
from robust_nas.search import EVALUATORS, PROXIES, RANKINGS, RankingContext, SearchContext
from robust_nas.search.ranking.ranks import rank_shares, rank_within_band, shares_within
from robust_nas.search.ranking.zero_cost import ZeroCost
from robust_nas.spaces import NASBench201Architecture, Size, load_space, sample

NB201 = load_space("nas-bench-201")
CASES = {
    "zero-cost": SHORT_ZERO,
    "train": {**SHORT, "rungs": (2, 4), "zero_cost": SHORT_ZERO},
    "supernet": {**SHORT_SUPERNET, "zero_cost": SHORT_ZERO},
}
pytestmark = pytest.mark.usefixtures("short_trainings")
every_method = pytest.mark.parametrize("name", RANKINGS.built_in)
DEAD = NASBench201Architecture.from_string("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
CANDIDATES = [*(sample(NB201, seed) for seed in range(5)), DEAD]


class Stopped(Exception):  # noqa: N818 - no error
    """Stands for a kill."""


def context(run, **changes):
    values = {"run": run, "images": images(24), "classes": CLASSES, "mean": (0.0,), "std": (1.0,), "seed": 3}
    return RankingContext(**{**values, "space": NB201, **changes})


def scored(folder, method, candidates=CANDIDATES, mode="new", **changes):
    with Run(folder, method, mode) as run:
        return method.score(candidates, context(run, **changes))


def without_seconds(columns):
    return {key: values for key, values in columns.items() if "seconds" not in key}


def test_every_ranking_method_is_tried_here():
    assert list(RANKINGS.built_in) == list(CASES)


@every_method
def test_a_method_has_a_score_first_and_a_value_for_every_candidate(name, tmp_path):
    columns = scored(tmp_path, RANKINGS.make(name, **CASES[name]))
    assert next(iter(columns)) == "score"
    for values in columns.values():
        assert len(values) == len(CANDIDATES)
        assert all(value is None or math.isfinite(value) for value in values)
    assert len(set(columns["score"])) > 3


@every_method
def test_a_killed_ranking_ends_in_the_same_bits_and_measures_nothing_twice(name, tmp_path, monkeypatch):
    method = RANKINGS.make(name, **CASES[name])
    expected = scored(tmp_path / "whole", method)

    def stop(job, done, total, note=""):
        if done == 3:
            raise Stopped

    with pytest.raises(Stopped):
        scored(tmp_path / "cut", method, progress=stop)
    again = scored(tmp_path / "cut", method, mode="resume")
    assert without_seconds(again) == without_seconds(expected)
    finished = scored(tmp_path / "whole", method, mode="resume")
    assert finished == expected  # the seconds too: they are those of the first call


def test_zero_cost_is_the_sum_of_the_ranks_by_a_plain_loop_and_the_dead_cell_is_last(tmp_path):
    method = RANKINGS.make("zero-cost", **CASES["zero-cost"])
    columns = scored(tmp_path, method)
    batches = method.batches(images(24), 3)
    assert [len(each) for each in batches] == [4, 4, 4]
    seen = torch.cat([each.pixels for each in batches]).flatten(1)
    assert len(torch.unique(seen, dim=0)) == 12  # no image is in two draws
    sums = np.zeros((3, len(CANDIDATES)))
    found = [method.measure(method.sized(one), batches, CLASSES, (0.0,), (1.0,), 3) for one in CANDIDATES]
    for draw in range(3):
        for label in ("params", "jacob-cov", "synflow"):
            sums[draw] += (stats.rankdata([each.proxies[label][draw] for each in found]) - 0.5) / len(
                CANDIDATES
            )
    assert columns["score"] == pytest.approx(sums.mean(0).tolist())
    assert columns["spread"] == pytest.approx(sums.std(0, ddof=1).tolist())
    once = scored(tmp_path / "once", method.model_copy(update={"draws": 1}))
    assert once["spread"] == [None] * len(CANDIDATES)
    assert columns["score"].index(min(columns["score"])) == CANDIDATES.index(DEAD)


def test_every_proxy_can_be_ranked_by_and_one_with_a_lower_better_value_the_other_way_round(tmp_path):
    every = ZeroCost(**CASES["zero-cost"], proxies=tuple(PROXIES.built_in))
    columns = scored(tmp_path / "all", every)
    assert {f"proxy_{name.replace('-', '_')}" for name in PROXIES.built_in} <= columns.keys()
    one = ZeroCost(**CASES["zero-cost"], draws=1, proxies=("input-gradient-norm",))
    columns = scored(tmp_path / "one", one)
    order = np.argsort(columns["proxy_input_gradient_norm"])
    assert (np.diff(np.array(columns["score"])[order]) <= 0).all()
    with pytest.raises(ConfigError, match="proxies names one twice: params, params"):
        ZeroCost(proxies=("params", "params"))


def test_draws_have_weights_of_their_own_which_follow_from_the_seed():
    method = RANKINGS.make("zero-cost", **CASES["zero-cost"])
    small = method.sized(CANDIDATES[0])
    batch = method.batches(images(24), 3)[0]
    one, same, other = (
        method.measure(small, [batch, batch], CLASSES, (0.0,), (1.0,), seed).proxies for seed in (3, 3, 4)
    )
    assert one == same
    for label in ("jacob-cov", "synflow"):
        assert len({*one[label], *other[label]}) == 4


def test_the_evaluator_ranks_a_candidate_within_its_reference_sample(tmp_path):
    method = RANKINGS.make("zero-cost", **CASES["zero-cost"])
    evaluator = EVALUATORS.make("zero-cost", method=method, reference=10)
    with Run(tmp_path, evaluator) as run:
        here = SearchContext(
            run=run, space=NB201, images=images(24), classes=CLASSES, mean=(0.0,), std=(1.0,), name="found",
            seed=3, augmentation={}, network=Size(cells=3, channels=4),
        )  # fmt: skip
        scores = [evaluator.evaluate(one, here).score for one in CANDIDATES]
    assert all(0 <= score <= 3 for score in scores)
    assert min(scores) == scores[CANDIDATES.index(DEAD)]
    assert scores[CANDIDATES.index(DEAD)] < 0.5


@pytest.mark.parametrize("count", [3, 5])
def test_too_few_images_are_refused(tmp_path, count):
    with pytest.raises(ConfigError, match=rf"method\.draws: got 3 with {count} images"):
        scored(tmp_path, RANKINGS.make("zero-cost"), images=images(count))


def test_a_method_that_needs_a_space_says_so(tmp_path):
    with Run(tmp_path, RANKINGS.make("zero-cost")) as run, pytest.raises(ConfigError, match="--space"):
        context(run, space=None).known_space("supernet")


def test_images_are_reduced_by_means_of_whole_pixels(tmp_path):
    pixels = torch.arange(2 * 3 * 32 * 32).remainder(251).byte().reshape(2, 3, 32, 32)
    with Run(tmp_path, RANKINGS.make("zero-cost")) as run:
        here = context(run, images=Images(pixels, torch.zeros(2, dtype=torch.int64)))
        means = here.reduced(16).pixels
        assert here.reduced(20).pixels is pixels
    assert means.shape == (2, 3, 16, 16)
    whole = pixels.double().reshape(2, 3, 16, 2, 16, 2).mean((3, 5))
    assert (means.double() - whole).abs().max() <= 0.5


def test_rank_shares_follow_order_alone_and_put_what_is_absent_last():
    assert rank_shares([3.0, None, 5.0, 5.0]).tolist() == [0.375, 0.125, 0.75, 0.75]
    assert rank_shares([3.0, math.nan, 5.0, 5.0]).tolist() == rank_shares([-1.0, None, 7.0, 7.0]).tolist()
    assert shares_within([0.0, 2.0, 9.0], [1.0, 2.0, 3.0, 4.0]).tolist() == [0.0, 0.375, 1.0]


def test_a_rank_within_a_band_compares_with_similar_sizes_alone():
    scores, params = [1.0, 2.0, 3.0, None, 9.0], [100, 110, 120, 105, 1000]
    shares = rank_within_band(scores, params, 0.25)
    assert shares == [pytest.approx(1.5 / 4), pytest.approx(2.5 / 4), pytest.approx(3.5 / 4), None, None]
