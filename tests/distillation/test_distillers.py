"""Methods that learn a training set: the contract of every one, closed forms on linear kernels, and their limits."""

import pytest
import torch

from robust_nas.attacks import ThreatModel
from robust_nas.distillation import DISTILLERS, KIP, AdversarialKIP, LearnedSet
from robust_nas.distillation.distiller import batch_loss
from robust_nas.distillation.loop import regression_of
from robust_nas.errors import ConfigError
from robust_nas.kernels import LinearKernel, ReLUNTK, centred_targets

PLAIN = ((0.0,), (1.0,))
CASES = {"kip": KIP(), "adv-kip": AdversarialKIP(inner_steps=3)}


def images(count, seed=0, low=0.0, high=1.0):
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(count, 1, 4, 4, generator=generator, dtype=torch.float64)


def learned(count=6, classes=3):
    labels = torch.arange(count) % classes
    return LearnedSet(images(count), centred_targets(labels, classes), labels)


def test_every_method_of_the_registry_is_in_the_suite():
    assert CASES.keys() == DISTILLERS.built_in.keys()


@pytest.mark.parametrize("method", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_what_it_learns_from_is_in_ball_and_box_detached_and_the_same_again(method, norm):
    network, x, wanted = (
        regression_of(method, learned(), *PLAIN),
        images(5, seed=1),
        centred_targets(torch.zeros(5, dtype=torch.int64), 3),
    )
    threat_model = ThreatModel(norm=norm, eps=0.2)
    one, again = (
        method.attacked(network, x, wanted, threat_model, torch.Generator().manual_seed(0)) for _ in range(2)
    )
    assert torch.equal(one, again)
    assert not one.requires_grad
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
    assert torch.linalg.vector_norm((one - x).flatten(1), ord=order, dim=1).max() <= 0.2 * (1 + 1e-6)
    assert one.min() >= 0
    assert one.max() <= 1
    assert network.support.grad is None


def test_the_inner_maximum_on_a_linear_kernel_is_the_closed_form():
    """max over ||d||_inf <= eps of 1/2 (<w, x + d> - y)^2 is 1/2 (|<w, x> - y| + eps ||w||_1)^2 inside the box."""
    method = AdversarialKIP(kernel=LinearKernel(), reg=0.1, random_start=False)
    found = LearnedSet(
        images(8), torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None], torch.zeros(8).long()
    )
    network = regression_of(method, found, *PLAIN)
    x, y, eps = (
        images(7, seed=2, low=0.4, high=0.6),
        torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None],
        0.1,
    )
    w = (network.coefficients * found.images.flatten(1)).sum(0) / 16
    attacked = method.attacked(network, x, y, ThreatModel(norm="linf", eps=eps), torch.Generator())
    reached = 0.5 * (network(attacked) - y).square()
    expected = 0.5 * ((x.flatten(1) @ w - y[:, 0]).abs() + eps * w.abs().sum()).square()
    torch.testing.assert_close(reached[:, 0], expected)


def test_without_a_ball_adversarial_kip_learns_from_the_images_themselves():
    method = CASES["adv-kip"]
    network, x = regression_of(method, learned(), *PLAIN), images(5, seed=1)
    wanted = centred_targets(torch.zeros(5, dtype=torch.int64), 3)
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    assert method.attacked(network, x, wanted, ThreatModel(eps=0), generator) is x
    assert torch.equal(generator.get_state(), before)


def test_the_inner_attack_raises_the_error():
    method, threat_model = AdversarialKIP(), ThreatModel(eps=0.1)
    network, x = regression_of(method, learned(), *PLAIN), images(20, seed=1)
    wanted = centred_targets(torch.arange(20) % 3, 3)
    attacked = method.attacked(network, x, wanted, threat_model, torch.Generator().manual_seed(0))
    assert ((network(attacked) - wanted).square().sum(1) > (network(x) - wanted).square().sum(1)).all()


def test_the_gradient_of_the_loss_is_that_of_finite_differences():
    support, x = images(4).requires_grad_(), images(3, seed=1)
    targets, wanted = (centred_targets(torch.arange(n) % 2, 2) for n in (4, 3))
    targets.requires_grad_()

    def loss(support, targets):
        return batch_loss(ReLUNTK(), support, targets, x, wanted, 1e-3)

    assert torch.autograd.gradcheck(loss, (support, targets), eps=1e-6, atol=1e-6)


def test_its_support_is_limited_and_the_limit_can_be_raised():
    with pytest.raises(ConfigError, match=r"got 11, which is 110 images of 10 classes.*largest_support=110"):
        KIP(per_class=11).support(10)
    assert KIP(per_class=11, largest_support=110).support(10) == 110
    assert KIP().support(10) == 100


def test_which_set_is_kept():
    assert KIP().better((0.9, 0.1), (0.8, 0.5))
    assert AdversarialKIP().better((0.8, 0.5), (0.9, 0.1))
    assert not any(
        method.better((0.8, 0.5), (0.8, 0.5)) for method in CASES.values()
    )  # the earlier one stays
