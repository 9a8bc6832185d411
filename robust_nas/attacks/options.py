"""The attacks as option values: what the YAML says, what prints itself in a report, and what is called.

Shapes: images are float `[B, C, H, W]` in 0..1, labels int64 `[B]`; `eps` and `step_size` are on the 0..1
scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from robust_nas.config import Count, Fraction01, NonNegative, Options, Positive

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from robust_nas.attacks.target import AttackResult

Norm = Literal["linf", "l2"]
LEAST_CLASSES = {"dlr": 3, "dlr-targeted": 4}  # they rank so many logits; every other loss needs two


class Attack(Options):
    """What every attack has.

    `fold`: in eval mode the attack works on a copy with batch norm folded into the convolutions, in channels-last
    memory order, where the model can be traced; success is judged on the same numbers up to rounding.
    `precision`: of the forward and backward passes that make the candidates; the returned one is chosen in float32.
    `eot`: forward passes whose mean softmax is attacked (expectation over transformation), for random models.
    """

    family: ClassVar[str]  # the file of this room that holds the algorithm
    eps: NonNegative | None  # None: the box alone bounds the perturbation
    norm: Norm = "linf"
    bn: Literal["eval", "batch"] = "eval"
    fold: bool = True
    precision: Literal["float32", "bf16"] = "float32"
    eot: Count = 1

    @property
    def label(self) -> str:
        """A short name for tables and progress bars."""
        return str(getattr(self, "name", type(self).__name__.lower()))

    @property
    def radius(self) -> float:
        """The largest perturbation that the attack may make, in its norm."""
        return math.inf if self.eps is None else self.eps

    @property
    def least_classes(self) -> int:
        """The number of classes below which the attack is not defined."""
        return 2

    @property
    def least_side(self) -> int:
        """The number of rows and of columns below which the attack is not defined."""
        return 1

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator | None = None
    ) -> Tensor:
        """Adversarial images `[B, C, H, W]`, detached; the model is left as it was.

        `generator` lives on the images' device; without one, a fresh generator with seed 0 is used.
        Raises `AttackError` for images outside 0..1 or of a wrong shape or type.
        """
        return self.run(model, images, labels, generator).images

    def run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: Generator | None = None,
        *,
        trace: bool = False,
    ) -> AttackResult:
        """The same with what it cost, which form of the model was attacked and, with `trace`, every step's loss."""
        from robust_nas.attacks.target import run

        return run(self, model, images, labels, generator, trace=trace)


class BoundedAttack(Attack):
    """An attack that moves an image by at most eps."""

    eps: NonNegative


class MinimalAttack(Attack):
    """An attack that looks for the smallest perturbation that is adversarial.

    With `eps: null` it may be of any size; otherwise at most eps, and the image itself comes back where none is.
    """

    eps: NonNegative | None = None
    bn: Literal["eval"] = "eval"  # examples leave the batch when they are done, so it has no statistics


class GradientAttack(BoundedAttack):
    """The gradient family; `robust_nas.attacks.gradient` holds their one loop."""

    family: ClassVar[str] = "gradient"
    keep: Literal["best", "last"] = "best"

    @property
    def step(self) -> float:
        """The step size that is used (the first one, where it changes)."""
        return self.eps


class FGSM(GradientAttack):
    """One gradient step of length eps from the image itself (Goodfellow et al., 2015)."""

    name: Literal["fgsm"] = "fgsm"
    fold: bool = False  # a single step does not pay for the copy


class FGSMRS(GradientAttack):
    """FGSM from a uniform random start, step 1.25 eps, projected (Wong et al., 2020). For training."""

    name: Literal["fgsm-rs"] = "fgsm-rs"
    fold: bool = False  # a single step does not pay for the copy
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
    fold: bool = False  # a single step does not pay for the copy
    norm: Literal["linf"] = "linf"
    noise: Positive = 2.0  # k
    step_size: Positive | None = None  # None: eps
    keep: Literal["last"] = "last"

    @property
    def step(self) -> float:
        """The step size that is used."""
        return self.eps if self.step_size is None else self.step_size

    @property
    def radius(self) -> float:
        """The largest perturbation that the attack may make: k eps + step_size."""
        return self.noise * self.eps + self.step


class PGD(GradientAttack):
    """Projected gradient ascent with restarts (Madry et al., 2018), and momentum (Dong et al., 2018).

    The KL loss is TRADES's inner loss, KL(p(image) || p(adversarial)); its random start is 0.001 N(0, 1).
    A targeted loss is run once for each of the `targets` likeliest wrong classes, from `restarts` starts each.
    With `keep="last"` and several runs the best of their last iterates is kept.
    """

    name: Literal["pgd"] = "pgd"
    step_size: Positive | None = None  # None: 2.5 eps / steps
    steps: Count = 10
    loss: Literal["ce", "margin", "dlr", "kl", "ce-targeted", "dlr-targeted"] = "ce"
    targets: Count | None = None  # of a targeted loss; None: one
    momentum: Fraction01 = 0.0
    random_start: bool = True
    restarts: Count = 1

    @property
    def step(self) -> float:
        """The step size that is used."""
        return 2.5 * self.eps / self.steps if self.step_size is None else self.step_size

    @property
    def label(self) -> str:
        """Name, steps and what is not usual: `pgd-20`, `pgd-20x5`, `pgd-40-margin`."""
        loss = "" if self.loss == "ce" else f"-{self.loss}"
        return f"pgd-{self.steps}" + (f"x{self.restarts}" if self.restarts > 1 else "") + loss

    @property
    def least_classes(self) -> int:
        """The number of classes below which the attack is not defined."""
        return max(LEAST_CLASSES.get(self.loss, 2), (self.targets or 1) + 1)

    @model_validator(mode="after")
    def _start_can_move(self) -> Self:
        if self.loss == "kl" and not self.random_start:
            raise ValueError("loss 'kl' needs random_start: its gradient is zero at the image itself")
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"{self.restarts} restarts without random_start are the same run again")
        _refuse_targets_without_loss(self)
        return self


class APGD(GradientAttack):
    """PGD with momentum and a step size that adapts itself, from 2 eps (Croce and Hein, 2020).

    A targeted loss is run once for each of the `targets` likeliest wrong classes: APGD-T.
    """

    name: Literal["apgd"] = "apgd"
    steps: Count = 100
    loss: Literal["ce", "dlr", "dlr-targeted", "margin"] = "ce"
    targets: Count | None = None  # of a targeted loss; None: nine, or as many as there are
    restarts: Count = 1
    rho: Positive = 0.75  # the share of steps that must raise the loss, else the step is halved

    @property
    def step(self) -> float:
        """The first step size."""
        return 2 * self.eps

    @property
    def label(self) -> str:
        """Name, loss and, where there are several, restarts: `apgd-ce`, `apgd-t`, `apgd-ce-x2`."""
        loss = "t" if self.loss == "dlr-targeted" else self.loss
        return f"apgd-{loss}" + (f"-x{self.restarts}" if self.restarts > 1 else "")

    @property
    def least_classes(self) -> int:
        """The number of classes below which the attack is not defined."""
        return max(LEAST_CLASSES.get(self.loss, 2), (self.targets or 1) + 1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _refuse_targets_without_loss(self)
        return self


def _refuse_targets_without_loss(options: PGD | APGD) -> None:
    if options.targets is not None and not options.loss.endswith("-targeted"):
        raise ValueError(
            f"targets is {options.targets}, but loss {options.loss!r} has none; name a targeted loss"
        )


class CarliniWagner(MinimalAttack):
    """The smallest L2 perturbation by Adam in tanh space, with a binary search for its weight (2017)."""

    family: ClassVar[str] = "carlini_wagner"
    name: Literal["carlini-wagner"] = "carlini-wagner"
    norm: Literal["l2"] = "l2"
    steps: Count = 1000  # of Adam for each weight; fewer where the loss stops falling
    search_steps: Count = 9  # weights tried
    learning_rate: Positive = 0.01
    weight: Positive = 0.01  # c, where the binary search starts
    confidence: NonNegative = 0.0  # kappa

    @property
    def label(self) -> str:
        """A short name for tables and progress bars."""
        return "cw-l2"


class DeepFool(MinimalAttack):
    """The nearest boundary of the linearised model, again and again (Moosavi-Dezfooli et al., 2016)."""

    family: ClassVar[str] = "deepfool"
    name: Literal["deepfool"] = "deepfool"
    steps: Count = 50
    overshoot: NonNegative = 0.02
    candidates: Annotated[Count, Field(ge=2)] = 10  # likeliest classes whose boundaries are looked at


class Square(BoundedAttack):
    """Random search over squares, without any gradient (Andriushchenko et al., 2020)."""

    family: ClassVar[str] = "square"
    name: Literal["square"] = "square"
    bn: Literal["eval"] = "eval"  # examples leave the batch when they are done, so it has no statistics
    queries: Count = 5000  # per example and restart
    p_init: Annotated[Positive, Field(le=1)] = 0.8  # share of the pixels in the first squares
    restarts: Count = 1

    @property
    def label(self) -> str:
        """Name and queries: `square-500`."""
        return f"square-{self.queries}" + (f"x{self.restarts}" if self.restarts > 1 else "")

    @property
    def least_side(self) -> int:
        """The number of rows and of columns below which the attack is not defined: L2 starts from 5 x 5 tiles."""
        return 5 if self.norm == "l2" else 1


class Noise(BoundedAttack):
    """The best of several random perturbations on the sphere of radius eps: a control, not an attack."""

    family: ClassVar[str] = "noise"
    name: Literal["noise"] = "noise"
    draws: Count = 10

    @property
    def label(self) -> str:
        """Name and draws: `noise-10`."""
        return f"noise-{self.draws}"


class Transfer(BoundedAttack):
    """An attack made on other models, each in turn, and tried on this one (Papernot et al., 2016).

    `surrogates` are model folders; `attack` runs on them with this norm and eps.
    """

    family: ClassVar[str] = "transfer"
    name: Literal["transfer"] = "transfer"
    surrogates: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    attack: Annotated[PGD | APGD, Field(discriminator="name")]

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, values: object) -> object:
        """Gives the inner attack, written as plain keys, the norm and eps of the outer one; PGD-50 by default."""
        if not isinstance(values, Mapping):
            return values
        inner = values.get("attack", {"name": "pgd", "steps": 50, "loss": "margin"})
        if isinstance(inner, Mapping):
            limits = {key: values[key] for key in ("norm", "eps") if key in values}
            inner = {**limits, **inner}
        return {**values, "attack": inner}

    @model_validator(mode="after")
    def _one_threat_model(self) -> Self:
        for key in ("norm", "eps"):
            got, outer = getattr(self.attack, key), getattr(self, key)
            if got != outer:
                raise ValueError(f"attack has {key} {got!r}, the transfer {outer!r}; they must be the same")
        return self

    @property
    def label(self) -> str:
        """The attack and on how many models it was made: `transfer-pgd-50`."""
        return f"transfer-{self.attack.label}"


AnyAttack = Annotated[
    FGSM | FGSMRS | NFGSM | PGD | APGD | CarliniWagner | DeepFool | Square | Noise | Transfer,
    Field(discriminator="name"),
]


def _last_iterate(value: object) -> object:
    """`keep: last` where a mapping does not say."""
    return {"keep": "last", **value} if isinstance(value, Mapping) else value


Attacked = TypeVar("Attacked")
# An attack inside a training loss or a search: training takes the last iterate, where nothing else is written.
LastIterate = Annotated[Attacked, BeforeValidator(_last_iterate)]
