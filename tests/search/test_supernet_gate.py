"""The gate of a supernet's scores: noise, chance, and an order that zero-cost contradicts have no say."""

import numpy as np
import pytest

from robust_nas.search import RANKINGS


def losses_of(quality, noise, seed=0):
    draws = np.random.default_rng(seed).normal(size=(len(quality), 6))
    return (np.array(quality)[:, None] + noise * draws).tolist()


def test_the_gate_fails_for_random_scores_and_at_chance():
    method = RANKINGS.make("supernet", batch_size=64, steps=1000)
    quality = list(np.linspace(1, 2, 40))
    prior = list(np.linspace(3, 0, 40))
    good = method.gate(losses_of(quality, 0.05), prior, 0.3, 10)
    assert good.fit
    assert good.reliability > 0.9
    for seed in range(20):
        bad = method.gate(losses_of([1.5] * 40, 0.05, seed), prior, 0.3, 10)
        assert not bad.fit
        assert bad.words.startswith("NOT FIT")
    assert not method.gate(losses_of(quality, 0.05), prior, 0.1, 10).fit
    assert not method.gate([[1.0, 1.0]] * 40, prior, 0.3, 10).fit


def test_the_gate_fails_for_reliable_scores_that_disagree_with_zero_cost():
    method, quality = RANKINGS.make("supernet", batch_size=64, steps=1000), np.linspace(1, 2, 60)
    backwards = method.gate(losses_of(quality, 0.05), quality.tolist(), 0.3, 10)
    assert backwards.reliability > 0.9
    assert backwards.agreement < -0.9
    assert not backwards.fit
    rng = np.random.default_rng(0)
    passed = [
        method.gate(losses_of(quality, 0.05), rng.permutation(60).tolist(), 0.3, 10).fit for _ in range(400)
    ]
    assert 0.02 < np.mean(passed) < 0.09  # 5 % of the orders without a relation


def test_spearman_brown_of_two_halves_is_the_reliability_of_their_sum():
    """Scores of quality q with noise of equal variance in each half: rho is 1/2, the sum has 2/3."""
    draws = np.random.default_rng(0).normal(size=(3, 20_000))
    halves = (draws[0] + draws[1], draws[0] + draws[2])
    gate = RANKINGS.make("supernet").gate(np.stack(halves, 1).tolist(), draws[0].tolist(), 0.5, 10)
    assert gate.reliability == pytest.approx(2 / 3, abs=0.03)
