"""APGD in L1: against an independent implementation of the paper, one image at a time in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from attacked import CLASSES, answered, batch, conv_net, distance, generator, linear, logits_of
from torch import nn

from robust_nas.attacks import APGD, AutoAttack, official_autoattack
from robust_nas.attacks.apgd_l1 import balls


def nearest(image, point, radius):
    """The projection of one flat image's point by bisection."""
    delta = point - image
    room = torch.where(delta > 0, 1 - image, image)
    size = delta.abs()
    if float(size.minimum(room).sum()) <= radius:
        return image + delta.sign() * size.minimum(room)
    low, high = 0.0, float(size.max())
    for _ in range(100):
        middle = (low + high) / 2
        if float((size - middle).clamp(min=0).minimum(room).sum()) > radius:
            low = middle
        else:
            high = middle
    return image + delta.sign() * (size - high).clamp(min=0).minimum(room)


def published(model, image, label, eps, steps, start):
    """The iterates of the last ball for one image `[C, H, W]`, from a start `[D]`: plain loops, no batch.

    In balls of 3, 2 and 1 eps (0.3, 0.3 and 0.4 of the steps), the move into the next one being a step.
    """
    flat, shape = image.flatten(), image.shape

    def evaluated(x):
        given = x.clone().view(1, *shape).requires_grad_()
        loss = F.cross_entropy(model(given), label.view(1))
        (gradient,) = torch.autograd.grad(loss, given)
        return float(loss.detach()), gradient.flatten()

    first = math.ceil(0.3 * steps)
    x, kept = start, []
    for radius, count in ((3 * eps, first), (2 * eps, first), (eps, steps - 2 * first)):
        x = nearest(flat, x, radius)
        best_x, best_loss, best_gradient = None, -math.inf, None
        eta, interval, since = radius, max(int(0.04 * count), 1), 0
        for step in range(count):
            if radius == eps:
                kept.append(x)
            loss, gradient = evaluated(x)
            if best_x is None:
                best_x, best_loss, best_gradient = x, loss, gradient
                moved = int((x != flat).sum())
                k = max(math.ceil(moved / 1.5), 1)
            else:
                if loss > best_loss:
                    best_x, best_loss, best_gradient = x, loss, gradient
                since += 1
                if since == interval:
                    since, before = 0, moved
                    moved = int((best_x != flat).sum())
                    k = max(math.ceil(moved / 1.5), 1)
                    if moved < 0.95 * before:
                        eta, x, gradient = radius, best_x, best_gradient
                    else:
                        eta = max(eta / 1.5, radius / 10)
            if step == count - 1 and radius != eps:
                x = best_x
                break
            largest = gradient.abs().topk(k).indices
            h = torch.zeros_like(flat)
            h[largest] = gradient[largest].sign()
            x = nearest(flat, x + eta * h / h.abs().sum(), radius)
    return [*kept, x]


@pytest.mark.parametrize("steps", [5, 10, 24])
def test_the_last_iterate_is_that_of_the_independent_implementation(steps):
    model = conv_net().double().eval()
    images, _ = batch(count=4)
    images = images.double()
    labels = answered(model, images)
    attack = APGD(eps=4.0, norm="l1", steps=steps, keep="last", fold=False)
    found = attack(model, images, labels, generator())
    start = torch.empty_like(images).normal_(0, 1.0, generator=generator())
    for image, label, drawn, last in zip(images, labels, start, found, strict=True):
        expected = published(model, image, label, 4.0, steps, (image + drawn).flatten())[-1]
        torch.testing.assert_close(last.flatten(), expected, atol=1e-8, rtol=0)


def test_the_best_iterate_is_the_one_of_highest_loss_in_the_last_ball():
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(192, 2 * CLASSES), nn.Tanh(), nn.Linear(2 * CLASSES, CLASSES)
    )
    images, labels = batch(count=4)
    model, images = model.double(), images.double()
    found = APGD(eps=2.0, norm="l1", steps=20, fold=False)(model, images, labels, generator())
    start = torch.empty_like(images).normal_(0, 1.0, generator=generator())
    for row, image in enumerate(images):
        flat = published(model, image, labels[row], 2.0, 20, (image + start[row]).flatten())
        candidates = torch.stack([image.flatten(), *flat]).view(-1, *image.shape)
        with torch.no_grad():
            logits = model(candidates)
            loss = F.cross_entropy(logits, labels[row].expand(len(candidates)), reduction="none")
            rank = loss + 1e6 * (logits.argmax(1) != labels[row]).double()
            mine = model(found[row : row + 1])
            got = (
                F.cross_entropy(mine, labels[row : row + 1]) + 1e6 * (mine.argmax(1) != labels[row]).double()
            )
        torch.testing.assert_close(got.squeeze(), rank.max(), atol=1e-6, rtol=1e-9)


def test_on_a_linear_model_it_comes_close_to_the_exact_fall_of_the_margin():
    model, weight = linear(2, scale=0.2)
    images, _ = batch(count=12)
    labels = model(images).argmax(1)
    w = (weight[0] - weight[1]) * (2 * labels.unsqueeze(1) - 1)  # raises the other class
    room = torch.where(w > 0, 1 - images.flatten(1), images.flatten(1))
    order = w.abs().argsort(1, descending=True)
    sorted_room = room.gather(1, order)
    used = (3.0 - (sorted_room.cumsum(1) - sorted_room)).clamp(min=0).minimum(sorted_room)
    exact = (used * w.abs().gather(1, order)).sum(1)  # a linear programme: the steepest pixels first
    found = APGD(eps=3.0, norm="l1", steps=100)(model, images, labels, generator())
    fallen = ((found - images).flatten(1) * w).sum(1)
    assert (fallen <= exact * (1 + 1e-5)).all()
    assert (fallen >= 0.97 * exact).all()
    assert distance("l1", found - images).max() <= 3.0 + 1e-9


def test_the_balls_share_the_steps():
    assert balls(100) == ((3, 30), (2, 30), (1, 40))
    assert balls(5) == ((3, 2), (2, 2), (1, 1))
    for steps in range(1, 40):
        assert sum(count for _, count in balls(steps)) == steps
        assert balls(steps)[-1][0] == 1
    assert [steps for steps in range(1, 20) if len(balls(steps)) == 1] == [1, 2, 4]
    assert APGD(eps=1, norm="l1", steps=100).step == 3
    assert APGD(eps=1, norm="l1", steps=4).step == 1


@pytest.mark.parametrize("restarts", [1, 3])
def test_its_passes_are_those_it_says(restarts):
    model = conv_net()
    images, _ = batch()
    result = APGD(eps=3.0, norm="l1", steps=7, restarts=restarts).run(model, images, answered(model, images))
    passes = APGD(eps=3.0, norm="l1", steps=7, restarts=restarts).passes
    assert (result.forwards, result.backwards) == tuple(len(images) * count for count in passes)


def test_it_breaks_as_much_as_the_authors_own_package(digits_net, monkeypatch):
    made = official_autoattack._official

    def from_two_starts(*arguments):
        official = made(*arguments)
        official.apgd.n_restarts = 2
        return official

    monkeypatch.setattr(official_autoattack, "_official", from_two_starts)
    model, images, labels = digits_net
    images, labels = images[:40], labels[:40]

    def right(attack):
        return int((logits_of(model, attack(model, images, labels, generator())).argmax(1) == labels).sum())

    ours = right(APGD(eps=2.0, norm="l1", steps=100, restarts=2))
    theirs = right(AutoAttack(eps=2.0, norm="l1", attacks=("apgd-ce",)))
    clean = int((logits_of(model, images).argmax(1) == labels).sum())
    assert clean >= 38
    assert 0 < theirs < clean - 10
    assert abs(ours - theirs) <= 2


def test_autoattack_in_l1_has_the_passes_of_its_balls():
    assert AutoAttack(eps=1, norm="l1", attacks=("apgd-ce",)).passes == (525, 515)
    assert AutoAttack(eps=1, norm="l1", attacks=("apgd-t",)).passes == (530, 515)
    assert AutoAttack(eps=1, norm="l1", version="rand").passes == AutoAttack(eps=1, version="rand").passes
    assert AutoAttack(eps=1, norm="l1").settings(10)["apgd-t"]["targets"] == 5
