"""The L1 ball within the box: the projection against a solver, noise and directions, and which attacks know it."""

import numpy as np
import pytest
import torch
from attacked import SHAPE, batch, generator
from scipy.optimize import minimize

from robust_nas.attacks import ATTACKS, PGD, Noise, ThreatModel, Transfer, inherit
from robust_nas.attacks.l1_ball import farthest_in_l1, onto_l1_ball
from robust_nas.attacks.norms import diameter, direction, length, noise_in_ball, on_sphere, project
from robust_nas.errors import ConfigError


def points(count, pixels, seed=0):
    """Images in the box, and points around them, float64 `[count, 1, 1, pixels]`."""
    draw = generator(seed)
    images = torch.rand(count, 1, 1, pixels, generator=draw, dtype=torch.float64)
    return images, images + torch.randn(images.shape, generator=draw, dtype=torch.float64)


def solved(image, delta, radius):
    """The nearest point of ball and box by SLSQP, with the change split into its positive and negative part."""
    n = len(image)
    bounds = [(0, 1 - pixel) for pixel in image] + [(0, pixel) for pixel in image]

    def gap(parts):
        return parts[:n] - parts[n:] - delta

    found = minimize(
        lambda parts: (gap(parts) ** 2).sum() / 2,
        np.zeros(2 * n),
        jac=lambda parts: np.concatenate([gap(parts), -gap(parts)]),
        bounds=bounds,
        constraints={
            "type": "ineq",
            "fun": lambda parts: radius - parts.sum(),
            "jac": lambda parts: -np.ones(2 * n),
        },
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return found.x[:n] - found.x[n:]


@pytest.mark.parametrize("pixels", [1, 3, 12])
@pytest.mark.parametrize("radius", [0.0, 0.3, 2.5])
def test_the_projection_is_the_solvers(pixels, radius):
    images, x = points(4, pixels)
    moved = (onto_l1_ball(x, images, radius) - images).flatten(1).numpy()
    for row, image in enumerate(images.flatten(1).numpy()):
        expected = solved(image, (x - images)[row].flatten().numpy(), radius)
        np.testing.assert_allclose(moved[row], expected, atol=1e-5)


def bisected(images, x, radius):
    """The same projection by bisection on lam, in float64: no sorting, no breakpoints."""
    centre, delta = images.flatten(1).double(), (x - images).flatten(1).double()
    room = torch.where(delta > 0, 1 - centre, centre)
    low, high = torch.zeros(len(x), 1, dtype=torch.float64), delta.abs().amax(1, keepdim=True)
    inside = delta.abs().minimum(room).sum(1, keepdim=True) <= radius
    for _ in range(200):
        middle = (low + high) / 2
        long = (delta.abs() - middle).clamp_min(0).minimum(room).sum(1, keepdim=True) > radius
        low, high = torch.where(long, middle, low), torch.where(long, high, middle)
    lam = torch.where(inside, 0.0, high)
    return centre + delta.sign() * (delta.abs() - lam).clamp_min(0).minimum(room)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("radius", [0.05, 4.0, 60.0, 500.0])
def test_the_projection_of_whole_images_is_that_of_a_bisection_and_never_longer(dtype, radius):
    images = batch(count=16)[0].to(dtype)
    images[0] = (images[0] > 0.5).to(dtype)  # the corner of the box
    x = images + torch.randn(images.shape, generator=generator(1)).to(dtype)
    found = project(x, images, radius, "l1")
    atol = 1e-6 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(found.flatten(1).double(), bisected(images, x, radius), atol=atol, rtol=0)
    assert length(found.double() - images.double(), "l1").max() <= radius * (1 + 1e-14)
    assert found.dtype == dtype
    assert found.min() >= 0
    assert found.max() <= 1
    again = project(found, images, radius, "l1")
    torch.testing.assert_close(again, found, atol=0 if dtype == torch.float32 else 1e-15, rtol=0)


def test_a_radius_for_each_example_is_that_radius_alone():
    images, x = points(5, 20)
    radii = torch.tensor([0.0, 0.1, 1.0, 3.0, 100.0], dtype=torch.float64)
    for norm in ("linf", "l2", "l1"):
        together = project(x, images, radii, norm)
        for row, radius in enumerate(radii.tolist()):
            alone = project(x[row : row + 1], images[row : row + 1], radius, norm)
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-14, rtol=0)


def test_noise_has_its_length_and_fills_the_ball_evenly():
    images = torch.zeros(4000, 1, 1, 3)
    sphere = on_sphere(images, 2.0, "l1", generator())
    torch.testing.assert_close(length(sphere, "l1"), torch.full((4000,), 2.0))
    inside = length(noise_in_ball(images, 2.0, "l1", generator()), "l1")
    assert inside.max() <= 2 + 1e-6
    # Of a ball of three dimensions, (r / 2)^3 lies within r.
    for r in (0.8, 1.2, 1.6):
        assert abs(float((inside <= r).float().mean()) - (r / 2) ** 3) < 0.03
    # Uniform on the simplex: the first share is above t with probability (1 - t)^2.
    share = sphere[:, 0, 0, 0].abs() / 2
    assert abs(float((share > 0.5).float().mean()) - 0.25) < 0.03


def test_the_steepest_direction_is_one_pixel_and_zero_without_a_gradient():
    gradient = torch.randn(5, *SHAPE, generator=generator())
    gradient[0, 0, 0, 0] = torch.nan
    gradient[1] = 0
    found = direction(gradient, "l1")
    assert length(found, "l1").tolist() == [1, 0, 1, 1, 1]
    best = gradient.nan_to_num(0.0).flatten(1).abs().amax(1)
    torch.testing.assert_close((found * gradient.nan_to_num(0.0)).sum((1, 2, 3)), best)


def test_the_farthest_point_along_a_direction_is_better_than_random_ones():
    images, along = points(6, 10)
    far = farthest_in_l1(images, along, 1.5)
    assert length(far - images, "l1").max() <= 1.5 + 1e-12
    for seed in range(50):
        noise = on_sphere(images, 1.5, "l1", generator(seed))
        other = project(images + 3 * noise, images, 1.5, "l1")
        assert (((far - other) * along).sum((1, 2, 3)) >= -1e-12).all()


def test_the_farthest_images_of_the_box():
    assert [diameter(norm, SHAPE) for norm in ("linf", "l2", "l1")] == [1, 192**0.5, 192]
    ends = torch.ones(1, *SHAPE)
    for norm in ("linf", "l2", "l1"):
        assert float(length(ends, norm)) == pytest.approx(diameter(norm, SHAPE))


def test_an_attack_that_does_not_know_the_norm_is_refused_with_those_that_do():
    message = "norm is 'l1', allowed for pgd-10: linf, l2; attacks that know l1: apgd, fmn, noise, transfer"
    with pytest.raises(ConfigError, match=message):
        PGD(eps=1, norm="l1")
    with inherit(ThreatModel(norm="l1", eps=2)):
        assert Noise.model_validate({"eps": 2, "norm": "l1"}).norm == "l1"
    with pytest.raises(ConfigError, match="allowed for pgd-5: linf, l2"):
        Transfer(eps=1, norm="l1", surrogates=("x",), attack={"name": "pgd", "steps": 5})
    assert Transfer(eps=1, norm="l1", surrogates=("x",)).attack.name == "apgd"


@pytest.mark.parametrize("name", ATTACKS.built_in)
def test_every_attack_says_its_norms(name):
    norms = ATTACKS.get(name).norms
    assert norms
    assert set(norms) <= {"linf", "l2", "l1"}
