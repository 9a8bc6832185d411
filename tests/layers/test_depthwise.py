"""Depthwise convolution with a backward pass of its own: `nn.Conv2d` to the last digits, for every shape."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robust_nas.layers.depthwise import DepthwiseConv2d, depthwise, quicken, quickened, same_size


@settings(max_examples=100)
@given(
    kernel=st.sampled_from([3, 5, 7]),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2, 3]),
    channels=st.integers(1, 9),
    height=st.integers(1, 32),
    width=st.integers(1, 32),
    nhwc=st.booleans(),
)
def test_it_is_the_convolution_with_both_gradients(kernel, stride, dilation, channels, height, width, nhwc):
    generator = torch.Generator().manual_seed(0)
    module = nn.Conv2d(
        channels, channels, kernel, stride, dilation * (kernel - 1) // 2, dilation, channels, bias=False
    ).double()
    x = torch.randn(2, channels, height, width, generator=generator, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last) if nhwc else x
    x.requires_grad_()
    expected, found = module(x), depthwise(x, module)
    upstream = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    wanted = torch.autograd.grad(expected, [x, module.weight], upstream)
    given_ = torch.autograd.grad(found, [x, module.weight], upstream)
    for own, other in zip(given_, wanted, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-12)


def test_what_needs_no_gradient_gets_none():
    module = nn.Conv2d(3, 3, 3, padding=2, dilation=2, groups=3, bias=False)
    module.weight.requires_grad = False
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    depthwise(x, module).sum().backward()
    assert x.grad is not None
    assert module.weight.grad is None


@pytest.mark.parametrize("side", [1, 2, 3, 4, 8, 17, 32])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 1, 2), (5, 1, 1), (5, 1, 2), (5, 2, 2), (7, 1, 1)]
)
def test_float32_rounds_like_the_convolution(kernel, stride, dilation, side):
    torch.manual_seed(0)
    module = nn.Conv2d(8, 8, kernel, stride, dilation * (kernel - 1) // 2, dilation, 8, bias=False)
    x = torch.randn(8, 8, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
    upstream = torch.randn(module(x).shape)

    def found(call, dtype):
        images = x.detach().to(dtype).requires_grad_()
        out = call(images)
        return [out.detach(), *torch.autograd.grad(out, [images, module.weight], upstream.to(dtype))]

    own, usual = found(lambda x: depthwise(x, module), torch.float32), found(module, torch.float32)
    exact = found(module.double(), torch.float64)
    for mine, theirs, right in zip(own, usual, exact, strict=True):
        scale = float(right.abs().max())
        error, allowed = (float((one.double() - right).abs().max()) for one in (mine, theirs))
        assert error <= 3 * allowed + 4e-6 * scale  # AVX2 adds in another order than AVX-512


def test_taps_beyond_the_map_cost_nothing():
    x = torch.rand(2, 4, 2, 2)
    weight = torch.rand(4, 1, 5, 5)
    with torch.profiler.profile() as seen:
        same_size(x, weight, 2)
    names = {event.key for event in seen.key_averages()}
    assert "aten::mul" in names
    assert not any("conv" in name for name in names)


@pytest.mark.parametrize("stride", [1, 2])
def test_under_autocast_it_computes_in_float32(stride):
    module = nn.Conv2d(4, 4, 5, stride, 4, 2, 4, bias=False)
    x = torch.rand(2, 4, 8, 8, requires_grad=True)
    expected = module(x)
    wanted = torch.autograd.grad(expected.square().sum(), [x, module.weight])
    with torch.autocast("cpu", torch.bfloat16):
        found = depthwise(x, module)
        own = torch.autograd.grad(found.square().sum(), [x, module.weight])
    torch.testing.assert_close([found, *own], [expected, *wanted], rtol=1e-5, atol=1e-5)


def test_a_quickened_network_is_the_same_network():
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.Conv2d(6, 6, 5, padding=4, dilation=2, groups=6, bias=False),
        nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False),  # torch's own is as fast
        nn.Conv2d(6, 6, 5, padding=4, dilation=2, groups=6),  # a bias
        nn.Conv2d(6, 6, (3, 5), padding=(2, 4), dilation=2, groups=6, bias=False),
    )
    x = torch.rand(2, 3, 8, 8)
    calls = []
    network[1].register_forward_hook(lambda *_: calls.append(0))
    expected, state = network(x), network.state_dict()
    with quickened(network):
        assert [type(module) for module in network][1:] == [DepthwiseConv2d, *[nn.Conv2d] * 3]
        assert list(network.state_dict()) == list(state)
        torch.testing.assert_close(network(x), expected)
    assert all(type(module) is nn.Conv2d for module in network)
    assert len(calls) == 2
    assert quicken(network) == [network[1]]


@pytest.mark.parametrize("side", [2, 4, 8, 20])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 2), (5, 1), (5, 2)])
def test_the_second_derivative_is_the_convolutions(kernel, dilation, side):
    module = nn.Conv2d(
        3, 3, kernel, padding=dilation * (kernel - 1) // 2, dilation=dilation, groups=3, bias=False
    ).double()
    x = torch.rand(2, 3, side, side, requires_grad=True, dtype=torch.float64)
    found = []
    for out in (module(x), depthwise(x, module)):
        gradients = torch.autograd.grad(out.exp().mean(), [x, module.weight], create_graph=True)
        penalty = sum(gradient.square().sum() for gradient in gradients)
        found.append(torch.autograd.grad(penalty, [x, module.weight]))
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-12)
