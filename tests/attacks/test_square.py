"""Square Attack: its windows and schedule as in the paper, its verdicts on linear models, and its queries."""

import math

import pytest
import torch
from attacked import batch, certificate, distance, generator, linear
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robust_nas.attacks import PGD, Square
from robust_nas.attacks.square import _bump, _corner, _eta, _l2_step, _linf_step, _side, _start
from robust_nas.errors import AttackError

LIKE = torch.zeros((), dtype=torch.float64)


# Against linear models. In L2, squares fit white weights badly: half of the radius is what 1,500 of them find.


@pytest.mark.parametrize(("norm", "eps", "p", "slack"), [("linf", 0.012, 1, 1.02), ("l2", 0.2, 2, 2.0)])
def test_breaks_what_is_clearly_in_reach_and_nothing_that_is_certified(norm, eps, p, slack):
    model, weight = linear(4)
    images, _ = batch(count=64, low=0.35, high=0.65)
    labels = model(images).argmax(1)
    needed = certificate(model, weight, images, labels, p)
    adversarial = Square(eps=eps, norm=norm, queries=1500)(model, images, labels, generator())
    broken = model(adversarial).argmax(1) != labels
    assert 5 < broken.sum() < 60
    assert not broken[needed > eps * (1 + 1e-5)].any()
    assert broken[needed * slack < eps].all()


def test_linf_reaches_the_corner_of_a_linear_margin():
    # One image, two classes: the best corner has every pixel at -eps sign(w); each is found by its own square.
    model, weight = linear(2)
    images, _ = batch(count=4, low=0.4, high=0.6)
    labels = model(images).argmax(1)
    needed = certificate(model, weight, images, labels, 1)
    eps = 0.9 * needed.min().item()  # nothing can be broken, so every query is taken
    adversarial = Square(eps=eps, queries=3000)(model, images, labels, generator())
    left = certificate(model, weight, adversarial, labels, 1)
    assert (left >= (needed - eps) * (1 - 1e-4)).all()
    assert ((needed - left) > 0.9 * eps).all()


# Queries


class Counted(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.sizes = model, []

    def forward(self, x):
        self.sizes.append(len(x))
        return self.model(x)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_broken_example_takes_no_more_queries(norm):
    model, _ = linear(4)
    images, _ = batch(count=16)
    labels = model(images).argmax(1)
    labels[:5] = (labels[:5] + 1) % 4  # misclassified: the image itself is the first candidate
    counted = Counted(model)
    result = Square(eps=0.05 if norm == "linf" else 0.3, norm=norm, queries=40, restarts=2, fold=False).run(
        counted, images, labels, generator()
    )
    assert counted.sizes[:2] == [16, 11]
    assert counted.sizes == sorted(counted.sizes, reverse=True)
    broken = model(result.images).argmax(1) != labels
    assert counted.sizes[-1] == (~broken).sum() or len(counted.sizes) < 81
    assert result.forwards == sum(counted.sizes)
    assert result.backwards == 0
    assert torch.equal(result.images[:5], images[:5])


def test_every_query_is_taken_where_nothing_breaks():
    model, _ = linear(2)
    images, _ = batch(count=4)
    labels = model(images).argmax(1)
    attack = Square(eps=1e-6, queries=17, restarts=3)
    assert attack.run(model, images, labels, generator()).forwards == 4 * (1 + 3 * 17)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), queries=st.integers(2, 12))
def test_more_restarts_never_weaken(norm, seed, queries):
    model, _ = linear(4)
    images, labels = batch(classes=4, seed=seed)
    common = {"eps": 0.04 if norm == "linf" else 0.3, "norm": norm, "queries": queries}
    one, two = (Square(restarts=count, **common)(model, images, labels, generator(seed)) for count in (1, 2))
    one_wrong, two_wrong = (model(x).argmax(1) != labels for x in (one, two))
    assert two_wrong[one_wrong].all()


def test_a_margin_is_all_that_it_needs():
    # Rounded to thirds, the logits have a gradient of zero: PGD is blind, Square is not.
    class Rounded(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, _ = linear(4)

        def forward(self, x):
            return (3 * self.inner(x)).round() / 3

    model = Rounded()
    images, _ = batch(count=32, low=0.3, high=0.7)
    labels = model(images).argmax(1)

    def accuracy(attack):
        return (model(attack(model, images, labels, generator())).argmax(1) == labels).float().mean()

    assert accuracy(PGD(eps=0.1, random_start=False)) == 1
    assert accuracy(Square(eps=0.1, queries=200)) < 0.2


# The pieces


def test_the_schedule_is_the_paper_s():
    # p is halved after 10, 50, 200, ... of 10,000 queries; the side is the integer next to sqrt(p H W).
    options = Square(eps=0.1, queries=10_000, p_init=0.8)
    sides = {10: 29, 11: 20, 50: 20, 51: 14, 201: 10, 501: 7, 1001: 5, 2001: 4, 4001: 3, 6001: 2, 8001: 1}
    assert {query: _side(options, query, 32, 32) for query in sides} == sides
    short = Square(eps=0.1, queries=500)
    assert [_side(short, q, 32, 32) for q in (0, 1, 400, 401)] == [29, 20, 2, 1]
    l2 = options.model_copy(update={"norm": "l2"})
    assert {_side(l2, query, 32, 32) for query in range(1, 10_000, 37)} == {29, 21, 15, 11, 7, 5, 3}
    assert _side(l2.model_copy(update={"p_init": 1.0}), 1, 8, 8) == 8  # not larger than the image
    assert _side(options, 9_999, 8, 8) == 1


def test_the_bump_of_the_paper():
    # Its formula, place by place: sum_{k=0}^{M} 1 / (n + 1 - k)^2 with M = n - the distance from the centre.
    rows, columns, n = 3, 5, 2
    expected = torch.zeros(rows, columns, dtype=torch.float64)
    for r in range(1, rows + 1):
        for s in range(1, columns + 1):
            m = n - max(abs(r - rows // 2 - 1), abs(s - columns // 2 - 1))
            expected[r - 1, s - 1] = sum(1 / (n + 1 - k) ** 2 for k in range(m + 1))
    torch.testing.assert_close(_bump(rows, columns, LIKE), expected)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 29])
def test_eta_has_norm_one_and_two_signs(side):
    eta = _eta(side, LIKE)
    assert eta.shape == (side, side)
    assert eta.norm().item() == pytest.approx(1)
    assert (eta[: side // 2] > 0).all()
    assert (eta[side // 2 :] < 0).all()


def test_windows_cover_the_whole_image_evenly():
    # Every corner of 0 .. H - S is drawn, as in the paper, and every example has a window of its own.
    x = torch.zeros(4000, 1, 8, 10)
    top, left = _corner(x, 3, generator())
    counts = torch.zeros(6, 8)
    counts.index_put_((top.squeeze(1), left.squeeze(1)), torch.ones(()), accumulate=True)
    expected = 4000 / 48
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 90  # 47 degrees of freedom: 1 in 5,000


def test_linf_start_is_stripes_and_a_step_is_one_window():
    images = torch.full((32, 3, 9, 9), 0.5)
    start = _start(images, 0.1, "linf", generator())
    assert torch.allclose((start - images).abs(), torch.tensor(0.1))
    assert (start == start[:, :, :1]).all()  # vertical stripes
    stepped = _linf_step(start, images, 0.1, 4, generator(1))
    changed = (stepped != start).any(1)  # [B, H, W]
    assert ((stepped - images).abs() < 0.1 + 1e-6).all()
    for rows, columns in ((changed.any(2), changed.any(1)),):
        assert (rows.sum(1) <= 4).all()
        assert (columns.sum(1) <= 4).all()
    assert len({tuple(c.flatten().tolist()) for c in changed}) > 10
    inside = (stepped - images)[0][:, changed[0]]
    assert all(len(set(channel.tolist())) == 1 for channel in inside)  # one sign per channel


@pytest.mark.parametrize("shape", [(5, 5), (8, 8), (14, 14), (9, 13), (32, 32)])
def test_l2_start_and_steps_use_the_whole_radius(shape):
    images = torch.full((16, 3, *shape), 0.5, dtype=torch.float64)
    x = _start(images, 0.3, "l2", generator())
    assert torch.allclose(distance("l2", x - images), torch.tensor(0.3, dtype=torch.float64))
    for side in (3, min(shape) - 1 + min(shape) % 2):
        new = _l2_step(x, images, 0.3, min(side, *shape), generator(side))
        assert torch.allclose(distance("l2", new - images), torch.tensor(0.3, dtype=torch.float64))
        assert not torch.equal(new, x)


def test_an_l2_step_empties_the_second_window():
    # Algorithm 3, line by line, for one image and one channel.
    images = torch.full((1, 1, 12, 12), 0.5, dtype=torch.float64)
    x = _start(images, 0.3, "l2", generator())
    nu, side = (x - images)[0, 0], 3
    new = (_l2_step(x, images, 0.3, side, generator(4)) - images)[0, 0]
    draws = generator(4)
    (r1, s1), (r2, s2) = ([int(c) for c in _corner(x, side, draws)] for _ in range(2))
    upright = bool(torch.randint(2, (1,), generator=draws))
    sign = 2 * int(torch.randint(2, (1,), generator=draws)) - 1
    eta = _eta(side, LIKE) if upright else _eta(side, LIKE).t()
    first = (slice(r1, r1 + side), slice(s1, s1 + side))
    second = (slice(r2, r2 + side), slice(s2, s2 + side))
    union = torch.zeros(12, 12, dtype=torch.bool)
    union[first] = union[second] = True
    temp = sign * eta + nu[first] / nu[first].norm().clamp_min(1e-300)
    available = math.sqrt(nu[union].square().sum() + 0.3**2 - nu.square().sum())
    expected = nu.clone()
    expected[second] = 0
    expected[first] = temp / temp.norm() * available
    torch.testing.assert_close(new, expected)


# What is refused


class Untouched(nn.Module):
    def forward(self, x):
        raise AssertionError("the model ran")


def test_l2_needs_five_by_five_tiles():
    images, labels = torch.rand(2, 1, 4, 9), torch.zeros(2, dtype=torch.long)
    with pytest.raises(
        AttackError, match="square-5000 in l2 needs images of at least 5 x 5 pixels, got 4 x 9"
    ):
        Square(eps=0.1, norm="l2")(Untouched(), images, labels)


def test_linf_takes_images_of_one_pixel():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    images = torch.rand(4, 3, 1, 1)
    adversarial = Square(eps=0.2, queries=20)(model, images, model(images).argmax(1), generator())
    assert (adversarial - images).abs().max() <= 0.2 + 1e-6
