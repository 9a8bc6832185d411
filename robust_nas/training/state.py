"""The state of a training: everything that a checkpoint holds, and what puts it back to the same bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robust_nas.attacks.batch_generator import BatchGenerator
from robust_nas.checkpoints import restore_optimiser
from robust_nas.data import Images
from robust_nas.distributed import Ranks
from robust_nas.nets import channels_last, inference_state
from robust_nas.training.average import moving_average
from robust_nas.training.context import TrainingContext
from robust_nas.training.hook import TrainingHook
from robust_nas.training.parameters import parameter_groups
from robust_nas.training.recipe import Training


class TrainingState:
    """Network, average, optimiser, draws, position, sums of the epoch, the best epoch so far; step and hooks."""

    def __init__(
        self,
        network: nn.Module,
        options: Training,
        *,
        device: torch.device,
        seed: int,
        steps: int,
        batch_size: int,
        ranks: Ranks,
        hooks: Sequence[TrainingHook],
        images: Images,
        validation: Images,
    ) -> None:
        for hook in options.hooks:
            hook.prepare(network)
        self.network = channels_last(network)
        self.average = None if options.ema is None else moving_average(network, options.ema)
        self.optimiser = torch.optim.SGD(
            parameter_groups(network),
            options.learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            nesterov=options.nesterov,
        )
        self.generator = BatchGenerator(device)
        self.generator.manual_seed(seed)
        if callable(
            draw_from := getattr(network, "draw_from", None)
        ):  # a random network: its draws are checkpointed
            draw_from(self.generator)
        self.epoch = self.position = 0  # the next batch is number `position` of the epoch
        self.seconds = 0.0
        self.sums = {"loss": 0.0, "correct": 0.0, "seen": 0.0}
        self.best: dict[str, Any] | None = None
        self.keeps = options.keep
        training = TrainingContext(
            network=self.network,
            loss=options.loss,
            generator=self.generator,
            epochs=options.epochs,
            steps=steps,
            batch_size=batch_size,
            bf16=options.precision == "bf16",
            auxiliary_weight=options.auxiliary_weight,
            ranks=ranks,
            images=images,
            validation=validation,
            optimiser=self.optimiser,
            average=self.average,
        )
        fitting = options.loss.start(training)
        first = () if fitting is None else (fitting,)  # other hooks see the loss as it changes it
        self.hooks = (*first, *(hook.start(training) for hook in options.hooks), *hooks)
        training.hooks.extend(self.hooks)
        self.step = options.step.start(training, self.hooks)

    @property
    def model(self) -> nn.Module:
        """Return the network that is validated and kept: the average where there is one."""
        return self.network if self.average is None else self.average.module

    @property
    def stopped(self) -> bool:
        """Return whether a hook has ended the training."""
        return any(hook.stop for hook in self.hooks)

    def keep(self, clean: float, robust: float) -> None:
        """Keep the model of this epoch if it is the best one so far by what the recipe keeps, then by the other."""
        if self.best is None or self._better((robust, clean), (self.best["robust"], self.best["clean"])):
            state = {name: tensor.clone() for name, tensor in inference_state(self.model).items()}
            self.best = {"epoch": self.epoch, "clean": clean, "robust": robust, "state": state}

    def _better(self, one: tuple[float, float], other: tuple[float, float]) -> bool:
        """Return whether robust and clean accuracy `one` are to be kept rather than `other`, the earlier."""
        if self.keeps == "last":
            return True
        return one[::-1] > other[::-1] if self.keeps == "clean" else one > other

    def next_epoch(self) -> None:
        """Move on to the first batch of the next epoch."""
        self.epoch, self.position = self.epoch + 1, 0
        self.sums = dict.fromkeys(self.sums, 0.0)

    def tensors(self) -> dict[str, Tensor]:
        """Return what every rank must hold alike."""
        return {
            **self.network.state_dict(),
            **self.model.state_dict(prefix="average."),
            "draws": self.generator.get_state(),
            **dict(_tensors(self.step.state(), "step")),
            **dict(_tensors([hook.state() for hook in self.hooks], "hooks")),
        }

    def checkpoint(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {
            "job": "train",
            "epoch": self.epoch,
            "step": self.position,
            "seconds": self.seconds,
            "sums": self.sums,
            "best": self.best,
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "step_state": self.step.state(),
            "hooks": [hook.state() for hook in self.hooks],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `checkpoint` gave. Raises what torch raises, or `ValueError`, where it does not fit."""
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        restore_optimiser(self.optimiser, state["optimiser"])
        self.generator.restore(state["generator"])
        self.step.restore(state.get("step_state", {}))  # older versions had neither steps nor hooks
        for hook, own in zip(self.hooks, state.get("hooks", []), strict=True):
            hook.restore(own)
        self.epoch, self.position, self.seconds = state["epoch"], state["step"], state["seconds"]
        self.sums, self.best = state["sums"], state["best"]
        if self.best is not None:
            _refuse_other_shapes(self.best["state"], inference_state(self.model))


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a tree of lists and dicts, each with its place."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in items:
            yield from _tensors(inner, f"{name}.{key}")


def _refuse_other_shapes(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` when the best weights of a checkpoint are not those of this network."""
    shapes = [{name: tuple(tensor.shape) for name, tensor in state.items()} for state in (found, expected)]
    if shapes[0] != shapes[1]:
        raise ValueError("its best epoch is of another network")
