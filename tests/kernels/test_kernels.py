"""Kernels: the contract of every one, wide finite networks as an independent implementation, and refused images."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from robust_nas.errors import ConfigError
from robust_nas.kernels import (
    KERNELS,
    LinearKernel,
    MyrtleNTK,
    ReLUNNGP,
    ReLUNTK,
    centred_targets,
    myrtle_ntk,
    solve,
)
from robust_nas.kernels.relu_layer import relu_layer

CASES = {
    "relu-ntk": ReLUNTK(depth=2),
    "relu-nngp": ReLUNNGP(),
    "myrtle-ntk": MyrtleNTK(blocks=(1, 2)),
    "linear": LinearKernel(),
}
every_kernel = pytest.mark.parametrize("kernel", CASES.values(), ids=CASES.keys())


def images(count, seed=0, shape=(2, 4, 4)):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *shape, generator=generator, dtype=torch.float64)


def test_every_kernel_of_the_registry_is_in_the_suite():
    assert CASES.keys() == KERNELS.built_in.keys()
    assert all(kernel.name == name for name, kernel in CASES.items())


@every_kernel
def test_it_is_symmetric_positive_semidefinite_and_float64(kernel):
    x, z = images(12), images(5, seed=1)
    gram = kernel.gram(x.float(), x.float())
    assert gram.dtype == torch.float64
    torch.testing.assert_close(gram, gram.T, atol=1e-12, rtol=0)
    assert torch.linalg.eigvalsh(gram).min() > -1e-10
    torch.testing.assert_close(kernel.gram(x, z), kernel.gram(z, x).T, atol=1e-12, rtol=0)


@every_kernel
def test_its_gradient_is_that_of_finite_differences_where_images_meet_themselves(kernel):
    x, z = (images(2, seed=seed, shape=(1, 2, 2)).requires_grad_() for seed in (3, 4))

    def loss(x, z):
        return (kernel.gram(x, z).square().sum() + kernel.gram(z, z).pow(3).sum())[None]

    assert torch.autograd.gradcheck(loss, (x, z), eps=1e-6, atol=1e-5)


@every_kernel
def test_black_and_equal_images_give_numbers_and_gradients(kernel):
    x = torch.cat(
        [torch.zeros(2, 2, 4, 4, dtype=torch.float64), images(1).repeat(2, 1, 1, 1)]
    ).requires_grad_()
    gram = kernel.gram(x, x)
    gram.square().sum().backward()
    assert gram.isfinite().all()
    assert x.grad.isfinite().all()


def test_where_an_image_meets_itself_half_of_its_variance_is_left():
    variance = torch.tensor([1e-6, 0.3, 1.0, 250.0], dtype=torch.float64)
    values, slopes = relu_layer(variance, variance, variance)
    torch.testing.assert_close(values, variance / 2, rtol=1e-7, atol=0)  # a ridge is 1e-6 of it
    torch.testing.assert_close(slopes, torch.full_like(slopes, 0.5), rtol=1e-7, atol=0)


def test_the_diagonal_is_right_where_rounding_makes_a_cosine_of_one():
    x, kernel = images(200, shape=(3, 8, 8)), ReLUNTK(depth=1)
    variance = WS * x.flatten(1).square().mean(1) + BS
    exact = WS * variance / 2 + BS + WS * variance / 2
    torch.testing.assert_close(kernel.gram(x, x).diagonal(), exact, rtol=2e-7, atol=0)


@every_kernel
def test_its_cost_is_that_of_the_matrix_products(kernel):
    with FlopCounterMode(display=False) as counter:
        kernel.gram(images(1), images(5, seed=1))
    assert kernel.macs((2, 4, 4), 5) == counter.get_total_flops() // 2


def test_parts_of_pairs_give_the_same_values_and_gradients(monkeypatch):
    kernel, x, z = MyrtleNTK(), images(3).requires_grad_(), images(4, seed=1).requires_grad_()
    whole = kernel.gram(x, z)
    one = torch.autograd.grad(whole.square().sum(), (x, z))
    monkeypatch.setattr(myrtle_ntk, "VALUES", 2 * 256)  # two pairs a part
    parts = kernel.gram(x, z)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts.square().sum(), (x, z)), one)


# A wide network in the NTK parametrisation: covariances of outputs over units, and inner products of gradients.

WS, BS = 2.0, 0.01


def layer(h, weight, bias):
    return (WS / h.shape[1]) ** 0.5 * h @ weight + BS**0.5 * bias


def gradients(network, x, parameters):
    return [
        torch.cat([g.flatten() for g in torch.autograd.grad(network(one[None]).sum(), parameters)])
        for one in x
    ]


@pytest.mark.parametrize(("depth", "width", "networks"), [(1, 20_000, 1), (2, 1000, 10)])
def test_fully_connected_kernels_are_those_of_wide_networks(depth, width, networks):
    x, found = images(2, shape=(1, 3, 3)).float(), []
    sizes = [9, *([width] * depth), 1]
    for seed in range(networks):
        generator = torch.Generator().manual_seed(seed)
        weights = [torch.randn(a, b, generator=generator) for a, b in pairwise(sizes)]
        layers = [
            (w.requires_grad_(), torch.randn(w.shape[1], generator=generator).requires_grad_())
            for w in weights
        ]

        def hidden(one, layers=layers):
            h = one.flatten(1)
            for weight, bias in layers[:-1]:
                h = F.relu(layer(h, weight, bias))
            return h

        def network(one, layers=layers, hidden=hidden):
            return layer(hidden(one), *layers[-1])

        first, second = gradients(network, x, [each for pair in layers for each in pair])
        h = hidden(x).detach()
        found.append([float(first @ second), WS * float(h[0] @ h[1]) / width + BS])
    tangent, covariance = torch.tensor(found).mean(0).tolist()
    assert tangent == pytest.approx(float(ReLUNTK(depth=depth).gram(x[:1], x[1:])), rel=0.05)
    assert covariance == pytest.approx(float(ReLUNNGP(depth=depth).gram(x[:1], x[1:])), rel=0.05)


def test_the_convolutional_kernel_is_that_of_a_wide_network():
    generator, width = torch.Generator().manual_seed(0), 700
    x = images(2, seed=5).float()
    shapes = [(width, 2, 3, 3), (width, width, 3, 3), (width, 1)]
    weights = [torch.randn(*shape, generator=generator, requires_grad=True) for shape in shapes]
    biases = [torch.randn(count, generator=generator, requires_grad=True) for count in (width, width, 1)]

    def convolved(h, number):
        scale = (WS / (9 * h.shape[1])) ** 0.5
        return F.conv2d(h, scale * weights[number], BS**0.5 * biases[number], padding=1)

    def network(one):
        h = F.avg_pool2d(F.relu(convolved(one, 0)), 2)
        return layer(F.relu(convolved(h, 1)).mean((2, 3)), weights[2], biases[2])

    first, second = gradients(network, x, [*weights, *biases])
    assert float(first @ second) == pytest.approx(float(MyrtleNTK().gram(x[:1], x[1:])), rel=0.06)


# What is refused


@pytest.mark.parametrize(
    ("shape", "message"), [((1, 5, 4), "sides that 2 divides"), ((1, 28, 28), "at most 196")]
)
def test_images_that_the_convolutional_kernel_cannot_take_are_refused(shape, message):
    with pytest.raises(ConfigError, match=message):
        MyrtleNTK().refuse_shape(shape)
    with pytest.raises(ConfigError, match=message):
        MyrtleNTK().gram(images(1, shape=shape), images(1, shape=shape))
    MyrtleNTK().refuse_shape((3, 14, 14))


# Kernel regression


def test_without_a_ridge_it_passes_through_its_support():
    x, targets = images(10), centred_targets(torch.arange(10) % 3, 3)
    gram = ReLUNTK().gram(x, x)
    misses = [float((gram @ solve(gram, targets, reg) - targets).abs().max()) for reg in (1e-2, 1e-6, 0)]
    assert misses[2] < 1e-9 < misses[1] < 1e-4 < misses[0]


def test_with_the_linear_kernel_it_is_ridge_regression():
    x, new = images(30, shape=(1, 3, 3)), images(4, seed=7, shape=(1, 3, 3))
    targets, reg = centred_targets(torch.arange(30) % 4, 4), 0.3
    gram = LinearKernel().gram(x, x)
    found = LinearKernel().gram(new, x) @ solve(gram, targets, reg)
    flat, ridge = x.flatten(1), 9 * reg * gram.diagonal().mean()
    weights = torch.linalg.solve(flat.T @ flat + ridge * torch.eye(9), flat.T @ targets)
    torch.testing.assert_close(found, new.flatten(1) @ weights)


@pytest.mark.parametrize("damage", [lambda x: x[[0, 0, 1]], lambda x: x[:3] * torch.nan])
def test_a_matrix_that_is_not_positive_definite_is_refused_with_what_to_change(damage):
    x = damage(images(3))
    gram = ReLUNTK().gram(x, x)
    with pytest.raises(ConfigError, match=r"3 support images is not positive definite.*larger method\.reg"):
        solve(gram, centred_targets(torch.arange(3), 3), 0)
