"""Measure a network in addition to its accuracy: stability, empirical Lipschitz figures, sensitivity, robust gap.

x' is the image that the metrics' attack makes of x, f the logits, h_0 = x and h_k the output of stage k (the stem
belongs to stage 1, the logits are the last); the network is in eval mode throughout.

    stability    P[argmax f(x') = argmax f(x)]                       (Wu et al., 2021; code of Huang et al., 2021)
    lip_adv      mean of |f(x) - f(x')|_1 / |x - x'|, in the norm of the threat model    (the same code, Linf)
    lip_max      the same with an x' that ascends this ratio itself                      (Yang et al., 2020)
    stage gain   log(|h_k(x') - h_k(x)|_2 / |h_k-1(x') - h_k-1(x)|_2), mean over images; they add up to the log of the
                 whole gain from input to logits. `log_gain_rms` divides each norm by the root of its dimension, so
                 that widths compare.
    average_sensitivity    E |<grad_x f_y(x), u>|, u uniform in the Linf ball of eps, or on the L2 or L1 sphere: our
                 reading of the average robustness of Zhu et al. (2022), whose definition was not available
    robust_gap   accuracy under the attack on training images less that on test images

B images of a batch, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn

from robust_nas.attacks import Attack, Norm
from robust_nas.attacks.best_iterate import misclassified
from robust_nas.attacks.l1_ball import farthest_in_l1
from robust_nas.attacks.norms import length
from robust_nas.data import Images
from robust_nas.evaluation.seeds import generator_of
from robust_nas.studies.config import Metrics

BATCH = 256
LEAST_DISTANCE = 1e-12  # of x and x', where the attack could not move the image


class Staged(Protocol):
    """A network that returns the outputs of its stages, as those of `build_network` do."""

    def staged(self, x: Tensor) -> list[Tensor]:
        """Return the outputs of stage 1..n, and the logits."""


@dataclass(frozen=True)
class Measured:
    """Answers per image, stable and right under the attack; figures; the gains by stage."""

    stable: Tensor  # [N] bool
    attacked_right: Tensor  # [N] bool
    figures: dict[str, float]
    stages: list[dict[str, Any]]


def measure(network: nn.Module, test: Images, train: Images, metrics: Metrics, *, seed: int) -> Measured:
    """Return all that `metrics` asks for on test images `[N]`; the network and the images are on one device."""
    attack = metrics.attack
    images = test.float()
    attacked = perturbed(network, test, attack, seed)
    clean_logits, logits = logits_of(network, images), logits_of(network, attacked)
    right = ~misclassified(logits, test.labels)
    stable = ~misclassified(logits, clean_logits.argmax(1))
    few = slice(0, metrics.images)
    ratios = lipschitz_ratios(images[few], attacked[few], clean_logits[few], logits[few], attack.norm)
    seen = train.draw(metrics.images, seed)
    seen_logits = logits_of(network, perturbed(network, seen, attack, seed))
    trained = (~misclassified(seen_logits, seen.labels)).double().mean()
    figures = {
        "stability": float(stable.double().mean()),
        "lip_adv": float(ratios.mean()),
        "lip_adv_median": float(ratios.median()),
        "lip_adv_p95": float(ratios.quantile(0.95)),
        "train_robust": float(trained),
        "robust_gap": float(trained - right.double().mean()),
    }
    if metrics.lip_max_steps:
        figures["lip_max"] = float(
            lip_max(
                network,
                images[few],
                attack,
                metrics.lip_max_steps,
                generator_of(images.device, seed, "lip_max"),
            ).mean()
        )
    if metrics.sensitivity_draws:
        draws = generator_of(images.device, seed, "sensitivity")
        figures["average_sensitivity"] = average_sensitivity(
            network, images[few], test.labels[few], attack, metrics.sensitivity_draws, draws
        )
    return Measured(
        stable=stable.cpu(),
        attacked_right=right.cpu(),
        figures=figures,
        stages=gains(network, images[few], attacked[few]),
    )


def stage_gains(network: nn.Module, test: Images, metrics: Metrics, seed: int) -> list[dict[str, Any]]:
    """Return the gains by stage alone, under the attack on this network: for the network before training."""
    few = test.subset(torch.arange(min(metrics.images, len(test))))
    return gains(network, few.float(), perturbed(network, few, metrics.attack, seed))


def perturbed(network: nn.Module, images: Images, attack: Attack, seed: int) -> Tensor:
    """Return x' of every image, `[N, C, H, W]` float32: the attack's best iterate, from draws that repeat."""
    parts = []
    for number, indices in enumerate(torch.split(torch.arange(len(images)), BATCH)):
        part = images.subset(indices)
        generator = generator_of(part.pixels.device, seed, "metrics", number)
        parts.append(attack(network, part.float(), part.labels, generator))
    return torch.cat(parts)


@torch.no_grad()
def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """Return logits `[N, K]` of images `[N, C, H, W]`."""
    return torch.cat([network(part) for part in torch.split(images, BATCH)])


def lipschitz_ratios(
    images: Tensor, attacked: Tensor, clean_logits: Tensor, logits: Tensor, norm: Norm
) -> Tensor:
    """Return |f(x) - f(x')|_1 / |x - x'| of every image, float64 `[N]`; zero where the image was not moved."""
    distance = length(attacked.double() - images.double(), norm)
    change = (logits.double() - clean_logits.double()).abs().sum(1)
    return change / distance.clamp(min=LEAST_DISTANCE) * (distance > 0)


def lip_max(network: nn.Module, images: Tensor, attack: Attack, steps: int, generator: Generator) -> Tensor:
    """Return the largest ratio |f(x) - f(x')|_1 / |x - x'| met on an ascent of `steps` full steps, float64 `[N]`.

    A step goes to the point of the ball (and the box) that a linear f would have for its maximum, so that on a linear
    network the ascent climbs from vertex to vertex until the ratio is the operator norm or a local maximum.
    """
    best = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    for indices in torch.split(torch.arange(len(images), device=images.device), BATCH):
        x = images[indices]
        clean = logits_of(network, x)
        direction = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        for _ in range(steps + 1):
            moved = _farthest(x, direction, attack).requires_grad_(True)
            logits = network(moved)
            change = (logits - clean).abs().sum()
            (direction,) = torch.autograd.grad(change, moved)
            ratios = lipschitz_ratios(x, moved.detach(), clean, logits.detach(), attack.norm)
            best[indices] = torch.maximum(best[indices], ratios)
    return best


def _farthest(x: Tensor, direction: Tensor, attack: Attack) -> Tensor:
    """Return the points `[B, C, H, W]` of the ball around `x`, moved into the box, that lie farthest along a direction.

    In L1 it is the farthest point of ball and box together: pixel after pixel is moved to the end of the box.
    """
    if attack.norm == "l1":
        return farthest_in_l1(x, direction, attack.radius)
    if attack.norm == "linf":
        return (x + attack.radius * direction.sign()).clamp(0, 1)
    flat = direction.flatten(1)
    unit: Tensor = flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-30)
    return (x + attack.radius * unit.view_as(direction)).clamp(0, 1)


def average_sensitivity(
    network: nn.Module, images: Tensor, labels: Tensor, attack: Attack, draws: int, generator: Generator
) -> float:
    """Return E |<grad_x f_y(x), u>| over images and `draws` directions each, in units of the logit."""
    total = 0.0
    for indices in torch.split(torch.arange(len(images), device=images.device), BATCH):
        x = images[indices].requires_grad_(True)
        picked = network(x).gather(1, labels[indices, None]).sum()
        (gradient,) = torch.autograd.grad(picked, x)
        flat = gradient.flatten(1).double()
        shape = (draws, flat.shape[1])
        if attack.norm == "linf":
            u = attack.radius * (
                2 * torch.rand(shape, generator=generator, device=x.device, dtype=torch.float64) - 1
            )
        elif attack.norm == "l2":
            u = torch.randn(shape, generator=generator, device=x.device, dtype=torch.float64)
            u = attack.radius * u / u.norm(dim=1, keepdim=True)
        else:
            sides = torch.rand(shape, generator=generator, device=x.device, dtype=torch.float64) - 0.5
            u = torch.empty(shape, device=x.device, dtype=torch.float64).exponential_(generator=generator)
            u = attack.radius * sides.sign() * u / u.sum(1, keepdim=True)
        total += float((flat @ u.T).abs().mean(1).sum())
    return total / len(images)


@torch.no_grad()
def gains(network: nn.Module, images: Tensor, attacked: Tensor) -> list[dict[str, Any]]:
    """Return log gains `{stage, log_gain, log_gain_rms, images}`, the head last; empty where no image was moved.

    Images whose perturbation vanished at some stage have no logarithm and are left out; `images` counts the others.
    """
    staged: Callable[[Tensor], list[Tensor]] = network.staged  # type: ignore[assignment] # see Staged
    norms: list[list[Tensor]] = []
    dimensions: list[int] = []
    for x, moved in zip(torch.split(images, BATCH), torch.split(attacked, BATCH), strict=True):
        pairs = zip([x, *staged(x)], [moved, *staged(moved)], strict=True)
        differences = [(a.double() - b.double()).flatten(1) for a, b in pairs]
        norms.append([difference.norm(dim=1) for difference in differences])
        dimensions = [difference.shape[1] for difference in differences]
    logs = torch.stack([torch.cat(parts) for parts in zip(*norms, strict=True)]).log()  # [stages + 2, N]
    logs = logs[:, logs.isfinite().all(0)]
    count = logs.shape[1]
    if count == 0:
        return []
    steps = logs.diff(dim=0).mean(1).tolist()
    result = []
    for number, gain in enumerate(steps, start=1):
        stage = "head" if number == len(steps) else f"stage {number}"
        ratio = torch.tensor(dimensions[number] / dimensions[number - 1], dtype=torch.float64).log()
        result.append(
            {"stage": stage, "log_gain": gain, "log_gain_rms": gain - 0.5 * float(ratio), "images": count}
        )
    return result
