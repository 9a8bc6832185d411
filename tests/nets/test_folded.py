"""The folded supernet: the function of a supernet in eval mode and its input gradients, frozen at one moment."""

import pytest
import torch
import torch.nn.functional as F
from supernet_pairs import CHANGED, SPACES, batch, pair

from robust_nas.nets.folded import FoldedSupernet


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


@pytest.mark.parametrize(("channels", "cells"), [(1, 4), (3, 3), (16, 8)])
def test_any_size(channels, cells):
    fused, plain = pair("dsara", cells, channels)
    plain.eval()
    x, labels = batch(8, count=2)
    for mine, theirs in zip(judged(fused.folded(), x, labels), judged(plain, x, labels), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_images_in_either_memory_order_and_a_single_one():
    folded = pair("dsara")[0].folded()
    x, labels = batch(8)
    for mine, theirs in zip(judged(folded, x.contiguous(), labels), judged(folded, x, labels), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(judged(folded, x[:1], labels[:1])[1], judged(folded, x, labels)[1][:1])


def test_it_is_a_copy_of_one_moment():
    fused, _ = pair("dsara")
    x, _ = batch(8)
    folded = fused.folded()
    before = folded(x)
    with torch.no_grad():
        for tensor in fused.state_dict().values():
            tensor.add_(1)
    assert torch.equal(folded(x), before)


def test_it_leaves_the_supernet_as_it_was_and_asks_for_no_weight_gradient():
    fused, _ = pair("dsara")
    fused.train()
    before = {name: tensor.clone() for name, tensor in fused.state_dict().items()}
    x, labels = batch(8)
    judged(fused.folded(), x, labels)
    assert all(torch.equal(before[name], tensor) for name, tensor in fused.state_dict().items())
    assert fused.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in fused.parameters())
    assert not fused.folded()(x).requires_grad


def test_a_plain_supernet_has_none():
    assert pair("dsara")[1].folded() is None


def test_under_autocast_the_gradient_points_the_same_way():
    fused, _ = pair("dsara", dtype=torch.float32)
    folded = fused.folded()
    x, labels = batch(16, torch.float32)
    exact = judged(folded, x, labels)
    with torch.autocast("cpu", torch.bfloat16):
        half = judged(folded, x, labels)
    assert half[0].dtype == half[1].dtype == torch.float32
    assert not torch.equal(half[1], exact[1])
    assert F.cosine_similarity(half[1].flatten(), exact[1].flatten(), dim=0) > 0.95


def test_a_second_derivative_is_refused_and_not_wrong():
    folded = pair("dsara")[0].folded()
    x = batch(8)[0].requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(folded(x).exp().sum(), x, create_graph=True)


def test_it_can_be_made_and_used_under_inference_mode():
    fused, _ = pair("dsara")
    with torch.inference_mode():
        folded = fused.folded()
    x, labels = batch(8)
    torch.testing.assert_close(judged(folded, x, labels)[1], judged(fused.folded(), x, labels)[1])


@pytest.mark.parametrize("where", ["cells.0.edges.1.3", "stem.1", "classifier", ""])
def test_a_supernet_with_hooks_has_none(where):
    fused, _ = pair("dsara")
    fused.get_submodule(where).register_forward_hook(lambda *_: None)
    assert fused.folded() is None
