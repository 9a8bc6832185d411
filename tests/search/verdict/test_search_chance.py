"""Null distributions and derivation against closed forms, brute force and the supernet; simulated searches."""

import numpy as np
import pytest
import torch
from verdict_cases import SPACE

from robust_nas.nets import Supernet
from robust_nas.search.verdict import chance
from robust_nas.search.verdict.chance import (
    Chance,
    agreement,
    agreement_by_chance,
    kept_by_chance,
    leads,
    margins_by_chance,
    momentum_factor,
    neighbours,
    noise,
)
from robust_nas.search.verdict.derivation import Cells, allowed, cells_of, derive, shared
from robust_nas.search.verdict.margin import mean_margin
from robust_nas.search.verdict.planted import simulate
from robust_nas.search.verdict.trajectory import Trajectory
from robust_nas.spaces import load_space
from robust_nas.statistics.proportions import wilson

SPACES = {
    "dsara": SPACE,
    "nas-bench-201": load_space("nas-bench-201"),
    "none, dropped": load_space("darts", {"operations": ["none", "skip_connect", "sep_conv_3x3"]}),
}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())


@every_space
def test_cells_are_derived_as_the_supernet_derives_them(space):
    supernet = Supernet(space, 3, 1, channels=2, cells=space.search.cells)
    generator = torch.Generator().manual_seed(1)
    for kind in supernet.alphas:
        supernet.alphas[kind].data.normal_(generator=generator)
    architecture = supernet.derive()
    weights = np.stack([supernet.alphas[kind].detach().softmax(1).numpy() for kind in space.kinds])
    derived, expected = derive(weights, space), cells_of(architecture, space)
    assert (derived.kept == expected.kept).all()
    assert (derived.operations == expected.operations)[derived.kept].all()


def test_chance_in_the_dsara_space_is_the_closed_form():
    """A kept edge is shared where the other search keeps it, 2 of n sources, with the same of 7 operations."""
    draws = agreement_by_chance(SPACE, 2)
    kept = np.mean([2 / sources for sources in (2, 3, 4, 5)])
    assert draws.edges.mean() == pytest.approx(kept / 7, abs=0.004)
    assert draws.choices.mean() == pytest.approx(1 / 7, abs=0.004)


def test_agreement_is_the_mean_over_pairs():
    a, b = (
        Cells(np.zeros((3, 14), int), np.ones((3, 14), bool)),
        Cells(np.ones((3, 14), int), np.ones((3, 14), bool)),
    )
    three = Cells(*(np.stack([x, x, y]) for x, y in zip(a, b, strict=True)))
    found = agreement(three, SPACE)
    assert [float(each) for each in found] == pytest.approx([1 / 3] * 3)
    assert shared(a, a) == 1


def test_leads_are_those_of_a_sort():
    logits = np.random.default_rng(0).standard_normal((5, 4, 7))
    choosable = np.array([False, True, True, True, True, True, True])
    ordered = np.sort(logits[..., 1:], axis=-1)
    assert np.allclose(leads(logits, choosable), ordered[..., -1] - ordered[..., -2])


def test_random_signs_give_the_distribution_of_a_gaussian_walk():
    generator = np.random.default_rng(0)
    blocks = generator.standard_normal((200, 1, 40, 7))
    blocks -= blocks.mean(-1, keepdims=True)
    signs = margins_by_chance(blocks, np.ones(7, bool), 0)
    walk = generator.standard_normal((4000, 7))
    ordered = np.sort(walk - walk.mean(1, keepdims=True), axis=1)
    expected = (ordered[:, -1] - ordered[:, -2]).mean() / np.sqrt(6 / 7)
    assert signs.mean() == pytest.approx(expected, rel=0.03)


def test_noise_does_not_depend_on_signs():
    blocks = np.random.default_rng(0).standard_normal((6, 1, 3, 4))
    assert np.allclose(noise(blocks), noise(-blocks))


def test_the_factor_of_momentum_is_that_of_a_filtered_walk():
    generator = np.random.default_rng(0)
    steps, blocks, momentum = 4, 6, 0.5
    increments = np.zeros((40000, steps * blocks))
    state = generator.standard_normal(40000) / np.sqrt(1 - momentum**2)  # stationary
    for step in range(steps * blocks):
        state = momentum * state + generator.standard_normal(40000)
        increments[:, step] = state
    sums = increments.reshape(40000, blocks, steps).sum(2)
    factor = sums.sum(1).std() / np.sqrt(blocks * sums.var())
    assert momentum_factor(momentum, steps, blocks) == pytest.approx(factor, rel=0.02)
    assert neighbours(momentum, steps) == pytest.approx(np.corrcoef(sums[:, 1], sums[:, 2])[0, 1], abs=0.02)
    assert momentum_factor(0.0, steps, blocks) == 1


def test_walks_that_rest_keep_all_and_others_fewer_the_longer_the_part():
    sizes = np.ones((8, 3))
    resting = np.concatenate([sizes, np.zeros((2, 3))])
    assert kept_by_chance(resting, 2, 0.1, SPACE, 0).min() == 1
    shares = [kept_by_chance(sizes, last, 0.1, SPACE, 0).mean() for last in (1, 4, 7)]
    assert shares[0] > shares[1] > shares[2]
    assert kept_by_chance(sizes, 1, 0.5, SPACE, 0).mean() > shares[0]


def test_the_observed_value_is_one_of_the_draws():
    found = Chance.of(2.0, np.arange(99) / 99)
    assert (found.p, found.exceeded) == (0.01, True)
    assert not Chance.of(0.5, np.arange(99) / 99).exceeded


def test_many_epochs_are_merged_and_resting_ones_left_out():
    weights = simulate(SPACE, searches=1, seeds=1, epochs=50, steps=2)[0, 0]
    blocks, steps = Trajectory(weights, 2).blocks
    assert (len(blocks), steps) == (10, 10)
    assert np.allclose(blocks.sum(0), Trajectory(weights, 2).increments.sum(0))
    rested = np.concatenate([np.repeat(weights[:1], 5, 0), weights[1:5]])
    assert len(Trajectory(rested, 2).blocks[0]) == 5


def judged(weights, space, steps, momentum):
    """Return whether agreement, and agreement and margin, pass, for searches `[N, S, B, C, E, O]`."""
    observed = agreement(derive(weights[:, :, -1], space), space).edges
    draws = agreement_by_chance(space, weights.shape[1]).edges
    agree = np.array([Chance.of(float(value), draws).exceeded for value in observed])
    both = [
        bool(agrees)  # the margin is looked at where it matters
        and mean_margin([Trajectory(one, steps) for one in own], allowed(space), momentum)[1].exceeded
        for own, agrees in zip(weights, agree, strict=True)
    ]
    return agree, np.array(both)


@pytest.mark.parametrize(
    "noise",
    [
        {"searches": 1000, "epochs": 6},
        {"searches": 400, "epochs": 12, "steps": 2},
        {"searches": 400, "common": 0.5},
        {"searches": 400, "betas": (0.0, 0.999)},
    ],
    ids=str,
)
def test_at_most_5_percent_of_noise_pass_agreement_and_margins(noise):
    """With Adam's momentum and without, with short epochs, with noise that all edges have in common.

    Agreement alone has its level too, but for common noise, which makes a seed's edges alike: 7 % there.
    """
    steps, momentum = noise.get("steps", 6), noise.get("betas", (0.5, 0.999))[0]
    agree, both = judged(simulate(SPACE, seed=1, **noise), SPACE, steps, momentum)
    assert both.mean() <= 0.05
    assert wilson(int(both.sum()), len(both))[1] <= 0.07
    assert "common" in noise or wilson(int(agree.sum()), len(agree))[0] <= 0.05


def test_margins_alone_have_their_level():
    weights = simulate(SPACE, searches=100, seed=2)
    passed = sum(
        mean_margin([Trajectory(one, 6) for one in own], allowed(SPACE), 0.5)[1].exceeded for own in weights
    )
    assert wilson(passed, 100)[0] <= 0.05


def test_at_least_95_percent_of_planted_operations_pass_both(monkeypatch):
    monkeypatch.setattr(chance, "FLIPS", 99)  # for time
    _, both = judged(simulate(SPACE, searches=1000, seed=3, drift=0.5, epochs=6), SPACE, 6, 0.5)
    assert both.sum() >= 950


@every_space
def test_other_spaces_keep_noise_out_and_let_planted_operations_pass(space, monkeypatch):
    monkeypatch.setattr(chance, "FLIPS", 99)
    _, noise = judged(simulate(space, searches=200, seed=4), space, 6, 0.5)
    _, planted = judged(simulate(space, searches=40, seed=5, drift=1.0), space, 6, 0.5)
    assert noise.sum() <= 10
    assert planted.sum() >= 36  # with two operations to choose from, chance is high
