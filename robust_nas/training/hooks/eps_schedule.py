"""A curriculum in eps: the inner attack starts weak and reaches its eps after some epochs.

    eps_t = eps min(1, start + (1 - start) t / epochs),   t in epochs, fractional

The step size goes along, where the attack names one. Pang et al. (2021) found such a warm-up to matter little at
8/255; single-step training at larger eps uses one of 5 epochs (de Jorge et al., 2022, on SVHN).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from robust_nas.config import Count, Number
from robust_nas.training.context import TrainingContext
from robust_nas.training.hook import HookOptions, Recipe, TrainingHook
from robust_nas.training.loss import Loss


class EpsSchedule(HookOptions):
    """eps of the inner attack from the share `start` of it, linearly over `epochs`; validation keeps its own eps."""

    needs_end: ClassVar[bool] = False

    name: Literal["eps-schedule"] = "eps-schedule"
    epochs: Count = 5  # until eps is reached
    start_share: Annotated[Number, Field(ge=0, le=1)] = 0.0  # share of eps at the start

    def refuse(self, recipe: Recipe) -> None:
        """Raise `ValueError` for a loss without an inner attack of a positive eps."""
        attack = recipe.loss.inner_attack
        if attack is None or not attack.eps:
            what = "none" if attack is None else f"one of eps {attack.eps}"
            raise ValueError(
                f"hook 'eps-schedule' scales the eps of the inner attack; loss {recipe.loss.label!r} has {what}"
            )

    def factor_at(self, epoch: float) -> float:
        """Return the factor of eps at a position in epochs."""
        return min(1.0, self.start_share + (1 - self.start_share) * epoch / self.epochs)

    def start(self, training: TrainingContext) -> TrainingHook:
        """Return the hook at the begin of a training."""
        return Curriculum(self, training)


class Curriculum(TrainingHook):
    """The hook in its running form."""

    def __init__(self, options: EpsSchedule, training: TrainingContext) -> None:
        self.options, self.steps = options, training.steps
        self.epoch = self.step = 0

    def loss(self, loss: Loss) -> Loss:
        """Return the loss with the present eps; itself where that is the recipe's."""
        factor, attack = self.options.factor_at(self.epoch + self.step / self.steps), loss.inner_attack
        return loss if factor == 1 or attack is None else loss.with_attack(attack.scaled(factor))

    def after_backward(self) -> None:
        """Count the step."""
        self.step += 1

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        """Count the epoch. Return the factor of its last step."""
        factor = self.options.factor_at(self.epoch + (self.step - 1) / self.steps)
        self.epoch, self.step = epoch + 1, 0
        return {"eps_factor": factor}

    def state(self) -> dict[str, Any]:
        """Return the position."""
        return {"epoch": self.epoch, "step": self.step}

    def restore(self, state: dict[str, Any]) -> None:
        """Put the position back."""
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
