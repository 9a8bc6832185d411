"""ZOO: Carlini and Wagner's objective by coordinate descent, its derivatives from scores (Chen et al., 2017).

    minimise over x'   L(x') = ||x' - x||_2^2 + c max(z_y - max_{j != y} z_j + kappa, 0)          x' in 0..1

    g_i = (L(x' + h e_i) - L(x' - h e_i)) / 2h                      two queries for each coordinate i
    h_i = (L(x' + h e_i) - 2 L(x') + L(x' - h e_i)) / h^2           no further query
    adam    a step of Adam on coordinate i, which counts its own steps
    newton  x'_i <- x'_i - rate g_i / h_i                           h_i < 0 counts as 1, h_i < 0.1 as 0.1 (their code)

In each step `coordinates` drawn at random are moved, then clipped to the box (the code's variant without tanh). z may
be log-probabilities (the paper's) or logits: differences of two are the same. Next to a face of the box, one of the two
points is on the face, and the quotients are those of unequal steps. Every point asked for may be the result.

c is searched as Carlini and Wagner do, per image: `search_steps` (their code: 1) share the budget equally; c grows
tenfold until an adversarial example appears, then halves the interval. Coordinates are not drawn by importance and
images not attacked at a lower resolution, as the paper does for ImageNet.

N images that still take queries, n coordinates, d values in an image, C channels, H height, W width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks.losses import margin
from robust_nas.attacks.norms import Norm
from robust_nas.attacks.oracle import Oracle, QueryAttack
from robust_nas.config import Count, NonNegative, Positive
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam's
LEAST_CURVATURE = 0.1
LARGEST = 1e10  # weight c
STEP = 3  # queries of a step at least: two for a coordinate, one for the new x'


class ZOO(QueryAttack):
    """The smallest L2 perturbation by coordinate descent on finite differences of the scores (Chen et al., 2017)."""

    access: ClassVar[Literal["gradient", "score", "decision"]] = "score"
    norms: ClassVar[tuple[Norm, ...]] = ("l2",)
    name: Literal["zoo"] = "zoo"
    norm: Literal["l2"] = "l2"
    solver: Literal["adam", "newton"] = "adam"  # optimiser of a coordinate
    coordinates: Count = 128  # of a step; fewer where the image has no more
    learning_rate: Positive = 0.01  # step of a coordinate
    h: Positive = 1e-4  # half the distance of a finite difference, in pixels 0..1
    weight: Positive = 1.0  # c, where its search starts
    search_steps: Count = 1  # weights tried
    confidence: NonNegative = 0.0  # kappa, margin of scores that an example must have

    def improve(self, oracle: Oracle) -> None:
        """Descend for one weight after the other."""
        rows = oracle.rows()
        low = torch.zeros_like(oracle.distance)
        high = torch.full_like(low, math.inf)
        c = torch.full_like(low, self.weight)
        budget = self.queries - 1
        for number in range(self.search_steps):
            kept = budget - budget * (number + 1) // self.search_steps  # for the weights to come
            found = _descend(self, oracle, rows, c, kept)
            high, low = torch.where(found, c, high), torch.where(found, low, c)
            c = torch.where(high.isinf(), (10 * c).clamp_max(LARGEST), (low + high) / 2)

    def objective_of(self, margins: Tensor, size: Tensor, c: Tensor) -> Tensor:
        """Return L for margins of the best other class, squared distances and weights of one shape; NaN stays."""
        return size + c * (self.confidence - margins).clamp_min(0)


def _descend(options: ZOO, oracle: Oracle, rows: Tensor, c: Tensor, kept: int) -> Tensor:
    """Descend until `kept` queries are left; return which of all images `[B]` had an adversarial example by then."""
    found = torch.zeros_like(c, dtype=torch.bool)
    x = oracle.images[rows]
    value = options.objective_of(
        margin(oracle.clean[rows], oracle.labels[rows]), torch.zeros_like(c[rows]), c[rows]
    )
    first, second, steps = (torch.zeros_like(x).flatten(1) for _ in range(3))  # Adam's, of each coordinate
    n = min(options.coordinates, oracle.size)
    while True:
        going = oracle.going(rows) & (oracle.left[rows] >= kept + STEP)
        if not going.all():
            rows, x, value, first, second, steps = (
                part[going] for part in (rows, x, value, first, second, steps)
            )
        if len(rows) == 0:
            return found
        most = ((oracle.left[rows] - kept - 1) // 2).clamp_max(n)  # [N]
        which = torch.rand(
            (len(rows), oracle.size), dtype=x.dtype, device=x.device, generator=oracle.generator
        ).argsort(1)[:, :n]
        slope, curvature, wrong = differences(options, oracle, rows, x, value, c[rows], which, most)
        known = torch.arange(n, device=x.device) < most.unsqueeze(1)
        if options.solver == "adam":
            old = (part.gather(1, which) for part in (first, second, steps))
            step, *new = _adam(slope, *old)
            first, second, steps = (
                part.scatter(1, which, torch.where(known, now, part.gather(1, which)))
                for part, now in zip((first, second, steps), new, strict=True)
            )
        else:
            step = slope / torch.where(curvature < 0, 1.0, curvature.clamp_min(LEAST_CURVATURE))
        move = torch.where(known, options.learning_rate * step, 0.0)
        x = x.flatten(1).scatter_add(1, which, -move).clamp(0, 1).view_as(x)
        answers = oracle.ask(x.unsqueeze(1), rows)
        size = (x - oracle.images[rows]).flatten(1).square().sum(1)
        value = options.objective_of(margin(answers.logits[:, 0], oracle.labels[rows]), size, c[rows])
        found[rows] |= wrong | answers.wrong[:, 0]


def differences(
    options: ZOO,
    oracle: Oracle,
    rows: Tensor,
    x: Tensor,
    value: Tensor,
    c: Tensor,
    which: Tensor,
    most: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return first and second derivatives of L at `x`, `[N, n]` each, and whether any point was misclassified, `[N]`.

    Of the coordinates `which` `[N, n]`, the first `most` `[N]` are asked for; `value` `[N]` is L at `x`. A derivative
    that is not finite is 0.
    """
    images, labels = oracle.images[rows].flatten(1), oracle.labels[rows]
    flat = x.flatten(1)
    base = (flat - images).square().sum(1, keepdim=True)
    slopes, curvatures, wrong = [], [], torch.zeros_like(rows, dtype=torch.bool)
    for start, number in oracle.pieces(rows.repeat(2), which.shape[1]):
        places = which[:, start : start + number]  # [N, p]
        here, own = flat.gather(1, places), images.gather(1, places)
        up, down = (here + options.h).clamp_max(1), (here - options.h).clamp_min(0)
        ends = torch.stack([up, down], 2)  # [N, p, 2]
        points = flat.unsqueeze(1).expand(-1, 2 * number, -1).contiguous()
        twice = places.repeat_interleave(2, 1)
        points.scatter_(2, twice.unsqueeze(2), ends.flatten(1).unsqueeze(2))
        answers = oracle.ask(points.view(len(rows), 2 * number, *x.shape[1:]), rows, 2 * (most - start))
        margins = margin(answers.logits.flatten(0, 1), labels.repeat_interleave(2 * number)).view(ends.shape)
        sizes = base.unsqueeze(2) + (ends - own.unsqueeze(2)).square() - (here - own).square().unsqueeze(2)
        above, below = options.objective_of(margins, sizes, c.view(-1, 1, 1)).unbind(2)
        forward, backward = up - here, here - down
        at = value.unsqueeze(1)
        slopes.append((above - below) / (up - down))
        bend = (above - at) / forward - (at - below) / backward
        curvatures.append(2 * bend / (forward + backward))
        wrong |= answers.wrong.any(1)
    slope, curvature = (torch.cat(parts, 1).nan_to_num(0.0, 0.0, 0.0) for parts in (slopes, curvatures))
    return slope, curvature, wrong


def _adam(
    slope: Tensor, first: Tensor, second: Tensor, steps: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return Adam's step for each coordinate, and its moments and number of steps, `[N, n]` each."""
    first = BETA1 * first + (1 - BETA1) * slope
    second = BETA2 * second + (1 - BETA2) * slope.square()
    steps = steps + 1
    corrected = (second / (1 - BETA2**steps)).sqrt()
    return first / (1 - BETA1**steps) / (corrected + EPSILON), first, second, steps
