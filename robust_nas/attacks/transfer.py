"""Transfer: an attack made on other models and tried on this one (Papernot et al., 2016).

    x_s = attack(surrogate_s, x, y)    for each surrogate in turn, all draws from one generator
    x'  = of x and all x_s, per example the one of the highest margin on the victim, misclassified ones first

It needs no gradient of the victim, so a victim that falls to it and not to a gradient attack hides its gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from robust_nas.attacks.candidates import Best
from robust_nas.attacks.inputs import check_logits
from robust_nas.attacks.losses import margin
from robust_nas.attacks.mode import attack_mode
from robust_nas.attacks.options import Attack, Transfer
from robust_nas.attacks.target import Target, run, seeded_globally
from robust_nas.errors import AttackError


def transfer_attack(
    attack: Attack,
    surrogates: Sequence[nn.Module],
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: Generator | None = None,
) -> Tensor:
    """Adversarial images `[B, C, H, W]` for `model`, made by `attack` on each of the surrogates, on its device.

    Everything else as in `Attack.__call__`; raises `AttackError` for a surrogate that these images or labels do not
    fit, before anything is attacked.
    """
    if not surrogates:
        raise AttackError("no surrogates; a transfer attack needs at least one other model")
    named = [(f"surrogate {number}", surrogate) for number, surrogate in enumerate(surrogates, 1)]
    tried = partial(_tried, attack, named)
    return run(attack, model, images, labels, generator, search=tried).images


def search(options: Transfer, target: Target) -> Tensor:
    """The most harmful of the surrogates' adversarial images and of the image itself, `[B, C, H, W]`."""
    named = [(f"surrogate {folder}", _loaded(folder, target.images)) for folder in options.surrogates]
    return _tried(options.attack, named, target)


def _loaded(folder: str, images: Tensor) -> nn.Module:
    """The network of a model folder, on the images' device and in their type."""
    from robust_nas.nets import read_model  # here, because the attacks themselves need no networks

    model = read_model(Path(folder), images.device)
    shape = model.description.input_shape
    if shape != tuple(images.shape[1:]):
        raise AttackError(f"surrogate {folder} takes {_by(shape)} images, these are {_by(images.shape[1:])}")
    return model.network.to(images.dtype)


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _tried(attack: Attack, surrogates: Sequence[tuple[str, nn.Module]], target: Target) -> Tensor:
    images, labels = target.images, target.labels
    for name, surrogate in surrogates:
        _refuse_misfit(attack, name, surrogate, target)
    best = Best(images, labels)
    logits = target.logits(images)
    best.offer(images, logits, margin(logits, labels))
    for _, surrogate in surrogates:
        made = run(attack, surrogate, images, labels, target.generator)
        target.forwards += made.forwards
        target.backwards += made.backwards
        logits = target.logits(made.images)
        best.offer(made.images, logits, margin(logits, labels))
    return best.images


def _refuse_misfit(attack: Attack, name: str, surrogate: nn.Module, target: Target) -> None:
    """Raises `AttackError` for a surrogate on which the attack cannot be made, found out with one image."""
    one = target.images[:1]
    try:
        # A random surrogate draws from the global generators, which stay as they are.
        with torch.no_grad(), attack_mode(surrogate), seeded_globally(0, one.device):
            logits = check_logits(surrogate(one.clone()), one, target.last_label)
    except AttackError as error:
        raise AttackError(f"{name}: {error}") from None
    except (
        Exception
    ) as error:  # whatever a foreign module raises at a shape, type or device that it does not know
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise AttackError(f"{name} does not take {_by(one.shape[1:])} images: {reason}") from error
    if logits.shape[1] < attack.least_classes:
        raise AttackError(
            f"{name}: {attack.label} needs at least {attack.least_classes} classes, it has {logits.shape[1]}"
        )
