"""The gradient family: FGSM, FGSM-RS, N-FGSM and PGD are one loop.

    x_0     = start(x)                                        x, or a random point around it
    x_{t+1} = P(x_t + step_size * d(grad_x loss(f(x_t), y)))  t = 0 .. steps - 1
    d(g)    = sign(g)       (Linf)      g / ||g||_2  (L2)
    P       = the projection onto the ball of radius eps around x, then onto the box 0..1
    loss    = cross-entropy, or KL(p(x) || p(x_t))

Sources: FGSM, Goodfellow et al. 2015; PGD, Madry et al. 2018 (uniform start in the ball); FGSM-RS, Wong et
al. 2020; N-FGSM, de Jorge et al. 2022 (start within k eps, no projection on the ball); KL, TRADES, Zhang et
al. 2019: its gradient is exactly zero at x, hence the start x + 0.001 N(0, 1).

With `keep="best"` the result is, per example, the best of all iterates of all restarts, of their starts, and
of x itself: a misclassified one before a correctly classified one, then the one of higher loss. More steps
(of a fixed size) or more restarts extend the sequence of candidates, so they never make the result worse by
this order.

Nothing here raises on a NaN loss or gradient: such an example takes no step and such an iterate is never
preferred, so the images are always finite, and the caller meets the NaN in its own loss, where it knows what
to do about it.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from robust_nas.attacks.inputs import check_inputs, logits_of, own_generator
from robust_nas.attacks.mode import attack_mode
from robust_nas.attacks.options import FGSMRS, NFGSM, PGD, GradientAttack, Norm
from robust_nas.errors import AttackError

KL_START = 0.001  # standard deviation of the start's noise, TRADES's own code


def attack(
    options: GradientAttack,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: Generator | None = None,
) -> Tensor:
    """Adversarial images `[B, C, H, W]`, detached, in the images' dtype and memory format.

    The model comes back as it was: modes, `requires_grad`, buffers and gradients. The caller may be inside
    `no_grad` or `inference_mode`. Raises `AttackError` for inputs that cannot be attacked.
    """
    plan = _plan(options)
    with torch.inference_mode(mode=False), torch.enable_grad(), attack_mode(model, options.bn):
        # Clones, because a tensor made under inference_mode cannot be saved for the backward pass.
        images, labels = images.detach().clone(), labels.clone()
        last_label = check_inputs(images, labels)
        generator = own_generator(generator, images)
        best = _Best(images, labels)
        clean = None
        if plan.loss == "kl" or (options.keep == "best" and plan.start != "clean"):
            with torch.no_grad():
                clean = logits_of(model, images, last_label)
        if clean is not None and options.keep == "best":
            best.offer(images, clean, _loss(plan, clean, labels, clean))
        x = images
        for _ in range(plan.restarts):
            x = _start(plan, options, images, generator)
            for _ in range(plan.steps):
                x.requires_grad_()
                logits = logits_of(model, x, last_label)
                loss = _loss(plan, logits, labels, clean)
                (gradient,) = torch.autograd.grad(loss.sum(), x)
                x = x.detach()
                if options.keep == "best":
                    best.offer(x, logits.detach(), loss.detach())
                x = x + plan.step_size * _direction(gradient, options.norm)
                x = _project(x, images, plan.radius, options.norm)
            if options.keep == "best" or plan.restarts > 1:
                with torch.no_grad():
                    logits = logits_of(model, x, last_label)
                    best.offer(x, logits, _loss(plan, logits, labels, clean))
                x = best.images
        return torch.empty_like(images).copy_(x)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What makes one attack of the family differ from another."""

    steps: int
    step_size: float
    radius: float | None  # of the ball that iterates are projected on; None: the box alone
    start: Literal["clean", "uniform", "normal"]
    start_radius: float = 0.0
    loss: Literal["ce", "kl"] = "ce"
    restarts: int = 1


def _plan(options: GradientAttack) -> _Plan:
    eps, step_size = options.eps, options.step
    if isinstance(options, PGD):
        random: Literal["normal", "uniform"] = "normal" if options.loss == "kl" else "uniform"
        return _Plan(
            steps=options.steps,
            step_size=step_size,
            radius=eps,
            start=random if options.random_start else "clean",
            start_radius=KL_START if options.loss == "kl" else eps,
            loss=options.loss,
            restarts=options.restarts,
        )
    if isinstance(options, NFGSM):
        return _Plan(
            steps=1, step_size=step_size, radius=None, start="uniform", start_radius=options.noise * eps
        )
    if isinstance(options, FGSMRS):
        return _Plan(steps=1, step_size=step_size, radius=eps, start="uniform", start_radius=eps)
    return _Plan(steps=1, step_size=step_size, radius=eps, start="clean")


def _loss(plan: _Plan, logits: Tensor, labels: Tensor, clean: Tensor | None) -> Tensor:
    """The loss of each example, `[B]`; `clean` holds the logits `[B, K]` of the images for the KL."""
    if plan.loss == "ce":
        return F.cross_entropy(logits, labels, reduction="none")
    if clean is None:
        raise AttackError("the KL loss needs the logits of the clean images")
    log_p, log_q = clean.log_softmax(1), logits.log_softmax(1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)


def _start(plan: _Plan, options: GradientAttack, images: Tensor, generator: Generator) -> Tensor:
    """A fresh tensor `[B, C, H, W]` to start from, in the ball and in the box."""
    if plan.start == "clean":
        return images.clone()
    # Drawn in the shape's own order, so that the memory format of the images does not change the draw.
    noise = torch.empty(images.shape, dtype=images.dtype, device=images.device)
    if plan.start == "normal":
        noise.normal_(0, plan.start_radius, generator=generator)
    elif options.norm == "linf":
        noise.uniform_(-plan.start_radius, plan.start_radius, generator=generator)
    else:
        # Uniform in the ball: a uniform direction, and a radius whose d-th power is uniform.
        noise = _direction(noise.normal_(generator=generator), "l2")
        share = torch.rand(images.shape[0], dtype=images.dtype, device=images.device, generator=generator)
        noise *= plan.start_radius * share.pow(1 / images[0].numel()).view(-1, 1, 1, 1)
    return _project(images + noise, images, plan.radius, options.norm)


def _direction(gradient: Tensor, norm: Norm) -> Tensor:
    """The steepest ascent direction of unit length in the norm; zero where the gradient is zero or NaN."""
    if norm == "linf":
        return gradient.sign()  # torch's sign of NaN is 0
    length = _l2(gradient).clamp_min(torch.finfo(gradient.dtype).tiny)
    return (gradient / length).nan_to_num_(0.0)


def _project(x: Tensor, images: Tensor, radius: float | None, norm: Norm) -> Tensor:
    if radius is not None and norm == "linf":
        x = x.clamp(images - radius, images + radius)
    elif radius is not None:
        delta = x - images
        length = _l2(delta).clamp_min(torch.finfo(delta.dtype).tiny)
        x = images + delta * (radius / length).clamp_max(1)
    return x.clamp(0, 1)  # only shortens the perturbation, because the image itself is in the box


def _l2(tensor: Tensor) -> Tensor:
    """The L2 norm of each example, `[B, 1, 1, 1]`."""
    length: Tensor = torch.linalg.vector_norm(tensor, dim=(1, 2, 3), keepdim=True)
    return length


class _Best:
    """The best candidate of each example so far: misclassified first, then by loss."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels
        self.loss: Tensor | None = None  # [B]
        self.wrong: Tensor | None = None  # [B]

    def offer(self, x: Tensor, logits: Tensor, loss: Tensor) -> None:
        valid = ~loss.isnan()
        wrong = (logits.argmax(1) != self.labels) & valid
        loss = loss.masked_fill(~valid, -torch.inf)
        if self.loss is None or self.wrong is None:
            self.images, self.loss, self.wrong = x, loss, wrong
            return
        better = (wrong & ~self.wrong) | ((wrong == self.wrong) & (loss > self.loss))
        self.images = torch.where(better.view(-1, 1, 1, 1), x, self.images)
        self.loss = torch.where(better, loss, self.loss)
        self.wrong = self.wrong | wrong
