"""SVGD: its limits, its repulsion, and a Gaussian that it finds."""

import math

import pytest
import torch
from training_cases import generator

from robust_nas.training.svgd import svgd_directions

BANDWIDTHS = ["median", "scaled-median", 0.7]


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def nearest(particles):
    return torch.pdist(particles).min()


def test_phi_is_its_formula_with_the_gradient_of_the_kernel():
    """1/n sum_j [k(th_j, th_i) g_j - gamma grad_{th_j} k(th_j, th_i)], the gradient by autograd."""
    particles, gradients, gamma, h = drawn(4, 6), drawn(4, 6, seed=1), 0.3, 1.7
    found = svgd_directions(particles, gradients, gamma=gamma, bandwidth=h)
    for i in range(4):
        at = particles.clone().requires_grad_()
        k = (-(at - particles[i]).square().sum(1) / (2 * h**2)).exp()
        (slope,) = torch.autograd.grad(k.sum(), at)
        expected = (k.detach()[:, None] * gradients - gamma * slope).sum(0) / 4
        torch.testing.assert_close(found[i], expected)


@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
def test_one_particle_descends_its_own_gradient(bandwidth):
    gradients = drawn(1, 5)
    assert torch.equal(svgd_directions(drawn(1, 5, seed=1), gradients, bandwidth=bandwidth), gradients)


@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
def test_identical_particles_move_by_the_mean_gradient_and_nothing_tells_them_apart(bandwidth):
    """Their weights are 1/n, which sum to one; the slope of the kernel is 0 at its top."""
    gradients = drawn(4, 5)
    found = svgd_directions(drawn(1, 5, seed=1).expand(4, 5), gradients, gamma=10.0, bandwidth=bandwidth)
    torch.testing.assert_close(found, gradients.mean(0).expand(4, 5))


def test_a_median_of_zero_is_the_limit_of_small_bandwidths():
    particles = drawn(2, 3)[[0, 0, 0, 0, 1]]  # 6 of 10 pairs are identical
    gradients = drawn(5, 3, seed=1)
    found = svgd_directions(particles, gradients)
    torch.testing.assert_close(found, svgd_directions(particles, gradients, bandwidth=1e-3))
    torch.testing.assert_close(found[4], gradients[4] / 5)


@pytest.mark.parametrize("bandwidth", ["median", "scaled-median"])
@pytest.mark.parametrize("apart", [1e-30, 1e-12, 1e-6, 1.0])
def test_particles_without_a_loss_move_apart_however_near_they_are(bandwidth, apart):
    """So that a small difference between almost identical ones grows; 1e-30 has no square in float32."""
    particles = torch.tensor([[0.0, 0.0], [apart, 0.0]])
    phi = svgd_directions(particles, torch.zeros(2, 2), bandwidth=bandwidth)
    assert phi.isfinite().all()
    if apart > 1e-19:
        assert nearest(particles - 0.1 * phi) > nearest(particles)
        torch.testing.assert_close(phi[0], -phi[1])


def test_the_distance_of_two_particles_grows_at_every_step():
    particles = drawn(2, 7) * 0.01
    for _ in range(20):
        moved = particles - 0.01 * svgd_directions(particles, torch.zeros_like(particles))
        assert nearest(moved) > nearest(particles)
        particles = moved


def test_with_an_endless_bandwidth_all_particles_move_alike():
    gradients = drawn(5, 3)
    found = svgd_directions(drawn(5, 3, seed=1), gradients, bandwidth=1e9)
    torch.testing.assert_close(found, gradients.mean(0).expand(5, 3))


def test_the_bandwidth_is_the_median_of_the_distances():
    particles = torch.tensor([[0.0], [1.0], [4.0], [10.0]], dtype=torch.float64)  # 1, 3, 4, 6, 9, 10 apart
    gradients = drawn(4, 1)
    for rule, h in (("median", 5.0), ("scaled-median", 5.0 / math.sqrt(2 * math.log(5)))):
        found = svgd_directions(particles, gradients, bandwidth=rule)
        torch.testing.assert_close(found, svgd_directions(particles, gradients, bandwidth=h))


@pytest.mark.parametrize(("bandwidth", "step"), [("median", 4.0), ("scaled-median", 2.0)])
def test_fifty_particles_find_a_gaussian(bandwidth, step):
    mean, std = 2.0, 1.5
    particles = torch.linspace(0, 3, 50, dtype=torch.float64)[:, None]
    for _ in range(60):
        phi = svgd_directions(particles, (particles - mean) / std**2, bandwidth=bandwidth)
        particles = particles - step * phi
    assert float(particles.mean()) == pytest.approx(mean, rel=0.05)
    assert float(particles.var()) == pytest.approx(std**2, rel=0.05)
