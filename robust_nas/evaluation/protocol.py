"""The protocol: clean accuracy, every attack on what those before it left, the worst case per example.

The test images are taken in the order of a seeded permutation, so that an attack with a smaller share gets a
prefix of what an attack with a larger one gets. Within its share an attack gets only the examples that are
still right: an example that was misclassified clean, or broken by an earlier attack, is wrong for good. So

    row.attacked   how many of its share the attack got
    row.broken     how many of those it turned wrong
    row.share      what is right of its share after it and all attacks before it
    row.common     the same on the common prefix, the smallest share of all: these never rise from row to row
    robust         the last row's `common`: right under every attack, per example

AutoAttack is spread over one row per attack of its suite. Success is judged by a float32 forward pass in eval
mode on images whose perturbation is measured anew (Carlini et al., 2019).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from robust_nas.attacks.options import FGSM, PGD
from robust_nas.config import to_tree
from robust_nas.errors import AttackError
from robust_nas.evaluation.autoattack import check_suite, run_autoattack, seed_from, settings
from robust_nas.evaluation.measure import check_perturbation, judge
from robust_nas.evaluation.options import AutoAttack, EvaluationOptions
from robust_nas.evaluation.report import Evaluation, Row, Score

Progress = Callable[[str, float], None]


class LabelledImages(Protocol):
    """What is evaluated on: `robust_nas.data` gives such objects."""

    @property
    def pixels(self) -> Tensor:
        """The images, uint8 `[N, C, H, W]`."""

    @property
    def labels(self) -> Tensor:
        """Their classes, int64 `[N]`."""


def evaluate(
    model: nn.Module,
    images: LabelledImages,
    options: EvaluationOptions,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Clean accuracy, a row per attack, and robust accuracy: the worst case per example over all of them.

    `images` should be the test set, and this its only use. `device` is where the images go (default: where
    the model's parameters are). `progress(name, fraction)` is called after every batch. The model is left as
    it was. Raises `AttackError` for inputs that cannot be judged, before any attack starts where it can be
    known then.
    """
    device = torch.device(device) if device is not None else _device_of(model)
    report = progress or (lambda name, fraction: None)
    order = torch.randperm(len(images.labels), generator=Generator().manual_seed(seed))[: options.images]
    if len(order) == 0:
        raise AttackError("no images to evaluate on")
    pixels, labels = _take(images, order)
    attacks = _spread(options, len(order))
    common = min(share for _, share in attacks)

    def batch(indices: Tensor) -> tuple[Tensor, Tensor]:
        return pixels[indices].to(device).float().div_(255), labels[indices].to(device)

    right = torch.zeros(len(order), dtype=torch.bool)  # [N] the worst case per example so far
    classes = 0
    for indices, fraction in _batches(torch.arange(len(order)), options.batch_size):
        correct, classes = judge(model, *batch(indices))
        right[indices] = correct.cpu()
        report("clean", fraction)
    clean_right = right.clone()
    for attack, _ in attacks:
        if isinstance(attack, AutoAttack):
            check_suite(attack, classes, *pixels.shape[2:])

    rows: list[Row] = []
    flags: dict[str, None] = {}
    for position, (attack, share) in enumerate(attacks):
        started = time.perf_counter()
        generator = Generator(device).manual_seed(seed + position)
        attacked = right[:share].nonzero().squeeze(1)
        report(attack.label, 0.0)
        for indices, fraction in _batches(attacked, options.batch_size):
            x, y = batch(indices)
            if isinstance(attack, AutoAttack):
                outcome = run_autoattack(attack, model, x, y, seed=seed_from(generator), batch_size=len(x))
                adversarial = outcome.images
                flags.update(dict.fromkeys(f"{attack.label}: {flag}" for flag in outcome.flags))
            else:
                adversarial = attack(model, x, y, generator)
            check_perturbation(
                adversarial, x, options.threat_model.norm, options.threat_model.eps, attack.label
            )
            right[indices] = judge(model, adversarial, y)[0].cpu()
            report(attack.label, fraction)
        if len(attacked) == 0:
            report(attack.label, 1.0)
        broken = attacked[~right[attacked]]
        extra = settings(attack, classes) if isinstance(attack, AutoAttack) else {"step_size": attack.step}
        rows.append(
            Row(
                label=attack.label,
                attack=repr(attack),
                parameters={**to_tree(attack), **extra},
                images=share,
                attacked=len(attacked),
                broken=len(broken),
                share=_score(right[:share]),
                common=_score(right[:common]),
                seconds=time.perf_counter() - started,
                broken_indices=tuple(order[broken].tolist()),
            )
        )
    return Evaluation(
        options=options,
        clean=_score(clean_right),
        clean_common=_score(clean_right[:common]),
        rows=tuple(rows),
        robust=_score(right[:common]),
        clean_wrong_indices=tuple(order[~clean_right].tolist()),
        flags=tuple(flags),
        seed=seed,
        device=str(device),
    )


def _take(images: LabelledImages, order: Tensor) -> tuple[Tensor, Tensor]:
    """The pixels and labels in `order`, on the CPU: batches go to the device one by one."""
    pixels, labels = images.pixels, images.labels
    if pixels.dtype != torch.uint8 or pixels.dim() != 4 or len(pixels) != len(labels):
        raise AttackError(
            f"pixels are {pixels.dtype} of shape {tuple(pixels.shape)} for {len(labels)} labels; "
            "uint8 [images, channels, height, width] is needed"
        )
    if labels.dtype != torch.int64 or labels.dim() != 1:
        raise AttackError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}; int64 [images] is needed"
        )
    return pixels[order.to(pixels.device)].cpu(), labels[order.to(labels.device)].cpu()


def _spread(options: EvaluationOptions, available: int) -> list[tuple[FGSM | PGD | AutoAttack, int]]:
    """Every attack with its share of the images; AutoAttack as one attack after the other."""
    spread: list[tuple[FGSM | PGD | AutoAttack, int]] = []
    for step in options.attacks:
        share = min(step.images or available, available)
        parts = step.attack.parts() if isinstance(step.attack, AutoAttack) else (step.attack,)
        spread += [(part, share) for part in parts]
    return spread


def _batches(indices: Tensor, size: int) -> list[tuple[Tensor, float]]:
    """The batches of indices, each with the fraction that is done after it."""
    if len(indices) == 0:
        return []
    done = 0
    batches = []
    for part in torch.split(indices, size):
        done += len(part)
        batches.append((part, done / len(indices)))
    return batches


def _score(right: Tensor) -> Score:
    return Score(correct=int(right.sum()), images=len(right))


def _device_of(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return parameter.device if parameter is not None else torch.device("cpu")
