"""The search loop: data, both steps, logging, checkpoints. Killed at any instant, it resumes to the same bits.

What a step measures stays on the device until it is read back with that of other steps, at the latest before a
checkpoint: the loop waits for the device every `READ_EVERY` steps, not in each.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robust_nas.attacks.batch_generator import BatchGenerator
from robust_nas.checkpoints import restore_optimiser
from robust_nas.data import Augment, Images, augment, split
from robust_nas.data.order import batches
from robust_nas.distributed import ALONE, Ranks
from robust_nas.errors import CheckpointError
from robust_nas.nets import Supernet, channels_last
from robust_nas.runs import Progress, Run, silent
from robust_nas.search.dsara import AlphaStep, Batch, DSARASearch
from robust_nas.search.options import DSARA
from robust_nas.spaces import CellArchitecture
from robust_nas.training.divergence import refuse_broken_weights, refuse_divergence
from robust_nas.training.schedules import cosine

READ_EVERY = 20  # steps
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
    ranks: Ranks = ALONE,
) -> SearchOutcome:
    """Searches on `images` (the training set, on the supernet's device), half for weights, half for alphas.

    Continues from the run's checkpoint where there is one; with several ranks each takes its rows of every batch.
    Raises `DivergenceError` when a loss or alpha stops being finite; the checkpoint before it stays.
    """
    device = images.pixels.device
    algorithm = DSARASearch(channels_last(supernet), options, ranks)
    generator = BatchGenerator(device)
    generator.manual_seed(seed)
    halves = [images.subset(indices) for indices in split(images.labels, 0.5, seed)]
    orders = [batches(len(half), options.batch_size, seed=0, epoch=0) for half in halves]
    steps = min(len(order) for order in orders)
    ranks.refuse_small(min(len(order[0]) for order in orders), "search.batch_size")
    first_epoch = first_step = 0
    seconds = 0.0
    last: dict[str, Any] = {}
    state = ranks.run_on_all(run.load_checkpoint)
    if state is not None:
        first_epoch, first_step, seconds, last = _restore(run, state, algorithm, generator)
    began = saved = time.perf_counter()
    measured: list[_Measured] = []

    def read() -> None:
        nonlocal last
        if not measured:
            return
        rows = torch.stack([one.values for one in measured]).cpu()  # one synchronisation
        for one, row in zip(measured, rows, strict=True):
            last = _record(one, row, supernet)
            where = f"{run.folder}: search, epoch {last['epoch']}, step {last['step'] % steps}"
            refuse_divergence(_watched(last), where, REMEDY)
            run.log(last)
        measured.clear()

    def save(epoch: int, step: int) -> None:
        read()
        where = f"{run.folder}: search, before epoch {epoch}, step {step}"
        refuse_broken_weights([supernet], where, REMEDY)
        ranks.refuse_difference({**supernet.state_dict(), "draws": generator.get_state()}, where)
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
            if ranks.first_decides(time.perf_counter() - saved >= checkpoint_seconds):
                save(epoch, step)
                saved = time.perf_counter()
            drawn = []
            for half, order in zip(halves, orders, strict=True):
                part = half.subset(order[step])
                whole, rows = len(part), ranks.rows(len(part))
                generator.whole, generator.rows = whole, rows
                natural = augment(part.pixels, augmentation, generator)[rows].contiguous(
                    memory_format=torch.channels_last
                )
                labels = part.labels[rows]
                adversarial = algorithm.attack(natural, labels, generator)
                drawn.append(Batch(natural, adversarial, labels, ranks.share(whole)))
            weights_batch, alphas_batch = drawn
            alpha_step = algorithm.alpha_step(stage, alphas_batch, weights_batch)
            loss, _ = algorithm.weight_step(weights_batch)
            known = {
                "epoch": epoch,
                "step": epoch * steps + step,
                "stage": stage,
                "learning_rate": learning_rate,
            }
            measured.append(_measure(known, loss, alpha_step, supernet))
            if len(measured) == READ_EVERY or step == steps - 1:
                read()
            note = _note(last) if last else ""
            progress("search", epoch * steps + step + 1, options.epochs * steps, note)
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


SCALARS = (
    "loss_weights",
    "loss_natural",
    "loss_adversarial",
    "gamma",
    "norm_natural",
    "norm_adversarial",
    "cosine",
)


class _Measured(NamedTuple):
    """What a step measured: `values` on the device are the `SCALARS`, then the alphas of every kind."""

    known: dict[str, Any]  # epoch, step, stage, learning_rate
    absent: frozenset[str]  # scalars that this step does not have
    values: Tensor


def _measure(known: dict[str, Any], loss: Tensor, alphas: AlphaStep, supernet: Supernet) -> _Measured:
    """The losses, gamma, gradient norms and cosine of a step and the alphas behind it, without a synchronisation."""
    natural, adversarial = alphas.natural, alphas.adversarial
    found = (
        loss,
        alphas.loss_natural,
        alphas.loss_adversarial,
        alphas.gamma,
        None if natural is None else natural.norm(),
        adversarial.norm(),
        None if natural is None else torch.cosine_similarity(natural, adversarial, dim=0),
    )
    absent = frozenset(name for name, value in zip(SCALARS, found, strict=True) if value is None)
    scalars = torch.stack([torch.zeros_like(loss) if value is None else value for value in found])
    parameters = [alpha.detach().reshape(-1) for alpha in supernet.alphas.values()]
    return _Measured(known, absent, torch.cat([scalars, *parameters]))


def _record(measured: _Measured, values: Tensor, supernet: Supernet) -> dict[str, Any]:
    """One line of `metrics.jsonl` from values on the host: also the alphas' entropy (nats), and skips, per kind."""
    scalars = dict(zip(SCALARS, values.tolist(), strict=False))
    kinds = list(supernet.alphas)
    alphas = values[len(SCALARS) :].view(len(kinds), len(supernet.space.edges), -1)  # [kinds, E, O]
    log_mixing = alphas.log_softmax(2)
    entropies = -(log_mixing.exp() * log_mixing).sum(2).mean(1)
    genotype = {
        kind: supernet.derive_nodes(mixing) for kind, mixing in zip(kinds, alphas.softmax(2), strict=True)
    }
    cells = supernet.space.architecture("derived", genotype).genotype
    return {
        **measured.known,
        **{name: None if name in measured.absent else value for name, value in scalars.items()},
        "entropy": dict(zip(kinds, entropies.tolist(), strict=True)),
        "skips": {cell.kind: cell.operations().count("skip_connect") for cell in cells},
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
