"""AdvRush-style: the curvature term against its definition and finite differences, and what the alphas descend when."""

import pytest
import torch
import torch.nn.functional as F
from dsara_steps import alpha_gradient, alpha_step, changed, direct, draw, make, relative, snapshot

from robust_nas.errors import ConfigError
from robust_nas.search import AdvRush
from robust_nas.search.advrush import curvature


def two_stages(**options):
    """AdvRush with one epoch of either stage."""
    return AdvRush(**{"epochs": 2, "stage1_epochs": 1, **options})


def by_definition(supernet, images, labels, h):
    """The term, an image after the other, in eval mode."""
    supernet.eval()
    total = 0.0
    for x, y in zip(images.split(1), labels.split(1), strict=True):

        def gradient(x, y=y):
            x = x.clone().requires_grad_()
            return torch.autograd.grad(F.cross_entropy(supernet(x), y), x)[0]

        before = gradient(x)
        z = before.sign() / before.sign().norm()
        total += float((gradient(x + h * z) - before).norm() ** 2)
    return total / len(images)


@pytest.mark.parametrize("execution", ["fused", "plain"])
def test_the_term_is_its_definition(execution):
    search = make(strategy=two_stages, execution=execution)
    v = draw(1)
    term, _ = curvature(search, v, 0.7)
    assert float(term) == pytest.approx(by_definition(search.supernet, v.natural, v.labels, 0.7), rel=1e-9)
    assert float(term) > 0


@pytest.mark.usefixtures("smooth")
def test_its_gradient_is_that_of_finite_differences():
    search = make(strategy=two_stages)
    v, r, draws = draw(1), 1e-5, torch.Generator().manual_seed(5)
    alphas = [alpha.detach() for alpha in search.alphas.values()]
    starts = [alpha.clone() for alpha in alphas]
    _, gradient = curvature(search, v, 0.7)
    along, differences = [], []
    for _ in range(4):  # random directions, of every entry
        direction = [torch.randn(alpha.shape, dtype=alpha.dtype, generator=draws) for alpha in alphas]
        both = []
        for sign in (1, -1):
            for alpha, start, way in zip(alphas, starts, direction, strict=True):
                alpha.copy_(start + sign * r * way)
            both.append(curvature(search, v, 0.7)[0])
        along.append(gradient @ torch.cat([way.flatten() for way in direction]))
        differences.append((both[0] - both[1]) / (2 * r))
    assert relative(torch.stack(along), torch.stack(differences)) < 1e-6
    assert gradient.norm() > 1e-8


def test_both_executions_have_one_gradient_with_relu():
    fused, plain = (
        curvature(make(strategy=two_stages, execution=name), draw(1), 0.7)[1] for name in ("fused", "plain")
    )
    torch.testing.assert_close(fused, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("images", ["adversarial", "natural"])
def test_the_alphas_descend_the_loss_and_then_the_weighted_curvature_too(images):
    search = make(strategy=two_stages, images=images, curvature_weight=0.3, h=0.7)
    v = draw(1)
    loss, gradient = direct(search, getattr(v, images), v.labels)
    first = alpha_gradient(search, 1, v, draw(2))
    torch.testing.assert_close(first.gradient, gradient)
    torch.testing.assert_close(first.measured[f"loss_{images}"], loss)
    torch.testing.assert_close(first.measured["loss_adversarial"], direct(search, v.adversarial, v.labels)[0])
    assert "curvature" not in first.measured
    term, of_term = curvature(search, v, 0.7)
    second = alpha_gradient(search, 2, v, draw(2))
    torch.testing.assert_close(second.gradient, gradient + 0.3 * of_term)
    torch.testing.assert_close(second.measured["curvature"], term)
    torch.testing.assert_close(second.measured["norm_curvature"], 0.3 * of_term.norm())


def test_h_rises_in_equal_steps_from_the_end_of_stage_one():
    strategy = AdvRush()
    assert [strategy.stage(epoch) for epoch in (0, 49, 50, 59)] == [1, 1, 2, 2]
    assert [strategy.step_of(epoch) for epoch in (50, 54, 59)] == pytest.approx([0.15, 0.75, 1.5])


@pytest.mark.parametrize("images", ["adversarial", "natural"])
def test_an_alpha_step_moves_the_alphas_alone(images):
    search = make(strategy=two_stages, images=images)
    search.supernet.train()
    before, generator = snapshot(search.supernet), torch.get_rng_state()
    alpha_step(search, 2, draw(1), draw(2))
    assert changed(before, search.supernet) == {f"alphas.{kind}" for kind in search.alphas}
    assert all(module.training for module in search.supernet.modules())
    assert all(p.requires_grad and p.grad is None for p in search.supernet.parameters())
    assert torch.equal(torch.get_rng_state(), generator)


def test_an_image_without_a_gradient_has_no_curvature():
    search = make(strategy=two_stages)
    with torch.no_grad():
        search.supernet.classifier.weight.zero_()
    term, gradient = curvature(search, draw(1), 0.7)
    assert float(term) == 0
    assert float(gradient.norm()) == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"precision": "bf16"}, "precision: got 'bf16'; allowed: float32"),
        (
            {"epochs": 5, "stage1_epochs": 6},
            "stage1_epochs is 6, more than the 5 epochs; set it to 5 or less",
        ),
        ({"h": 0}, "h: got 0"),
    ],
)
def test_what_does_not_fit_is_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        AdvRush(**options)
