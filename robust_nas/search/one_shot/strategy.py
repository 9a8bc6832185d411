"""The protocol of one-shot strategies. A search step, on batches (x, y) of the weights' and (v, t) of the alphas' half:

    x' = attack(w, alpha; x, y),   v' = attack(w, alpha; v, t)
    alpha <- Adam(alpha, g)                                g: `alpha_gradient`
    w     <- SGD(w, d/dw L(w, alpha; x', y)), or by another training loss on x (`weights.loss`)

A new strategy is a subclass that says what differs, most often `alpha_gradient` alone. The base class is adversarial
DARTS of first order (Liu et al., 2019, with the losses on attacked images): g = d/dalpha L(w, alpha; v', t).

Shapes: B batch, C channels, H height, W width, E edges of a cell, O operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from robust_nas.attacks import Attack, inherited, training_attack_field
from robust_nas.config import Count, CountOrZero, Options
from robust_nas.data.options import Augment
from robust_nas.errors import ConfigError
from robust_nas.search.one_shot.batch import AlphaGradient, AlphaStep, Batch
from robust_nas.search.one_shot.optimisers import AlphaOptimiser, WeightOptimiser
from robust_nas.search.strategy import Criterion, Record, SearchContext, Strategy
from robust_nas.spaces import CellArchitecture, CellSpace

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.search.one_shot.steps import OneShotSearch
    from robust_nas.training import Loss

LEAST_TRAININGS = 6  # of fewer, too many bootstrap samples have less than three different ones: no interval
ENTROPY = "entropy"  # the first word of what is watched of the alphas
Draw = Callable[..., list[Batch]]  # of halves by name: their batches of the step, attacked now, together


class SupernetOptions(Options):
    """How the supernet computes: the same function either way, `plain` is the reference.

    Of strategies that train our supernet; other strategies refuse `plain`.
    """

    execution: Literal["fused", "plain"] = "fused"  # operations of a cell computed together, or one by one


def usual_attack() -> Any:
    """Return PGD-7 with the config's threat model, or ARNAS's where it has none: eps 8/255, step size 2/255.

    These are keys, which are read like a config's own, so that a mistake in the threat model is placed and others are
    listed with it.
    """
    published = {"eps": 8 / 255, "step_size": 2 / 255}
    return {"name": "pgd", "steps": 7, **({} if inherited() else published)}


class OneShotStrategy(Strategy):
    """Base of one-shot strategies: adversarial DARTS of first order, whose parts a subclass replaces."""

    kind: ClassVar[Literal["one-shot", "sampled"]] = "one-shot"
    criterion: ClassVar[Criterion] = Criterion("loss_adversarial", "adversarial loss", lower_is_better=True)
    columns: ClassVar[tuple[str, ...]] = ("loss_weights", "loss_natural", "loss_adversarial")
    reported: ClassVar[tuple[str, ...]] = ("loss_natural", "loss_adversarial")  # means over the last epoch
    figure: ClassVar[str] = "search"
    distributed: ClassVar[bool] = True
    shares_weights: ClassVar[bool] = True
    derives_by_weights: ClassVar[bool] = True  # whether `derivation_weights` decide
    mixes: ClassVar[bool] = (
        True  # whether its supernet computes all operations, with weights that others may set
    )
    own_supernet: ClassVar[bool] = True
    reads_back: ClassVar[int] = 0  # how often a step waits for the device

    augment: Augment | None = None  # None: the data section's
    precision: Literal["float32", "bf16"] = "float32"  # numbers in which the supernet computes
    epochs: Count = 50  # passes over the data
    # first epochs, in which the weights alone are trained
    warmup_epochs: CountOrZero = Field(default=0, exclude_if=lambda epochs: epochs == 0)
    batch_size: Annotated[Count, Field(ge=2)] = 32  # images of a step
    # of every step
    attack: Annotated[Attack, training_attack_field()] = Field(default_factory=usual_attack)
    weights: WeightOptimiser = WeightOptimiser()  # optimiser of the weights
    alphas: AlphaOptimiser = AlphaOptimiser()  # optimiser of the architecture parameters
    # operations kept: largest edge weights, or largest loss without them
    derive_by: Literal["argmax", "perturbation"] = Field(
        default="argmax", exclude_if=lambda by: by == "argmax"
    )
    # most skip connections of a normal cell; None: any number
    max_skips: CountOrZero | None = Field(default=None, exclude_if=lambda most: most is None)
    # skip connections of a normal cell at which the search stops; None: never
    stop_on_collapse: Count | None = Field(default=None, exclude_if=lambda skips: skips is None)
    # sampled architectures trained for a few epochs, to test the ranking
    short_trainings: CountOrZero = Field(default=0, exclude_if=lambda count: count == 0)

    @field_validator("short_trainings")
    @classmethod
    def _are_enough(cls, count: int) -> int:
        """Refuse fewer architectures than a rank correlation needs."""
        if 0 < count < LEAST_TRAININGS:
            raise ValueError(
                f"the interval of a rank correlation needs {LEAST_TRAININGS} architectures; "
                f"allowed: 0, or at least {LEAST_TRAININGS}"
            )
        return count

    @field_validator("attack")
    @classmethod
    def _is_not_compiled(cls, attack: Attack) -> Attack:
        """Refuse to compile a supernet, whose cells have a backward pass of their own."""
        if attack.compile != "never":
            raise ValueError(
                f"compile is {attack.compile!r}; a supernet is not compiled: allowed here: never"
            )
        return attack

    @model_validator(mode="after")
    def _second_derivatives_are_exact(self) -> Self:
        loss = self.weights.loss
        if loss is not None and loss.twice_differentiated and self.precision == "bf16":
            raise ValueError(
                f"precision is 'bf16', but weights.loss {loss.label!r} is differentiated twice; allowed for it: float32"
            )
        return self

    @model_validator(mode="after")
    def _alphas_move(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs} of {self.epochs} epochs, and the alphas would never move; "
                f"allowed: 0..{self.epochs - 1}"
            )
        return self

    @model_validator(mode="after")
    def _derivation_is_ours(self) -> Self:
        for key, value, plain in (
            ("derive_by", self.derive_by, "argmax"),
            ("max_skips", self.max_skips, None),
        ):
            if value != plain and not self.derives_by_weights:
                raise ValueError(
                    f"{key} is {value!r}, but {self.label} derives by a rule of its own; allowed with it: "
                    f"{plain or 'null'}"
                )
        if self.derive_by == "perturbation" and not self.mixes:
            raise ValueError(
                f"derive_by is {self.derive_by!r}, but the supernet of {self.label} computes one operation an edge; "
                "allowed with it: argmax"
            )
        return self

    @property
    def weight_loss(self) -> Loss | None:
        """Return the loss of the weights where it is not the cross-entropy on attacked images."""
        return self.weights.loss

    @property
    def attacks_weights_half(self) -> bool:
        """Return whether a step reads attacked images of the weights' half; a loss of the weights attacks its own."""
        return True

    @property
    def own_precision(self) -> Literal["float32", "bf16"]:
        """Return the precision of the search's steps."""
        return self.precision

    @property
    def trains(self) -> bool:
        """Return whether networks are trained by the run's recipe after the search."""
        return self.short_trainings > 0

    def session(self, context: SearchContext) -> AbstractContextManager[None]:
        """Return a context around the whole search, such as one that seeds what a foreign supernet draws from."""
        return nullcontext()

    def supernet_class(self) -> Callable[..., nn.Module]:
        """Return what makes the supernet, with the arguments of `Supernet`."""
        from robust_nas.nets import Supernet

        return Supernet

    def build_supernet(
        self,
        space: CellSpace,
        *,
        classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int,
        execution: Literal["fused", "plain"] = "fused",
    ) -> nn.Module:
        """Return the supernet before its first step, on the CPU."""
        size = self.size(space)
        return self.supernet_class()(
            space,
            classes,
            len(mean),
            size.channels,
            size.cells,
            mean=mean,
            std=std,
            seed=seed,
            execution=execution,
        )

    def architecture_parameters(self, supernet: nn.Module) -> dict[str, nn.Parameter]:
        """Return the architecture parameters by name, `[E, O]` a kind of cell.

        Raises `ConfigError` for a supernet too shallow to hold every kind: some would never be searched.
        """
        own: Any = supernet
        absent = own.alphas.keys() - {cell.kind for cell in own.cells}
        if absent:
            raise ConfigError(
                f"search.cells: got {len(own.cells)}; the supernet then has no {' and no '.join(sorted(absent))} "
                "cell, and its alphas would never be searched; more cells are needed"
            )
        return dict(own.alphas.items())

    def folded(self, supernet: nn.Module) -> nn.Module | None:
        """Return a copy of the supernet for attacks in eval mode; None: they work on the supernet as it is."""
        own: Any = supernet
        copy: nn.Module | None = own.folded()
        return copy

    def settle(self, search: OneShotSearch) -> None:
        """Put the supernet into the state in which its fitness is measured, after the last step."""

    def inherited(self, search: OneShotSearch, architecture: CellArchitecture) -> nn.Module | None:
        """Return the network of an architecture with copies of the supernet's weights; None where there is none."""
        if not self.shares_weights:
            return None
        from robust_nas.nets.inherited import sub_network

        supernet: Any = search.supernet
        return sub_network(supernet, architecture)

    def edge_logits(self, space: CellSpace, alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the logits `[E, O]` of every kind, whose softmax are the edge weights."""
        return dict(alphas)

    def edge_weights(self, space: CellSpace, alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights `[E, O]` of every kind."""
        return {kind: logits.softmax(1) for kind, logits in self.edge_logits(space, alphas).items()}

    def derivation_weights(self, space: CellSpace, alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights `[E, O]` of every kind by which the architecture is derived."""
        return self.edge_weights(space, alphas)

    def source_weights(
        self, space: CellSpace, alphas: Mapping[str, Tensor]
    ) -> dict[str, list[list[float]]] | None:
        """Return the weights of the sources of every node per kind; None where the supernet has none."""
        return None

    def derive(self, search: OneShotSearch, alphas: Mapping[str, Tensor], name: str) -> CellArchitecture:
        """Return the architecture of these parameters, at the space's final size, by DARTS's rule."""
        supernet: Any = search.supernet
        weights = self.derivation_weights(search.space, alphas)
        genotype = {kind: supernet.derive_nodes(rows) for kind, rows in weights.items()}
        return search.space.architecture(name, genotype)

    def refuse_space(self, space: CellSpace) -> None:
        """Raise `ConfigError` for a space that lacks what an option is about."""
        from robust_nas.search.one_shot.derivation import refuse_space

        for key, value in (("max_skips", self.max_skips), ("stop_on_collapse", self.stop_on_collapse)):
            if value is not None:
                refuse_space(space, key, value)

    def stage(self, epoch: int) -> int:
        """Return the stage, from 1, that an epoch belongs to."""
        return 1

    def begin_epoch(self, search: OneShotSearch) -> None:
        """Prepare `search.epoch`; called once before its first step, also after a resume."""

    def step(self, search: OneShotSearch, draw: Draw) -> Mapping[str, Tensor]:
        """Move alphas and weights once; return scalars on the device by their columns. Nothing is read back."""
        weights_batch, alphas_batch = draw("weights", "alphas")
        found = self.alpha_gradient(search, alphas_batch, weights_batch)
        search.alpha_step(found.gradient)
        loss, _ = search.weight_step(weights_batch)
        return {"loss_weights": loss, **found.measured}

    def warm_up_step(self, search: OneShotSearch, draw: Draw) -> Mapping[str, Tensor]:
        """Move the weights alone; return as `step` does."""
        loss, _ = search.weight_step(*draw("weights"))
        return {"loss_weights": loss}

    def alpha_gradient(
        self, search: OneShotSearch, alphas_batch: Batch, weights_batch: Batch
    ) -> AlphaGradient:
        """Return what the alphas descend: here the gradient of the adversarial loss."""
        loss, gradient = search.alpha_loss(alphas_batch.adversarial, alphas_batch)
        return AlphaStep(gradient, {"loss_adversarial": loss})

    def state(self, search: OneShotSearch) -> dict[str, Any]:
        """Return what a checkpoint holds of the strategy's own: tensors, numbers, strings, lists, dicts."""
        return {}

    def restore(self, search: OneShotSearch, state: Mapping[str, Any]) -> None:
        """Put that back."""

    def watched(self, record: Record) -> dict[str, float | None]:
        """Return what shows that a search diverged: large losses, other numbers that are infinite, alphas with NaN."""
        scalars = {key: record[key] for key in self.columns}
        losses = {key: value for key, value in scalars.items() if key.startswith("loss")}
        infinite = {
            key: value for key, value in scalars.items() if value is not None and not math.isfinite(value)
        }
        entropies = {f"{ENTROPY} of the {kind} alphas": value for kind, value in record["entropy"].items()}
        return {**losses, **infinite, **entropies}

    def note(self, record: Record) -> str:
        """Return a few words on the last record, for progress."""
        shown = {key: record[key] for key in self.columns if record[key] is not None}
        return ", ".join(f"{key.replace('_', ' ')} {value:.2f}" for key, value in shown.items())

    def describe(self) -> str:
        """Return the attack in a few words, for captions."""
        loss = f", weights by {self.weights.loss.label}" if self.weights.loss is not None else ""
        return f"{self.attack.name}, {self.attack.norm} eps {self.attack.eps:.4g}{loss}"

    def result(self, records: Sequence[Record]) -> dict[str, Any]:
        """Return the means of the reported columns over the last epoch, and the final entropy of the alphas."""
        last = [record for record in records if record["epoch"] == records[-1]["epoch"]]
        return {
            **{key: _mean([record[key] for record in last]) for key in self.reported},
            "entropy": records[-1]["entropy"],
        }


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if len(present) == len(values) else None
