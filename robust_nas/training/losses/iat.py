"""IAT: interpolated adversarial training (Lamb et al., AISec 2019), by mixup or manifold mixup.

    L = 1/2 M(x, y) + 1/2 M(x', y),     x' = argmax over the ball of CE, on images that are not mixed
    M(x, y) = r CE(f~(x), y) + (1 - r) CE(f~(x), y[o]),     r ~ Beta(alpha, alpha), o a permutation of the batch
    f~: the network with h replaced by r h + (1 - r) h[o] in one place, the images or a layer's output (drawn)

Both halves draw r, o and the place on their own, one of each a batch. The cross-entropy is linear in the target: M is
that of the soft target r y + (1 - r) y[o]. Mixup is from Zhang et al. (2018), manifold mixup from Verma et al. (2019).
The order of the algorithm is from memory: the paper's text was not available; the independent draws, alpha 1
and the usual attack (eps 8/255, 7 steps of 2/255, uniform start) are from a public re-implementation, alpha 2 and the
images or one of the first two stages from manifold mixup's code. That re-implementation attacks with the batch norms in
training mode; here the attack's `bn` says it, and is `eval` where it does not. Clean and attacked images go through the
network one after the other, each with its own batch statistics.

B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from robust_nas.attacks import Attack, training_attack_field
from robust_nas.config import CountOrZero, Positive
from robust_nas.lazy import torch
from robust_nas.training.loss import STEP_PASSES, Loss, LossValue, attack_passes, cross_entropy

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

MixingPoint = Sequence[
    tuple["nn.Module", int]
]  # modules, and which of their inputs is mixed: all that crosses a cut
PUBLISHED_ALPHA = {"mixup": 1.0, "manifold": 2.0}


class IAT(Loss):
    """Cross-entropy on mixed clean and mixed adversarial images, half each (Lamb et al., 2019).

    `layers`: 0 mixes the images. n draws the place of every batch among the images and the outputs of the first n cells
    or stages, as many as there are; `all` among all of them. `alpha`: None for 1 (images) or 2 (layers).
    """

    single_rank: ClassVar[str] = "the mixture of two images needs the rows of other ranks in every layer"

    name: Literal["iat"] = "iat"
    # on the training images
    attack: Annotated[Attack, training_attack_field(default="pgd")] = Field(default={}, validate_default=True)
    # that may be mixed: 0 the images, n the first n cells or stages
    layers: CountOrZero | Literal["all"] = 0
    alpha: Positive | None = None  # parameter of the Beta distribution; None: 1 for images, 2 for layers

    @property
    def mixes_inside(self) -> bool:
        """Return whether it mixes the outputs of layers."""
        return self.layers != 0

    @property
    def passes(self) -> int:
        """Return 2K + 6 for an attack of K steps: a training step on both images; a mixture is no pass."""
        return attack_passes(self.attack) + 2 * STEP_PASSES

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator) -> LossValue:
        """Return the loss on images `[B, C, H, W]`, with the logits of the mixed adversarial ones."""
        points = self._points(model)
        attacked = self.attack.craft(model, images, labels, generator)
        clean, _ = self._half(model, points, images, labels, generator)
        adversarial, logits = self._half(model, points, attacked, labels, generator)
        return LossValue((clean + adversarial) / 2, logits)

    def _points(self, model: nn.Module) -> Sequence[MixingPoint]:
        if not self.mixes_inside:
            return ()
        self.refuse_network(model)
        own: Any = model
        points: Sequence[MixingPoint] = own.mixing_points()
        return points if self.layers == "all" else points[: self.layers]

    def _half(
        self,
        model: nn.Module,
        points: Sequence[MixingPoint],
        images: Tensor,
        labels: Tensor,
        generator: Generator,
    ) -> tuple[Tensor, Tensor]:
        """Return M of some images, and the logits `[B, K]`."""
        alpha = self.alpha or PUBLISHED_ALPHA["manifold" if self.mixes_inside else "mixup"]
        ratio = symmetric_beta(alpha, images, generator)
        order = torch.randperm(len(images), generator=generator, device=images.device)
        place = torch.randint(len(points) + 1, (), generator=generator, device=images.device)
        logits = mixed_logits(model, points, images, Mixture(ratio, order, place))
        return mixed_loss(logits, labels, ratio, order), logits


class Mixture(NamedTuple):
    """What is mixed with what: all of it on the device."""

    ratio: Tensor  # scalar, 0..1, of the image itself
    order: Tensor  # [B], a permutation: the partners
    place: Tensor  # scalar: 0 for the images, n for the n-th mixing point


def symmetric_beta(alpha: float, images: Tensor, generator: Generator) -> Tensor:
    """Return a scalar from Beta(alpha, alpha), on the images' device and in their type.

    T of Student's t with 2 alpha degrees of freedom, by Bailey's polar method (1994), gives 1/2 + T / (2 sqrt(2 alpha +
    T^2)): two uniform numbers, nothing rejected, so that nothing is read back.
    """
    u, v = torch.rand(2, dtype=torch.float64, generator=generator, device=images.device)
    t = (2 * torch.pi * v).cos() * ((1 - u).pow(-1 / alpha) - 1).sqrt()  # T / sqrt(2 alpha)
    ratio: Tensor = 0.5 + 0.5 * t.atan().sin()
    return ratio.to(images.dtype)  # t / sqrt(1 + t^2), also where t is infinite


def mixed_logits(model: nn.Module, points: Sequence[MixingPoint], images: Tensor, mixture: Mixture) -> Tensor:
    """Return logits `[B, K]` of a network in which one place is mixed.

    The place is on the device: every one is mixed, all but the drawn one by a share of 0, which changes no bit.
    """
    shares = [torch.where(mixture.place == number, 1 - mixture.ratio, 0) for number in range(len(points) + 1)]
    with mixed_inputs(points, shares[1:], mixture.order):
        logits: Tensor = model(_mixed(images, mixture.order, shares[0]))
        return logits


@contextlib.contextmanager
def mixed_inputs(points: Sequence[MixingPoint], shares: Sequence[Tensor], order: Tensor) -> Iterator[None]:
    """Mix the inputs of modules inside; `shares` are those of the partners, one a point."""
    from robust_nas.layers.cuts import changed_inputs

    at: dict[tuple[nn.Module, int], Tensor] = {}
    for point, share in zip(points, shares, strict=True):
        for key in point:  # an input that two cuts cross is mixed by the one that is drawn
            at[key] = at[key] + share if key in at else share

    def mix(x: Tensor, share: Tensor) -> Tensor:
        return _mixed(x, order, share)

    with changed_inputs({key: partial(mix, share=share) for key, share in at.items()}):
        yield


def _mixed(x: Tensor, order: Tensor, share: Tensor) -> Tensor:
    """Return (1 - share) x + share x[order], exactly x at share 0; `[B, ...]`."""
    return x + share.to(x.dtype) * (x[order] - x)


def mixed_loss(logits: Tensor, labels: Tensor, ratio: Tensor, order: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits `[B, K]` with the soft targets r y + (1 - r) y[o]."""
    own, partner = cross_entropy(logits, labels), cross_entropy(logits, labels[order])
    loss: Tensor = ratio * own + (1 - ratio) * partner
    return loss
