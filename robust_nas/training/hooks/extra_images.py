"""A share of extra or generated images in every batch (Gowal et al., 2021; Wang et al., ICML 2023).

Of every batch of B images, round(share B) are replaced by images of an `.npz` file with the arrays `image` and `label`,
drawn with replacement, at positions spread evenly over the batch; they are augmented like all others. An epoch stays
as long as it is: the training images that are replaced wait for another one. Published shares: 0.7 with a million
generated images of CIFAR-10, 0.8 with more.

The validation split is never touched. That the file holds no test image is the user's matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from robust_nas.config import AbsolutePath, Fraction01
from robust_nas.data import npz
from robust_nas.errors import ConfigError, DataError
from robust_nas.lazy import torch
from robust_nas.training.context import TrainingContext
from robust_nas.training.hook import HookOptions, TrainingHook
from robust_nas.training.modes import in_eval_mode

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.data import Images


class ExtraImages(HookOptions):
    """The share `share` of every batch from an `.npz` file: `image` uint8 [N, H, W, C] or [N, C, H, W], `label` [N].

    `checksum` is the SHA-256 of the file: it is filled in when the config is read, so that other images under the same
    path are another training.
    """

    needs_end: ClassVar[bool] = False

    name: Literal["extra-images"] = "extra-images"
    path: AbsolutePath  # `.npz` file with `image` (uint8) and `label`
    share: Fraction01 = 0.7  # of every batch
    checksum: str | None = None  # SHA-256 of the file, filled in

    @model_validator(mode="before")
    @classmethod
    def _has_a_checksum(cls, options: Any) -> Any:
        if isinstance(options, dict) and isinstance(options.get("path"), str) and not options.get("checksum"):
            try:
                return {**options, "checksum": npz.checksum(options["path"])}
            except (DataError, ConfigError) as error:
                raise ValueError(str(error)) from None
        return options

    def refuse_data(self, shape: tuple[int, int, int], classes: int) -> None:
        """Raise `DataError` for a file that is not what was read, or whose images or labels do not fit."""
        self._refuse_other_file()
        npz.check(self.path, shape, classes)

    def _refuse_other_file(self) -> None:
        found = npz.checksum(self.path)
        if found != self.checksum:
            raise DataError(
                f"{self.path}: is not the file of this training any more; its SHA-256 was {self.checksum}"
            )

    def start(self, training: TrainingContext) -> TrainingHook:
        """Return the hook at the begin of a training."""
        if training.images is None:
            raise ConfigError("training.hooks: extra-images needs the training images; got none")
        self._refuse_other_file()
        images = training.images
        extra = npz.load(self.path, tuple(images.pixels.shape[1:]), _classes(training.network, images))
        return Mixed(self, extra.to(images.pixels.device), training)


class Mixed(TrainingHook):
    """The hook in its running form; its draws are those of the training."""

    def __init__(self, options: ExtraImages, extra: Images, training: TrainingContext) -> None:
        self.options, self.extra, self.training = options, extra, training

    def mixed(self, images: Images, indices: Tensor) -> tuple[Images, Tensor]:
        """Return the batch with its share of extra images."""
        count = round(self.options.share * len(images))
        if count == 0:
            return images, indices
        generator = self.training.generator
        drawn = torch.randint(len(self.extra), (count,), generator=generator, device=generator.device)
        places = torch.arange(count) * len(images) // count
        chosen, pixels, labels = self.extra.subset(drawn), images.pixels.clone(), images.labels.clone()
        there = places.to(pixels.device)
        pixels[there], labels[there] = chosen.pixels, chosen.labels
        indices = indices.index_fill(0, places.to(indices.device), -1)
        return type(images)(pixels, labels), indices


def _classes(network: nn.Module, images: Images) -> int:
    """Return the number of classes: of the logits for one image."""
    one = images.float(torch.tensor([0])).to(next(network.parameters()).dtype)
    with torch.no_grad(), in_eval_mode(network):
        return int(network(one).shape[1])
