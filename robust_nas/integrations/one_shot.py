"""What an adversarial one-shot search does at each step, whoever's strategy runs it: batches, records, checkpoints.

The strategy trains the weights on one half of the images and the alphas on the other, both on adversarial examples.
A checkpoint is written between two epochs; a search that is killed goes on from there to the same bits. No NNI here.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robust_nas.checkpoints import restore_optimiser
from robust_nas.data import Augment, Images, augment, split
from robust_nas.data.order import batches
from robust_nas.errors import CheckpointError
from robust_nas.runs import Progress, Run
from robust_nas.search.options import NNI
from robust_nas.spaces import CellArchitecture
from robust_nas.training.divergence import refuse_broken_weights, refuse_divergence
from robust_nas.training.schedules import cosine

Half = Literal["weights", "alphas"]
HALVES: tuple[Half, Half] = ("weights", "alphas")
REMEDY = "A smaller search.weights.learning_rate or clip_norm may help"


class OneShotSearch:
    """The state of one search but for the strategy's own: images, generator, position, the last record."""

    def __init__(
        self,
        run: Run,
        images: Images,
        options: NNI,
        augmentation: Augment,
        seed: int,
        checkpoint_seconds: float,
        progress: Progress,
    ) -> None:
        self.run, self.options, self.augmentation, self.seed = run, options, augmentation, seed
        self.checkpoint_seconds, self.progress = checkpoint_seconds, progress
        self.device = images.pixels.device
        self.generator = torch.Generator(self.device).manual_seed(seed)
        parts = [images.subset(indices) for indices in split(images.labels, 0.5, seed)]
        self.halves = dict(zip(HALVES, parts, strict=True))
        self.steps = min(len(batches(len(part), options.batch_size, seed=0, epoch=0)) for part in parts)
        self.epoch, self.seconds = 0, 0.0
        self.last: dict[str, Any] = {}
        self.began = self.saved = time.perf_counter()

    def adversarial(self, model: nn.Module, half: Half, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """The attacked batch `[B, C, H, W]` of a step, and its labels `[B]`."""
        part = self.halves[half]
        order = batches(
            len(part), self.options.batch_size, seed=2 * self.seed + HALVES.index(half), epoch=epoch
        )
        chosen = part.subset(order[step])
        natural = augment(chosen.pixels, self.augmentation, self.generator)
        natural = natural.contiguous(memory_format=torch.channels_last)
        return self.options.attack(model, natural, chosen.labels, self.generator), chosen.labels

    def learning_rate(self, epoch: int) -> float:
        """Of the weights in an epoch."""
        weights = self.options.weights
        return cosine(epoch, self.options.epochs, weights.learning_rate, weights.min_learning_rate)

    def record(
        self,
        epoch: int,
        step: int,
        losses: dict[Half, Tensor],
        mixing: dict[str, Tensor],
        derived: CellArchitecture,
    ) -> None:
        """Writes one line of `metrics.jsonl`; `mixing` is `[E, O]` per kind. Raises `DivergenceError`."""
        entropies = {
            kind: -torch.special.xlogy(weights, weights).sum(1).mean() for kind, weights in mixing.items()
        }
        values = torch.stack([*(losses[half] for half in HALVES), *entropies.values()]).tolist()
        done = epoch * self.steps + step
        self.last = {
            "epoch": epoch,
            "step": done,
            "stage": 1,  # alphas on the adversarial loss alone, as in DSARA's first stage
            "learning_rate": self.learning_rate(epoch),
            "loss_weights": values[0],
            "loss_natural": None,
            "loss_adversarial": values[1],
            "entropy": dict(zip(entropies, values[2:], strict=True)),
            "skips": {cell.kind: cell.operations().count("skip_connect") for cell in derived.genotype},
        }
        watched = {
            **{key: self.last[key] for key in ("loss_weights", "loss_adversarial")},
            **{f"entropy of the {kind} alphas": value for kind, value in self.last["entropy"].items()},
        }
        refuse_divergence(watched, f"{self.run.folder}: search, epoch {epoch}, step {step}", REMEDY)
        self.run.log(self.last)
        note = f"loss {values[0]:.2f}, alphas: adversarial {values[1]:.2f}"
        self.progress("search", done + 1, self.options.epochs * self.steps, note)

    def save(
        self,
        epoch: int,
        supernet: nn.Module,
        weight_optimiser: torch.optim.Optimizer,
        alpha_states: dict[str, dict[str, Tensor]],
    ) -> None:
        """Writes a checkpoint of the moment before `epoch` where one is due; at the end one is.

        Raises `DivergenceError` where the supernet is not fit to be kept.
        """
        now = time.perf_counter()
        if epoch < self.options.epochs and now - self.saved < self.checkpoint_seconds:
            return
        self.saved = now
        refuse_broken_weights([supernet], f"{self.run.folder}: search, before epoch {epoch}", REMEDY)
        cuda = self.device.type == "cuda"
        self.run.save_checkpoint(
            {
                "job": "nni",
                "epoch": epoch,
                "seconds": self.elapsed(),
                "last": self.last,
                "supernet": supernet.state_dict(),
                "weight_optimiser": weight_optimiser.state_dict(),
                "alpha_states": alpha_states,
                "generator": self.generator.get_state(),
                "global_generator": torch.get_rng_state(),
                "cuda_generator": torch.cuda.get_rng_state(self.device) if cuda else None,
            }
        )

    def elapsed(self) -> float:
        """Seconds of search, over all calls."""
        return self.seconds + time.perf_counter() - self.began

    def restore(self, supernet: nn.Module) -> dict[str, Any] | None:
        """Puts the run's checkpoint back, where there is one, but for the optimisers and the global generators."""
        state = self.run.load_checkpoint()
        if state is None:
            return None
        if state.get("job") != "nni":
            raise CheckpointError(
                f"{self.run.folder}: its checkpoint is of job {state.get('job')!r}, not of a search by NNI"
            )
        with self.run.restoring():
            supernet.load_state_dict(state["supernet"])
            self.generator.set_state(state["generator"])
            self.epoch, self.seconds, self.last = state["epoch"], state["seconds"], state["last"]
        return state

    def restore_strategy(
        self,
        state: dict[str, Any],
        weight_optimiser: torch.optim.Optimizer,
        alpha_optimiser: torch.optim.Optimizer,
        alphas: dict[str, nn.Parameter],
    ) -> None:
        """Puts back the optimisers of a strategy that is about to run, and the global generators it draws from.

        NNI lists its alphas in an order that differs from process to process; their moments are kept by label.
        """
        with self.run.restoring():
            restore_optimiser(weight_optimiser, state["weight_optimiser"])
            for label, alpha in alphas.items():
                moments = state["alpha_states"][label]
                if any(value.dim() and value.shape != alpha.shape for value in moments.values()):
                    raise ValueError(f"the moments of the alphas {label} have another shape")
                alpha_optimiser.state[alpha] = {
                    key: value.to(alpha.device) if value.dim() else value for key, value in moments.items()
                }
            torch.set_rng_state(state["global_generator"])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(state["cuda_generator"], self.device)


@contextmanager
def own_generators(device: torch.device, seed: int) -> Iterator[None]:
    """Torch's global generators of this device seeded inside, and as they were outside."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def quiet(*loggers_of: str) -> Iterator[None]:
    """No log lines of these packages, NNI's would go to standard output; and an interrupt that stays one.

    Lightning turns an interrupt into exit code 1 and leaves the signal ignored.
    """
    loggers = [logging.getLogger(name) for name in loggers_of]
    levels = [logger.level for logger in loggers]
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 asks torch's trees for their leaves in the old way.
            warnings.filterwarnings(
                "ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning
            )
            yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if main and handler is not None:
            signal.signal(signal.SIGINT, handler)
