"""Attacks by answers alone: exact distances on linear models, exact counts, budgets that hold, and their estimates."""

import math
from itertools import pairwise

import pytest
import torch
from attacked import generator
from torch import nn

from robust_nas.attacks import OPT, PGD, ZOO, Boundary, HopSkipJump, Noise, Oracle, Predictor, SignOPT, Square
from robust_nas.attacks.boundary import propose
from robust_nas.attacks.engine import opened
from robust_nas.attacks.hop_skip_jump import estimate
from robust_nas.attacks.losses import margin
from robust_nas.attacks.oracle import NOT_FOUND
from robust_nas.attacks.ray_search import Rays
from robust_nas.attacks.zoo import differences

SIDE = 4
ORDER = {"linf": (1, math.inf), "l2": (2, 2)}  # of the dual norm and of the norm


class Counted(nn.Module):
    """A model that counts the images that it was asked about, and batches with a pixel outside 0..1."""

    def __init__(self, model):
        super().__init__()
        self.model, self.rows, self.outside = model, 0, 0

    def forward(self, x):
        self.rows += len(x)
        self.outside += int(((x < 0) | (x > 1)).any())
        return self.model(x)


def linear(classes=2, seed=3):
    """Logits W x + b that are even in the middle of the box, and W `[K, D]`."""
    layer = nn.Linear(SIDE * SIDE, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator(seed)))
        layer.bias.copy_(-0.5 * layer.weight.sum(1))
    return nn.Sequential(nn.Flatten(), layer).eval(), layer.weight.detach()


def grey(count=8, seed=5):
    return torch.rand(count, 1, SIDE, SIDE, generator=generator(seed)) * 0.3 + 0.35


def exact(model, weight, images, norm):
    """Labels, and the distance of the boundary between two classes: the box is out of reach."""
    logits = model(images).detach()
    gap = (logits[:, 0] - logits[:, 1]).abs().double()
    return logits.argmax(1), gap / (weight[0] - weight[1]).double().norm(p=ORDER[norm][0])


def moved(images, adversarial, norm):
    return (adversarial.double() - images.double()).flatten(1).norm(p=ORDER[norm][1], dim=1)


def budgeted(queries, **more):
    """Every attack with this budget, in the norms that it is defined for."""
    return [
        kind(queries=queries, norm=norm, **more)
        for kind in (ZOO, Boundary, HopSkipJump, OPT, SignOPT)
        for norm in kind.norms
    ]


# Oracles: how near they come


@pytest.mark.parametrize(
    "attack",
    [HopSkipJump(norm="l2"), HopSkipJump(norm="linf"), Boundary(sphere_step=0.1, source_step=0.1)],
    ids=lambda attack: f"{attack.name}-{attack.norm}",
)
def test_within_five_percent_of_the_exact_distance_at_5000_queries(attack):
    model, weight = linear()
    images = grey()
    labels, needed = exact(model, weight, images, attack.norm)
    result = attack.run(model, images, labels, generator())
    assert attack.queries == 5000
    assert result.queries.max() <= 5000
    assert (model(result.images).argmax(1) != labels).all()
    ratio = moved(images, result.images, attack.norm) / needed
    assert ratio.median() < 1.05
    assert ratio.min() > 1 - 1e-4


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_sign_opt_and_opt_descend(norm):
    model, weight = linear()
    images = grey()
    labels, needed = exact(model, weight, images, norm)
    kinds = [SignOPT] if norm == "linf" else [SignOPT, OPT]
    for kind in kinds:
        attacks = [kind(queries=queries, norm=norm, directions=5) for queries in (20, 150, 600)]
        ratios = [
            (moved(images, attack(model, images, labels, generator()), norm) / needed).median()
            for attack in attacks
        ]
        assert ratios[0] > 1.5 * ratios[2]
        assert ratios == sorted(ratios, reverse=True)
        assert ratios[2] < (1.6 if norm == "linf" else 1.2)


def test_zoo_comes_near_and_newton_does_too():
    model, weight = linear()
    images = grey()
    labels, needed = exact(model, weight, images, "l2")
    for solver, rate in (("adam", 0.005), ("newton", 0.02)):
        attack = ZOO(queries=2000, solver=solver, learning_rate=rate, h=1e-3)
        adversarial = attack(model, images, labels, generator())
        assert (model(adversarial).argmax(1) != labels).all()
        assert (moved(images, adversarial, "l2") / needed).median() < 1.3


# The pieces, against closed forms


def asked(model, images, labels, attack):
    return opened(attack, model, images, labels, generator())


def test_zoo_s_differences_are_the_gradient_and_the_curvature_in_float64():
    class Curved(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, _ = linear(6)
            self.second = nn.Linear(6, 3)
            with torch.no_grad():
                self.second.weight.copy_(torch.randn(3, 6, generator=generator(8)))
                self.second.bias.zero_()

        def forward(self, x):
            return self.second(torch.tanh(self.first(x)))

    model, images, attack = Curved().double(), grey(4).double(), ZOO()
    images[0, 0, 0, :2] = torch.tensor([0.0, 1.0])  # on the faces of the box: steps of unequal length
    labels = model(images).argmax(1)
    c = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    x = (images + 0.02 * torch.randn(images.shape, generator=generator(2), dtype=torch.float64)).clamp(0, 1)
    x[0, 0, 0, :2] = torch.tensor([0.0, 1.0])

    def objective(flat):
        own = flat.view(images.shape)
        size = (own - images).flatten(1).square().sum(1)
        return size + c * (-margin(model(own), labels)).clamp_min(0)

    flat = x.flatten(1).requires_grad_()
    value = objective(flat)
    (gradient,) = torch.autograd.grad(value.sum(), flat)
    hessian = torch.autograd.functional.hessian(lambda f: objective(f).sum(), flat.detach())
    diagonal = torch.stack([hessian[i, :, i, :].diagonal() for i in range(4)])
    which = torch.stack([torch.randperm(16, generator=generator(i)) for i in range(4)])
    with asked(model, images, labels, attack) as target:
        oracle = Oracle(attack, target)
        rows = torch.arange(4)
        slope, curvature, _ = differences(
            attack, oracle, rows, x, value.detach(), c, which, torch.full((4,), 16)
        )
    inner = torch.ones(4, 16, dtype=torch.bool)
    inner[0, (which[0] < 2).nonzero().squeeze(1)] = False  # of first order there
    torch.testing.assert_close(slope[inner], gradient.gather(1, which)[inner], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(slope, gradient.gather(1, which), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(curvature[inner], diagonal.gather(1, which)[inner], rtol=1e-4, atol=1e-4)


def test_g_is_the_exact_distance_along_a_direction():
    model, weight = linear()
    model, weight, images = model.double(), weight.double(), grey(6).double()
    labels, attack = model(images).argmax(1), OPT()
    logits = model(images).detach()
    gap = logits[:, 0] - logits[:, 1]
    with asked(model, images, labels, attack) as target:
        rays = Rays(Oracle(attack, target))
        theta = torch.randn(images.shape, generator=generator(4), dtype=torch.float64)
        theta = rays.unit(
            theta - 0.5 * torch.sign(gap).view(-1, 1, 1, 1) * (weight[0] - weight[1]).view(1, 1, 4, 4)
        )
        known = -gap / (theta.flatten(1) @ (weight[0] - weight[1]))
        assert (known > 0).all()
        inside = known < 0.3  # before the box clips
        assert inside.sum() >= 3
        rows, tolerance = torch.arange(6), torch.full((6,), 1e-9, dtype=torch.float64)
        for guess in (1.3, 0.7, 1.001):
            g = rays.near(theta, guess * known, rows, tolerance)
            torch.testing.assert_close(g[inside], known[inside], rtol=1e-7, atol=1e-8)
        below = rays.near(theta, 0.9 * known, rows, tolerance, below=True)
        assert below[inside].isinf().all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_hop_skip_jump_s_estimate_points_along_the_weights(norm):
    model, weight = linear()
    images, attack = grey(6), HopSkipJump(norm=norm)
    labels = model(images).argmax(1)
    with asked(model, images, labels, attack) as target:
        oracle = Oracle(attack, target)
        rows = oracle.start(10)
        theta, share = attack.scales(oracle)
        assert share == pytest.approx(1 / 16, rel=1e-3)
        x = oracle.approach(oracle.found[rows], rows, theta)
        assert (model(x).argmax(1) != labels[rows]).all()
        found = estimate(oracle, x, rows, torch.full((len(rows),), 0.05), 800)
    # The misclassified side is that of the other class.
    normal = (weight[1 - labels[rows]] - weight[labels[rows]]).double()
    assert (torch.cosine_similarity(found.flatten(1).double(), normal) > 0.95).all()


def test_a_step_of_the_boundary_attack_keeps_the_distance_and_then_shortens_it():
    images = grey(5).double()
    x = images + 0.02 * torch.randn(images.shape, generator=generator(2), dtype=torch.float64)
    n = torch.randn(images.shape, generator=generator(3), dtype=torch.float64)
    delta, epsilon = (torch.full((5,), value, dtype=torch.float64) for value in (0.2, 0.05))
    s, new = propose(x, images, n, delta, epsilon)
    before = moved(images, x, "l2")
    torch.testing.assert_close(moved(images, s, "l2"), before)
    torch.testing.assert_close(moved(images, new, "l2"), 0.95 * before)
    angle = torch.cosine_similarity((s - images).flatten(1), (x - images).flatten(1)).acos()
    torch.testing.assert_close(angle.tan(), delta)


# Queries


@pytest.mark.parametrize("queries", [1, 2, 7, 100])
def test_no_budget_is_exceeded_and_every_query_is_counted(queries):
    model, _ = linear(4)
    images = grey(6)
    labels = model(images).argmax(1)
    labels[2] = (labels[2] + 1) % 4  # misclassified as it is: one query
    for attack in budgeted(queries):
        counted = Counted(model)
        result = attack.run(counted, images, labels, generator())
        assert result.queries.dtype == torch.int64
        assert result.queries.max() <= queries, attack
        assert result.queries[2] == 1
        assert result.queries.sum() == counted.rows == result.forwards
        assert counted.outside == 0
        assert torch.equal(result.images[2], images[2])
        if queries == 1:
            assert torch.equal(result.images, images)
        if queries == 100 and attack.access == "decision":
            assert (result.queries.sort().values[1:] > 90).all()  # no budget is left over, but for a step


def test_a_budget_is_each_image_s_own_whatever_the_batch():
    # An image that is soon done leaves nothing to the others, and takes nothing from them.
    model, _ = linear(4)
    images = grey(6)
    labels = model(images).argmax(1)
    for attack in budgeted(60, eps=0.3):
        result = attack.run(model, images, labels, generator())
        done = model(result.images).argmax(1) != labels
        assert result.queries.max() <= 60
        if attack.access == "decision":
            assert (result.queries[~done] > 50).all()
            assert (result.queries[done] < 60).any()


def test_an_answer_averaged_over_passes_costs_as_many_queries():
    model, _ = linear(4)
    images = grey(6)
    labels = model(images).argmax(1)
    for attack in budgeted(20, eot=3):
        counted = Counted(model)
        result = attack.run(Predictor(counted, samples=3), images, labels, generator())
        assert result.queries.sum() == counted.rows
        assert result.queries.max() <= 3 * 20


def test_square_and_noise_count_the_queries_of_each_image():
    model, _ = linear(4)
    images = grey(12)
    labels = model(images).argmax(1)
    labels[:3] = (labels[:3] + 1) % 4
    counted = Counted(model)
    square = Square(eps=0.03, queries=20, restarts=2, fold=False)
    result = square.run(counted, images, labels, generator(), trace=True)
    assert result.queries.sum() == counted.rows
    assert (result.queries[:3] == 1).all()
    broken = model(result.images).argmax(1) != labels
    assert (result.queries[~broken] == 41).all()
    assert square.passes.forward == 41
    # A record for each success, at its query; none is taken after it.
    assert sorted(result.query_trace.image.tolist()) == broken.nonzero().squeeze(1).tolist()
    at = result.query_trace.image
    assert torch.equal(result.query_trace.queries, result.queries[at])
    torch.testing.assert_close(
        result.query_trace.distance.double(), moved(images, result.images, "linf")[at], atol=1e-6, rtol=0
    )
    noise = Noise(eps=0.03, draws=7, fold=False).run(Counted(model), images, labels, generator())
    assert (noise.queries == 8).all()
    assert PGD(eps=0.03, steps=2).run(model, images, labels, generator()).queries is None


def test_the_trace_falls_and_ends_at_what_comes_back():
    model, _ = linear(4)
    images = grey(6)
    labels = model(images).argmax(1)
    labels[2] = (labels[2] + 1) % 4
    for attack in budgeted(100):
        result = attack.run(model, images, labels, generator(), trace=True)
        trace, sizes = result.query_trace, moved(images, result.images, attack.norm)
        assert attack.run(model, images, labels, generator()).query_trace is None
        for image in range(6):
            own = trace.image == image
            queries, distances = trace.queries[own].tolist(), trace.distance[own].tolist()
            assert queries == sorted(set(queries))
            assert all(later < earlier for earlier, later in pairwise(distances))
            assert not queries or queries[-1] <= result.queries[image]
            # Farther than found by the last question's step at most.
            least = distances[-1] if distances else 0.0
            assert least * (1 - 1e-5) <= sizes[image] <= least * 1.0002 + 1.1e-5


def test_no_start_is_said_and_the_image_comes_back():
    class Constant(nn.Module):
        def forward(self, x):
            return 0 * x.flatten(1)[:, :3] + torch.tensor([1.0, 0.0, 0.0])

    images = grey(3)
    for attack in budgeted(30):
        result = attack.run(Constant(), images, torch.zeros(3, dtype=torch.long), generator())
        assert torch.equal(result.images, images)
        assert result.flags == ((NOT_FOUND,) if attack.access == "decision" else ())
    found, _ = linear()
    assert HopSkipJump(queries=30).run(found, images, found(images).argmax(1), generator()).flags == ()


def test_with_eps_what_is_outside_comes_back_as_the_image():
    model, weight = linear()
    images = grey(8)
    for attack in budgeted(300):
        labels, needed = exact(model, weight, images, attack.norm)
        eps = float(needed.median())
        bounded = attack.model_copy(update={"eps": eps})
        adversarial = bounded(model, images, labels, generator())
        size, wrong = moved(images, adversarial, attack.norm), model(adversarial).argmax(1) != labels
        assert size.max() <= eps + 1e-6
        assert torch.equal(size > 0, wrong)
        assert not wrong[needed > eps * (1 + 1e-5)].any()


def test_a_masked_gradient_hides_nothing_from_decisions():
    model, weight = linear()
    images = grey(16)

    class Rounded(nn.Module):
        def forward(self, x):
            return (20 * model(x)).round() / 20

    labels, needed = exact(model, weight, images, "l2")
    kept = needed > 0.05
    labels, needed, images = labels[kept], needed[kept], images[kept]
    eps = 2 * float(needed.max())
    blind = PGD(eps=eps, norm="l2", random_start=False)(Rounded(), images, labels, generator())
    assert (model(blind).argmax(1) == labels).all()
    seen = HopSkipJump(eps=eps, norm="l2", queries=500)(Rounded(), images, labels, generator())
    assert (model(seen).argmax(1) != labels).all()
