"""GDWS of one convolution: exactness, the error identity, both optimal choices against brute force, ties and ends."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robust_nas.compression.gdws_layer import (
    counts,
    dropped_energy,
    energies,
    factorize,
    gdws_layer,
    kept_order,
    lego,
    mego,
    svd_channels,
)
from robust_nas.errors import CompressionError


def weighted_error(weight, g, alpha=None):
    """e^2 of the best approximation with g."""
    return dropped_energy(energies(weight, alpha), g)


SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 5), st.integers(1, 3), st.integers(2, 3))
SEEDS = st.integers(0, 10_000)


def drawn(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense_of(weight: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Q as a kernel, put together from the factors."""
    depthwise, pointwise = factorize(weight, g)
    channel = torch.repeat_interleave(torch.arange(len(g)), g)
    q = torch.zeros_like(weight)
    for index, c in enumerate(channel):
        q[:, c] += pointwise[:, index, None, None] * depthwise[index]
    return q


@given(SHAPES, SEEDS)
def test_full_rank_is_exact_and_the_error_is_the_tail_of_the_spectrum(shape, seed):
    weight = drawn(shape, seed)
    outputs, channels = shape[:2]
    full = min(outputs, shape[2] * shape[3])
    torch.testing.assert_close(dense_of(weight, torch.full((channels,), full)), weight)
    generator = torch.Generator().manual_seed(seed)
    alpha = torch.rand(channels, generator=generator, dtype=torch.float64)
    g = torch.randint(0, full + 1, (channels,), generator=generator)
    g[0] = max(1, int(g[0]))
    own = (alpha[:, None, None, None] * (weight - dense_of(weight, g)).transpose(0, 1).square()).sum()
    assert weighted_error(weight, g, alpha) == pytest.approx(float(own), rel=1e-9, abs=1e-12)


@given(
    st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), SEEDS,
    st.booleans(), st.sampled_from(["zeros", "reflect", "circular", "replicate"]),
)  # fmt: skip
def test_a_layer_of_full_rank_computes_what_the_convolution_does(c, m, k1, k2, stride, seed, bias, mode):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = nn.Conv2d(
            c,
            m,
            (k1, k2),
            stride=stride,
            padding=(k1 // 2, k2 - 1),
            dilation=(1, 2),
            bias=bias,
            padding_mode=mode,
        ).double()
    x = drawn((2, c, 9, 8), seed)
    ranks = torch.full((c,), min(m, k1 * k2))
    torch.testing.assert_close(gdws_layer(layer, ranks)(x), layer(x))


# Outputs, channels, sides of the kernel: fewer outputs than taps, more, rectangular, one output, one channel.
TINY = [(4, 3, 2, 2), (2, 3, 2, 2), (5, 2, 3, 1), (3, 2, 1, 3), (1, 4, 2, 2), (6, 1, 2, 3)]


def every_g(shape: tuple[int, ...], least: int) -> list[tuple[int, ...]]:
    ranks = range(least, min(shape[0], shape[2] * shape[3]) + 1)
    return list(itertools.product(ranks, repeat=shape[1]))


@pytest.mark.parametrize("shape", TINY)
@pytest.mark.parametrize("least", [0, 1])
def test_mego_and_lego_equal_brute_force(shape, least):
    weight = drawn(shape, sum(shape))
    alpha = torch.rand(shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    errors = {g: weighted_error(weight, torch.tensor(g), alpha) for g in every_g(shape, least) if sum(g)}
    energy = float((alpha * weight.square().sum((0, 2, 3))).sum())
    for most in range(max(1, least * shape[1]), max(map(sum, errors)) + 1):
        found = mego(weight, alpha, max_kernels=most, min_kernels=least)
        assert int(found.sum()) <= most
        best = min(error for g, error in errors.items() if sum(g) <= most)
        assert weighted_error(weight, found, alpha) == pytest.approx(best, abs=1e-12)
    for beta in torch.linspace(0, max(errors.values()) * 1.1, 40).tolist():
        fewest = min((sum(g) for g, error in errors.items() if error <= beta + 1e-12), default=0)
        if not least and beta >= energy:
            with pytest.raises(CompressionError, match="no kernel would be kept"):
                lego(weight, alpha, beta=beta, min_kernels=0)
            continue
        found = lego(weight, alpha, beta=beta, min_kernels=least)
        assert int(found.sum()) == fewest
        assert weighted_error(weight, found, alpha) <= beta + 1e-12 or fewest == shape[1]


@given(SHAPES, SEEDS)
def test_no_other_factors_of_these_ranks_are_nearer(shape, seed):
    weight = drawn(shape, seed)
    g = torch.ones(shape[1], dtype=torch.int64)
    best = weighted_error(weight, g)
    for trial in range(3):
        p, d = (
            drawn((shape[0], shape[1], 1), seed + trial),
            drawn((1, shape[1], *shape[2:]), seed + 9 + trial),
        )
        kernel = p[..., None] * d
        scale = (weight * kernel).sum() / kernel.square().sum()
        assert (weight - scale * kernel).square().sum() >= best - 1e-9


@given(SHAPES, SEEDS)
def test_more_kernels_never_err_more_and_a_larger_beta_never_keeps_more(shape, seed):
    weight = drawn(shape, seed)
    full = shape[1] * min(shape[0], shape[2] * shape[3])
    errors = [weighted_error(weight, mego(weight, max_kernels=n)) for n in range(shape[1], full + 1)]
    assert errors == sorted(errors, reverse=True)
    energy = float(weight.square().sum())
    kept = [int(lego(weight, beta=share * energy).sum()) for share in (0.0, 0.1, 0.3, 0.9, 2.0)]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] == full
    assert kept[-1] == shape[1]  # the floor


@given(st.integers(1, 5), st.integers(1, 4), st.data())
def test_what_is_kept_is_a_prefix_in_every_channel_even_with_ties(channels, rank, data):
    rows = [sorted(data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=rank, max_size=rank)))[::-1]
            for _ in range(channels)]  # fmt: skip
    v = torch.tensor(rows, dtype=torch.float64)
    for number in range(1, v.numel() + 1):
        kept = kept_order(v)[:number]
        g = counts(v, kept)
        chosen = {(int(index) % channels, int(index) // channels) for index in kept}
        assert chosen == {(c, i) for c in range(channels) for i in range(int(g[c]))}


def test_an_ordinary_depthwise_separable_convolution_has_one_kernel_a_channel():
    layer = gdws_layer(nn.Conv2d(4, 6, 3, padding=1), torch.ones(4, dtype=torch.int64))
    (depthwise,) = layer.depthwise
    assert (depthwise.groups, depthwise.in_channels, layer.pointwise.in_channels) == (4, 4, 4)
    assert sum(p.numel() for p in layer.parameters()) == 4 * (9 + 6) + 6


@settings(max_examples=30)
@given(SHAPES, SEEDS, st.integers(1, 3))
def test_the_energies_are_the_squares_of_the_singular_values(shape, seed, rank):
    weight = drawn(shape, seed)
    u, s, vh = svd_channels(weight)
    torch.testing.assert_close(energies(weight), s.square(), atol=1e-13 * float(s.max()) ** 2, rtol=0)
    cut = (u[..., :rank] * s[:, None, :rank]) @ vh[:, :rank]
    low = cut.transpose(0, 1).reshape(weight.shape)
    assert not energies(low)[:, rank:].any()


def test_wrong_requests_are_told():
    weight = drawn((4, 3, 2, 2), 0)
    with pytest.raises(CompressionError, match="max_kernels: got 2; 3 channels keep at least 1"):
        mego(weight, max_kernels=2)
    with pytest.raises(CompressionError, match="beta: got 1e"):
        lego(weight, beta=1e9, min_kernels=0)
    with pytest.raises(CompressionError, match="beta: got -1"):
        lego(weight, beta=-1)
    with pytest.raises(CompressionError, match="NaN"):
        svd_channels(weight.masked_fill(weight > 0, torch.nan))
    for alpha in (torch.ones(4), -torch.ones(3), torch.full((3,), torch.inf)):
        with pytest.raises(CompressionError, match="3 finite numbers from 0"):
            energies(weight, alpha)
    with pytest.raises(CompressionError, match="3 numbers from 0 to 4"):
        factorize(weight, torch.tensor([1, 5, 1]))
    with pytest.raises(CompressionError, match="2 groups"):
        gdws_layer(nn.Conv2d(4, 4, 3, groups=2), torch.tensor([1, 1]))


@settings(max_examples=20)
@given(SHAPES, SEEDS)
def test_dead_channels_get_nothing_beyond_the_floor(shape, seed):
    weight = drawn((shape[0], shape[1] + 1, *shape[2:]), seed)
    weight[:, 0] = 0
    g = lego(weight, beta=0.0)
    assert int(g[0]) == 1
    assert int(lego(weight, beta=0.0, min_kernels=0)[0]) == 0
