"""Tucker-2 and low rank: exact at full rank, bounds of HOOI and HOSVD, the layers in factors."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from robust_nas.compression.tucker import factorised_layer, low_rank, project, spectra, tucker2
from robust_nas.errors import CompressionError

SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 3), st.integers(1, 3))
SEEDS = st.integers(0, 10_000)


def drawn(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(SHAPES, SEEDS)
def test_full_rank_is_the_identity(shape, seed):
    weight = drawn(shape, seed)
    torch.testing.assert_close(project(weight, (shape[1], shape[0])), weight)
    torch.testing.assert_close(project(weight[:, :, :1, :1], (min(shape[:2]),)), weight[:, :, :1, :1])


@given(SHAPES, SEEDS, st.data())
def test_lower_bound_hooi_hosvd_upper_bound(shape, seed, data):
    weight = drawn(shape, seed)
    rank_in, rank_out = (data.draw(st.integers(1, side)) for side in (shape[1], shape[0]))

    def error(sweeps):
        first, core, last = tucker2(weight, rank_in, rank_out, sweeps)
        return float((weight - torch.einsum("ic,oihw,mo->mchw", first, core, last)).square().sum())

    tail_in, tail_out = (
        float(s[r:].sum()) for s, r in zip(spectra(weight, 2), (rank_in, rank_out), strict=True)
    )
    slack = 1e-9 * float(weight.square().sum())
    assert max(tail_in, tail_out) <= error(5) + slack
    assert error(5) <= error(1) + slack <= error(0) + 2 * slack <= tail_in + tail_out + 3 * slack
    first, _, last = tucker2(weight, rank_in, rank_out)
    torch.testing.assert_close(first @ first.T, torch.eye(rank_in, dtype=torch.float64))
    torch.testing.assert_close(last.T @ last, torch.eye(rank_out, dtype=torch.float64))


@given(st.integers(1, 6), st.integers(1, 6), SEEDS)
def test_a_1x1_kernel_is_projected_to_its_truncated_svd(outputs, inputs, seed):
    weight = drawn((outputs, inputs, 1, 1), seed)
    u, s, vh = torch.linalg.svd(weight[:, :, 0, 0], full_matrices=False)
    for rank in range(1, min(outputs, inputs) + 1):
        best = (u[:, :rank] * s[:rank]) @ vh[:rank]
        torch.testing.assert_close(project(weight, (rank,))[:, :, 0, 0], best)
    torch.testing.assert_close(spectra(weight, 1)[0], s.square())


@given(
    st.integers(2, 5), st.integers(2, 6), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), SEEDS,
    st.booleans(), st.sampled_from(["zeros", "reflect", "circular"]), st.data(),
)  # fmt: skip
def test_three_convolutions_compute_what_one_of_the_projected_kernel_does(
    c, m, k1, k2, stride, seed, bias, mode, data
):
    layer = nn.Conv2d(c, m, (k1, k2), stride, (k1 // 2, 1), 1, 1, bias, mode).double()
    with torch.no_grad():
        layer.weight.copy_(drawn(tuple(layer.weight.shape), seed))
    ranks = (data.draw(st.integers(1, c)), data.draw(st.integers(1, m)))
    factors = factorised_layer(layer, ranks)
    x = drawn((2, c, 8, 7), seed)
    out = factors(x)
    with torch.no_grad():
        layer.weight.copy_(project(layer.weight, ranks))
    torch.testing.assert_close(out, layer(x))
    torch.testing.assert_close(factors.to_dense().weight, layer.weight)


def test_linear_layers_and_1x1_convolutions_in_two():
    linear, one = nn.Linear(6, 4).double(), nn.Conv2d(6, 4, 1, stride=2, bias=False).double()
    x = drawn((3, 6, 5, 5), 0)
    torch.testing.assert_close(factorised_layer(linear, (4,))(x[:, :, 0, 0]), linear(x[:, :, 0, 0]))
    torch.testing.assert_close(factorised_layer(one, (4,))(x), one(x))
    factors = factorised_layer(one, (2,))
    assert sum(p.numel() for p in factors.parameters()) == 2 * (6 + 4)
    first, second = low_rank(one.weight, 2)
    torch.testing.assert_close((second @ first).view_as(one.weight), project(one.weight, (2,)))


def test_what_is_not_finite_is_told():
    with pytest.raises(CompressionError, match="NaN"):
        tucker2(torch.full((2, 2, 3, 3), torch.nan), 1, 1)
