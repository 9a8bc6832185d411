"""What an attack is judged by: the perturbation measured anew, and a clean float32 forward pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robust_nas.attacks.inputs import logits_of
from robust_nas.attacks.mode import attack_mode
from robust_nas.attacks.options import Norm
from robust_nas.errors import AttackError

TOLERANCE = 1e-6  # of the ball and the box, for rounding; relative for eps above 1


def perturbation(adversarial: Tensor, images: Tensor, norm: Norm) -> Tensor:
    """The norm of each example's perturbation, `[B]` float64."""
    delta = (adversarial.double() - images.double()).flatten(1)
    size: Tensor = torch.linalg.vector_norm(delta, ord=torch.inf if norm == "linf" else 2, dim=1)
    return size


def check_perturbation(adversarial: Tensor, images: Tensor, norm: Norm, eps: float, attack: str) -> None:
    """Raises `AttackError` where `attack` left the ball of radius `eps` or the box, or made a NaN."""
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


def judge(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Which examples the model gets right, `[B]` bool, in eval mode and float32; and its number of classes.

    Logits that are not finite are wrong.
    """
    with torch.no_grad(), attack_mode(model), torch.autocast(images.device.type, enabled=False):
        logits = logits_of(model, images, int(labels.max()))
    return (logits.argmax(1) == labels) & logits.isfinite().all(1), logits.shape[1]
