"""DeepFool: the exact distance on linear models, foolbox's images on a trained network, and its ball."""

import pytest
import torch
from attacked import answered, batch, certificate, conv_net, distance, generator, linear
from torch import nn

from robust_nas.attacks import DeepFool
from robust_nas.attacks.deepfool import OVER

NORMS = pytest.mark.parametrize(("norm", "p"), [("linf", 1), ("l2", 2)])


@NORMS
@pytest.mark.parametrize("overshoot", [0.0, 0.02])
@pytest.mark.parametrize("classes", [2, 5])
def test_one_step_reaches_the_nearest_boundary_of_a_linear_model(norm, p, overshoot, classes):
    # distance = margin / ||w||_q of the nearest rival, times 1 + overshoot.
    model, weight = linear(classes)
    model, weight = model.double(), weight.double()
    images, _ = batch(count=32, low=0.3, high=0.7)
    images = images.double()
    labels = model(images).argmax(1)
    exact = certificate(model, weight, images, labels, p)
    attack = DeepFool(norm=norm, overshoot=overshoot)
    result = attack.run(model, images, labels, generator())
    moved = distance(norm, result.images - images)
    torch.testing.assert_close(moved, (exact + OVER) * (1 + overshoot), atol=1e-12, rtol=0)
    assert (model(result.images).argmax(1) != labels).all()
    assert result.backwards == 32 * (classes - 1)


@NORMS
def test_the_boundary_is_crossed_where_it_was_met(norm, p):
    # On the boundary itself, two logits are equal: that is a margin of zero up to the step over it.
    model, weight = linear(4)
    images, _ = batch(count=16, low=0.3, high=0.7)
    labels = model(images).argmax(1)
    adversarial = DeepFool(norm=norm, overshoot=0.0)(model, images, labels)
    first, second = model(adversarial).topk(2, dim=1).values.unbind(1)
    dual = (weight[:, None] - weight[None]).norm(p=p, dim=2).max()
    assert (first - second).max() <= 1.1 * OVER * dual


@NORMS
def test_with_eps_an_image_moves_only_if_it_is_broken_in_the_ball(norm, p):
    model, weight = linear(4)
    images, _ = batch(count=32, low=0.3, high=0.7)
    labels = model(images).argmax(1)
    exact = certificate(model, weight, images, labels, p)
    eps = exact.median().item() * 1.001
    adversarial = DeepFool(norm=norm, eps=eps, overshoot=0.5)(model, images, labels)
    # The overshoot carries it out of the ball, and the projection back: broken is what can be.
    broken = model(adversarial).argmax(1) != labels
    assert torch.equal(broken, exact < eps)
    assert torch.equal((adversarial != images).flatten(1).any(1), broken)
    assert distance(norm, adversarial - images).max() <= eps + 1e-6


def test_few_candidates_still_break():
    model = conv_net()
    images, _ = batch(count=12)
    labels = answered(model, images)[:11]
    images = images[:11]
    sizes = []
    for candidates in (2, 3, 10):
        adversarial = DeepFool(norm="l2", candidates=candidates)(model, images, labels)
        assert (model.eval()(adversarial).argmax(1) != labels).all()
        sizes.append(distance("l2", adversarial - images).mean().item())
    assert sizes[0] >= sizes[2]


def test_the_backward_passes_are_of_what_is_not_done_yet():
    images, labels = batch(count=8)
    model, _ = linear(5)
    labels[:4] = model(images[:4]).argmax(1)
    labels[4:] = (model(images[4:]).argmax(1) + 1) % 5  # misclassified already
    assert DeepFool().run(model, images, labels).backwards == 4 * 4


def test_a_plateau_is_left_alone():
    class Plateau(nn.Module):
        """The gradient of every logit is zero on the left half of the batch."""

        def forward(self, x):
            score = x.flatten(1).sum(1, keepdim=True)
            weight = torch.tensor([1.0, 1.0, 0.0, 0.0]).unsqueeze(1)
            return torch.cat([1 + 0 * score, weight * (score - score.detach()) * 0.01], dim=1)

    images, _ = batch(count=4, low=0.4, high=0.6)
    adversarial = DeepFool(steps=3)(Plateau(), images, torch.zeros(4, dtype=torch.long))
    assert adversarial.isfinite().all()
    assert torch.equal(adversarial[2:], images[2:])


@pytest.mark.parametrize(("norm", "name"), [("linf", "LinfDeepFoolAttack"), ("l2", "L2DeepFoolAttack")])
def test_equals_foolbox(norm, name, digits_net):
    foolbox = pytest.importorskip("foolbox")
    model, images, labels = digits_net
    right = model(images).argmax(1) == labels  # foolbox flees from the answer, ours from the label
    images, labels = images[right], labels[right]
    theirs = getattr(foolbox.attacks, name)(steps=50, candidates=6, overshoot=0.02)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    expected = theirs.run(wrapped, images, foolbox.criteria.Misclassification(labels))
    ours = DeepFool(norm=norm, steps=50, candidates=6, overshoot=0.02)(model, images, labels)
    torch.testing.assert_close(ours, expected, atol=2e-6, rtol=0)
    assert (model(ours).argmax(1) != labels).all()
