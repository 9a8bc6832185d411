"""Check what an attack is given and what it gives back: once per call, with one transfer from the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from robust_nas.attacks.norms import Norm, length
from robust_nas.errors import AttackError
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor


class AttackOptions(Protocol):
    """What of an attack decides how the model is run for it (`attack.py`)."""

    @property
    def label(self) -> str:
        """Return a short name for messages."""

    @property
    def norm(self) -> str:
        """Return the norm of its ball."""

    @property
    def bn(self) -> Literal["eval", "batch"]:
        """Return by which statistics batch norms normalise."""

    @property
    def fold(self) -> bool:
        """Return whether a folded copy may take the model's place."""

    @property
    def precision(self) -> Literal["float32", "bf16"]:
        """Return the precision in which candidates are made."""

    @property
    def compile(self) -> Literal["never", "auto", "always"]:
        """Return whether the folded copy may be compiled for input gradients (`compiling.py`)."""

    @property
    def not_compiled(self) -> str | None:
        """Return why there is nothing to compile for it, or None."""

    @property
    def input_gradients(self) -> int:
        """Return the number of input gradients of one batch, at most."""

    @property
    def twice_differentiated(self) -> bool:
        """Return whether it takes second derivatives, never in bf16."""

    @property
    def eot(self) -> int:
        """Return the number of passes that are averaged for a random model."""

    @property
    def least_classes(self) -> int:
        """Return the number of classes below which it is not defined."""

    def refuse_small_images(self, shape: tuple[int, ...]) -> None:
        """Raise `AttackError` where it is not defined for images of `shape` (C, H, W)."""


HESSIAN_PASSES = 2  # backward passes that the product of a Hessian with a vector takes, about
TOLERANCE = 1e-6  # of the ball and the box, for rounding; relative for eps above 1


def check_inputs(images: Tensor, labels: Tensor, checked: bool = False) -> int:
    """Return the largest label. Raise `AttackError` for images or labels that no attack can work on.

    With `checked` the values are not looked at, which would wait for the device, and 0 comes back.
    """
    if images.dtype not in (torch.float32, torch.float64):
        raise AttackError(
            f"images are {images.dtype}; float32 or float64 in 0..1 is needed (for bf16 use autocast)"
        )
    if images.dim() != 4 or images.numel() == 0:
        raise AttackError(
            f"images have shape {tuple(images.shape)}; [batch, channels, height, width] is needed"
        )
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise AttackError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}; int64 ({images.shape[0]},) is needed"
        )
    if labels.device != images.device:
        raise AttackError(f"labels are on {labels.device}, the images on {images.device}")
    if checked:
        return 0
    limits = torch.stack([limit.double() for limit in (*images.aminmax(), *labels.aminmax())])
    low, high, first, last = limits.tolist()
    if not (low >= 0 and high <= 1):  # written so that NaN fails it too
        raise AttackError(f"images reach from {low:.6g} to {high:.6g}; pixels lie in 0..1, without NaN")
    if first < 0:
        raise AttackError(f"label {int(first)}; classes are counted from 0")
    return int(last)


def check_logits(logits: object, images: Tensor, last_label: int) -> Tensor:
    """Return the logits `[B, K]`. Raise `AttackError` for anything else, or too few for the labels."""
    if not isinstance(logits, torch.Tensor):
        raise AttackError(f"the model returned {type(logits).__name__}; logits [batch, classes] are needed")
    if logits.dim() != 2 or logits.shape[0] != images.shape[0]:
        raise AttackError(
            f"the model returned {tuple(logits.shape)} for {images.shape[0]} images; [batch, classes] needed"
        )
    if logits.is_complex() or logits.layout != torch.strided:
        what = f"{logits.dtype} in layout {logits.layout}"
        raise AttackError(f"the model returned {what}; dense real logits [batch, classes] are needed")
    if last_label >= logits.shape[1]:
        raise AttackError(f"label {last_label}, but the model has only {logits.shape[1]} classes")
    return logits


def own_generator(generator: Generator | None, images: Tensor) -> Generator:
    """Return the generator given, or a fresh one of seed 0. Raise `AttackError` for one on another device."""
    if generator is None:
        return torch.Generator(images.device).manual_seed(0)
    if generator.device.type != images.device.type:
        raise AttackError(f"the generator lives on {generator.device}, the images on {images.device}")
    return generator


def perturbation(adversarial: Tensor, images: Tensor, norm: Norm) -> Tensor:
    """Return the norm of each example's perturbation, `[B]` float64."""
    return length(adversarial.double() - images.double(), norm)


def check_perturbation(adversarial: Tensor, images: Tensor, norm: Norm, eps: float, attack: str) -> float:
    """Return the largest perturbation. Raise `AttackError` where `attack` left the ball or the box, or made a NaN."""
    if adversarial.shape != images.shape:
        raise AttackError(
            f"{attack} turned images of shape {tuple(images.shape)} into {tuple(adversarial.shape)}"
        )
    size = perturbation(adversarial, images, norm).max()
    low, high, size = torch.stack([*(limit.double() for limit in adversarial.aminmax()), size]).tolist()
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise AttackError(f"{attack} made pixels from {low:.6g} to {high:.6g}; they lie in 0..1, without NaN")
    if not size <= eps + TOLERANCE * max(1.0, eps):
        raise AttackError(f"{attack} perturbed by {size:.8g} in {norm}, more than eps {eps:.8g}")
    return float(size)
