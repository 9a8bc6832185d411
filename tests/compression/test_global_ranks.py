"""Ranks under a ratio: the budget is met, the choice is near brute force's on tiny layers, what cannot be is told."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import robust_nas
from robust_nas.compression.layers import Layer, survey
from robust_nas.compression.ranks import (
    Limits,
    cost,
    factor_params,
    global_ranks,
    matrix_shape,
    uniform_ranks,
)
from robust_nas.compression.tucker import project
from robust_nas.errors import CompressionError


def layer(name: str, outputs: int, inputs: int, kernel: int, seed: int, rank: int | None = None) -> Layer:
    module = nn.Conv2d(inputs, outputs, kernel, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.randn(module.weight.shape, generator=torch.Generator().manual_seed(seed)))
        if rank is not None:
            own = (rank,) if kernel == 1 else (rank, rank)
            module.weight.copy_(project(module.weight, own))
    return Layer(name, module, 1, (1, inputs, 8, 8))


@st.composite
def several(draw):
    sides, kernels, seeds = st.integers(2, 16), st.sampled_from([1, 3]), st.integers(0, 999)
    count = draw(st.integers(1, 4))
    return [layer(f"l{i}", draw(sides), draw(sides), draw(kernels), draw(seeds)) for i in range(count)]


@given(several(), st.floats(1.05, 20), st.integers(1, 4))
def test_the_budget_is_met(layers, ratio, multiple):
    total = sum(one.params for one in layers)
    for found in (global_ranks, uniform_ranks):
        try:
            ranks = found(layers, ratio, Limits(multiple))
        except CompressionError:  # out of reach, which a test below looks at
            continue
        assert cost(layers, ranks) <= total / ratio
        for one in layers:
            if one.name in ranks:
                assert factor_params(one, ranks[one.name]) < one.params
                for rank, side in zip(ranks[one.name], matrix_shape(one), strict=True):
                    least = Limits(multiple).minimum(side)
                    assert least <= rank <= side
                    assert rank in (least, side) or rank % multiple == 0


@given(several())
def test_more_compression_never_takes_more_weights(layers):
    spent = []
    for ratio in (1.2, 2.0, 3.0, 5.0):
        try:
            spent.append(cost(layers, global_ranks(layers, ratio)))
        except CompressionError:
            break
    assert spent == sorted(spent, reverse=True)


def test_what_is_of_low_rank_is_cut_first_and_without_loss():
    layers = [layer("low", 16, 16, 3, 0, rank=3), layer("high", 16, 16, 3, 1)]
    ranks = global_ranks(layers, 1.85)
    assert ranks["low"] == (3, 3)
    assert "high" not in ranks
    torch.testing.assert_close(project(layers[0].module.weight, ranks["low"]), layers[0].module.weight)


def test_it_is_near_the_best_that_brute_force_finds():
    layers = [layer("a", 5, 4, 3, 0), layer("b", 6, 5, 1, 1)]
    total = sum(one.params for one in layers)

    def loss(ranks):
        gone = 0.0
        for one in layers:
            if one.name in ranks:
                weight = one.module.weight.detach()
                gone += float(
                    (weight - project(weight, ranks[one.name])).square().sum() / weight.square().sum()
                )
        return gone

    choices = [
        [*itertools.product(range(1, 5), range(1, 6)), None],
        [*((r,) for r in range(1, 6)), None],
    ]
    for ratio in (1.5, 2.0, 3.0):
        best = min(
            loss(ranks)
            for both in itertools.product(*choices)
            if cost(layers, ranks := {n: r for n, r in zip("ab", both, strict=True) if r}) <= total / ratio
        )
        found = loss(global_ranks(layers, ratio, Limits(least=0.01)))
        assert best <= found + 1e-9 <= 1.5 * best + 0.05


def test_grouped_layers_are_counted_and_stay():
    network = robust_nas.build_network(robust_nas.load_architecture("darts_v2").resized(3, 8)).eval()
    layers = survey(network, (3, 32, 32))
    ranks = global_ranks(layers, 2.0)
    grouped = {one.name for one in layers if getattr(one.module, "groups", 1) > 1}
    assert grouped
    assert not grouped & set(ranks)
    assert cost(layers, ranks) <= sum(one.params for one in layers) / 2
    assert all(len(own) == 1 or "stem" in name for name, own in ranks.items())  # what is left there: 1x1


def test_a_ratio_out_of_reach_names_the_largest():
    layers = [layer("a", 8, 8, 3, 0)]
    with pytest.raises(
        CompressionError, match=r"ratio: got 1000 of 576 weights in 1 layers; from 1 to 23\.04 "
    ):
        global_ranks(layers, 1000)
    with pytest.raises(CompressionError, match=r"ratio: got 0\.5"):
        uniform_ranks(layers, 0.5)
    only = Layer("g", nn.Conv2d(4, 4, 3, groups=4), 1, (1, 4, 8, 8))
    with pytest.raises(CompressionError, match=r"from 1 to 1 can be reached .* in the 0 layers"):
        global_ranks([only], 2)


def test_a_resnet_is_decided_in_a_moment():
    network = robust_nas.build_network(robust_nas.load_architecture("wrn-16-4"))
    ranks = global_ranks(survey(network, (3, 32, 32)), 8, Limits(8))
    assert len(ranks) >= 9


def test_layers_whose_weights_are_computed_stay():
    made = nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))
    assert matrix_shape(Layer("computed", made, 1, (1, 6))) is None
    assert matrix_shape(Layer("plain", nn.Linear(6, 6), 1, (1, 6))) == (6,)
