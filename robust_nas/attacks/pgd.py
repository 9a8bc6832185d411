"""PGD: projected gradient ascent with restarts (Madry et al., 2018), and momentum (Dong et al., 2018).

x_{t+1} = P(x_t + step_size d(grad_x L(f(x_t), y)))       P: onto the ball around x, then onto the box
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from robust_nas.attacks.gradient import KL_START, GradientAttack, Plan
from robust_nas.attacks.losses import refuse_targets_without_loss
from robust_nas.config import Count, Fraction01, Positive


class ProjectedAscent(GradientAttack):
    """Options and runs of PGD; a subclass may take other directions than the gradient (`ascent`).

    The KL loss is TRADES's inner loss, KL(p(image) || p(adversarial)); its random start is 0.001 N(0, 1).
    A targeted loss is run once for each of the `targets` likeliest wrong classes, from `restarts` starts each.
    With `keep="last"` and several runs the best of their last iterates is kept.
    """

    for_training: ClassVar[bool] = True
    iterative: ClassVar[bool] = True
    step_size: Positive | None = None  # None: 2.5 eps / steps
    steps: Count = 10  # gradient steps of a run
    loss: Literal["ce", "margin", "dlr", "kl", "ce-targeted", "dlr-targeted"] = "ce"  # that is raised
    targets: Count | None = None  # of a targeted loss; None: one
    momentum: Fraction01 = 0.0  # decay of the accumulated gradient; 0: plain PGD
    random_start: bool = True  # whether a run starts at a random point of the ball
    restarts: Count = 1  # runs, each from a start of its own

    @property
    def step(self) -> float:
        """The step size that is used."""
        return 2.5 * self.eps / self.steps if self.step_size is None else self.step_size

    @property
    def label(self) -> str:
        """Name, steps and what is not usual: `pgd-20`, `pgd-20x5`, `pgd-40-margin`."""
        loss = "" if self.loss == "ce" else f"-{self.loss}"
        return f"pgd-{self.steps}" + (f"x{self.restarts}" if self.restarts > 1 else "") + loss

    def doubled(self) -> Self:
        """Return the attack with twice the steps, of the same size, from twice the starts; the best iterate is kept."""
        return self.model_copy(
            update={
                "steps": 2 * self.steps,
                "restarts": 2 * self.restarts,
                "keep": "best",
                "step_size": self.step,
                "random_start": True,
            }
        )

    def shortened(self, steps: int) -> Self:
        """Return one run of at most `steps` steps on the cross-entropy, of the default size."""
        steps = min(self.steps, steps)
        step_size = 2.5 * self.eps / steps
        return self.model_copy(
            update={
                "steps": steps,
                "step_size": step_size,
                "loss": "ce",
                "targets": None,
                "restarts": 1,
                "keep": "best",
            }
        )

    @model_validator(mode="after")
    def _start_can_move(self) -> Self:
        if self.loss == "kl" and not self.random_start:
            raise ValueError("loss 'kl' needs random_start: its gradient is zero at the image itself")
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"{self.restarts} restarts without random_start are the same run again")
        refuse_targets_without_loss(self.targets, self.loss)
        return self

    def plan(self) -> Plan:
        """Return the runs: `restarts` for each target class."""
        kl = self.loss == "kl"
        random: Literal["normal", "uniform"] = "normal" if kl else "uniform"
        return Plan(
            steps=self.steps,
            rule=self.fixed_step(self.eps, self.momentum),
            radius=self.eps,
            start=random if self.random_start else "clean",
            start_radius=KL_START if kl else self.eps,
            loss=self.loss,
            targets=self.targets or 1,
            restarts=self.restarts,
        )


class PGD(ProjectedAscent):
    """Projected gradient ascent with restarts (Madry et al., 2018), and momentum (Dong et al., 2018)."""

    name: Literal["pgd"] = "pgd"
