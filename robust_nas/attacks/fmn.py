"""FMN: the smallest perturbation, by a ball whose radius adapts itself (Pintor, Roli, Brendel and Biggio, 2021).

    m(x)    = max_{j != y} z_j(x) - z_y(x),  g = grad m(x_t)         x_0 = x; x_t is adversarial where m > 0
    eps_t   = min(eps_{t-1} (1 - gamma_t), d*)                       where x_t is adversarial, d* the least distance yet
              eps_{t-1} (1 + gamma_t)                                where it is not, and an earlier one was
              max(eps_{t-1}, ||x_t - x||_p + |m(x_t)| / ||g||_q) (1 + gamma_t)    where none was; eps_{-1} = 0
    x_{t+1} = P(x_t + alpha_t g / ||g||_2)                           P: onto the ball of radius eps_t and the box

    alpha_t = alpha_T + (alpha - alpha_T) (1 + cos(pi t / T)) / 2    alpha_T = alpha / 100;  gamma_t alike, to 0.001

for p of Linf, L2 and L1, q its dual norm. eps_t is never above the distance to the farthest image of the box. The
schedules and the length of a step are those of the authors' code. The last case is published as the distance to the
boundary of the tangent plane alone; that the radius grows is ours: where the box shortens x_t - x, the published one
comes ever closer to the boundary and never crosses it. Algorithm 1 of the paper clips to the box after the projection;
here P is exact in L1 and Linf (`norms.py`). An image that is misclassified is kept as it is. After the last step its
point is judged, too. With `eps`, the nearest example is projected onto the ball and judged again.

B batch, N examples that are right at first, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from robust_nas.attacks.attack import MinimalAttack, Passes
from robust_nas.attacks.losses import margin
from robust_nas.attacks.minimal import distance, nearest, within_eps
from robust_nas.attacks.norms import DUAL, ORDER, Norm, project, unit
from robust_nas.config import Count, Positive
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.attacks.attacked_model import AttackedModel

LAST_STEP = 0.01  # of alpha
LAST_GAMMA = 0.001


class FMN(MinimalAttack):
    """The smallest perturbation in Linf, L2 or L1 within an adaptive ball (Pintor et al., 2021)."""

    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")
    name: Literal["fmn"] = "fmn"
    steps: Count = 100  # T; the paper takes 1,000
    alpha: Positive = 1.0  # L2 length of the first step
    gamma: Annotated[Positive, Field(ge=LAST_GAMMA, lt=1)] = 0.05  # by which the radius changes at first

    @property
    def label(self) -> str:
        """Return name, norm and steps: `fmn-l1-100`."""
        return f"fmn-{self.norm}-{self.steps}"

    @property
    def passes(self) -> Passes:
        """Return one of each a step, the image itself, the last point, and its projection with eps."""
        return Passes(self.steps + (2 if self.eps is None else 3), self.steps)

    def perturb(self, model: AttackedModel) -> Tensor:
        """Return the nearest adversarial examples found, `[B, C, H, W]`; the image itself where none was."""
        clean = model.logits(model.images)
        closest = nearest(model, clean)
        rows = closest.unbroken()
        images, labels = model.images[rows], model.labels[rows]
        farthest = torch.linalg.vector_norm(
            torch.maximum(images, 1 - images).flatten(1), ord=ORDER[self.norm], dim=1
        )
        x, radius = images, torch.zeros_like(farthest)
        found = torch.zeros_like(labels, dtype=torch.bool)
        for step in range(self.steps if len(rows) else 0):
            logits, value, g = model.gradient(x, partial(margin, labels=labels), labels)
            size = distance(x, images, self.norm)
            logits = model.verified_logits(x, logits, labels, among=closest.improved_by(-size, rows))
            wrong = closest.update(x, logits, -size, rows)
            found |= wrong
            gamma = _annealed(self.gamma, LAST_GAMMA, step / self.steps)
            least = size if closest.loss is None else -closest.loss[rows]
            slope = torch.linalg.vector_norm(g.flatten(1), ord=DUAL[self.norm], dim=1)
            tangent = torch.where(found, radius, (size + value.abs() / slope).maximum(radius))
            radius = torch.where(wrong, (radius * (1 - gamma)).minimum(least), tangent * (1 + gamma))
            radius = radius.nan_to_num(torch.inf).minimum(farthest)
            alpha = _annealed(self.alpha, LAST_STEP * self.alpha, step / self.steps)
            x = project(x + alpha * unit(g, 2), images, radius, self.norm)
        if len(rows):
            last = model.verified_logits(x, model.candidate_logits(x, labels), labels)
            closest.update(x, last, -distance(x, images, self.norm), rows)
        if self.eps is None:
            return closest.images
        return within_eps(self, model, clean, closest.images)


def _annealed(first: float, last: float, share: float) -> float:
    """Return the value after that share of the steps, by half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2
