"""DeepFool: to the nearest boundary of the linearised model, until it is crossed (Moosavi-Dezfooli et al., 2016).

    g_k     = z_k - z_y,  w_k = grad_x g_k                      for the classes k likeliest at x
    l       = argmin_k |g_k| / ||w_k||_q                        q = 2 (L2), q = 1 (Linf)
    r       = r + (|g_l| / ||w_l||_q + 0.0001) d(w_l)           d(w) = w / ||w||_2 (L2), sign(w) (Linf)
    x'      = P(x + (1 + overshoot) r)                          P: onto the box 0..1

The 0.0001 is the authors' (in their code): it steps over a boundary that x' lies on. An image that is misclassified
is kept as it is. With eps, the last x' of each example is projected onto the ball and judged again.

B batch, N examples that still take steps, C channels, H height, W width, K classes, J candidates but the label.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from robust_nas.attacks.attack import MinimalAttack, Passes
from robust_nas.attacks.losses import likeliest_wrong
from robust_nas.attacks.minimal import distance, nearest, within_eps
from robust_nas.attacks.norms import Norm, direction
from robust_nas.config import Count, NonNegative
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.attacks.attacked_model import AttackedModel


OVER = 1e-4  # added to every step's length


class DeepFool(MinimalAttack):
    """The nearest boundary of the linearised model, again and again (Moosavi-Dezfooli et al., 2016)."""

    name: Literal["deepfool"] = "deepfool"
    steps: Count = 50  # linearisations at most
    overshoot: NonNegative = 0.02  # share of a step by which it goes past the boundary
    candidates: Annotated[Count, Field(ge=2)] = 10  # likeliest classes whose boundaries are looked at

    @property
    def not_compiled(self) -> str | None:
        """Return why: a compiled backward pass runs once after a forward pass."""
        return super().not_compiled or "the attack takes several gradients of one forward pass"

    @property
    def passes(self) -> Passes:
        """Return two forward passes a step, and one backward pass for each candidate but the label."""
        return Passes(2 * self.steps + 2, self.steps * (self.candidates - 1))

    def perturb(self, model: AttackedModel) -> Tensor:
        """Return the first adversarial example on each path, `[B, C, H, W]`; the image itself where there was none."""
        clean = model.logits(model.images)
        closest = nearest(model, clean)
        others = likeliest_wrong(clean, model.labels, min(self.candidates, clean.shape[1]) - 1).t()  # [B, J]
        rows = closest.unbroken()
        x = model.images[rows]
        r = torch.zeros_like(x)
        last = model.images
        for _ in range(self.steps):
            if len(rows) == 0:
                break
            images, labels = model.images[rows], model.labels[rows]
            gaps = partial(_gaps, labels=labels, others=others[rows])
            _, g, w = model.gradients(x, gaps, labels)
            r = r + _to_the_nearest(g, torch.stack(w, dim=1), self.norm)
            x = (images + (1 + self.overshoot) * r).clamp(0, 1)
            # A pass of its own, because the backward passes are then spared for the examples that are done.
            logits = model.verified_logits(x, model.candidate_logits(x, labels), labels)
            wrong = closest.update(x, logits, -distance(x, images, self.norm), rows)
            last = last.index_put((rows,), x)
            rows, x, r = rows[~wrong], x[~wrong], r[~wrong]
        return closest.images if self.eps is None else within_eps(self, model, clean, last)


def _gaps(logits: Tensor, labels: Tensor, others: Tensor) -> Tensor:
    """How far each candidate is ahead of the label, `[N, J]`."""
    return logits.gather(1, others) - logits.gather(1, labels.unsqueeze(1))


def _to_the_nearest(g: Tensor, w: Tensor, norm: Norm) -> Tensor:
    """The step over the nearest of the J boundaries, `[N, C, H, W]`; none where no gradient leads to one.

    `g` is `[N, J]` and `w` `[N, J, C, H, W]`.
    """
    dual = torch.linalg.vector_norm(w.flatten(2), ord=1 if norm == "linf" else 2, dim=2)
    length, which = (g.abs() / dual).nan_to_num(nan=torch.inf).min(1)
    normal = w[torch.arange(len(w), device=w.device), which]
    step: Tensor = (length + OVER).view(-1, 1, 1, 1) * direction(normal, norm)
    return step.nan_to_num(0.0, 0.0, 0.0)
