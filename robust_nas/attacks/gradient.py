"""The gradient family is one loop: an attack of it says by its `Plan` where it starts, how it steps and what it raises.

    x_0     = start(x)                                        x, or a random point around it
    x_{t+1} = P(x_t + step_size * d(grad_x loss(f(x_t), y)))  t = 0 .. steps - 1
    d(g)    = sign(g)       (Linf)      g / ||g||_2  (L2)
    P       = the projection onto the ball of radius eps around x, then onto the box 0..1

With momentum mu (MI-FGSM), d is taken of m_t = mu m_{t-1} + g_t / ||g_t||_1; the rule of APGD is in `apgd.py`.
The losses are in `losses.py`. One run per restart, and per target class of a targeted loss.

Sources: FGSM, Goodfellow et al. 2015; PGD, Madry et al. 2018 (uniform start in the ball); FGSM-RS, Wong et
al. 2020; N-FGSM, de Jorge et al. 2022 (start within k eps, no projection on the ball); MI-FGSM, Dong et al. 2018;
KL, TRADES, Zhang et al. 2019: its gradient is exactly zero at x, hence the start x + 0.001 N(0, 1).

With `keep="best"` the result is, per example, the best of all iterates of all runs, of their starts, and
of x itself: a misclassified one before a correctly classified one, then the one of higher loss. More steps
(of a fixed size) or more restarts extend the sequence of candidates, so they never make the result worse by
this order. Gradients in bf16 rank candidates in bf16; the one that is returned and x itself are compared in float32.

Nothing here raises on a NaN loss or gradient. An entry of a gradient that is NaN or infinite counts as zero, in every
norm, so the images are always finite. An iterate whose logits are not finite is misclassified, as the evaluation judges
it, and kept before all others: the caller meets the NaN in its own logits or loss, where it knows what to do about it.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from robust_nas.attacks.attack import BoundedAttack, Passes
from robust_nas.attacks.best_iterate import BestIterate, misclassified
from robust_nas.attacks.losses import LEAST_CLASSES, TARGETED, Loss, bound, likeliest_wrong
from robust_nas.attacks.norms import Norm, direction, noise_in_ball, on_sphere, project, unit
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.attacks.attacked_model import AttackedModel

KL_START = 0.001  # standard deviation of the start's noise, TRADES's own code
TARGETS = 9  # of APGD-T in AutoAttack


class Rule(Protocol):
    """From an iterate, its gradient and its loss to the next iterate, before the next evaluation."""

    def __call__(self, x: Tensor, gradient: Tensor, loss: Tensor) -> Tensor:
        """`[B, C, H, W]`, in the ball and the box."""


class FixedStep:
    """Steps of one length, with or without momentum."""

    def __init__(
        self, images: Tensor, step_size: float, radius: float | None, norm: Norm, momentum: float
    ) -> None:
        self.images, self.step_size, self.radius, self.norm = images, step_size, radius, norm
        self.momentum = momentum
        self.velocity: Tensor | None = None

    def __call__(self, x: Tensor, gradient: Tensor, loss: Tensor) -> Tensor:
        """The next iterate."""
        if self.momentum:
            step = unit(gradient, 1)
            self.velocity = step if self.velocity is None else self.momentum * self.velocity + step
            gradient = self.velocity
        x = x + self.step_size * direction(gradient, self.norm)
        return project(x, self.images, self.radius, self.norm)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What makes one attack of the family differ from another."""

    steps: int
    rule: Callable[[Tensor], Rule]
    radius: float | None  # of the ball that the start is projected on; None: the box alone
    start: Literal["clean", "uniform", "normal", "sphere"]
    start_radius: float = 0.0
    outside: int = 0  # the first iterates, which may lie outside the ball of eps and are no candidates
    loss: str = "ce"
    targets: int | None = 1
    restarts: int = 1


class GradientAttack(BoundedAttack):
    """Base of the gradient family: a subclass says by `plan` in what it differs from the others."""

    keep: Literal["best", "last"] = "best"  # best iterate of every example, or the last one

    @property
    def step(self) -> float:
        """Return the step size that is used (the first one, where it changes)."""
        return self.eps

    def plan(self) -> Plan:
        """Return start, rule, loss and length of the runs."""
        raise NotImplementedError(f"{type(self).__name__} has no plan")

    def fixed_step(self, radius: float | None, momentum: float = 0.0) -> Callable[[Tensor], Rule]:
        """Return the rule of steps of one length around images."""
        return lambda images: FixedStep(images, self.step, radius, self.norm, momentum)

    @property
    def objective(self) -> str:
        """Return the name of the loss that is raised."""
        return self.plan().loss

    @property
    def targeted(self) -> bool:
        """Return whether the loss leads to a class instead of away from the label."""
        return self.objective in TARGETED

    @property
    def returns_best(self) -> bool:
        """Return whether the best iterate is kept, or the last one."""
        return self.keep == "best"

    def settings(self, classes: int) -> dict[str, Any]:
        """Return the step size that is used (the first one, where it changes)."""
        return {"step_size": self.step}

    @property
    def least_classes(self) -> int:
        """Return the number of classes below which the loss, or that many target classes, are not defined."""
        plan = self.plan()
        return max(LEAST_CLASSES.get(plan.loss, 2), (plan.targets or 1) + 1)

    @property
    def effort(self) -> str:
        """Return steps and starts."""
        plan = self.plan()
        return f"{plan.steps} steps from {plan.restarts} starts"

    @property
    def passes(self) -> Passes:
        """Return the passes of all runs, with those of the image itself and of the last iterates."""
        plan = self.plan()
        runs = plan.restarts * (plan.targets or TARGETS)
        return Passes(runs * (plan.steps + 1) + 1, runs * plan.steps)

    def ascent(self, model: AttackedModel, x: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits `[B, K]`, losses `[B]` and the directions in which images are moved: the gradients."""
        return model.gradient(x, loss)

    def perturb(self, model: AttackedModel) -> Tensor:
        """Return the candidates that the attack keeps."""
        return climb(self, model)


def climb(options: GradientAttack, target: AttackedModel, towards: Tensor | None = None) -> Tensor:
    """Return the candidates `[B, C, H, W]` that the attack keeps.

    `towards` `[B]` are the classes that a targeted loss leads to; None: the likeliest wrong ones.
    """
    plan = options.plan()
    images, labels = target.images, target.labels
    keep_best = options.keep == "best"
    targeted = plan.loss in TARGETED
    clean = None
    if plan.loss == "kl" or targeted or (keep_best and (plan.start != "clean" or target.low_precision)):
        clean = target.logits(images)
    classes: list[Tensor | None] = [None]
    if towards is not None:
        classes = [towards]
    elif targeted and clean is not None:
        classes = list(likeliest_wrong(clean, labels, plan.targets or min(TARGETS, clean.shape[1] - 1)))
    best = BestIterate(images, labels)
    x = images
    for aim in classes:
        loss = bound(plan.loss, labels, clean=clean, targets=aim)
        if clean is not None and keep_best:
            best.update(images, clean, loss(clean))
        for _ in range(plan.restarts):
            x = _start(plan, options.norm, target)
            rule = plan.rule(images)
            if target.trace:
                target.trace.begin()
            for step in range(plan.steps):
                logits, values, gradient = options.ascent(target, x, loss)
                candidate = step >= plan.outside
                if keep_best and candidate:
                    logits, values = target.without_overflow(x, logits, values, loss)
                    best.update(x, logits, values)
                if target.trace and candidate:
                    target.trace.add(values, misclassified(logits, labels))
                x = rule(x, gradient, values)
            if keep_best or plan.restarts * len(classes) > 1 or target.trace:
                logits = target.candidate_logits(x)
                logits, values = target.without_overflow(x, logits, loss(logits), loss)
                best.update(x, logits, values)
                if target.trace:
                    target.trace.add(values, misclassified(logits, labels))
    if not (keep_best or plan.restarts * len(classes) > 1):
        return x
    return target.no_worse(best.images, clean) if keep_best and clean is not None else best.images


def _start(plan: Plan, norm: Norm, target: AttackedModel) -> Tensor:
    """A fresh tensor `[B, C, H, W]` to start from, in the ball and in the box."""
    from robust_nas.attacks.batch_generator import whole_batch  # a torch class: not for who reads options

    images, generator = target.images, target.generator
    if plan.start == "clean":
        return images.clone()

    # Drawn in the shape's own order, so that the memory format of the images does not change the draw.
    batch, rows = whole_batch(images, generator)
    if plan.start == "normal":
        noise = torch.empty(batch.shape, dtype=batch.dtype, device=batch.device)
        noise.normal_(0, plan.start_radius, generator=generator)
    elif plan.start == "sphere":
        noise = on_sphere(batch, plan.start_radius, norm, generator)
    else:
        noise = noise_in_ball(batch, plan.start_radius, norm, generator)
    return project(images + noise[rows], images, plan.radius, norm)
