"""Certified accuracy: the share of images of which no perturbation of that size can change the right answer.

    certified(r) = share of images whose certified class is the label, and whose radius is at least r

A certificate in L2 holds for other balls too, of d pixels: the L1 ball of radius eps lies in the L2 ball of eps, the
Linf ball in that of eps sqrt(d). Any other pair of norms needs a certificate of its own norm.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

POINTS = 60  # of the curve, at most


def needed_radius(norm: str, eps: float, certificate: str, pixels: int) -> float | None:
    """Return the radius in the certificate's norm that covers the ball of eps; None where there is no such rule."""
    if norm == certificate:
        return eps
    factors = {"l1": 1.0, "linf": math.sqrt(pixels)} if certificate == "l2" else {}
    return eps * factors[norm] if norm in factors else None


def curve(right: Tensor, radii: Tensor) -> list[dict[str, float]]:
    """Return points of `radius` and `accuracy`, from radius 0 to the largest one; `[m]` each."""
    largest = float(radii[right].max()) if right.any() else 0.0
    grid = sorted({largest * place / (POINTS - 1) for place in range(POINTS)})
    return [
        {"radius": radius, "accuracy": float((right & (radii >= radius)).double().mean())} for radius in grid
    ]


def certified_right(right: Tensor, radii: Tensor, radius: float) -> Tensor:
    """Return `[m]` which images are certified at a radius."""
    return right & (radii >= radius)


def to_dict(right: Tensor, radii: Tensor, norm: str, radius: float | None, seconds: float) -> dict[str, Any]:
    """Return norm, the `radius` that the threat model needs, the curve, and what it cost."""
    return {
        "norm": norm,
        "radius": radius,
        "images": len(right),
        "seconds": seconds,
        "points": curve(right, radii),
    }
