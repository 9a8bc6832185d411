"""Agreement of scores with the truth, against scipy, repetition and brute force."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from robust_nas.errors import StudyError
from robust_nas.statistics import MEASURES, agreements, population_weights


def sample(n=60, seed=0):
    rng = np.random.default_rng(seed)
    params = rng.integers(1, 9, n).astype(float)
    truth = params + rng.normal(size=n)
    return {"params": params, "score": np.round(truth + rng.normal(size=n), 1), "truth": truth}, truth


def values(scores, truth, **options):
    found = agreements(scores, truth, "params", **{"draws": 20, **options})
    return {name: {key: each.value for key, each in one.measures.items()} for name, one in found.items()}


@pytest.mark.parametrize("n", [60, 600])  # pairs as a matrix, and scipy
def test_correlations_are_scipys_on_each_top(n):
    scores, truth = sample(n)
    found = values(scores, truth, draws=1)["score"]
    for top, share in (("", 1.0), (" top half", 0.5), (" top tenth", 0.1)):
        kept = np.argsort(-truth)[: round(share * len(truth))]
        pair = scores["score"][kept], truth[kept]
        assert found[f"spearman{top}"] == pytest.approx(stats.spearmanr(*pair)[0])
        assert found[f"kendall{top}"] == pytest.approx(stats.kendalltau(*pair)[0])


def test_partial_correlation_is_that_of_the_residuals_of_ranks():
    scores, truth = sample()
    ranks = {name: stats.rankdata(each) for name, each in {**scores, "t": truth}.items()}
    left = [
        ranks[name] - np.polyval(np.polyfit(ranks["params"], ranks[name], 1), ranks["params"])
        for name in ("score", "t")
    ]
    found = values(scores, truth)
    assert found["score"]["partial"] == pytest.approx(np.corrcoef(*left)[0, 1])
    assert found["params"]["partial"] is None


def test_the_truth_agrees_with_itself():
    scores, truth = sample()
    found = agreements(scores, truth, "params", draws=50)
    for name in MEASURES:
        expected = 0.0 if name.startswith("regret") else 1.0
        assert found["truth"].measures[name].value == pytest.approx(expected)
        assert found["params"].ahead[name].value in (None, 0.0)
    ahead = found["truth"].ahead["spearman"]
    assert 0 < ahead.low <= ahead.value <= ahead.high
    assert found["params"].to_dict()["measures"]["regret first"]["low"] is not None


def test_regret_is_the_mean_over_the_orders_of_ties():
    truth = np.arange(13.0)[::-1]
    score = np.array([0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2.0])  # the best network comes last
    found = values({"params": score}, truth)["params"]
    assert found["regret first"] == pytest.approx(12 - truth[5:].mean())
    drawn = [max(truth[[*pair]]) for pair in combinations(range(1, 5), 2)]
    assert found["regret ten"] == pytest.approx(12 - np.mean(drawn))


def test_weights_stand_for_a_repeated_architecture():
    scores, truth = sample(30)
    times = np.random.default_rng(1).integers(1, 4, 30)
    repeated = {name: np.repeat(each, times) for name, each in scores.items()}
    weighted = values(scores, truth, weights=times)["score"]
    plain = values(repeated, np.repeat(truth, times))["score"]
    # the middle of a weighted rank may lie on the border of a top: all architectures have none
    for name in ("spearman", "kendall", "partial"):
        assert weighted[name] == pytest.approx(plain[name])


def test_the_interval_has_the_spread_of_new_samples():
    def small(seed):
        scores, truth = sample(seed=seed)
        return {"params": scores["score"]}, truth

    found = [values(*small(seed), draws=1)["params"]["spearman"] for seed in range(200)]
    estimate = agreements(*small(0), "params", draws=400)["params"].measures["spearman"]
    spread = np.diff(np.quantile(found, [0.025, 0.975]))[0]
    assert estimate.high - estimate.low == pytest.approx(spread, rel=0.35)


def test_weights_of_strata():
    assert population_weights([0, 0, 1], {0: 10, 1: 7}).tolist() == [5, 5, 7]
    with pytest.raises(StudyError, match="stratum 1: 1 drawn of 0"):
        population_weights([0, 1], {0: 3})


@pytest.mark.parametrize(
    ("scores", "truth", "message"),
    [
        ({"params": [1, 2, np.nan]}, [1, 2, 3], "params: got shape"),
        ({"params": [1, 2]}, [1, 2, 3], "params: has 2 values; the truth has 3"),
        ({"other": [1, 2, 3]}, [1, 2, 3], "a control among other"),
        ({"params": [1, 2]}, [1, 2], "3 architectures"),
    ],
)
def test_bad_samples_are_refused(scores, truth, message):
    with pytest.raises(StudyError, match=message):
        agreements(scores, truth, "params")


def test_a_constant_score_has_no_correlation():
    found = values({"params": [1, 1, 1, 1], "x": [1, 2, 3, 4]}, [1, 2, 3, 4])["params"]
    assert found["spearman"] is None
    assert found["kendall"] is None
    assert found["regret first"] == 1.5
