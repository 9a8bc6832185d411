"""Feature squeezing: reject an image whose answer changes when detail is taken out of it (Xu et al., 2018).

    score(x)   = max over squeezers s of || softmax f(x) - softmax f(s(x)) ||_1            in 0..2
    rejected     iff score(x) > T
    T          = the scores of n legitimate images in order, number ceil(n (1 - fpr))       floor(n fpr) lie above it
    z_rejected = max_k f_k(x) + 10 (score(x) - T)                                           the logit K + 1

z_rejected is the largest logit iff the image is rejected, up to float32 rounding. Its slope is our choice: an excess of
the score of 0.1 weighs as much as one nat, so that the largest possible excess, 2, is about as wide as the margin of a
confident network, and an attack on the joint event sees both. The slope decides no answer.

Where both softmaxes are saturated, the score is flat in float32 and an attack would be blind without a defence to
thank for it. So its backward pass goes through softmaxes of the temperature that brings the lead of the first class
down to four nats (ours; BPDA, Athalye et al. 2018). Unsaturated ones have their own gradient.

Defaults by the notes on the authors' code: grey images bit-1 and median-2, colour images bit-5 and median-2, to which
the authors add nlm-13-3-2; threshold from legitimate images alone. B images, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from robust_nas.config import Number
from robust_nas.defences.defence import Defence
from robust_nas.defences.squeezers import Squeeze, Squeezer, refuse_images, squeezer
from robust_nas.errors import ConfigError
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.defences.defended import Defended

GREY, COLOUR = ("bit-1", "median-2"), ("bit-5", "median-2")
SLOPE = 10.0  # nats of the logit "rejected" by unit of the score
LEAD = 4.0  # nats, beyond which the backward pass softens a softmax
BATCH = 256  # of calibration


class FeatureSqueezing(Defence):
    """A detector by squeezers; `fpr` is the share of legitimate images that may be rejected.

    `squeezers`: None for those of the paper by the number of channels, or a list such as `[bit-5, median-2]`.
    """

    abstains: ClassVar[bool] = True
    calibrates: ClassVar[bool] = True
    name: Literal["feature-squeezing"] = "feature-squeezing"
    # such as [bit-5, median-2]; None: the paper's, by the number of channels
    squeezers: tuple[Squeezer, ...] | None = Field(default=None, min_length=1)
    fpr: Annotated[Number, Field(gt=0, lt=1)] = 0.05  # share of legitimate images that may be rejected

    @property
    def false_alarm_rate(self) -> float:
        """Return `fpr`."""
        return self.fpr

    def chosen(self, channels: int) -> tuple[str, ...]:
        """Return the names of the squeezers for images of so many channels."""
        return self.squeezers or (GREY if channels == 1 else COLOUR)

    def refuse_images(self, shape: tuple[int, ...], classes: int) -> None:
        """Raise `ConfigError` where a squeezer is not defined for such images."""
        for name in self.chosen(shape[0]):
            refuse_images(name, shape)

    @property
    def not_exported(self) -> str | None:
        """Return that the comparison is no part of a graph of layers."""
        return "its comparison of squeezed images is not written as layers"

    def score(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return how far the answers change at most, `[B]` in 0..2; `images` `[B, C, H, W]`."""
        return joint_score(network, images, network(images), _squeezes(self.chosen(images.shape[1])))

    def calibrate(self, network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the threshold, and the channels by which the squeezers were chosen.

        Raises `ConfigError` for fewer images than one false alarm at the rate takes.
        """
        self.refuse_images(tuple(images.shape[1:]), 0)
        allowed = math.floor(len(images) * Fraction(str(self.fpr)))
        if not allowed:
            raise ConfigError(
                f"defence {self.label}: fpr {self.fpr:g} needs at least {math.ceil(1 / Fraction(str(self.fpr)))} "
                f"validation images for one false alarm, got {len(images)}; give more images or a larger fpr"
            )
        with torch.no_grad():
            scores = torch.cat([self.score(network, part) for part in torch.split(images, BATCH)])
        threshold = float(scores.sort().values[len(images) - allowed - 1])
        return {"threshold": threshold, "channels": float(images.shape[1])}

    def build(self, network: nn.Module, values: Mapping[str, float]) -> Defended:
        """Return the network with one logit more, the last, "rejected"."""
        from robust_nas.defences.defended import Defended

        class Detector(Defended):
            def forward(self, x: Tensor) -> Tensor:
                logits = self.module(x)
                excess = joint_score(self.module, x, logits, squeezes) - threshold
                rejected = logits.amax(1) + SLOPE * excess
                return torch.cat([logits, rejected.unsqueeze(1)], 1)

        threshold, squeezes = values["threshold"], _squeezes(self.chosen(round(values["channels"])))
        return Detector(network, self, values)


def _squeezes(names: Sequence[str]) -> list[Squeeze]:
    return [squeezer(name) for name in names]


def joint_score(network: nn.Module, x: Tensor, logits: Tensor, squeezes: Sequence[Squeeze]) -> Tensor:
    """Return the largest change of the answer over the squeezers, `[B]`; `logits` `[B, K]` are those of `x`.

    The network is asked once for every squeezer, in batches like the first, so that equal images get equal logits.
    """
    changes = [change(logits, network(squeeze(x))) for squeeze in squeezes]
    return torch.stack(changes).amax(0)


def change(first: Tensor, second: Tensor) -> Tensor:
    """Return the L1 distance `[B]` of the softmaxes of two logits `[B, K]`; saturated ones have a softer gradient."""
    exact = (first.softmax(1) - second.softmax(1)).abs().sum(1).clamp(max=2)
    lead = torch.maximum(_lead(first), _lead(second)).detach()
    temperature = (lead / LEAD).clamp(min=1)
    soft = ((first / temperature).softmax(1) - (second / temperature).softmax(1)).abs().sum(1)
    return exact.detach() + (soft - soft.detach())


def _lead(logits: Tensor) -> Tensor:
    """Return by how much the largest logit leads, `[B, 1]`."""
    highest = logits.topk(2, dim=1).values
    return highest[:, :1] - highest[:, 1:]
