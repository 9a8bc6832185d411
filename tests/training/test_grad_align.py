"""GradAlign: its limits, its closed form on a linear model, and what of it is differentiated."""

import pytest
import torch
from training_cases import EPS, generator, linear_network, small_batch, small_network

from robust_nas.attacks import FGSM
from robust_nas.training import PGDAT, GradAlign
from robust_nas.training.losses.grad_align import input_gradient, misalignment
from robust_nas.training.modes import in_eval_mode


def test_grad_align_without_weight_is_training_on_fgsm():
    images, labels = small_batch()
    attack = FGSM(eps=EPS)
    found = GradAlign(attack=attack, weight=0.0)(small_network(), images, labels, generator())
    expected = PGDAT(attack=attack)(small_network(), images, labels, generator())
    assert torch.equal(found.loss, expected.loss)
    assert GradAlign(attack=attack, weight=0.0).passes == PGDAT(attack=attack).passes == 5
    assert GradAlign(attack=attack).passes == 13


def test_grad_align_is_zero_on_a_linear_binary_model_and_at_most_two():
    """There every gradient is a multiple of w_1 - w_0, of one sign for one label."""
    model, labels = linear_network(classes=2), torch.tensor([0, 1, 1])
    images = torch.rand(3, 1, 2, 2, dtype=torch.float64, generator=generator())
    loss = GradAlign(attack=FGSM(eps=EPS), weight=1.0)
    plain = PGDAT(attack=FGSM(eps=EPS))(model, images, labels, generator())
    torch.testing.assert_close(loss(model, images, labels, generator()).loss, plain.loss)
    g = torch.randn(3, 1, 2, 2, dtype=torch.float64, generator=generator(2))
    assert float(misalignment(g, -g)) == pytest.approx(2)
    assert float(misalignment(g, 3 * g)) == pytest.approx(0)
    assert float(misalignment(g, 0 * g)) == 0


@pytest.mark.parametrize("scale", [1.0, 1e-18, 1e-22, 1e-30, 1e-44, 0.0])
def test_gradients_of_confident_networks_never_give_a_nan(scale):
    """Their squares underflow in float32: below about 1e-19 they count as none, above the scale does not matter."""
    one, other = torch.randn(2, 3, 1, 4, 4, generator=generator())
    factor = torch.tensor(1.0, requires_grad=True)
    found = misalignment(one * scale, other * scale * factor + one * (0.1 * scale))
    (slope,) = torch.autograd.grad(found, factor)
    counts = scale > 1e-19
    expected = misalignment(one, other + 0.1 * one) if counts else torch.zeros(())
    torch.testing.assert_close(found.detach(), expected)
    assert torch.isfinite(slope)
    assert bool(slope) == counts


def test_the_gradient_of_the_alignment_is_the_difference_of_its_values():
    """Only g(x + u) is differentiated: g(x) is held at its value."""
    model, (images, labels) = small_network().double(), small_batch()
    loss = GradAlign(attack=FGSM(eps=0.3))
    images = images.double()
    noisy = loss.noisy(images, generator())
    with in_eval_mode(model):
        fixed = input_gradient(model, images, labels).detach()

        def penalty():
            return misalignment(fixed, input_gradient(model, noisy, labels))

        weights = [model[0].weight, model[-1].weight]
        found = torch.autograd.grad(penalty(), weights)
        for weight, gradient in zip(weights, found, strict=True):
            direction = torch.randn(weight.shape, dtype=torch.float64, generator=generator(5))
            values = []
            for h in (1e-6, -1e-6):
                with torch.no_grad():
                    weight.add_(h * direction)
                values.append(float(penalty().detach()))
                with torch.no_grad():
                    weight.sub_(h * direction)
            slope = (values[0] - values[1]) / 2e-6
            assert slope == pytest.approx(float((gradient * direction).sum()), rel=1e-5)
    assert all(module.training for module in model.modules())
