"""LADDER-style training: images decoded from across latent boundaries (after Zhou, Tsang and Yin, Mach. Learn. 2022).

    L = (1 - a) CE(f(x), y) + a CE(f(x'), y),        x' = G(z + eps* A(z) * n),   z = e(x)
    n, b: the SVM between y and another class t;     eps*: the smallest eps whose score toward t is `margin` / ||w||

e is the network itself up to a layer, in eval mode. G and the SVMs are fitted to the training images (not augmented)
before the first step behind `warmup_epochs`, and again every `every` epochs, the decoder from where it was
(`attacks/ladder_fit.py` says what of it is published). Before, the loss is CE(f(x), y). a = 1/2 is published.

Published: a classifier that is trained already is fine-tuned, with parts that are fitted once; x' goes to the first of
growing eps that changes the answer. Here training starts from fresh weights and the parts follow the network: the
classifier that a fixed set of parts belongs to would be left behind. x' is a constant of the step and in no ball.

Outside of a training nothing is fitted: x' is then of a fresh decoder and random boundaries, which costs the same.

B batch, C channels, H height, W width, K classes, d numbers of a latent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from robust_nas.attacks.ladder_fit import (
    LadderParts,
    LatentFit,
    checked_classes,
    fit_parts,
    restored_parts,
    untrained_parts,
)
from robust_nas.attacks.latent_boundaries import refuse_missing_classes
from robust_nas.config import Count, CountOrZero, NonNegative
from robust_nas.data.order import batches
from robust_nas.errors import ConfigError
from robust_nas.lazy import torch
from robust_nas.training.context import TrainingContext
from robust_nas.training.hook import TrainingHook
from robust_nas.training.loss import STEP_PASSES, Loss, LossValue, cross_entropy

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from robust_nas.training.context import Batch

Share = Annotated[NonNegative, Field(le=1)]


class Ladder(Loss):
    """Cross-entropy on clean images and on images from across latent boundaries (LADDER-style).

    `target`: the class whose boundary is crossed, drawn for each image, or the one of the nearest boundary.
    `margin`: how far across, in margins of the SVM: 0 is on the boundary, 1 where the SVM wants the other class.
    """

    fits_parts: ClassVar[bool] = True
    single_rank: ClassVar[str] = "its decoder and its boundaries are fitted by one process"
    warning: ClassVar[str] = (
        "images from latent boundaries lie in no ball around the clean ones: robustness to eps has to be shown by an "
        "evaluation, next to pgd-at"
    )
    uncounted: ClassVar[str] = "the training of its decoder and the fits of its SVMs"

    name: Literal["ladder"] = "ladder"
    weight: Share = 0.5  # of the loss on boundary images
    every: Count = 5  # epochs between two fits
    warmup_epochs: CountOrZero = 1  # epochs before the first fit
    target: Literal["random", "nearest"] = "random"  # class whose boundary is crossed
    margin: NonNegative = 0.0  # distance across the boundary, in margins of the SVM
    latent: LatentFit = LatentFit()  # decoder and boundaries
    _parts: LadderParts | None = PrivateAttr(default=None)

    @property
    def passes(self) -> int:
        """Return 7: the latents, and a training step on both images; those with a weight alone."""
        clean, crossed = self.weight < 1, self.weight > 0
        return STEP_PASSES * (clean + crossed) + crossed

    def more_passes(self, epochs: int, uses: int) -> float:
        """Return a pass for each fit, less what the epochs of the warm-up are spared; the decoder's are not counted.

        At most: a network that is cut early takes part of a pass alone, and images that make no whole batch none.
        """
        warm = min(self.warmup_epochs, epochs)
        fits = len(range(self.warmup_epochs, epochs, self.every)) if self.weight else 0
        return (fits - warm * uses * (self.passes - STEP_PASSES)) / epochs

    def refuse_architecture(self, architecture: Any, key: str = "training.loss") -> None:
        """Raise `ConfigError` for a layer that the network does not have; of a family nothing is known."""
        if self.latent.layer is None or isinstance(architecture, type):
            return
        from robust_nas.nets import build_network

        with torch.device("meta"):
            self.refuse_network(build_network(architecture), key)

    def refuse_images(self, labels: Tensor, classes: int) -> None:
        """Raise `DataError` where a class has no images."""
        if self.weight:
            refuse_missing_classes(labels, classes, "training.loss: ladder")

    def refuse_network(self, network: nn.Module, key: str = "training.loss") -> None:
        """Raise `ConfigError` for a layer that the network does not have."""
        from robust_nas.layers.cuts import Cut

        super().refuse_network(network, key)
        Cut(network, self.latent.layer, f"{key}.latent.layer")

    def start(self, training: TrainingContext) -> LatentParts:
        """Return the hook that fits decoder and boundaries."""
        return LatentParts(self, training)

    def with_parts(self, parts: LadderParts) -> Ladder:
        """Return the loss with fitted parts."""
        bound = self.model_copy()
        bound._parts = parts
        return bound

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator) -> LossValue:
        """Return the loss on images `[B, C, H, W]`, with the logits of the clean ones (of x' where a = 1)."""
        from robust_nas.layers.cuts import Cut

        if self.weight == 0:
            logits = model(images)
            return LossValue(cross_entropy(logits, labels), logits)
        crossed = self.crossed(Cut(model, self.latent.layer), images, labels, generator)
        found = [] if self.weight == 1 else [(1 - self.weight, model(images))]
        found.append((self.weight, model(crossed)))
        terms = [share * cross_entropy(logits, labels) for share, logits in found]
        return LossValue(torch.stack(terms).sum(), found[0][1])

    def crossed(self, cut: Any, images: Tensor, labels: Tensor, generator: Generator) -> Tensor:
        """Return x' `[B, C, H, W]`; the network is left as it was."""
        from robust_nas.attacks.attacked_model import attack_mode

        with attack_mode(cut.network), torch.autocast(images.device.type, enabled=False):
            z, logits = cut.encode(images.detach())
        parts = self._parts
        if parts is None:
            parts = untrained_parts(z, tuple(images.shape[1:]), logits.shape[1], self.latent, generator)
        parts = parts.like(z)
        z = z.flatten(1)
        boundaries = parts.boundaries
        if self.target == "random":
            step = torch.randint(
                1, boundaries.classes, labels.shape, generator=generator, device=labels.device
            )
            target = (labels + step) % boundaries.classes
        else:
            target = boundaries.nearest(z, labels, 1)[:, 0]
        side = boundaries.toward(labels, target)
        eps, _ = boundaries.crossing(z, side, self.margin * side.unit)
        return parts.decode(boundaries.moved(z, side, eps)).to(images)


class LatentParts(TrainingHook):
    """The decoder and the boundaries of a training: fitted when they are due, and part of its state."""

    def __init__(self, options: Ladder, training: TrainingContext) -> None:
        from robust_nas.layers.cuts import Cut

        images = training.images
        if images is None:
            raise ConfigError("training.loss: ladder needs the training images to fit its decoder; got none")
        self.options, self.training, self.pixels, self.labels = (
            options,
            training,
            images.pixels,
            images.labels,
        )
        self.cut = Cut(training.network, options.latent.layer, "training.loss.latent.layer")
        self.epoch, self.fitted = 0, -1
        self.parts: LadderParts | None = None
        self.image: Any = tuple(images.pixels.shape[1:])
        self.classes = checked_classes(self.cut, self.image)
        self.batches = batches(len(images), training.batch_size, seed=0, epoch=0)
        options.refuse_images(self.labels[torch.cat(self.batches).to(self.labels.device)], self.classes)

    def loss(self, loss: Loss) -> Loss:
        """Return the loss with its parts; in the warm-up, the natural one."""
        if self.epoch < self.options.warmup_epochs:
            return loss.model_copy(update={"weight": 0.0})
        own: Any = loss
        return loss if self.parts is None else own.with_parts(self.parts)

    def before_step(self, batch: Batch) -> None:
        """Fit the parts where they are due."""
        options = self.options
        due = self.fitted < 0 or self.epoch - self.fitted >= options.every
        if self.epoch < options.warmup_epochs or options.weight == 0 or not due:
            return
        self.parts = fit_parts(
            self.cut,
            self.pixels,
            self.labels,
            self.batches,
            self.classes,
            options.latent,
            self.training.generator,
            self.parts,
        )
        self.fitted = self.epoch

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        """Move on. Return the share of latents on the right side of their boundaries."""
        self.epoch = epoch + 1
        return {} if self.parts is None else {"ladder_svm_accuracy": self.parts.svm_accuracy}

    def state(self) -> dict[str, Any]:
        """Return position and parts."""
        state: dict[str, Any] = {"epoch": self.epoch, "fitted": self.fitted}
        return state if self.parts is None else {**state, "parts": self.parts.to_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Put them back."""
        self.epoch, self.fitted = int(state["epoch"]), int(state["fitted"])
        if "parts" in state:
            like = next(self.training.network.parameters()).detach()
            self.parts = restored_parts(state["parts"], self.image, self.options.latent, like)
