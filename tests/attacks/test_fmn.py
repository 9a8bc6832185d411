"""FMN: against exact distances on linear models, with and without the box, and an independent implementation."""

import math

import numpy as np
import pytest
import torch
from attacked import answered, batch, certificate, conv_net, distance, generator, linear, logits_of
from scipy.optimize import linprog

from robust_nas.attacks import FMN

ORDER = {"linf": math.inf, "l2": 2, "l1": 1}
DUAL = {"linf": 1, "l2": 2, "l1": math.inf}


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_exact_distance_where_the_box_is_out_of_reach(norm):
    model, weight = linear(5)
    images, _ = batch(count=12, low=0.45, high=0.55)
    labels = model(images).argmax(1)
    exact = certificate(model, weight, images, labels, DUAL[norm]).double()
    found = FMN(norm=norm)(model, images, labels)
    assert exact.max() < 0.45
    assert (model(found).argmax(1) != labels).all()
    moved = distance(norm, found - images)
    assert (moved >= exact * (1 - 1e-5)).all()
    assert (moved <= exact * 1.01 + 1e-5).all()


def test_the_exact_l1_distance_where_the_box_is_out_of_reach():
    model, weight = linear(5)
    images, _ = batch(count=12, low=0.48, high=0.52)
    with torch.no_grad():
        model[1].bias.sub_(model(torch.full_like(images[:1], 0.5))[0])  # the middle of the box is undecided
    labels = model(images).argmax(1)
    exact = certificate(model, weight, images, labels, math.inf).double()
    near = exact < 0.45
    assert near.sum() >= 3
    moved = distance("l1", FMN(norm="l1", steps=200)(model, images, labels) - images)
    assert (moved >= exact * (1 - 1e-5)).all()
    assert (moved <= exact * 1.03 + 1e-4)[near].all()


def boxed(image, w, gap, norm):
    """The least distance from an image in the box to where w u reaches `gap`: programmes, by scipy."""
    n = len(image)
    if norm == "l1":
        bounds = [(0, 1 - pixel) for pixel in image] + [(0, pixel) for pixel in image]
        return linprog(np.ones(2 * n), A_ub=[np.concatenate([-w, w])], b_ub=[-gap], bounds=bounds).fun
    if norm == "linf":
        each = np.concatenate([np.eye(n), -np.ones((n, 1))], 1)
        both = np.concatenate([each, np.concatenate([-np.eye(n), -np.ones((n, 1))], 1), [[*(-w), 0.0]]])
        bounds = [(-pixel, 1 - pixel) for pixel in image] + [(0, 1)]
        return linprog([0.0] * n + [1.0], A_ub=both, b_ub=[*[0.0] * (2 * n), -gap], bounds=bounds).fun

    # L2: u = clip(mu w) by the optimality conditions, with the one multiplier that reaches the gap.
    def reached(mu):
        return float(w @ np.clip(mu * w, -image, 1 - image)) - gap

    low, high = 0.0, 1e3
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) < 0 else (low, middle)
    return float(np.linalg.norm(np.clip(high * w, -image, 1 - image)))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_close_to_the_exact_distance_in_the_box(norm):
    model, weight = linear(2)
    images, _ = batch(count=8)
    images = (1.4 * images - 0.2).clamp(0, 1)  # many pixels at an end of the box
    labels = model(images).argmax(1)
    logits = model(images).double().detach()
    found = FMN(norm=norm, steps=200)(model, images, labels)
    moved = distance(norm, found - images).numpy()
    for row, label in enumerate(labels.tolist()):
        w = (weight[1 - label] - weight[label]).double().numpy()
        gap = float(logits[row, label] - logits[row, 1 - label])
        exact = boxed(images[row].flatten().double().numpy(), w, gap, norm)
        assert exact * (1 - 1e-4) <= moved[row] <= 1.05 * exact, (row, exact, moved[row])


def published(model, image, label, norm, steps, alpha=1.0, gamma=0.05):
    """The least distance found for one image `[C, H, W]`: plain Python, float64, projections by bisection."""
    flat, shape = image.flatten(), image.shape
    farthest = float(torch.maximum(flat, 1 - flat).norm(p=ORDER[norm]))
    x, radius, best, met = flat, 0.0, math.inf, False

    def wave(first, last, step):
        return last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2

    def margin(point):
        logits = model(point.view(1, *shape))[0]
        others = torch.cat([logits[:label], logits[label + 1 :]])
        return others.max() - logits[label]

    def onto(point, limit):
        delta = point - flat
        if norm == "linf":
            delta = delta.clamp(-limit, limit)
        elif norm == "l2":
            delta = delta * min(1.0, limit / float(delta.norm()))
        else:
            room = torch.where(delta > 0, 1 - flat, flat)
            low, high = 0.0, float(delta.abs().max())
            if float(delta.abs().minimum(room).sum()) <= limit:
                high = 0.0
            for _ in range(100 if high else 0):
                middle = (low + high) / 2
                long = float((delta.abs() - middle).clamp(min=0).minimum(room).sum()) > limit
                low, high = (middle, high) if long else (low, middle)
            delta = delta.sign() * (delta.abs() - high).clamp(min=0)
        return (flat + delta).clamp(0, 1)

    for step in range(steps + 1):
        given = x.clone().requires_grad_()
        value = margin(given)
        (g,) = torch.autograd.grad(value, given)
        size = float((x - flat).norm(p=ORDER[norm]))
        if value > 0:
            met, best = True, min(best, size)
        if step == steps:
            return best
        shrink = wave(gamma, 0.001, step)
        if value > 0:
            radius = min(radius * (1 - shrink), best)
        elif met:
            radius = radius * (1 + shrink)
        else:
            radius = max(radius, size + abs(float(value.detach())) / float(g.norm(p=DUAL[norm]))) * (
                1 + shrink
            )
        radius = min(radius, farthest)
        x = onto(x + wave(alpha, alpha / 100, step) * g / g.norm(), radius)
    return best


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_distances_are_those_of_the_independent_implementation(norm):
    model = conv_net().double().eval()
    images, _ = batch(count=4)
    images = images.double()
    labels = logits_of(model, images).argmax(1)
    found = FMN(norm=norm, steps=25, fold=False)(model, images, labels)
    moved = distance(norm, found - images)
    for row, image in enumerate(images):
        expected = published(model, image, int(labels[row]), norm, 25)
        assert float(moved[row]) == pytest.approx(expected, rel=1e-6)


def test_the_box_does_not_keep_it_from_crossing_the_boundary():
    # Image 0 is where the published radius comes ever closer to the boundary from within.
    model = conv_net()
    images, _ = batch()
    labels = answered(model, images)
    for norm in ("linf", "l2", "l1"):
        found = FMN(norm=norm, steps=30)(model, images, labels, generator())
        assert (logits_of(model, found).argmax(1) != labels).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_with_eps_it_keeps_what_lies_in_the_ball_and_gives_the_image_back_elsewhere(norm):
    model = conv_net()
    images, _ = batch()
    labels = answered(model, images)
    free = FMN(norm=norm, steps=30)(model, images, labels, generator())
    moved = distance(norm, free - images)
    eps = float(moved[moved > 0].median())
    bound = FMN(norm=norm, steps=30, eps=eps)(model, images, labels, generator())
    near = moved <= eps
    assert near.any()
    assert not near.all()
    assert torch.equal(bound[near], free[near])
    beyond = distance(norm, bound - images)[~near]
    assert (beyond <= eps + 1e-6).all()
    wrong = logits_of(model, bound).argmax(1) != labels
    assert torch.equal((bound != images).flatten(1).any(1)[:-1], wrong[:-1])


def test_its_passes_are_those_it_says():
    model = conv_net()
    images, _ = batch()
    labels = logits_of(model, images).argmax(1)
    for attack in (FMN(steps=6, fold=False), FMN(steps=6, eps=0.3, fold=False)):
        result = attack.run(model, images, labels)
        assert result.forwards <= len(images) * attack.passes.forward + len(images)
        assert result.backwards == len(images) * attack.passes.backward


@pytest.mark.parametrize(("norm", "name"), [("linf", "LInf"), ("l2", "L2"), ("l1", "L1")])
def test_as_near_as_foolbox(norm, name, digits_net, monkeypatch):
    # The steps differ where no example was found yet, and in the order of ball and box: not the same points.
    foolbox = pytest.importorskip("foolbox")
    model, images, labels = digits_net
    right = (model(images).argmax(1) == labels).nonzero().squeeze(1)[:24]
    images, labels = images[right], labels[right]
    theirs = getattr(foolbox.attacks, f"{name}FMNAttack")(steps=100)
    if norm == "l2":  # 3.3.4 divides the norm of the image by itself: its projection moves nothing

        def project(x, x0, epsilon):
            norms = (x - x0).flatten(1).norms.l2(axis=-1).maximum(1e-12)
            return x0 + (x - x0) * (epsilon / norms).minimum(1).reshape((-1, 1, 1, 1))

        monkeypatch.setattr(theirs, "project", project)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    expected = theirs.run(wrapped, images, foolbox.criteria.Misclassification(labels))
    ours = FMN(norm=norm)(model, images, labels)
    assert (model(ours).argmax(1) != labels).all()
    both = model(expected).argmax(1) != labels
    ratio = distance(norm, ours - images)[both] / distance(norm, expected - images)[both]
    assert both.sum() >= 20
    assert 0.99 < ratio.median() < 1.01
    assert ratio.max() < 1.05
