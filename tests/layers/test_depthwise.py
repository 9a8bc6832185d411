"""Depthwise convolution with a backward pass of its own: `nn.Conv2d` to the last digits, for every shape."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robust_nas.layers.depthwise import depthwise


@settings(max_examples=60)
@given(
    kernel=st.sampled_from([3, 5, 7]),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2, 3]),
    channels=st.integers(1, 9),
    height=st.integers(1, 17),
    width=st.integers(1, 17),
    nhwc=st.booleans(),
)
def test_it_is_the_convolution_with_both_gradients(kernel, stride, dilation, channels, height, width, nhwc):
    if stride == 2 and dilation == 3:
        dilation = 2
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


def test_the_second_derivative_is_the_convolutions():
    module = nn.Conv2d(3, 3, 3, padding=2, dilation=2, groups=3, bias=False).double()
    x = torch.rand(2, 3, 8, 8, requires_grad=True, dtype=torch.float64)
    found = []
    for out in (module(x), depthwise(x, module)):
        (gradient,) = torch.autograd.grad(out.exp().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(gradient.square().sum(), [x, module.weight]))
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-12)
