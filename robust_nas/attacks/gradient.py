"""The gradient family: FGSM, FGSM-RS, N-FGSM, PGD and APGD are one loop.

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

Nothing here raises on a NaN loss or gradient: such an example takes no step and such an iterate is never
preferred, so the images are always finite, and the caller meets the NaN in its own loss, where it knows what
to do about it.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from robust_nas.attacks.apgd import Adaptive
from robust_nas.attacks.balls import direction, noise_in_ball, on_sphere, project
from robust_nas.attacks.candidates import Best
from robust_nas.attacks.draws import whole_batch
from robust_nas.attacks.losses import bound, likeliest_wrong
from robust_nas.attacks.options import APGD, FGSMRS, NFGSM, PGD, GradientAttack, Norm
from robust_nas.attacks.target import Target

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
            length = torch.linalg.vector_norm(gradient, ord=1, dim=(1, 2, 3), keepdim=True)
            unit = (gradient / length.clamp_min(torch.finfo(gradient.dtype).tiny)).nan_to_num_(0.0)
            self.velocity = unit if self.velocity is None else self.momentum * self.velocity + unit
            gradient = self.velocity
        x = x + self.step_size * direction(gradient, self.norm)
        return project(x, self.images, self.radius, self.norm)


def search(options: GradientAttack, target: Target) -> Tensor:
    """The candidates `[B, C, H, W]` that the attack keeps."""
    plan = _plan(options)
    images, labels = target.images, target.labels
    keep_best = options.keep == "best"
    targeted = plan.loss.endswith("-targeted")
    clean = None
    if plan.loss == "kl" or targeted or (keep_best and (plan.start != "clean" or target.lower)):
        clean = target.logits(images)
    classes: list[Tensor | None] = [None]
    if targeted and clean is not None:
        classes = list(likeliest_wrong(clean, labels, plan.targets or min(TARGETS, clean.shape[1] - 1)))
    best = Best(images, labels)
    x = images
    for aim in classes:
        loss = bound(plan.loss, labels, clean=clean, targets=aim)
        if clean is not None and keep_best:
            best.offer(images, clean, loss(clean))
        for _ in range(plan.restarts):
            x = _start(plan, options.norm, target)
            rule = plan.rule(images)
            if target.trace:
                target.trace.begin()
            for _ in range(plan.steps):
                logits, values, gradient = target.gradient(x, loss)
                if keep_best:
                    best.offer(x, logits, values)
                if target.trace:
                    target.trace.add(values, logits.argmax(1) != labels)
                x = rule(x, gradient, values)
            if keep_best or plan.restarts * len(classes) > 1 or target.trace:
                logits = target.logits(x, search=True)
                values = loss(logits)
                best.offer(x, logits, values)
                if target.trace:
                    target.trace.add(values, logits.argmax(1) != labels)
    if not (keep_best or plan.restarts * len(classes) > 1):
        return x
    return target.no_worse(best.images, clean) if keep_best and clean is not None else best.images


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What makes one attack of the family differ from another."""

    steps: int
    rule: Callable[[Tensor], Rule]
    radius: float | None  # of the ball that iterates are projected on; None: the box alone
    start: Literal["clean", "uniform", "normal", "sphere"]
    start_radius: float = 0.0
    loss: str = "ce"
    targets: int | None = 1
    restarts: int = 1


def _plan(options: GradientAttack) -> _Plan:
    eps, norm = options.eps, options.norm
    radius = None if isinstance(options, NFGSM) else eps
    momentum = options.momentum if isinstance(options, PGD) else 0.0

    def fixed(images: Tensor) -> Rule:
        return FixedStep(images, options.step, radius, norm, momentum)

    if isinstance(options, APGD):
        return _Plan(
            steps=options.steps,
            rule=lambda images: Adaptive(images, eps, norm, options.steps, options.rho),
            radius=radius,
            start="sphere",
            start_radius=eps,
            loss=options.loss,
            targets=options.targets,
            restarts=options.restarts,
        )
    if isinstance(options, PGD):
        random: Literal["normal", "uniform"] = "normal" if options.loss == "kl" else "uniform"
        return _Plan(
            steps=options.steps,
            rule=fixed,
            radius=radius,
            start=random if options.random_start else "clean",
            start_radius=KL_START if options.loss == "kl" else eps,
            loss=options.loss,
            targets=options.targets or 1,
            restarts=options.restarts,
        )
    if isinstance(options, NFGSM):
        return _Plan(steps=1, rule=fixed, radius=radius, start="uniform", start_radius=options.noise * eps)
    if isinstance(options, FGSMRS):
        return _Plan(steps=1, rule=fixed, radius=radius, start="uniform", start_radius=eps)
    return _Plan(steps=1, rule=fixed, radius=radius, start="clean")


def _start(plan: _Plan, norm: Norm, target: Target) -> Tensor:
    """A fresh tensor `[B, C, H, W]` to start from, in the ball and in the box."""
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
