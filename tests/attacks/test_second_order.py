"""The second-order attack: its solvers in closed form on quadratics, and its identities with PGD on networks."""

from itertools import pairwise

import pytest
import torch
from attacked import answered, batch, conv_net, generator, linear, logits_of
from cases import small_space
from torch import nn

from robust_nas.attacks import PGD, SecondOrder
from robust_nas.attacks.engine import opened
from robust_nas.attacks.losses import bound
from robust_nas.attacks.second_order import krylov, on_sphere, solve
from robust_nas.errors import AttackError, ConfigError
from robust_nas.nets import Supernet

D = 40
EXACT = 1e-15


def quadratic(seed=0, count=3, size=D):
    """Random g `[B, D]` and indefinite H `[B, D, D]`, and the value of the model."""
    draws = generator(seed)
    g = torch.randn(count, size, dtype=torch.float64, generator=draws)
    half = torch.randn(count, size, size, dtype=torch.float64, generator=draws) / size**0.5
    h = (half + half.mT) / 2

    def value(d):
        return (g * d).sum(1) + (d * torch.einsum("bij,bj->bi", h, d)).sum(1) / 2

    return g, h, value


def direction(solver, g, h, m, radius=1.0):
    basis, images = krylov(lambda v: torch.einsum("bij,bj->bi", h, v), g, m, EXACT)
    return solve(solver, basis, images, g, radius)


def test_the_basis_is_orthonormal_and_ends_where_the_subspace_does():
    g, h, _ = quadratic()
    h[1] = torch.eye(D) * 2  # Hg is along g
    g[2] = 0
    basis, images = krylov(lambda v: torch.einsum("bij,bj->bi", h, v), g, 6, EXACT)
    gram = basis @ basis.mT
    torch.testing.assert_close(gram[0], torch.eye(7, dtype=torch.float64), atol=1e-13, rtol=0)
    for row, length in ((1, 1), (2, 0)):
        assert torch.equal(
            gram[row].diagonal().round(), torch.tensor([1.0] * length + [0.0] * (7 - length)).double()
        )
    torch.testing.assert_close(images[0], basis[0, :6] @ h[0])


def test_the_trust_region_rises_with_m_from_the_gradient_step_to_the_exact_maximum():
    g, h, value = quadratic()
    first = value(g / g.norm(dim=1, keepdim=True))
    found = [value(direction("trust-region", g, h, m)) for m in (1, 2, 4, 8, 16, D)]
    torch.testing.assert_close(found[0], first)
    for less, more in pairwise(found):
        assert (more >= less - 1e-12).all()
    assert (found[2] > first + 1e-3).all()
    w, v = torch.linalg.eigh(h)
    exact = torch.einsum("bij,bj->bi", v, on_sphere(w, torch.einsum("bji,bj->bi", v, g), 1.0))
    torch.testing.assert_close(exact.norm(dim=1), torch.ones(3, dtype=torch.float64))
    # the conditions of the maximum: (lam - H) d = g with lam - H positive semidefinite
    lam = (exact * (g + torch.einsum("bij,bj->bi", h, exact))).sum(1)
    torch.testing.assert_close(lam.unsqueeze(1) * exact - torch.einsum("bij,bj->bi", h, exact), g)
    assert (lam >= w[:, -1]).all()
    torch.testing.assert_close(found[-1], value(exact))


@pytest.mark.parametrize("c", [(1.0, 0.0), (1e-9, 0.0), (1.0, -1e-14)])
def test_the_hard_case_has_the_length_of_the_radius(c):
    w, c = torch.tensor([[0.0, 5.0]], dtype=torch.float64), torch.tensor([c], dtype=torch.float64)
    z = on_sphere(w, c, 2.0)
    assert float(z.norm()) == pytest.approx(2.0)
    angles = torch.linspace(0, 6.2832, 20_001, dtype=torch.float64).unsqueeze(1)
    candidates = 2 * torch.cat([angles.cos(), angles.sin()], 1)
    best = ((c * candidates).sum(1) + (w * candidates**2).sum(1) / 2).max()
    assert float((c * z).sum() + (w * z**2).sum() / 2) >= float(best) - 1e-6


@pytest.mark.parametrize("solver", ["trust-region", "gmres", "saddle-free"])
def test_without_curvature_or_with_one_vector_every_direction_is_the_gradient(solver):
    g, h, _ = quadratic()
    for curvature, m in ((0 * h, 4), (h, 1), (torch.eye(D).double() - 2 * h * 0, 3)):
        found = direction(solver, g, curvature, m)
        torch.testing.assert_close(*(d / d.norm(dim=1, keepdim=True) for d in (found, g)))
    assert torch.equal(direction(solver, 0 * g, h, 3), 0 * g)


def test_gmres_is_the_newton_step_of_the_whole_space_turned_to_ascend():
    g, h, _ = quadratic()
    newton = -torch.linalg.solve(h, g)
    turned = torch.where((newton * g).sum(1, keepdim=True) < 0, -newton, newton)
    torch.testing.assert_close(direction("gmres", g, h, D), turned, rtol=1e-6, atol=1e-8)


def test_the_newton_step_of_a_softmax_on_linear_logits_descends_unless_it_is_turned():
    """H = W'(diag p - pp')W is positive semidefinite: the trap of the sign."""
    model, weight = linear(5)
    images, labels = batch()
    x = images.double()
    p = model.double()(x).softmax(1).detach()
    w = weight.double()
    g = (p - torch.eye(5).double()[labels]) @ w
    h = w.T @ (torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)) @ w
    newton = -torch.einsum("bij,bj->bi", torch.linalg.pinv(h, rtol=1e-9), g)
    assert ((newton * g).sum(1) < 0).all()
    found = direction("gmres", g, h, 4)
    torch.testing.assert_close(found, -newton, rtol=1e-5, atol=1e-7)


def attacked(model, images, labels, **options):
    return opened(SecondOrder(eps=0.1, **options), model, images, labels, generator())


def piecewise(classes):
    with torch.random.fork_rng():
        torch.manual_seed(classes)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(192, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, classes)
        ).double()


@pytest.mark.parametrize("classes", [3, 6])
def test_krylov_is_exact_at_one_less_than_the_classes_of_a_piecewise_linear_network(classes):
    model = piecewise(classes)
    images, labels = batch(classes=classes)
    with attacked(model, images.double(), labels) as target:
        _, _, gradient, product = target.curvature(
            target.images, bound("ce", labels, clean=None, targets=None)
        )
        g = gradient.flatten(1)
        residuals = []
        for m in (classes - 2, classes - 1, classes + 1):
            basis, found = krylov(lambda v: product(v.view_as(images)).flatten(1), g, m, EXACT)
            extended = torch.einsum("bid,bjd->bij", basis, found)
            start = torch.einsum("bid,bd->bi", basis, g).unsqueeze(2)
            z = -torch.linalg.pinv(extended) @ start
            residuals.append(float(((found.mT @ z).squeeze(2) + g).norm(dim=1).max() / g.norm(dim=1).max()))
    assert residuals[0] > 1e-6
    assert residuals[1] < 1e-12
    assert residuals[2] < 1e-9


def softplus():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Softplus(), nn.Flatten(), nn.Linear(144, 5)
        ).double()


def test_the_product_with_the_hessian_is_symmetric_and_the_difference_of_gradients():
    model = softplus()
    images, labels = batch(count=4)
    images = images.double()
    loss = bound("ce", labels, clean=None, targets=None)
    u, v = (torch.randn(images.shape, dtype=torch.float64, generator=generator(s)) for s in (1, 2))
    with attacked(model, images, labels) as target:
        assert target.model_form == "folded"
        *_, product = target.curvature(target.images, loss)
        hu, hv = product(u), product(v)
        torch.testing.assert_close((u * hv).flatten(1).sum(1), (v * hu).flatten(1).sum(1))
        step = 1e-5
        ahead, behind = (target.gradient(target.images + s * v, loss)[2] for s in (step, -step))
        torch.testing.assert_close(hv, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("options", [{}, {"restarts": 2, "loss": "kl"}, {"keep": "last", "momentum": 0.5}])
def test_one_krylov_vector_is_pgd_to_the_bit(norm, options):
    model = conv_net()
    images, _ = batch()
    labels = answered(model, images)
    common = {"eps": 0.5 if norm == "l2" else 0.05, "norm": norm, "steps": 4, **options}
    one, other = (
        attack(model, images, labels, generator())
        for attack in (SecondOrder(krylov=1, **common), PGD(**common))
    )
    assert torch.equal(one, other)


@pytest.mark.parametrize("eps", [0.5, 1.0, 2.0])
def test_a_step_in_the_trust_region_finds_a_higher_loss_than_a_gradient_step_where_the_loss_is_curved(eps):
    model = softplus()
    for layer in (0, 4):
        model[layer].weight.data.mul_(6)
    images, _ = batch(count=64, low=0.3, high=0.7)
    images = images.double()
    labels = logits_of(model, images).argmax(1)
    common = {"eps": eps, "norm": "l2", "steps": 1, "step_size": eps, "random_start": False, "keep": "last"}
    first, *second = (
        float(nn.functional.cross_entropy(logits_of(model, attack(model, images, labels)), labels))
        for attack in (PGD(**common), *(SecondOrder(krylov=m, **common) for m in (2, 8)))
    )
    assert second[1] > second[0] > 1.01 * first


def test_the_cost_is_that_which_is_counted():
    attack = SecondOrder(eps=0.1, steps=3, krylov=2, random_start=False)
    images, labels = batch()
    result = attack.run(conv_net(), images, labels, generator())
    assert result.backwards == len(images) * 3 * (1 + 2 * 2)
    assert attack.passes.backward == 15
    assert attack.crafting_passes == 3 * (2 + 2 * 2)
    assert (
        SecondOrder(eps=0.1, steps=3, krylov=1).crafting_passes == PGD(eps=0.1, steps=3).crafting_passes == 6
    )


def test_a_supernet_is_attacked_as_it_is_since_its_folded_copy_has_no_second_derivative():
    net = Supernet(small_space(), 4, 1, channels=2, cells=3, seed=1)
    images = torch.rand(2, 1, 8, 8, generator=generator())
    attack = SecondOrder(eps=0.1, steps=1, krylov=2)
    result = attack.run(net, images, torch.tensor([0, 1]), generator())
    assert result.model_form == "as it is: its own folded copy has no second derivative"
    assert (result.images != images).any()


class Once(torch.autograd.Function):
    """The identity, with a backward pass that is not to be differentiated."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        if torch.is_grad_enabled():
            raise RuntimeError("this layer has no second derivative")
        return gradient


class OnceNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = conv_net()

    def forward(self, x):
        return self.inner(Once.apply(x))


def test_a_network_without_second_derivatives_is_refused():
    images, labels = batch()
    with pytest.raises(
        AttackError, match=r"cannot be differentiated twice \(this layer has no second.*such as pgd"
    ):
        SecondOrder(eps=0.1, fold=False)(OnceNet(), images, labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf16"}, "precision: got 'bf16'; allowed: float32"),
        ({"bn": "batch"}, "bn: got 'batch'"),
        ({"krylov": 0}, "krylov: got 0"),
        ({"solver": "newton"}, "solver: got 'newton'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SecondOrder(eps=0.1, **options)


def test_labels():
    assert SecondOrder(eps=0.1).label == "second-order-5-k4"
    assert SecondOrder(eps=0.1, restarts=2, loss="kl", solver="gmres").label == "second-order-5x2-k4-gmres-kl"
