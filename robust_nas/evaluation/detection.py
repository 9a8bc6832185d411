"""How well a detector tells attacked images from clean ones: the ROC curve over all thresholds (Fawcett, 2006).

    false alarms(t) = share of clean images with score > t        detected(t) = share of attacked ones with score > t
    AUC             = P(score of an attacked image > score of a clean one) + P(equal) / 2

An attacked image counts where its class is wrong, accepted or not: others harm nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

POINTS = 60  # of a curve, at most


def roc(clean: Tensor, attacked: Tensor, threshold: float) -> dict[str, Any] | None:
    """Return `images`, `auc`, the rates at the detector's `threshold`, and `points`; None where nothing was fooled.

    `clean` `[n]` and `attacked` `[m]` are scores.
    """
    if not len(attacked) or not len(clean):
        return None
    thresholds = [-torch.inf, *sorted({*clean.tolist(), *attacked.tolist()})]
    curve = [_rates(clean, attacked, level) for level in thresholds]
    kept = sorted(
        {round(place * (len(curve) - 1) / (POINTS - 1)) for place in range(POINTS)}
        if len(curve) > POINTS
        else range(len(curve))
    )
    ahead = (attacked[:, None] > clean[None]).double() + 0.5 * (attacked[:, None] == clean[None]).double()
    return {
        "images": len(attacked),
        "clean_images": len(clean),
        "auc": float(ahead.mean()),
        "at_threshold": _rates(clean, attacked, threshold),
        "points": [curve[place] for place in kept],
    }


def _rates(clean: Tensor, attacked: Tensor, threshold: float) -> dict[str, float]:
    return {
        "false_alarms": float((clean > threshold).double().mean()),
        "detected": float((attacked > threshold).double().mean()),
    }
