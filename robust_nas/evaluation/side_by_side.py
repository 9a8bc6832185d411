"""An attack on the twin of a model and one on the model itself: what each breaks of the same images.

The twin of a defended model is its network without the defence, of a Bayesian network the one of its mean weights.

Both start for themselves, and nothing is pooled. n images, the first of the evaluation's order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.attacks import Attack


@dataclass(frozen=True, kw_only=True)
class Scores:
    """A detector's scores `[n]`, and of which attacked images the class is wrong, accepted or not."""

    of_clean: Tensor
    of_unaware: Tensor
    of_adaptive: Tensor
    fooled_unaware: Tensor  # [n] bool
    fooled_adaptive: Tensor  # [n] bool


@dataclass(frozen=True, kw_only=True)
class Certified:
    """Certificates of the first m images: class -1 where it abstains, and a radius in `norm`."""

    right: Tensor  # [m] bool, the class is the label
    radii: Tensor  # [m]
    norm: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """What is right `[n]`, as the images are and under the attacks; an image that is wrong as it is stays so."""

    inner: Attack  # made on the twin
    unaware: Attack  # the same, as an attack on the model
    adaptive: Attack  # made on the model
    left: Tensor  # right after the attacks of the list
    clean: Tensor  # of the model
    unaware_right: Tensor
    adaptive_right: Tensor
    twin_clean: Tensor
    twin_right: Tensor  # under the inner attack
    scores: Scores | None  # of a detector
    certified: Certified | None  # of a defence that certifies
    passes: int  # of attacks and judgements, without the certificates
    seconds: float
