"""What a certifying defence proves of images, and the accuracy that follows from it.

A certificate says of one image: no perturbation of a norm below `radius` changes the class. How sure that is, and of
which classifier it is true, the defence says.

B batch, R radii.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robust_nas.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

ABSTAINS = -1  # the class of an image without a certificate


@dataclass(frozen=True)
class Certificates:
    """Certified classes and radii of a batch of images, on the host."""

    classes: Tensor  # [B] int64; `ABSTAINS` where nothing is certified
    radii: Tensor  # [B] float64, in units of pixels 0..1; 0 where nothing is certified
    norm: str = "l2"


def certified_accuracy(certificates: Certificates, labels: Tensor, radii: Sequence[float]) -> list[float]:
    """Return the certified accuracy (0..1) at every radius: the certified-accuracy curve.

    It is the share of all images `[B]` whose certified class is the label, and whose radius is no smaller; an image
    that has no certificate is wrong at every radius, 0 included. Raises `ConfigError` for no images, for labels of
    another number of images, and for a negative radius.
    """
    if len(labels) != len(certificates.classes) or len(labels) == 0:
        raise ConfigError(
            f"certified accuracy: got {len(labels)} labels for {len(certificates.classes)} certificates; "
            "one label a certificate is needed, and one certificate at least"
        )
    negative = [radius for radius in radii if not radius >= 0]
    if negative:
        raise ConfigError(f"certified accuracy: got radius {negative[0]:g}; a radius is 0 or more")
    right = certificates.classes == labels.to(certificates.classes)
    return [float((right & (certificates.radii >= radius)).double().mean()) for radius in radii]
