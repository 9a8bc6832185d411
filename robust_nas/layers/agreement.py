"""Compare two sets of logits for the same images by what decides: every class, every lead, and the answers.

    d_bk   = |z'_bk - z_bk|                      0 for the same value, NaN too; infinite where one alone is not finite
    s_b    = max(|z_b1|, |z_b2|)                 the two largest finite logits of an image: they decide its answer
    s      = the 10 % quantile of s_b            so that an image whose logits cancel is not held to its own rounding
    class  = max_bk d_bk / max(|z_bk|, s_b, s)
    g_bk   = z_b1 - z_bk                         what class k lacks to the answer; g_b2 is the margin
    lead   = max_bk (|g'_bk - g_bk| - r_bk) / max(|g_bk|, median g_b2),  r_bk = 64 u max(|z_b1|, |z_bk|)

`disagreement` is the larger one of `class` and `lead`. The largest logit of all is no scale: a class that a model masks
with -1e9 would allow every error in the others. `lead` sees an error that a large common offset hides in `class`; u is
the unit of the logits' type, and r the rounding of such an offset. An answer differs only where the margin is within
the tolerance. The scales are our choice. B images, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

ROUNDING = 64  # units in the last place that layers before an offset may be off by
TYPICAL = 0.1  # quantile over the images


def disagreement(reference: Tensor, other: Tensor) -> float:
    """Return the largest error of logits `[B, K]`, relative to what decides the answers of `reference`.

    0 for equal logits, infinite for another shape or for a value that is not finite in one of them alone.
    """
    if reference.shape != other.shape:
        return float("inf")
    if reference.numel() == 0:
        return 0.0
    unit = torch.finfo(reference.dtype).eps if reference.is_floating_point() else 0.0
    z, found = (logits.detach().double().reshape(len(logits), -1) for logits in (reference, other))
    same = (z == found) | (z.isnan() & found.isnan())
    if bool(same.all()):
        return 0.0
    if not bool((same | (z.isfinite() & found.isfinite())).all()):
        return float("inf")
    finite = z.isfinite()
    top, where = z.masked_fill(~finite, -torch.inf).topk(min(2, z.shape[1]), dim=1)
    counted = finite.any(1)  # an image without a finite logit is the same in both
    z, found, top, where, finite = (t[counted] for t in (z, found, top, where, finite))
    deciding = top.abs().masked_fill(top.isinf(), 0.0).amax(1, keepdim=True)
    error = (found - z).abs().masked_fill(~finite, 0.0)
    by_class = _ratio(error, z.abs().clamp_min(deciding).clamp_min(_typical(deciding)))
    first = where[:, :1]
    gaps, found_gaps = (t.gather(1, first) - t for t in (z, found))
    rounding = ROUNDING * unit * z.abs().clamp_min(top[:, :1].abs())
    error = ((found_gaps - gaps).abs() - rounding).masked_fill(~finite, 0.0).clamp_min(0.0)
    margins = (top[:, 0] - top[:, -1]).masked_fill(top[:, -1].isinf(), 0.0)
    by_lead = _ratio(error, gaps.abs().clamp_min(margins.median()))
    return float(torch.maximum(by_class, by_lead))


def agree(reference: Tensor, other: Tensor, tolerance: float) -> bool:
    """Return whether two sets of logits are the same up to a relative tolerance; NaN shows nothing and never agrees."""
    return not bool(reference.isnan().any()) and disagreement(reference, other) <= tolerance


def _typical(sizes: Tensor) -> Tensor:
    """Return the lower 10 % quantile, a scalar."""
    return sizes.flatten().sort().values[int(TYPICAL * (sizes.numel() - 1))]


def _ratio(error: Tensor, scale: Tensor) -> Tensor:
    """Return the largest error over its scale, a scalar; no error is 0 on any scale."""
    return torch.where((error == 0) | scale.isinf(), 0.0, error / scale).max()
