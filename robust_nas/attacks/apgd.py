"""APGD: PGD with momentum and a step size that halves itself (Croce and Hein, 2020, Algorithm 1).

    z       = P(x_t + eta g_t)
    x_{t+1} = P(x_t + a (z - x_t) + (1 - a) (x_t - x_{t-1}))        a = 0.75, and 1 in the first step
    eta     = 2 eps at first; halved at a checkpoint w_j when
              1. fewer than rho of the steps since w_{j-1} raised the loss, or
              2. eta was not halved at w_{j-1}, and the best loss has not changed since;
              x then goes back to the best point so far
    w_j     = ceil(p_j steps), p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)

In L1 the steps are sparse, and the rule is another one: `apgd_l1.py`.

The lengths of the intervals are rounded down as in the authors' code: 22, 19, 16, ... of 100 steps.
B batch, C channels, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator

from robust_nas.attacks.apgd_l1 import Sparse, balls
from robust_nas.attacks.gradient import GradientAttack, Plan
from robust_nas.attacks.losses import TARGETED, refuse_targets_without_loss
from robust_nas.attacks.norms import Norm, direction, project
from robust_nas.config import Count, Positive
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

MOMENTUM = 0.75  # a
FIRST, SHRINK, SHORTEST = 0.22, 0.03, 0.06  # shares of the steps


class APGD(GradientAttack):
    """PGD with momentum and a step size that adapts itself, from 2 eps (Croce and Hein, 2020).

    A targeted loss is run once for each of the `targets` likeliest wrong classes: APGD-T. In L1 it is the authors'
    APGD of 2021, with sparse steps in balls of 3, 2 and 1 eps (`apgd_l1.py`), which has no `rho`.
    """

    iterative: ClassVar[bool] = True
    parameter_free: ClassVar[bool] = True
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")
    name: Literal["apgd"] = "apgd"
    steps: Count = 100  # gradient steps of a run
    loss: Literal["ce", "dlr", "dlr-targeted", "margin"] = "ce"  # that is raised
    targets: Count | None = None  # of a targeted loss; None: nine, or as many as there are
    restarts: Count = 1  # runs from random starts
    rho: Positive = 0.75  # the share of steps that must raise the loss, else the step is halved

    @property
    def step(self) -> float:
        """The first step size."""
        return 2 * self.eps if self.norm != "l1" else balls(self.steps)[0][0] * self.eps

    @property
    def label(self) -> str:
        """Name, loss and, where there are several, restarts: `apgd-ce`, `apgd-t`, `apgd-ce-x2`."""
        loss = "t" if self.loss == "dlr-targeted" else self.loss
        return f"apgd-{loss}" + (f"-x{self.restarts}" if self.restarts > 1 else "")

    def doubled(self) -> APGD:
        """Return the attack with twice the steps from twice the starts; the best iterate is kept."""
        return self.model_copy(
            update={"steps": 2 * self.steps, "restarts": 2 * self.restarts, "keep": "best"}
        )

    def shortened(self, steps: int) -> APGD:
        """Return one run of at most `steps` steps on the cross-entropy."""
        return self.model_copy(
            update={
                "steps": min(self.steps, steps),
                "loss": "ce",
                "targets": None,
                "restarts": 1,
                "keep": "best",
            }
        )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse_targets_without_loss(self.targets, self.loss)
        return self

    def plan(self) -> Plan:
        """Return the runs: `restarts` for each target class, from starts on the sphere (in L1: in the first ball)."""
        targets = self.targets if self.loss in TARGETED else 1
        if self.norm == "l1":
            found = balls(self.steps)
            factor, last = found[0][0], found[-1][1]
            return Plan(
                steps=self.steps,
                rule=lambda images: Sparse(images, self.eps, self.steps),
                radius=factor * self.eps,
                start="normal",
                start_radius=1.0,
                outside=self.steps - last,
                loss=self.loss,
                targets=targets,
                restarts=self.restarts,
            )
        return Plan(
            steps=self.steps,
            rule=lambda images: Adaptive(images, self.eps, self.norm, self.steps, self.rho),
            radius=self.eps,
            start="sphere",
            start_radius=self.eps,
            loss=self.loss,
            targets=targets,
            restarts=self.restarts,
        )


class Adaptive:
    """The rule, with its memory of one run: called with an iterate, its gradient and its loss."""

    def __init__(self, images: Tensor, eps: float, norm: Norm, steps: int, rho: float) -> None:
        self.images, self.eps, self.norm, self.rho = images, eps, norm, rho
        self.interval = max(int(FIRST * steps), 1)
        self.shrink, self.shortest = max(int(SHRINK * steps), 1), max(int(SHORTEST * steps), 1)
        self.size = torch.full((len(images), 1, 1, 1), 2 * eps, dtype=images.dtype, device=images.device)
        self.since = 0  # steps since the last checkpoint
        self.before: Tensor | None = None  # x_{t-1}

    def __call__(self, x: Tensor, gradient: Tensor, loss: Tensor) -> Tensor:
        """The next iterate `[B, C, H, W]`."""
        loss = loss.nan_to_num(nan=-torch.inf)
        if self.before is None:
            self.best_x, self.best_gradient, self.best = x, gradient, loss
            self.rises = torch.zeros_like(loss)
            self.best_at_check, self.halved = loss, torch.ones_like(loss, dtype=torch.bool)
            a, self.before = 1.0, x
        else:
            x, gradient = self._judge(x, gradient, loss)
            a = MOMENTUM
        self.last = loss
        z = project(x + self.size * direction(gradient, self.norm), self.images, self.eps, self.norm)
        ahead = x + a * (z - x) + (1 - a) * (x - self.before)
        self.before = x
        return project(ahead, self.images, self.eps, self.norm)

    def _judge(self, x: Tensor, gradient: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
        """Takes note of an iterate; at a checkpoint, the point to go on from and its gradient."""
        self.rises += loss > self.last
        better = loss > self.best
        self.best_x = torch.where(_wide(better), x, self.best_x)
        self.best_gradient = torch.where(_wide(better), gradient, self.best_gradient)
        self.best = torch.where(better, loss, self.best)
        self.since += 1
        if self.since < self.interval:
            return x, gradient
        halve = (self.rises <= self.rho * self.interval) | (~self.halved & (self.best_at_check >= self.best))
        self.size = torch.where(_wide(halve), self.size / 2, self.size)
        self.halved, self.best_at_check = halve, self.best
        self.rises = torch.zeros_like(loss)
        self.interval, self.since = max(self.interval - self.shrink, self.shortest), 0
        x = torch.where(_wide(halve), self.best_x, x)
        return x, torch.where(_wide(halve), self.best_gradient, gradient)


def _wide(per_example: Tensor) -> Tensor:
    return per_example.view(-1, 1, 1, 1)
