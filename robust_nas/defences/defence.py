"""The protocol of defences: options that every defence has, what others may ask of it, and how it is put on.

A new defence is a subclass with its options, its formula and `build`, in a file of its own, and a line in `DEFENCES`.
Its torch module is a `Defended`, in the file of that defence too, in a function that meets torch when it is called.

What `wrap` returns is the module that every attack meets. Its forward pass is the defence itself; where that has no
useful gradient (rounding, a median, JPEG), its backward pass is the best stand-in that is known (BPDA, Athalye et al.
2018), so that an attack on the wrapped module is the adaptive one. An abstaining defence gives K + 1 logits, and a
random one draws from torch's global generators in every forward pass, in eval mode too.

Shapes: images are float `[B, C, H, W]` in 0..1, labels int64 `[B]`; K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from robust_nas.config import Count
from robust_nas.errors import ConfigError
from robust_nas.registry import Method, Registry

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from robust_nas.defences.certificates import Certificates
    from robust_nas.defences.defended import Defended


class Defence(Method):
    """Base of all defences."""

    random: ClassVar[bool] = (
        False  # whether every forward pass draws afresh; `samples` says how many make an answer
    )
    abstains: ClassVar[bool] = False  # whether the last of K + 1 logits means "rejected"
    calibrates: ClassVar[bool] = False  # whether it takes numbers from validation images (`calibrate`)
    certifies: ClassVar[bool] = False  # whether it has `certify`
    trained_with: ClassVar[str] = (
        ""  # the part of a recipe that a network should be trained with, for messages
    )

    @property
    def inference_samples(self) -> int | None:
        """Return the forward passes whose mean softmax is the answer of a random defence; None: it is not random."""
        return None

    @property
    def false_alarm_rate(self) -> float | None:
        """Return the share of legitimate images that an abstaining defence was calibrated to reject, or None."""
        return None

    def refuse_images(self, shape: tuple[int, ...], classes: int) -> None:
        """Raise `ConfigError` where the defence is not defined for images of `shape` (C, H, W) or so many classes."""

    def calibrate(self, network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the numbers that the defence takes from validation images, by name; of one that takes none, nothing.

        The network is in eval mode, on the images' device. Raises `ConfigError` where the images do not suffice.
        """
        return {}

    def score(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return the score `[B]` of a detector, which abstains; `values["threshold"]` says from where on it rejects.

        `network` is the undefended one, and `images` are `[B, C, H, W]`. A detector without one has no ROC curve.
        """
        raise NotImplementedError(f"{type(self).__name__} has no score")

    def build(self, network: nn.Module, values: Mapping[str, float]) -> Defended:
        """Return the module with the defence: its formula. `values` are what `calibrate` returned."""
        raise NotImplementedError(f"{type(self).__name__} has no module")

    def wrap(self, network: nn.Module, values: Mapping[str, float] | None = None) -> Defended:
        """Return the module that attacks meet, in the mode of the network, whose parameters it shares.

        Raises `ConfigError` for a defence that was not calibrated, and for a network that has a defence already.
        """
        from robust_nas.defences.defended import Defended

        if isinstance(network, Defended):
            raise ConfigError(
                f"defence {self.label}: the network has a defence already, {network.defence!r}; put it around the "
                "undefended network, its `module`"
            )
        if self.calibrates and not values:
            raise ConfigError(
                f"defence {self.label}: has not been calibrated; give it the values that calibrate() returns on "
                "validation images, or use robust-nas defend"
            )
        return self.build(network, values or {}).train(network.training)

    def certify(self, defended: Defended, images: Tensor, generator: Generator) -> Certificates:
        """Return certified classes and radii of images, of a defence that `certifies`; eval mode, on their device."""
        raise NotImplementedError(f"{type(self).__name__} certifies nothing")

    @property
    def not_exported(self) -> str | None:
        """Return why the forward pass cannot be exported as a graph, or None."""
        return "its answer is random" if self.random else None


class RandomDefence(Defence):
    """Base of defences that draw in every forward pass; the answer is the mean softmax over `samples` passes."""

    random: ClassVar[bool] = True

    samples: Count = 10  # forward passes whose mean softmax is the answer

    @property
    def inference_samples(self) -> int:
        """Return the forward passes of an answer."""
        return self.samples


DEFENCES = Registry(
    "defence",
    Defence,
    "robust_nas.defences",
    {
        "blur": "blur:Blur",
        "jpeg": "jpeg:JPEG",
        "crop-resize": "crop_resize:CropResize",
        "randomized-smoothing": "randomized_smoothing:RandomizedSmoothing",
        "rse": "rse:RSE",
        "feature-squeezing": "feature_squeezing:FeatureSqueezing",
        "squeezer": "squeezer:SqueezedInput",
    },
    group="robust_nas.defences",
)
