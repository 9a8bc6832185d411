"""The search loop: data, both steps, logging, checkpoints. Killed at any instant, it resumes to the same bits."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_nas.data import Augment, Images, augment, split
from robust_nas.data.order import batches
from robust_nas.errors import CheckpointError
from robust_nas.nets import Supernet, channels_last
from robust_nas.runs import Progress, Run, restore_optimiser, silent
from robust_nas.search.dsara import AlphaStep, Batch, DSARASearch
from robust_nas.search.options import DSARA
from robust_nas.spaces import CellArchitecture
from robust_nas.training.divergence import refuse_broken_weights, refuse_divergence
from robust_nas.training.schedules import cosine

REMEDY = "A smaller search.weights.learning_rate or clip_norm may help"


@dataclass(frozen=True)
class SearchOutcome:
    """What a search found: the architecture, the final mixing weights per kind `[E][O]`, and its cost.

    A strategy that also weights the sources of a node gives these weights per kind, node and source.
    """

    architecture: CellArchitecture
    mixing: dict[str, list[list[float]]]
    seconds: float
    last: dict[str, Any]
    sources: dict[str, list[list[float]]] | None = None


def search(
    run: Run,
    supernet: Supernet,
    images: Images,
    options: DSARA,
    augmentation: Augment,
    *,
    name: str,
    seed: int,
    checkpoint_seconds: float = 60.0,
    progress: Progress = silent,
) -> SearchOutcome:
    """Searches on `images` (the training set, on the supernet's device), half for weights, half for alphas.

    Continues from the run's checkpoint where there is one. Raises `DivergenceError` when a loss or alpha stops being
    finite; the checkpoint before it stays.
    """
    device = images.pixels.device
    algorithm = DSARASearch(channels_last(supernet), options)
    generator = torch.Generator(device).manual_seed(seed)
    halves = [images.subset(indices) for indices in split(images.labels, 0.5, seed)]
    steps = min(len(batches(len(half), options.batch_size, seed=0, epoch=0)) for half in halves)
    first_epoch = first_step = 0
    seconds = 0.0
    last: dict[str, Any] = {}
    state = run.load_checkpoint()
    if state is not None:
        first_epoch, first_step, seconds, last = _restore(run, state, algorithm, generator)
    began = saved = time.perf_counter()

    def save(epoch: int, step: int) -> None:
        refuse_broken_weights([supernet], f"{run.folder}: search, before epoch {epoch}, step {step}", REMEDY)
        run.save_checkpoint(
            {
                "job": "search",
                "epoch": epoch,
                "step": step,
                "seconds": seconds + time.perf_counter() - began,
                "last": last,
                "supernet": supernet.state_dict(),
                "weight_optimiser": algorithm.weight_optimiser.state_dict(),
                "alpha_optimiser": algorithm.alpha_optimiser.state_dict(),
                "generator": generator.get_state(),
            }
        )

    for epoch in range(first_epoch, options.epochs):
        stage = 1 if epoch < options.stage1_epochs else 2
        learning_rate = cosine(
            epoch, options.epochs, options.weights.learning_rate, options.weights.min_learning_rate
        )
        for group in algorithm.weight_optimiser.param_groups:
            group["lr"] = learning_rate
        orders = [
            batches(len(half), options.batch_size, seed=2 * seed + which, epoch=epoch)
            for which, half in enumerate(halves)
        ]
        for step in range(first_step, steps):
            if time.perf_counter() - saved >= checkpoint_seconds:
                save(epoch, step)
                saved = time.perf_counter()
            drawn = []
            for half, order in zip(halves, orders, strict=True):
                part = half.subset(order[step])
                natural = augment(part.pixels, augmentation, generator).contiguous(
                    memory_format=torch.channels_last
                )
                adversarial = algorithm.attack(natural, part.labels, generator)
                drawn.append(Batch(natural, adversarial, part.labels))
            weights_batch, alphas_batch = drawn
            alpha_step = algorithm.alpha_step(stage, alphas_batch, weights_batch)
            loss, _ = algorithm.weight_step(weights_batch)
            last = _record(epoch, epoch * steps + step, stage, learning_rate, loss, alpha_step, supernet)
            refuse_divergence(_watched(last), f"{run.folder}: search, epoch {epoch}, step {step}", REMEDY)
            run.log(last)
            progress("search", epoch * steps + step + 1, options.epochs * steps, _note(last))
        first_step = 0
    save(options.epochs, 0)
    mixing = {kind: alpha.detach().softmax(1).tolist() for kind, alpha in supernet.alphas.items()}
    return SearchOutcome(supernet.derive(name), mixing, seconds + time.perf_counter() - began, last)


def _restore(
    run: Run, state: dict[str, Any], algorithm: DSARASearch, generator: torch.Generator
) -> tuple[int, int, float, dict[str, Any]]:
    """Puts a checkpoint back and returns epoch, step, seconds so far, and the last record."""
    if state.get("job") != "search":
        raise CheckpointError(f"{run.folder}: its checkpoint is of job {state.get('job')!r}, not of a search")
    with run.restoring():
        algorithm.supernet.load_state_dict(state["supernet"])
        restore_optimiser(algorithm.weight_optimiser, state["weight_optimiser"])
        restore_optimiser(algorithm.alpha_optimiser, state["alpha_optimiser"])
        generator.set_state(state["generator"])
        return state["epoch"], state["step"], state["seconds"], state["last"]


def _record(
    epoch: int,
    step: int,
    stage: int,
    learning_rate: float,
    loss: Tensor,
    alphas: AlphaStep,
    supernet: Supernet,
) -> dict[str, Any]:
    """One line of `metrics.jsonl`: losses, gamma, gradient norms and cosine, alpha entropy (nats), skips per kind."""
    missing = torch.full_like(loss, math.nan)
    natural, adversarial = alphas.natural, alphas.adversarial
    cosine_of = missing if natural is None else torch.cosine_similarity(natural, adversarial, dim=0)
    entropies = {}
    for kind, alpha in supernet.alphas.items():
        log_mixing = alpha.detach().log_softmax(1)
        entropies[kind] = -(log_mixing.exp() * log_mixing).sum(1).mean()
    scalars = {
        "loss_weights": loss,
        "loss_natural": missing if alphas.loss_natural is None else alphas.loss_natural,
        "loss_adversarial": alphas.loss_adversarial,
        "gamma": missing if alphas.gamma is None else alphas.gamma,
        "norm_natural": missing if natural is None else natural.norm(),
        "norm_adversarial": adversarial.norm(),
        "cosine": cosine_of,
    }
    values = torch.stack([*scalars.values(), *entropies.values()]).tolist()  # one synchronisation
    named: dict[str, Any] = dict(zip(scalars, values, strict=False))
    for key in ("loss_natural", "gamma", "norm_natural", "cosine"):
        if stage == 1 or (key == "gamma" and alphas.gamma is None):
            named[key] = None
    derived = supernet.derive()
    return {
        "epoch": epoch,
        "step": step,
        "stage": stage,
        "learning_rate": learning_rate,
        **named,
        "entropy": dict(zip(entropies, values[len(scalars) :], strict=True)),
        "skips": {cell.kind: cell.operations().count("skip_connect") for cell in derived.genotype},
    }


def _watched(record: dict[str, Any]) -> dict[str, float | None]:
    """What shows that a search diverged: large losses, infinite gradients; NaN alphas show in their entropy."""
    losses = {key: record[key] for key in ("loss_weights", "loss_natural", "loss_adversarial")}
    norms = {key: record[key] for key in ("norm_natural", "norm_adversarial")}
    infinite = {key: norm for key, norm in norms.items() if norm is not None and not math.isfinite(norm)}
    entropies = {f"entropy of the {kind} alphas": value for kind, value in record["entropy"].items()}
    return {**losses, **infinite, **entropies}


def _note(record: dict[str, Any]) -> str:
    natural = "" if record["loss_natural"] is None else f" natural {record['loss_natural']:.2f}"
    alphas = f"adversarial {record['loss_adversarial']:.2f}{natural}"
    return f"stage {record['stage']}, loss {record['loss_weights']:.2f}, alphas: {alphas}"


def collapsed(architecture: CellArchitecture) -> list[str]:
    """A warning for every cell of which more than half of the operations are skip connections."""
    warnings = []
    for cell in architecture.genotype:
        operations = cell.operations()
        skips = operations.count("skip_connect")
        if 2 * skips > len(operations):
            warnings.append(
                f"the {cell.kind} cell collapsed: {skips} of its {len(operations)} operations are skip_connect"
            )
    return warnings
