"""Measure a trained attack next to targeted PGD of the same eps: success towards every class, milliseconds, MACs.

Each test image is led to every class that is neither its label nor the victim's answer. Both attacks are timed in turn
on one thread of the CPU. A trained attack is fast and its success is no robust accuracy: a victim may fall to others.

N images, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robust_nas.attacks import PGD, ThreatModel
from robust_nas.attacks.attacked_model import attack_mode
from robust_nas.attacks.norms import project
from robust_nas.data import Images
from robust_nas.nets.ai_gan import Generator
from robust_nas.nets.cost import measured_cost
from robust_nas.run_folder import Progress
from robust_nas.timing import interleaved
from robust_nas.training.ai_gan import attacked_towards, each_other_class, targeted_pgd
from robust_nas.training.validation import BATCH
from robust_nas.workflows.attack_config import AttackReport

Towards = Callable[[Tensor, Tensor, Tensor], Tensor]  # images, labels and targets to adversarial images


class _ToTheFirst(nn.Module):
    """A generator that aims at class 0, as a module of images alone, whose cost can be measured."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """Return perturbations of images `[B, C, H, W]`."""
        found: Tensor = self.generator(x, torch.zeros(len(x), dtype=torch.int64, device=x.device))
        return found


def measured_attack(
    generator: Generator,
    victim: nn.Module,
    images: Images,
    threat_model: ThreatModel,
    options: AttackReport,
    class_names: Sequence[str],
    *,
    method: str,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Return success, time and cost of a generator and of PGD as plain values; `images` are on the device."""
    pgd = targeted_pgd(threat_model, options.pgd_steps)
    draws = torch.Generator(images.pixels.device).manual_seed(seed)
    attacks: dict[str, Towards] = {
        "attack": lambda x, _, targets: _generated(generator, x, targets, threat_model),
        "pgd": lambda x, labels, targets: attacked_towards(pgd, victim, x, labels, targets, draws).images,
    }
    few = images.draw(options.images, seed)
    return {
        "method": method,
        "pgd_label": f"pgd-{pgd.steps}",
        "images": len(few),
        **_successes(attacks, victim, few, class_names, progress),
        **_speed(generator, victim, few, pgd, threat_model, options),
    }


def _generated(generator: Generator, x: Tensor, targets: Tensor, threat_model: ThreatModel) -> Tensor:
    with torch.no_grad():
        return project(x + generator(x, targets), x, threat_model.eps, threat_model.norm)


def _successes(
    attacks: dict[str, Towards],
    victim: nn.Module,
    images: Images,
    class_names: Sequence[str],
    progress: Progress,
) -> dict[str, Any]:
    """Return for each target class how many pairs each attack won, and how many right images it fooled by any."""
    x, labels = images.float(), images.labels
    aims = each_other_class(labels, len(class_names))  # [K - 1, N]
    clean = torch.cat([_answers(victim, part) for part in torch.split(x, BATCH)])
    right = clean == labels
    found: dict[str, list[Tensor]] = {name: [] for name in attacks}
    for number, targets in enumerate(aims, 1):
        for name, attack in attacks.items():
            parts = zip(*(torch.split(each, BATCH) for each in (x, labels, targets)), strict=True)
            found[name].append(torch.cat([_answers(victim, attack(*part)) for part in parts]))
        progress("measure attack", number, len(aims))
    answers = {name: torch.stack(rows) for name, rows in found.items()}  # [K - 1, N]
    counted = aims != clean
    fooled = {name: int(((each != labels).any(0) & right).sum()) for name, each in answers.items()}

    def row(name: str, pairs: Tensor) -> dict[str, Any]:
        won = {key: int(((each == aims) & pairs).sum()) for key, each in answers.items()}
        count = int(pairs.sum())
        shares = {f"{key}_success": number / count if count else 0.0 for key, number in won.items()}
        return {"class": name, "pairs": count, **shares}

    rows = [row(name, counted & (aims == index)) for index, name in enumerate(class_names)]
    return {
        "clean": int(right.sum()) / len(labels),
        "classes": rows,
        "all": row("all", counted),
        "fooled": {name: number / max(int(right.sum()), 1) for name, number in fooled.items()},
    }


def _answers(victim: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad(), attack_mode(victim):
        answers: Tensor = victim(x.clone()).argmax(1)
        return answers


def _speed(
    generator: Generator,
    victim: nn.Module,
    images: Images,
    pgd: PGD,
    threat_model: ThreatModel,
    options: AttackReport,
) -> dict[str, Any]:
    """Return milliseconds and MACs an image of both attacks, on one thread of the CPU, and their ratios."""
    rows = torch.arange(options.batch_size) % len(images)
    batch = images.subset(rows).to("cpu")
    x, labels = batch.float(), batch.labels
    own, network = copy.deepcopy(generator).cpu(), copy.deepcopy(victim).cpu()
    targets = (labels + 1) % own.classes
    draws = torch.Generator().manual_seed(0)
    made = attacked_towards(pgd, network, x, labels, targets, draws)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        timings = interleaved(
            {
                "attack": lambda: _generated(own, x, targets, threat_model),
                "pgd": lambda: attacked_towards(pgd, network, x, labels, targets, draws),
            },
            rounds=options.rounds,
        )
    finally:
        torch.set_num_threads(threads)
    cost = measured_cost(_ToTheFirst(own), own.shape)
    passes = (made.forwards + made.backwards) / len(x)
    macs = {"attack": cost.macs, "pgd": round(passes * measured_cost(network, own.shape).macs)}
    return {
        "params": cost.params,
        "batch_size": len(x),
        "ms_per_image": {name: round(1e3 * timing.median / len(x), 5) for name, timing in timings.items()},
        "times_faster": round(timings["pgd"].ratio(timings["attack"]), 2),
        "macs": macs,
        "macs_ratio": round(macs["pgd"] / macs["attack"], 2),
    }
