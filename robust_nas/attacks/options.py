"""The attacks as option values: what the YAML says, what prints itself in a report, and what is called.

Shapes: images are float `[B, C, H, W]` in 0..1, labels int64 `[B]`; `eps` and `step_size` are on the 0..1
scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from robust_nas.config import Count, NonNegative, Options, Positive

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

Norm = Literal["linf", "l2"]


class GradientAttack(Options):
    """What every attack of the gradient family has; `robust_nas.attacks.gradient` holds their one loop."""

    eps: NonNegative
    norm: Norm = "linf"
    bn: Literal["eval", "batch"] = "eval"
    keep: Literal["best", "last"] = "best"

    @property
    def step(self) -> float:
        """The step size that is used."""
        return self.eps

    @property
    def label(self) -> str:
        """A short name for tables and progress bars."""
        return str(getattr(self, "name", type(self).__name__.lower()))

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator | None = None
    ) -> Tensor:
        """Adversarial images `[B, C, H, W]`, detached; the model is left as it was.

        `generator` lives on the images' device; without one, a fresh generator with seed 0 is used.
        Raises `AttackError` for images outside 0..1 or of a wrong shape or type.
        """
        from robust_nas.attacks.gradient import attack

        return attack(self, model, images, labels, generator)


class FGSM(GradientAttack):
    """One gradient step of length eps from the image itself (Goodfellow et al., 2015)."""

    name: Literal["fgsm"] = "fgsm"


class FGSMRS(GradientAttack):
    """FGSM from a uniform random start, step 1.25 eps, projected (Wong et al., 2020). For training."""

    name: Literal["fgsm-rs"] = "fgsm-rs"
    norm: Literal["linf"] = "linf"
    step_size: Positive | None = None  # None: 1.25 eps
    keep: Literal["best", "last"] = "last"

    @property
    def step(self) -> float:
        """The step size that is used."""
        return 1.25 * self.eps if self.step_size is None else self.step_size


class NFGSM(GradientAttack):
    """FGSM from noise of k eps, not projected back onto the ball, only into the box (de Jorge et al., 2022).

    For training alone: the result lies within k eps + step_size of the image, not within eps.
    """

    name: Literal["n-fgsm"] = "n-fgsm"
    norm: Literal["linf"] = "linf"
    noise: Positive = 2.0  # k
    step_size: Positive | None = None  # None: eps
    keep: Literal["last"] = "last"

    @property
    def step(self) -> float:
        """The step size that is used."""
        return self.eps if self.step_size is None else self.step_size


class PGD(GradientAttack):
    """Projected gradient ascent with restarts (Madry et al., 2018).

    The KL loss is TRADES's inner loss, KL(p(image) || p(adversarial)); its random start is 0.001 N(0, 1).
    With `keep="last"` and several restarts the best of their last iterates is kept.
    """

    name: Literal["pgd"] = "pgd"
    step_size: Positive | None = None  # None: 2.5 eps / steps
    steps: Count = 10
    loss: Literal["ce", "kl"] = "ce"
    random_start: bool = True
    restarts: Count = 1

    @property
    def step(self) -> float:
        """The step size that is used."""
        return 2.5 * self.eps / self.steps if self.step_size is None else self.step_size

    @property
    def label(self) -> str:
        """Name, steps and, where there are several, restarts: `pgd-20`, `pgd-20x5`."""
        return f"pgd-{self.steps}" + (f"x{self.restarts}" if self.restarts > 1 else "")

    @model_validator(mode="after")
    def _start_can_move(self) -> Self:
        if self.loss == "kl" and not self.random_start:
            raise ValueError("loss 'kl' needs random_start: its gradient is zero at the image itself")
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"{self.restarts} restarts without random_start are the same run again")
        return self


Attack = Annotated[FGSM | FGSMRS | NFGSM | PGD, Field(discriminator="name")]


def _last_iterate(value: object) -> object:
    """`keep: last` where a mapping does not say."""
    return {"keep": "last", **value} if isinstance(value, Mapping) else value


Attacked = TypeVar("Attacked")
# An attack inside a training loss or a search: training takes the last iterate, where nothing else is written.
LastIterate = Annotated[Attacked, BeforeValidator(_last_iterate)]
