"""Carlini and Wagner's attack: the exact distance on linear models, foolbox's distances, confidence and the ball."""

import pytest
import torch
from attacked import batch, certificate, distance, generator, linear

from robust_nas.attacks import CarliniWagner, DeepFool
from robust_nas.attacks.losses import margin

FEW = {"steps": 300, "search_steps": 8, "learning_rate": 0.01, "weight": 0.1}
ROUGH = {"steps": 100, "search_steps": 6, "learning_rate": 0.02, "weight": 0.1}  # 3% from the exact distance


@pytest.fixture(scope="module")
def easy():
    """A linear model, images inside the box with the model's answers, and the exact distances."""
    model, weight = linear(4)
    images, _ = batch(count=16, low=0.3, high=0.7)
    labels = model(images).argmax(1)
    return model, images, labels, certificate(model, weight, images, labels, 2)


@pytest.fixture(scope="module")
def nearest(easy):
    """What the attack finds on the linear model."""
    model, images, labels, _ = easy
    return CarliniWagner(**FEW)(model, images, labels)


def test_the_distance_on_a_linear_model_is_the_exact_one(easy, nearest):
    model, images, labels, exact = easy
    adversarial = nearest
    assert (model(adversarial).argmax(1) != labels).all()
    moved = distance("l2", adversarial - images)
    assert (moved >= exact * (1 - 1e-5)).all()  # nobody comes nearer
    assert (moved <= exact * 1.02 + 1e-3).all()


def test_with_eps_it_breaks_what_can_be_broken(easy):
    model, images, labels, exact = easy
    eps = exact.median().item() * 1.03
    adversarial = CarliniWagner(eps=eps, **FEW)(model, images, labels)
    broken = model(adversarial).argmax(1) != labels
    assert distance("l2", adversarial - images).max() <= eps + 1e-6
    assert not broken[exact > eps].any()
    assert broken[exact * 1.02 + 1e-3 < eps].all()
    assert torch.equal((adversarial != images).flatten(1).any(1), broken)


def test_a_search_too_coarse_for_the_ball_is_saved_by_the_projection(easy):
    # With a large weight alone, every adversarial example lies far beyond the boundary and outside of the ball.
    model, images, labels, exact = easy
    eps = exact.max().item() * 1.5
    coarse = {"steps": 40, "search_steps": 1, "learning_rate": 0.05, "weight": 1000.0}
    free = CarliniWagner(confidence=20.0, **coarse)(model, images, labels)
    assert (distance("l2", free - images) > eps).all()
    adversarial = CarliniWagner(eps=eps, confidence=20.0, **coarse)(model, images, labels)
    assert distance("l2", adversarial - images).max() <= eps + 1e-6
    assert (model(adversarial).argmax(1) != labels).all()


@pytest.mark.parametrize("confidence", [0.0, 2.0])
def test_confidence_is_a_margin(easy, nearest, confidence):
    model, images, labels, _ = easy
    attack = CarliniWagner(confidence=confidence, **ROUGH)
    adversarial = attack(model, images, labels) if confidence else nearest
    assert CarliniWagner(**FEW).confidence == 0
    ahead = margin(model(adversarial), labels)
    assert (ahead >= confidence - 1e-5).all()
    assert (ahead <= confidence + 0.6).all()  # and hardly more than was asked for


def test_more_search_steps_never_go_farther(easy):
    model, images, labels, _ = easy
    moved = [
        distance("l2", CarliniWagner(**ROUGH | {"search_steps": n})(model, images, labels) - images)
        for n in (1, 2, 4)
    ]
    assert (moved[1] <= moved[0] + 1e-9).where(moved[0] > 0, torch.tensor(True)).all()
    assert (moved[2] <= moved[1] + 1e-9).where(moved[1] > 0, torch.tensor(True)).all()


def test_an_example_s_result_does_not_depend_on_the_batch(easy):
    model, images, labels, _ = easy
    attack = CarliniWagner(**ROUGH | {"search_steps": 3}, fold=False)
    together = distance("l2", attack(model, images, labels) - images)
    alone = [
        distance("l2", attack(model, images[i : i + 1], labels[i : i + 1]) - images[i : i + 1]) for i in (7,)
    ]
    torch.testing.assert_close(torch.cat(alone), together[[7]], atol=1e-4, rtol=1e-3)


def test_pixels_at_the_ends_of_the_box():
    model, _ = linear(3)
    images = torch.randint(2, (8, 3, 8, 8), generator=generator()).float()
    labels = model(images).argmax(1)
    adversarial = CarliniWagner(steps=200, search_steps=5, learning_rate=0.1)(model, images, labels)
    assert adversarial.isfinite().all()
    assert 0 <= adversarial.min() <= adversarial.max() <= 1
    assert (model(adversarial).argmax(1) != labels).all()


def test_nearer_than_deepfool_on_a_network(digits_net):
    model, images, labels = (part[:12] if isinstance(part, torch.Tensor) else part for part in digits_net)
    far = distance("l2", DeepFool(norm="l2")(model, images, labels) - images)
    near = distance(
        "l2", CarliniWagner(steps=100, search_steps=5, learning_rate=0.05)(model, images, labels) - images
    )
    found = near > 0
    assert found.sum() >= 11
    assert near[found].mean() < 0.9 * far[found].mean()


def test_the_distances_are_foolbox_s(digits_net):
    # One image at a time, because foolbox stops a whole batch early where ours stops each example.
    foolbox = pytest.importorskip("foolbox")
    model, images, labels = digits_net
    right = (model(images).argmax(1) == labels).nonzero().squeeze(1)[:4]
    images, labels = images[right], labels[right]
    theirs = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=4, steps=80, stepsize=0.05, initial_const=0.1, confidence=0.0, abort_early=True
    )
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    expected = torch.cat(
        [
            theirs.run(wrapped, x.unsqueeze(0), foolbox.criteria.Misclassification(y.unsqueeze(0)))
            for x, y in zip(images, labels, strict=True)
        ]
    )
    attack = CarliniWagner(search_steps=4, steps=80, learning_rate=0.05, weight=0.1)
    ours = attack(model, images, labels)
    ratio = distance("l2", ours - images) / distance("l2", expected - images)
    assert (ratio - 1).abs().median() < 1e-3
    assert (ratio - 1).abs().max() < 0.02
    assert (model(ours).argmax(1) != labels).all()
