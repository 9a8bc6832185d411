"""Gradients and logits that are not finite: a pixel hides no other, and a success without a number is a success."""

import math

import pytest
import torch
from attacked import CLASSES, SHAPE, answered, batch, conv_net, distance, generator, linear, logits_of
from suite import ATTACKS, best_of_all, changed, every_attack, has_bf16
from torch import Tensor, nn

from robust_nas.attacks import APGD, FGSM, PGD, AutoAttack, DeepFool, Predictor
from robust_nas.attacks.checks import TOLERANCE
from robust_nas.attacks.norms import direction, unit

pytestmark = pytest.mark.usefixtures("surrogate", "few_iterations")


class _Replace(torch.autograd.Function):
    """The identity, with another gradient in the first pixel of every channel: one value, or one for each."""

    @staticmethod
    def forward(context, x: Tensor, value: float | Tensor) -> Tensor:
        context.value = value
        return x.clone()

    @staticmethod
    def backward(context, gradient: Tensor):
        gradient = gradient.clone()
        gradient[:, :, 0, 0] = context.value
        return gradient, None


class Blind(nn.Module):
    """A network whose first pixel has that gradient; torch.fx cannot trace it, a trace has gradients of its own."""

    def __init__(self, inner, value):
        super().__init__()
        self.inner, self.value = inner, value

    def forward(self, x):
        return self.inner(_Replace.apply(x, self.value)) if len(x) > 0 else self.inner(x)


@every_attack
def test_a_gradient_that_is_not_finite_in_a_pixel_counts_as_zero_there_and_nowhere_else(attack):
    images, _ = batch()
    labels = answered(conv_net(), images)
    expected = attack(Blind(conv_net(), 0.0), images, labels, generator())
    if attack.guided_by == "gradient" and attack.norm != "l1":  # whose sparse steps may leave that pixel out
        assert not torch.equal(attack(conv_net(), images, labels, generator()), expected)
    values = torch.tensor([math.nan, math.inf, -math.inf])  # one a channel
    assert torch.equal(attack(Blind(conv_net(), values), images, labels, generator()), expected)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    "make",
    [
        FGSM,
        lambda **k: PGD(steps=30, step_size=0.1, random_start=False, **k),
        lambda **k: PGD(steps=30, step_size=0.1, momentum=0.75, random_start=False, **k),
        lambda **k: APGD(steps=60, loss="margin", **k),
    ],
    ids=["fgsm", "pgd", "momentum", "apgd"],
)
def test_the_margin_falls_by_eps_times_the_dual_norm_of_the_other_pixels(make, norm):
    model, weight = linear(2, scale=0.2)
    images, labels = batch(classes=2, low=0.3, high=0.7)
    w = (weight[0] - weight[1]).view(SHAPE).clone()
    w[:, 0, 0] = 0
    sign = 1 - 2 * labels.float()
    adversarial = make(eps=0.1, norm=norm)(Blind(model, math.nan), images, labels, generator())
    fallen = -sign * ((adversarial - images) * w).sum((1, 2, 3))
    dual = w.abs().sum() if norm == "linf" else w.norm()
    assert (fallen >= 0.1 * dual * 0.999).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_deepfool_reaches_the_nearest_boundary_by_the_other_pixels(norm):
    model, weight = linear(2)
    images, _ = batch(count=16, low=0.4, high=0.6)
    labels = model(images).argmax(1)
    w = (weight[0] - weight[1]).view(SHAPE).clone()
    w[:, 0, 0] = 0
    logits = model(images)
    gap = (logits[:, 0] - logits[:, 1]).abs()
    exact = gap / (w.abs().sum() if norm == "linf" else w.norm())
    adversarial = DeepFool(norm=norm)(Blind(model, math.nan), images, labels)
    near = exact < 0.35
    assert near.any()
    assert (model(adversarial).argmax(1) != labels)[near].all()
    torch.testing.assert_close(
        distance(norm, adversarial - images)[near], 1.02 * (exact[near].double() + 1e-4), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("order", [1, 2])
def test_the_norm_of_finite_gradients_does_not_overflow_and_others_keep_their_bits(order):
    gradient = torch.randn(4, *SHAPE, generator=generator())
    plain = gradient / torch.linalg.vector_norm(gradient, ord=order, dim=(1, 2, 3), keepdim=True)
    assert torch.equal(unit(gradient, order), plain)
    torch.testing.assert_close(unit(1e37 * gradient, order), plain)
    assert torch.equal(unit(0 * gradient, order), 0 * gradient)
    assert torch.equal(direction(gradient, "l2"), unit(gradient, 2))


class OnTheGrid(nn.Module):
    """A network with logits that are not finite for pixels that no 8-bit image has: every attack meets them."""

    def __init__(self, inner, value=math.nan):
        super().__init__()
        self.inner, self.value = inner, value

    def forward(self, x):
        levels = 255 * x.detach()
        off = ((levels - levels.round()).abs() > 0.02).flatten(1).any(1)
        logits = self.inner(x)
        bad = torch.zeros_like(logits)
        bad[:, -1] = self.value
        return torch.where(off.unsqueeze(1), logits + bad, logits)


def eight_bit(count=6):
    images, _ = batch(count=count)
    return (255 * images).round() / 255


@best_of_all
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_a_success(attack, value):
    model, images = OnTheGrid(conv_net(), value), eight_bit()
    labels = answered(model, images)
    result = attack.run(model, images, labels, generator(), trace=True)
    assert result.images.isfinite().all()
    limit = attack.radius + TOLERANCE * max(1.0, attack.radius)
    assert distance(attack.norm, result.images - images).max() <= limit
    logits = logits_of(model, result.images)
    if attack.bn == "eval":
        assert (~logits.isfinite().all(1) | (logits.argmax(1) != labels)).all()
    if value != value:  # before any other wrong answer, where the loss is NaN: the evaluation sees it
        assert not logits[:-1].isfinite().all(1).any()
    if result.wrong is not None:
        assert result.wrong.any(1).any(0).all()


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "fab-t"])
def test_a_success_that_another_package_drops_is_kept(name):
    inner = conv_net()
    with torch.no_grad():
        inner[-1].bias[0] += 0.25  # the answer is class 0, as it is where the package gets logits of 0
    images, labels = eight_bit(3), torch.zeros(3, dtype=torch.long)
    assert (logits_of(inner, images).argmax(1) == 0).all()
    adversarial = AutoAttack(eps=0.1, attacks=(name,))(OnTheGrid(inner), images, labels, generator())
    assert distance("linf", adversarial - images).max() <= 0.1 + 1e-6
    assert not logits_of(OnTheGrid(inner), adversarial).isfinite().all(1).any()


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if not attack.external])
def test_an_abstaining_model_without_a_number_for_rejected_is_beaten(name, value):
    attack = ATTACKS[name]
    if not attack.returns_best or attack.bn == "batch":
        pytest.skip("the last iterate, or judged by the statistics of the batch")
    model, images = Predictor(OnTheGrid(conv_net(CLASSES + 1), value), abstains=True), eight_bit()
    labels = logits_of(model, images)[:, :-1].argmax(1)
    adversarial = attack(model, images, labels, generator())
    logits = logits_of(model, adversarial)
    wrong = (logits.argmax(1) != labels) & (logits.argmax(1) != CLASSES)
    assert (wrong | ~logits.isfinite().all(1)).all()


class Overflowing(nn.Module):
    """A network whose logits overflow in low precision alone."""

    def __init__(self):
        super().__init__()
        self.inner = conv_net()

    def forward(self, x):
        logits = self.inner(x)
        return logits.masked_fill(torch.tensor(True), torch.inf) if logits.dtype == torch.bfloat16 else logits


@best_of_all
def test_an_overflow_of_low_precision_is_no_success(attack):
    if not has_bf16(attack) or attack.bn == "batch":
        pytest.skip("in float32 alone, or judged by the statistics of the batch")
    if not attack.bounded:
        pytest.skip("it takes no eps, and makes no candidates in low precision")
    images, _ = batch()
    labels = answered(conv_net(), images)
    result = changed(attack, precision="bf16", eps=1e-6, fold=False).run(
        Overflowing(), images, labels, generator(), trace=True
    )
    if result.wrong is not None:
        assert not result.wrong[..., :-1].any()
        assert result.wrong[..., -1].all()
    assert (logits_of(conv_net(), result.images).argmax(1) != labels)[-1]
