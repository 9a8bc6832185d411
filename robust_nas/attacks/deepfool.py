"""DeepFool: to the nearest boundary of the linearised model, until it is crossed (Moosavi-Dezfooli et al., 2016).

    g_k     = z_k - z_y,  w_k = grad_x g_k                      for the classes k likeliest at x
    l       = argmin_k |g_k| / ||w_k||_q                        q = 2 (L2), q = 1 (Linf)
    r       = r + (|g_l| / ||w_l||_q + 0.0001) d(w_l)           d(w) = w / ||w||_2 (L2), sign(w) (Linf)
    x'      = P(x + (1 + overshoot) r)                          P: onto the box 0..1

The 0.0001 is the authors' (in their code): it steps over a boundary that x' lies on. An image that is misclassified
is kept as it is. With eps, the last x' of each example is projected onto the ball and judged anew.

B batch, N examples that still take steps, C channels, H height, W width, K classes, J candidates but the label.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from robust_nas.attacks.balls import direction
from robust_nas.attacks.losses import likeliest_wrong
from robust_nas.attacks.minimal import distance, nearest, within_eps
from robust_nas.attacks.options import DeepFool, Norm
from robust_nas.attacks.target import Target

OVER = 1e-4  # added to every step's length


def search(options: DeepFool, target: Target) -> Tensor:
    """The first adversarial example on each path, `[B, C, H, W]`; the image itself where there was none."""
    clean = target.logits(target.images)
    closest = nearest(target, clean)
    others = likeliest_wrong(clean, target.labels, min(options.candidates, clean.shape[1]) - 1).t()  # [B, J]
    rows = closest.right()
    x = target.images[rows]
    r = torch.zeros_like(x)
    last = target.images
    for _ in range(options.steps):
        if len(rows) == 0:
            break
        images, labels = target.images[rows], target.labels[rows]
        gaps = partial(_gaps, labels=labels, others=others[rows])
        _, g, w = target.gradients(x, gaps, labels)
        r = r + _to_the_nearest(g, torch.stack(w, dim=1), options.norm)
        x = (images + (1 + options.overshoot) * r).clamp(0, 1)
        # A pass of its own, because the backward passes are then spared for the examples that are done.
        logits = target.judged(x, target.logits(x, labels, search=True), labels)
        wrong = closest.offer(x, logits, -distance(x, images, options.norm), rows)
        last = last.index_put((rows,), x)
        rows, x, r = rows[~wrong], x[~wrong], r[~wrong]
    return closest.images if options.eps is None else within_eps(options, target, clean, last)


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
