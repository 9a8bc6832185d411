"""The folded supernet: the function of a supernet in eval mode and its input gradients, frozen at one moment."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from supernet_pairs import CHANGED, FEWER, SPACES, batch, pair

from robust_nas.nets.folded import FoldedSupernet
from robust_nas.nets.folded_cell import FoldedCell, folded_nodes
from robust_nas.operations.folded_terms import Scaled


def judged(net, x, labels):
    x = x.detach().clone().requires_grad_()
    logits = net(x)
    return logits.detach(), torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), x)[0]


@pytest.mark.parametrize("side", [8, 5])
@pytest.mark.parametrize("space", [*SPACES, *CHANGED])
def test_logits_and_input_gradients_are_the_plain_ones(space, side):
    fused, plain = pair(space)
    plain.eval()
    x, labels = batch(side)
    for mine, theirs in zip(judged(FoldedSupernet(fused), x, labels), judged(plain, x, labels), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("side", [1, 2, 3, 32])
def test_maps_of_every_size(side):
    """The choice of kernels goes by the map's size and the entries; the function is the same."""
    fused, plain = pair("dsara", channels=2, changes=FEWER)
    plain.eval()
    x, labels = batch(side)
    exact = judged(plain, x, labels)
    for mine, theirs in zip(judged(fused.folded(), x, labels), exact, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
    errors = []
    for net in (fused.float().folded(), plain.float()):
        found = judged(net, x.float(), labels)
        differences = [(one.double() - right).flatten(1) for one, right in zip(found, exact, strict=True)]
        # By the median over images: where rounding moves a unit over a kink, one gradient jumps.
        errors.append([float(difference.norm(dim=1).median()) for difference in differences])
    assert all(mine <= 3 * theirs for mine, theirs in zip(*errors, strict=True)), errors


@pytest.mark.parametrize(("channels", "cells"), [(1, 4), (3, 3), (16, 8)])
def test_any_size(channels, cells):
    fused, plain = pair("dsara", cells, channels, changes=FEWER)
    plain.eval()
    x, labels = batch(8, count=2)
    for mine, theirs in zip(judged(fused.folded(), x, labels), judged(plain, x, labels), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_images_in_either_memory_order_and_a_single_one():
    folded = pair("dsara", changes=FEWER)[0].folded()
    x, labels = batch(8)
    for mine, theirs in zip(judged(folded, x.contiguous(), labels), judged(folded, x, labels), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(judged(folded, x[:1], labels[:1])[1], judged(folded, x, labels)[1][:1])


def test_it_is_a_copy_of_one_moment():
    fused, _ = pair("dsara", changes=FEWER)
    x, _ = batch(8)
    folded = fused.folded()
    before = folded(x)
    with torch.no_grad():
        for tensor in fused.state_dict().values():
            tensor.add_(1)
    assert torch.equal(folded(x), before)


def test_it_leaves_the_supernet_as_it_was_and_asks_for_no_weight_gradient():
    fused, _ = pair("dsara", changes=FEWER)
    fused.train()
    before = {name: tensor.clone() for name, tensor in fused.state_dict().items()}
    x, labels = batch(8)
    judged(fused.folded(), x, labels)
    assert all(torch.equal(before[name], tensor) for name, tensor in fused.state_dict().items())
    assert fused.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in fused.parameters())
    assert not fused.folded()(x).requires_grad


def test_a_plain_supernet_has_none():
    assert pair("dsara", changes=FEWER)[1].folded() is None


def test_under_autocast_the_gradient_points_the_same_way():
    fused, _ = pair("dsara", dtype=torch.float32, changes=FEWER)
    folded = fused.folded()
    x, labels = batch(16, torch.float32)
    exact = judged(folded, x, labels)
    with torch.autocast("cpu", torch.bfloat16):
        half = judged(folded, x, labels)
    assert half[0].dtype == half[1].dtype == torch.float32
    assert not torch.equal(half[1], exact[1])
    assert F.cosine_similarity(half[1].flatten(), exact[1].flatten(), dim=0) > 0.95


@given(
    batch=st.integers(1, 3),
    channels=st.sampled_from([1, 3, 6, 16, 17, 32, 40]),
    height=st.integers(1, 32),
    width=st.integers(1, 32),
    stride=st.sampled_from([1, 2]),
)
@settings(max_examples=40, deadline=None)
def test_pooling_and_scaling_are_the_plain_ones(batch, channels, height, width, stride):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last)
    x = x.repeat(1 + 2**16 // x.numel(), 1, 1, 1).requires_grad_()  # large enough for the other form, too
    for images in (x[:batch], x):
        scale = torch.randn(channels, generator=generator, dtype=torch.float64)
        expected = scale.view(-1, 1, 1) * F.avg_pool2d(images, 3, stride, 1, count_include_pad=False)
        upstream = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
        (wanted,) = torch.autograd.grad(expected, images, upstream)
        cell = FoldedCell([[(0, Scaled("avg", scale))]], [torch.zeros_like(scale)], stride == 2, 1)
        found = folded_nodes([images], cell)
        (own,) = torch.autograd.grad(found, images, upstream)
        torch.testing.assert_close([found, own], [expected, wanted], rtol=1e-9, atol=1e-12)


def test_a_second_derivative_is_refused_and_not_wrong():
    folded = pair("dsara", changes=FEWER)[0].folded()
    x = batch(8)[0].requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(folded(x).exp().sum(), x, create_graph=True)


def test_it_can_be_made_and_used_under_inference_mode():
    fused, _ = pair("dsara", changes=FEWER)
    with torch.inference_mode():
        folded = fused.folded()
    x, labels = batch(8)
    torch.testing.assert_close(judged(folded, x, labels)[1], judged(fused.folded(), x, labels)[1])


@pytest.mark.parametrize("where", ["cells.0.edges.1.3", "stem.1", "classifier", ""])
def test_a_supernet_with_hooks_has_none(where):
    fused, _ = pair("dsara", changes=FEWER)
    fused.get_submodule(where).register_forward_hook(lambda *_: None)
    assert fused.folded() is None
