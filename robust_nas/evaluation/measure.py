"""What an attack is judged by: the perturbation measured anew, and float32 forward passes of the deployed rule."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robust_nas.attacks import Norm
from robust_nas.attacks.attacked_model import attack_mode
from robust_nas.attacks.checks import check_logits
from robust_nas.attacks.engine import seeded_globally
from robust_nas.attacks.predictor import Predictor
from robust_nas.errors import AttackError

TOLERANCE = 1e-6  # of the ball and the box, for rounding; relative for eps above 1


def perturbation(adversarial: Tensor, images: Tensor, norm: Norm) -> Tensor:
    """The norm of each example's perturbation, `[B]` float64."""
    delta = (adversarial.double() - images.double()).flatten(1)
    size: Tensor = torch.linalg.vector_norm(delta, ord=torch.inf if norm == "linf" else 2, dim=1)
    return size


def check_perturbation(adversarial: Tensor, images: Tensor, norm: Norm, eps: float, attack: str) -> float:
    """The largest perturbation. Raises `AttackError` where `attack` left the ball or the box, or made a NaN."""
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


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the deployed rule says of images. D draws of the answer, one for a deterministic rule."""

    right: Tensor  # [B] bool, in most of the draws; for an abstaining rule, right or rejected
    draws: Tensor  # [D, B] bool, in each draw
    logits: Tensor  # [B, K] float32 of the first draw (K + 1 where it abstains)
    forwards: int  # forward passes of one image

    @property
    def rejected(self) -> Tensor:
        """`[B]` bool of the first draw; meaningful for an abstaining rule alone."""
        return self.logits.argmax(1) == self.logits.shape[1] - 1


def judge(predictor: Predictor, images: Tensor, labels: Tensor, *, draws: int = 1, seed: int = 0) -> Judged:
    """Which examples the deployed rule gets right, in eval mode and float32; not-finite logits are wrong.

    A random rule is asked for `draws` fresh answers; `seed` is of their randomness alone, and must not be that of an
    attack. Raises `AttackError` where the model gives no logits, or too few for the labels.
    """
    draws = draws if predictor.random else 1
    found = []
    with (
        torch.no_grad(),
        attack_mode(predictor),
        torch.autocast(images.device.type, enabled=False),
        seeded_globally(seed, images.device),
    ):
        for _ in range(draws):
            last_label = int(labels.max())
            logits = check_logits(predictor(images), images, last_label).float()
            if predictor.abstains and last_label == logits.shape[1] - 1:
                raise AttackError(f"label {last_label} is what the model calls a rejection; it is no class")
            guess = logits.argmax(1)
            right = guess == labels
            if predictor.abstains:
                right |= guess == logits.shape[1] - 1
            found.append((right & logits.isfinite().all(1), logits))
    each = torch.stack([right for right, _ in found])
    return Judged(
        right=each.float().mean(0) > 0.5,
        draws=each,
        logits=found[0][1],
        forwards=len(images) * draws * (predictor.samples or 1),
    )


def fingerprint(model: nn.Module) -> str:
    """A hash of everything that an evaluation must leave alone: tensors, gradients, modes, `requires_grad`."""
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        digest.update(f"{name} {getattr(module, 'training', None)}\n".encode())
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {parameter.requires_grad} {parameter.grad is not None}\n".encode())
        if parameter.grad is not None:
            digest.update(_bytes(parameter.grad))
    # Not the state dict, which leaves out buffers that are not saved.
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        digest.update(name.encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
