"""The search strategies as option values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from robust_nas.attacks import PGD, Attack, training_attack_field
from robust_nas.config import Count, CountOrZero, Fraction01, NonNegative, Options, Positive
from robust_nas.data.options import Augment
from robust_nas.errors import ConfigError

InnerAttack = Annotated[Attack, training_attack_field()]


class WeightOptimiser(Options):
    """SGD with momentum for the supernet's weights, cosine from `learning_rate` to `min_learning_rate`."""

    learning_rate: Positive = 0.025
    min_learning_rate: NonNegative = 0.001
    momentum: Fraction01 = 0.9
    weight_decay: NonNegative = 3e-4
    clip_norm: Positive = 5.0


class AlphaOptimiser(Options):
    """Adam for the architecture parameters."""

    learning_rate: Positive = 3e-4
    betas: tuple[Fraction01, Fraction01] = (0.5, 0.999)
    weight_decay: NonNegative = 1e-3


class SupernetOptions(Options):
    """How the supernet computes: the same function either way, `plain` is the reference."""

    execution: Literal["fused", "plain"] = "fused"


class DSARA(Options):
    """DSARA's two-stage search.

    Defaults are those of the official ARNAS code, but for the two stages, lambda (there 0.1), the order (there 2)
    and batch norm during the attack (there in training mode): `docs/methods/dsara.md`.
    """

    name: Literal["dsara"] = "dsara"
    epochs: Count = 50
    stage1_epochs: CountOrZero = 21  # adversarial loss alone before it; inferred from the official code
    batch_size: Annotated[Count, Field(ge=2)] = 32
    cells: Count | None = None  # None: the space's search size
    channels: Count | None = None
    augment: Augment | None = None  # None: the data section's
    attack: InnerAttack = PGD(eps=8 / 255, step_size=2 / 255, steps=7, keep="last")
    combine: Literal["min-norm", "sum"] = "min-norm"  # of the two gradients in stage 2
    adversarial_weight: Positive = 1.0  # lambda, on the adversarial gradient of stage 2
    order: Literal[1, 2] = 1  # 2: gradient through one unrolled weight step
    finite_difference: Positive = 0.01  # r of the second order, step r / ||v||
    weights: WeightOptimiser = WeightOptimiser()
    alphas: AlphaOptimiser = AlphaOptimiser()
    precision: Literal["float32", "bf16"] = "float32"

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        if self.stage1_epochs > self.epochs:
            raise ValueError(f"stage1_epochs is {self.stage1_epochs}, more than the {self.epochs} epochs")
        return self


class NNIAlphaOptimiser(Options):
    """NNI's Adam for the architecture parameters: betas 0.5, 0.999 and weight decay 1e-3 are its own and fixed."""

    learning_rate: Positive = 3e-4


class NNI(Options):
    """One of NNI's one-shot strategies with an adversarial loss for weights and alphas (`docs/nni.md`)."""

    name: Literal["nni"] = "nni"
    strategy: Literal["darts", "gumbel-darts"] = "darts"
    epochs: Count = 50
    batch_size: Annotated[Count, Field(ge=2)] = 32
    cells: Count | None = None  # None: the space's search size
    channels: Count | None = None
    augment: Augment | None = None  # None: the data section's
    attack: InnerAttack = PGD(eps=8 / 255, step_size=2 / 255, steps=7, keep="last")
    weights: WeightOptimiser = WeightOptimiser()
    alphas: NNIAlphaOptimiser = NNIAlphaOptimiser()
    precision: Literal["float32"] = "float32"


def _default_name(value: object) -> object:
    """DSARA where a config names no strategy."""
    return {"name": "dsara", **value} if isinstance(value, Mapping) else value


Strategy = Annotated[DSARA | NNI, Field(discriminator="name"), BeforeValidator(_default_name)]

# As `--strategy` has them: the options, and what is set in them.
STRATEGIES: dict[str, tuple[type[Options], dict[str, str]]] = {
    "dsara": (DSARA, {"name": "dsara"}),
    "nni:darts": (NNI, {"name": "nni", "strategy": "darts"}),
    "nni:gumbel-darts": (NNI, {"name": "nni", "strategy": "gumbel-darts"}),
}


def with_strategy(section: Mapping[str, Any], strategy: str) -> dict[str, Any]:
    """The search section of a config for another strategy: the keys that it has too keep their values.

    Raises `ConfigError` for an unknown strategy.
    """
    if strategy not in STRATEGIES:
        raise ConfigError(f"strategy: got {strategy!r}; allowed: {', '.join(STRATEGIES)}")
    options, chosen = STRATEGIES[strategy]
    return {**_shared(section, options), **chosen}


def _shared(section: Mapping[str, Any], options: type[Options]) -> dict[str, Any]:
    kept = {}
    for key, value in section.items():
        if key in options.model_fields:
            inner: Any = options.model_fields[key].annotation
            nested = isinstance(value, Mapping) and isinstance(inner, type) and issubclass(inner, Options)
            kept[key] = _shared(value, inner) if nested else value
    return kept
