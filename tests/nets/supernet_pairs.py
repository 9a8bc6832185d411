"""A fused and a plain supernet of one function, for the tests of both."""

import copy

import torch
from torch import nn

from robust_nas.nets import Supernet, channels_last
from robust_nas.spaces import load_space
from robust_nas.spaces.files import shipped_names

SPACES = shipped_names()
CHANGED = {
    "without-pools": {"operations": ["skip_connect", "sep_conv_3x3", "dil_conv_5x5"]},
    "pools-alone": {"operations": ["avg_pool_3x3", "max_pool_3x3"]},
    "two-nodes": {"nodes": 2, "edges_per_node": 1},
}


FEWER = {"nodes": 2}  # of a cell, for what does not depend on their number


def pair(space, cells=4, channels=3, dtype=torch.float64, seed=0, changes=None):
    """A fused and a plain supernet of the same weights, alphas and statistics, none of them trivial."""
    name, own = (space, {}) if space in SPACES else ("dsara", CHANGED[space])
    changes = own | (changes or {}) if load_space(name).nodes > 3 else own
    fused = Supernet(load_space(name, changes), 10, 3, channels, cells, mean=(0.4,) * 3, std=(0.3,) * 3)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for alpha in fused.alphas.values():
            alpha.copy_(torch.randn(alpha.shape, generator=generator))
        for module in fused.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator))
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    fused = channels_last(fused.to(dtype))
    plain = copy.deepcopy(fused)
    plain.execution = "plain"
    assert [name for name, _ in fused.named_parameters()] == [name for name, _ in plain.named_parameters()]
    return fused, plain


def batch(side, dtype=torch.float64, seed=1, count=4):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 3, side, side, generator=generator, dtype=torch.float64).to(dtype)
    return x.contiguous(memory_format=torch.channels_last), torch.randint(10, (count,), generator=generator)


def unusual(supernet, seed=0):
    """A supernet with wide architecture parameters and running statistics, none of them trivial."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if name.startswith(("alphas.", "betas.")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        for module in supernet.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator))
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    return supernet


def everything(supernet, x, labels):
    """Logits, the gradients of inputs, weights and architecture parameters, zero where unused, and the buffers."""
    x = x.detach().clone().requires_grad_()
    logits = supernet(x)
    named = dict(supernet.named_parameters())
    loss = nn.functional.cross_entropy(logits, labels)
    gradients = torch.autograd.grad(loss, [x, *named.values()], allow_unused=True, materialize_grads=True)
    return {
        "logits": logits.detach(),
        **dict(zip(["images", *named], gradients, strict=True)),
        **dict(supernet.named_buffers()),
    }


def assert_same(found, expected, tolerance=1e-9):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(1e-6, float(value.abs().max()))
        error = float((found[name] - value).abs().max())
        assert error <= tolerance * scale, f"{name}: {error} of {scale}"
