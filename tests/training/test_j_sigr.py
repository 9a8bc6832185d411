"""J-SIGR-style training: closed forms of its terms, its saliency, and second derivatives of our networks."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn
from training_cases import (
    generator,
    linear_network,
    network,
    residual,
    same,
    small_batch,
    small_network,
)

from robust_nas.errors import ConfigError
from robust_nas.training import JSIGR, Natural
from robust_nas.training.losses import j_sigr


def batch(count=6, side=8):
    images = torch.rand(count, 1, side, side, dtype=torch.float64, generator=generator(3))
    return images, torch.arange(count) % 4


def input_gradient(model, images, labels):
    x = images.clone().requires_grad_()
    own = model(x).log_softmax(1).gather(1, labels.unsqueeze(1))
    return torch.autograd.grad(own.sum(), x, create_graph=True)[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_exact_jacobian_norm_of_a_linear_network_is_that_of_its_matrix(seed):
    """1/2 ||W||_F^2 for every image, and its gradient is W."""
    model = linear_network(classes=3)
    x = torch.rand(5, 1, 2, 2, dtype=torch.float64, generator=generator(seed)).requires_grad_()
    logits = model(x)
    found = j_sigr.jacobian_norm(logits, x, j_sigr.orthonormal_vectors(logits, 3, generator()))
    weight = model[1].weight
    torch.testing.assert_close(found.detach(), weight.detach().square().sum() / 2)
    torch.testing.assert_close(torch.autograd.grad(found, weight)[0], weight.detach())


@pytest.mark.parametrize("count", [1, 2])
def test_random_projections_expect_the_jacobian_norm(count):
    model = linear_network(classes=3)
    x = torch.rand(4000, 1, 2, 2, dtype=torch.float64, generator=generator()).requires_grad_()
    logits = model(x)
    vectors = j_sigr.orthonormal_vectors(logits, count, generator(4))
    exact = float(model[1].weight.detach().square().sum()) / 2
    assert float(j_sigr.jacobian_norm(logits, x, vectors).detach()) == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("count", [1, 4, 5])
def test_the_vectors_of_an_example_are_orthonormal(count):
    vectors = j_sigr.orthonormal_vectors(torch.zeros(50, 5), count, generator())
    products = torch.einsum("ibk,jbk->bij", vectors, vectors)
    torch.testing.assert_close(products, torch.eye(count).expand(50, -1, -1), atol=1e-6, rtol=0)


def test_more_projections_than_classes_are_refused():
    with pytest.raises(ConfigError, match="projections: got 6; at most the number of classes, 5"):
        JSIGR(projections=6, grid=4)(small_network(), *small_batch(), generator())


def test_more_patches_than_pixels_are_refused():
    with pytest.raises(ConfigError, match="grid: got 8; at most the pixels of a side, 5"):
        JSIGR()(small_network(), *small_batch(), generator())


def test_a_mask_of_ones_has_no_penalty_and_one_of_zeros_is_double_backpropagation():
    model, (images, labels) = small_network().double(), small_batch()
    gradient = input_gradient(model, images.double(), labels)
    ones = torch.ones(8, 1, 5, 5, dtype=torch.bool)
    assert float(j_sigr.selective_penalty(gradient, ones).detach()) == 0
    expected = gradient.square().sum() / 8
    torch.testing.assert_close(j_sigr.selective_penalty(gradient, ~ones), expected)
    free = JSIGR(grid=4, saliency_share=1.0, salient=0.0, jacobian_weight=0.0, selective_weight=2.0)
    natural = Natural()(small_network().double(), images.double(), labels, generator()).loss
    found = free(small_network().double(), images.double(), labels, generator()).loss
    torch.testing.assert_close(found, natural + 2 * expected)
    held = free.model_copy(update={"salient": 1.0})  # every patch of this network is seen
    found = held(small_network().double(), images.double(), labels, generator()).loss
    torch.testing.assert_close(found, natural, rtol=0, atol=0)


def test_without_weights_it_is_natural_training():
    loss = JSIGR(jacobian_weight=0.0, selective_weight=0.0)
    found = loss(small_network(), *small_batch(), generator()).loss
    assert float(found.detach()) == float(
        Natural()(small_network(), *small_batch(), generator()).loss.detach()
    )
    assert (loss.passes, loss.least_side) == (3, 1)


def test_the_penalty_of_binary_logistic_regression_is_its_closed_form():
    """grad_x log p_y = (1 - p_y) (w_y - w_other): two logits are one of the weight w_1 - w_0."""
    model = linear_network(classes=2)
    images = torch.rand(6, 1, 2, 2, dtype=torch.float64, generator=generator())
    labels = torch.arange(6) % 2
    penalty = j_sigr.selective_penalty(
        input_gradient(model, images, labels), torch.zeros(6, 1, 2, 2, dtype=torch.bool)
    )
    p = model(images).detach().softmax(1)[torch.arange(6), labels]
    length = (model[1].weight[1] - model[1].weight[0]).detach().square().sum()
    torch.testing.assert_close(penalty.detach(), ((1 - p).square() * length).mean())


class OnePatch(nn.Module):
    """Sees rows 2 and 3 and columns 4 and 5."""

    def forward(self, x):
        seen = x[:, 0, 2:4, 4:6].sum((1, 2))
        return torch.stack([seen, -seen], 1)


def test_the_saliency_of_a_network_that_sees_one_patch_is_there_alone():
    images, labels = batch()
    saliency = j_sigr.perturbation_saliency(OnePatch(), images, 4)
    assert (saliency[:, 1, 2] > 0).all()
    assert int(saliency.count_nonzero()) == len(images)
    free = j_sigr.salient_pixels(saliency, 0.2, (8, 8))
    assert free[:, :, 2:4, 4:6].all()
    assert int(free.sum()) == 4 * len(images)
    gradient = j_sigr.gradient_saliency(OnePatch(), images, labels % 2, 4)
    assert int(gradient.count_nonzero()) == len(images)
    torch.testing.assert_close(
        j_sigr.rank_correlation(gradient.flatten(1), saliency.flatten(1)), torch.ones(6).double()
    )


def test_saliency_is_that_of_patches_that_are_replaced_one_by_one():
    model, images = small_network().double().eval(), small_batch()[0].double()
    p = model(images).detach().softmax(1)
    window = 2 * math.ceil(5 / 2) + 1
    blurred = F.avg_pool2d(images, window, 1, window // 2, count_include_pad=False)
    found = j_sigr.perturbation_saliency(model, images, 2)
    for row, rows in enumerate((slice(0, 3), slice(3, 5))):
        for column, columns in enumerate((slice(0, 3), slice(3, 5))):
            moved = images.clone()
            moved[:, :, rows, columns] = blurred[:, :, rows, columns]
            change = (model(moved).detach().softmax(1) - p).square().sum(1) / 2
            torch.testing.assert_close(found[:, row, column], change, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(("size", "grid"), [((8, 8), 8), ((28, 28), 8), ((5, 7), 3), ((3, 3), 3)])
def test_patches_divide_an_image_and_differ_by_a_pixel_a_side(size, grid):
    inside = j_sigr.patches(size, grid, torch.device("cpu"))
    assert torch.equal(inside.sum(0), torch.ones(size, dtype=torch.int64))
    heights = inside.any(2).sum(1)
    assert int(heights.max() - heights.min()) <= 1
    assert int(heights.min()) >= 1


def test_saliency_leaves_the_network_as_it_was():
    model, (images, labels) = small_network(), small_batch()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    j_sigr.perturbation_saliency(model, images, 3)
    JSIGR(grid=3).explanation(model, images, labels)
    assert same(model.state_dict(), before)
    assert all(module.training for module in model.modules())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_agreement_is_spearmans_correlation(levels):
    a, b = (torch.randint(levels, (4, 20), generator=generator(seed)).double() for seed in (1, 2))
    expected = [stats.spearmanr(x, y).statistic for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    assert j_sigr.rank_correlation(a, b).tolist() == pytest.approx(expected)
    assert j_sigr.rank_correlation(a, torch.ones_like(b)).tolist() == [0.0] * 4


@pytest.mark.parametrize("build", [network, residual], ids=["cells", "residual"])
def test_its_gradient_through_our_networks_is_the_derivative(build):
    """Second derivatives of every layer of ours, in float64."""
    loss = JSIGR(projections=4, grid=4, saliency_share=0.5, jacobian_weight=0.1)
    model, (images, labels) = build().double().train(), batch()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loss(model, images, labels, generator()).loss.backward()
    weights = [weight for weight in model.parameters() if weight.grad is not None]
    draws = generator(5)
    directions = [torch.randn(weight.shape, dtype=torch.float64, generator=draws) for weight in weights]
    expected = sum((weight.grad * way).sum() for weight, way in zip(weights, directions, strict=True))
    values = []
    for h in (1e-7, -1e-7):
        model.load_state_dict(state)
        with torch.no_grad():
            for weight, direction in zip(weights, directions, strict=True):
                weight.add_(h * direction)
        values.append(loss(model, images, labels, generator()).loss.detach())
    torch.testing.assert_close((values[0] - values[1]) / 2e-7, expected, rtol=1e-4, atol=1e-6)
