"""GDWS on networks: which layers take it, budgets that are met, both allocations, folding, the dense copy, ends."""

import pytest
import torch
from compression_networks import ARCHITECTURE, SHAPE, images, residual
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import robust_nas
from robust_nas.compression import gdws_layer, gdws_network
from robust_nas.compression.allocation import Site, global_allocation, uniform
from robust_nas.compression.autotune import gain
from robust_nas.compression.folding import fold_batch_norms
from robust_nas.compression.gdws_network import compress_gdws, eligible
from robust_nas.errors import CompressionError
from robust_nas.layers.factorised import GDWSConv2d, dense, rebuild
from robust_nas.nets.cost import measured_cost


def share_after(sites, chosen):
    return sum(int(chosen[s.name].sum()) * s.kernel_macs if s.name in chosen else s.dense_macs for s in sites)


def error_after(sites, chosen):
    return sum(
        float((s.v * (torch.arange(s.v.shape[1]) >= chosen[s.name][:, None])).sum())
        for s in sites
        if s.name in chosen
    )


@st.composite
def sites(draw):
    made = []
    for index in range(draw(st.integers(1, 4))):
        outputs, channels, taps = draw(st.integers(2, 12)), draw(st.integers(1, 4)), draw(st.integers(2, 9))
        pixels = draw(st.integers(1, 5))
        generator = torch.Generator().manual_seed(draw(st.integers(0, 9999)))
        v = torch.rand(channels, min(outputs, taps), generator=generator, dtype=torch.float64)
        v = (v * draw(st.floats(0.01, 10))).sort(1, descending=True).values
        made.append(Site(f"l{index}", v, (outputs + taps) * pixels, outputs * channels * taps * pixels))
    return made


@given(sites(), st.floats(0.0, 1.0))
def test_a_budget_of_multiply_adds_is_met_and_nearly_used(found, place):
    low = sum(min(s.dense_macs, s.kernel_macs * len(s.v)) for s in found)
    budget = int(low + place * (sum(s.dense_macs for s in found) - low))
    for spread in (global_allocation, uniform):
        chosen = spread(found, macs=budget)
        assert share_after(found, chosen) <= budget
        for s in found:
            if s.name in chosen:
                assert int(chosen[s.name].min()) >= 1
                assert int(chosen[s.name].sum()) * s.kernel_macs < s.dense_macs


def test_budgets_that_some_floor_exceeds_or_no_floor_guards_are_met():
    generator = torch.Generator().manual_seed(0)
    found = []
    for name, channels, outputs in (("narrow", 16, 8), ("wide", 64, 64)):
        v = torch.rand(channels, min(outputs, 9), generator=generator, dtype=torch.float64)
        v = v.sort(1, descending=True).values
        found.append(Site(name, v, outputs + 9, channels * outputs * 9))
    total = sum(site.dense_macs for site in found)
    for spread in (global_allocation, uniform):
        # 5 kernels a channel of the narrow layer, 5 x 16 x 17, cost more than its dense form.
        floors = spread(found, macs=int(0.66 * total), min_kernels=5)
        assert set(floors) == {"wide"}
        assert share_after(found, floors) <= int(0.66 * total)
        free = spread(found, macs=int(0.8 * total), min_kernels=0)
        assert share_after(found, free) <= int(0.8 * total)
        with pytest.raises(CompressionError, match="out of reach"):
            spread(found[:1], macs=found[0].dense_macs - 1, min_kernels=8)


@given(sites(), st.floats(0.0, 1.0))
def test_an_error_bound_is_kept(found, place):
    total = sum(float(s.v.sum()) for s in found)
    beta = place * total
    floor = sum(float(s.v[:, 1:].sum()) for s in found)
    chosen = global_allocation(found, beta=beta)
    assert error_after(found, chosen) <= min(beta, floor) + 1e-9
    for name, g in uniform(found, beta=beta).items():
        site = next(s for s in found if s.name == name)
        assert error_after([site], {name: g}) <= beta + 1e-9


@given(sites(), st.floats(0.05, 0.95))
def test_the_global_allocation_needs_no_more_than_the_uniform_at_equal_error(found, place):
    alike = uniform(found, beta=place * max(float(s.v.sum()) for s in found))
    if set(alike) != {s.name for s in found}:
        return  # a layer stays dense: the two answer other questions
    spread = global_allocation(found, beta=error_after(found, alike) + 1e-12)
    largest = max(s.kernel_macs for s in found)
    assert share_after(found, spread) <= share_after(found, alike) + largest


@pytest.mark.parametrize("allocation", ["global", "uniform"])
@pytest.mark.parametrize("share", [0.9, 0.6, 0.45])
def test_a_network_has_at_most_the_share_that_was_asked_for(allocation, share):
    network = residual()
    found = compress_gdws(network, SHAPE, macs=share, allocation=allocation)
    before, after = (measured_cost(n, SHAPE).macs for n in (network, found.network))
    assert (found.macs_before, found.macs_after) == (before, after)
    assert 0.8 * share < after / before <= share
    assert sum(row["macs_after"] for row in found.report) == after
    assert sum(row["macs"] for row in found.report) == before
    params = sum(p.numel() for p in found.network.parameters())
    biases = sum(p.numel() for n, p in found.network.named_parameters() if p.ndim == 1)
    assert sum(row["params_after"] for row in found.report) == params - biases


def test_the_network_is_left_as_it_was_and_the_forms_rebuild_the_copy():
    network = residual()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = compress_gdws(network, SHAPE, macs=0.5)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    again = residual(5)
    rebuild(again, found.forms)
    again.load_state_dict(found.network.state_dict())
    assert torch.equal(again(images()), found.network(images()))


def test_the_bound_is_the_sum_of_the_errors_and_alphas_of_other_layers_are_refused():
    network = residual()
    names = [layer.name for layer in eligible(network, SHAPE)[0]]
    alpha = {name: torch.rand(network.get_submodule(name).in_channels) for name in names}
    found = compress_gdws(network, SHAPE, alpha=alpha, macs=0.5)
    errors = [row["error"] for row in found.report if row["error"] is not None]
    assert found.bound == pytest.approx(sum(errors))
    assert compress_gdws(network, SHAPE, macs=0.5).bound is None
    with pytest.raises(CompressionError, match="alpha: holds no"):
        compress_gdws(network, SHAPE, alpha={}, macs=0.5)


def test_beta_of_nothing_is_the_exact_network_where_rank_is_low():
    network = residual()
    with torch.no_grad():
        for name in ("stages.0.0.conv2", "stages.1.0.conv2"):
            weight = network.get_submodule(name).weight  # outputs, inputs, rows, columns
            weight.copy_(weight[:, :, :1, :1] * weight[:1, :, :, :])
    found = compress_gdws(network, SHAPE, beta=1e-20)
    by_name = {row["name"]: row for row in found.report}
    assert by_name["stages.0.0.conv2"]["g_max"] == 1
    assert by_name["stages.0.0.conv1"]["form"] == "dense"
    torch.testing.assert_close(found.network(images()), network(images()))


def test_a_beta_beyond_everything_leaves_the_floor_or_is_refused():
    found = compress_gdws(residual(), SHAPE, beta=1e12)
    assert {row["g_max"] for row in found.report if row["kernels"]} == {1}
    with pytest.raises(CompressionError, match="no kernel would be kept"):
        compress_gdws(residual(), SHAPE, beta=1e12, min_kernels=0)


def test_folding_is_exact_and_takes_the_norms_behind_convolutions_alone():
    network = residual()
    own, forms, why = fold_batch_norms(network, images())
    assert why == ""
    norms = [m for m in own.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 2  # those behind additions
    assert {form.form for form in forms} == {"biased", "identity"}
    torch.testing.assert_close(own(images()), network(images()))
    whole = compress_gdws(network, SHAPE, macs=0.5, fold=False)
    folded = compress_gdws(network, SHAPE, macs=0.5)
    torch.testing.assert_close(folded.network(images()), whole.network(images()))


def test_a_module_that_cannot_be_traced_is_compressed_without_folding():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = residual()

        def forward(self, x):
            return self.net(x) if x.sum() > -1 else x.mean((2, 3))

    found = compress_gdws(Branch().double(), SHAPE, macs=0.6)
    assert "torch.fx cannot trace it" in found.not_folded
    assert found.share <= 0.6


def test_the_dense_copy_computes_the_same_logits_and_input_gradients():
    network = compress_gdws(residual(), SHAPE, macs=0.5).network
    copy = dense(network)
    assert not any(isinstance(m, GDWSConv2d) for m in copy.modules())
    x = images().requires_grad_()
    ours, theirs = (torch.autograd.grad(n(x).square().sum(), x)[0] for n in (network, copy))
    torch.testing.assert_close(network(x), copy(x))
    torch.testing.assert_close(ours, theirs)


class Odd(nn.Module):
    """Layers that stay, each for its reason."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.one = nn.Conv2d(8, 8, 1)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1))
        self.plain = nn.Conv2d(8, 16, 3, padding=1)
        self.last = nn.Linear(16, 3)

    def forward(self, x):
        for layer in (self.first, self.grouped, self.depthwise, self.one, self.normed, self.plain):
            x = layer(x).relu()
        return self.last(x.mean((2, 3)))


def test_every_layer_that_stays_has_its_reason():
    found = compress_gdws(Odd(), SHAPE, macs=0.9)
    reasons = {row["name"]: row["reason"] for row in found.report}
    assert reasons["first"] == "first convolution"
    assert reasons["grouped"] == "grouped (4 groups of 2)"
    assert reasons["depthwise"] == "grouped (8 groups of 1)"
    assert reasons["one"] == "1x1 kernel"
    assert "weights are computed" in reasons["normed"]
    assert reasons["last"] == "linear layer"
    assert reasons["plain"] is None


def test_a_searched_cell_network_has_nothing_that_gdws_takes_and_it_is_said_why():
    network = robust_nas.build_network(robust_nas.load_architecture("arnas").resized(4, 4))
    with pytest.raises(
        CompressionError, match=r"nothing can be factorised: .*1 x first convolution, .*1x1 kernel"
    ):
        compress_gdws(network, (3, 32, 32), macs=0.9)


def test_budgets_out_of_reach_and_broken_weights_are_told():
    network = residual()
    with pytest.raises(CompressionError, match=r"macs: got 0\.05 of .*; at least 0\.\d+ stay"):
        compress_gdws(network, SHAPE, macs=0.05)
    with pytest.raises(CompressionError, match="one of them is needed"):
        compress_gdws(network, SHAPE)
    with pytest.raises(CompressionError, match="holds no convolution"):
        compress_gdws(nn.Sequential(nn.Flatten(), nn.ReLU()), SHAPE, macs=0.5)
    with pytest.raises(CompressionError, match="does not take an image"):
        compress_gdws(network, (3, 12, 10), macs=0.5)
    with torch.no_grad():
        network.stages[0][0].conv1.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(CompressionError, match="NaN"):
        compress_gdws(network, SHAPE, macs=0.5)


def test_a_layer_that_measures_slower_stays_dense_and_the_others_make_up_for_it(monkeypatch):
    slow = residual().stages[1][0].conv2.weight.shape
    monkeypatch.setattr(
        gdws_network, "gain", lambda dense, own, shape: 0.5 if dense.weight.shape == slow else 2.0
    )
    found = compress_gdws(residual(), SHAPE, macs=0.75, min_gain=1.0)
    reasons = {row["name"]: row["reason"] for row in found.report}
    assert reasons["stages.1.0.conv2"] == "measured 0.50 times as fast, 1 asked for"
    assert found.share <= 0.75
    monkeypatch.setattr(gdws_network, "gain", lambda dense, own, shape: 0.5)
    with pytest.raises(CompressionError, match=r"at least|dense"):
        compress_gdws(residual(), SHAPE, macs=0.75, min_gain=1.0)


def test_a_gain_is_a_ratio_of_times():
    big, small = nn.Conv2d(16, 64, 3, padding=1), nn.Conv2d(16, 1, 1)
    assert gain(big, small, (1, 16, 24, 24)) > 1


@settings(max_examples=10)
@given(st.sampled_from(["basic", "bottleneck"]), st.integers(0, 99))
def test_counted_costs_are_those_of_the_analytic_count(block, seed):
    architecture = ARCHITECTURE.model_copy(update={"block": block, "expansion": 2 if block != "basic" else 1})
    network = robust_nas.build_network(architecture, input_shape=SHAPE, classes=4, seed=seed)
    assert measured_cost(network, SHAPE) == robust_nas.count(architecture, SHAPE, 4)


def test_a_layer_by_itself_and_a_module_that_refuses_the_image_are_told():
    class Picky(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[1] == 3
            return x

    with pytest.raises(CompressionError, match="Conv2d: is a layer itself"):
        compress_gdws(nn.Conv2d(8, 16, 3), (8, 6, 6), macs=0.5, skip_first=False)
    with pytest.raises(CompressionError, match=r"does not take an image of \(1, 6, 6\)"):
        compress_gdws(Picky(), (1, 6, 6), macs=0.5)


def test_every_layer_is_decomposed_once(monkeypatch):
    calls = []
    original = gdws_layer.svd_channels
    monkeypatch.setattr(gdws_layer, "svd_channels", lambda weight: calls.append(1) or original(weight))
    found = compress_gdws(residual(), SHAPE, macs=0.7)
    assert len(calls) == sum(row["form"] == "gdws" for row in found.report)
