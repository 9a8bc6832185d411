"""The protocol of search strategies: what each has, what others may ask of it, what a search gets and returns.

A strategy is one of two kinds, and a loop serves each: `one_shot/` trains weights and architecture parameters together,
`sampled/` asks for architectures, has them evaluated and tells the scores. Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, Self, get_args

from pydantic import Field

from robust_nas.config import Count, CountOrZero
from robust_nas.data.options import Augment
from robust_nas.distributed import ALONE, Ranks
from robust_nas.registry import Method
from robust_nas.run_folder import Progress, Run, silent
from robust_nas.spaces import CellArchitecture, CellSpace, Size

if TYPE_CHECKING:
    from robust_nas.data import Images
    from robust_nas.training import Loss

Record = Mapping[str, Any]  # one line of `metrics.jsonl`


class Trained(NamedTuple):
    """Validation accuracies (0..1) of a candidate after a short training, and what its strategy wants measured."""

    clean: float
    robust: float
    measured: Mapping[str, float | None] = MappingProxyType({})  # by column; an evaluator passes it on


class TrainCandidate(Protocol):
    """Train a candidate; handed in by who knows how to train, because a search does not."""

    def __call__(
        self, architecture: CellArchitecture, images: Images, validation: Images, epochs: int
    ) -> Trained:
        """Return its accuracies on `validation` after `epochs` on `images`.

        A call with a candidate that was trained before returns what was found then. Raises `DivergenceError`.
        """


class MeasureLatency(Protocol):
    """Measure how long a network takes; handed in by who knows how to run it."""

    def __call__(self, architecture: CellArchitecture) -> float | None:
        """Return milliseconds of one image at the size of `architecture`; None where it cannot be measured.

        A call with an architecture that was measured before returns what was found then.
        """


class Scored(NamedTuple):
    """The score of a candidate, None where it has none, and the numbers behind it by their columns."""

    score: float | None
    measured: Mapping[str, Any]


def finite(value: float | None) -> float | None:
    """Return a number that JSON can hold, else None."""
    return value if value is not None and math.isfinite(value) else None


class EvaluateElsewhere(Protocol):
    """Evaluate candidates in workers; handed in by who knows the engine."""

    def __call__(self, tasks: Sequence[tuple[CellArchitecture, int | None]]) -> Iterator[tuple[int, Scored]]:
        """Yield the place of every task, a candidate and its rung, with its score, in the order of the ends.

        Raises `RunError` for a candidate whose evaluation failed.
        """


@dataclass(frozen=True, kw_only=True)
class SearchContext:
    """Everything that a search gets, resolved once: images on their device, sizes, and where it writes."""

    run: Run
    space: CellSpace
    images: Images  # all that the search may see; never the run's validation split or the test set
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    name: str  # of the architecture found
    seed: int
    augmentation: Augment
    network: Size  # of the final network
    execution: Literal["fused", "plain"] = "fused"  # of the supernet
    checkpoint_seconds: float = 60.0
    progress: Progress = silent
    ranks: Ranks = ALONE
    synchronise: bool = True  # whether a supernet's batch norms see the rows of all ranks
    train: TrainCandidate | None = None
    latency: MeasureLatency | None = None
    elsewhere: EvaluateElsewhere | None = None  # None: candidates are evaluated one by one, in this process

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Return the shape (C, H, W) of an image."""
        channels, height, width = self.images.pixels.shape[1:]
        return channels, height, width


@dataclass(frozen=True)
class SearchOutcome:
    """What a search found: the architecture, seconds over all calls, and the last record.

    A one-shot search also returns the final edge weights per kind `[E][O]`; where its supernet weights the sources of a
    node, `sources` holds these weights per kind, node and source.
    """

    architecture: CellArchitecture
    seconds: float
    last: dict[str, Any]
    edge_weights: dict[str, list[list[float]]] | None = None
    sources: dict[str, list[list[float]]] | None = None
    # Why a search ended before its end: reason; of a sampled one `evaluations`, of a one-shot one the `epoch` it is of.
    stopped: dict[str, Any] | None = None
    fitness: dict[str, Any] | None = (
        None  # whether a one-shot search's supernet can decide (`one_shot/fitness.py`)
    )


def counted(records: Sequence[Record], stopped: Mapping[str, Any] | None) -> Sequence[Record]:
    """Return the records that lead to an outcome: those up to the epoch to which an early stop went back."""
    last = (stopped or {}).get("epoch")
    return records if last is None else [record for record in records if record["epoch"] <= last]


class Criterion(NamedTuple):
    """The number of `result.json` by which searches that differ by their seed are compared."""

    key: str
    words: str
    lower_is_better: bool

    def best(self, records: Sequence[Record]) -> int:
        """Return the index of the best record, the first of equals."""
        sign = 1.0 if self.lower_is_better else -1.0
        return min(range(len(records)), key=lambda index: sign * float(records[index][self.key]))


class Strategy(Method):
    """Base of all search strategies; `OneShotStrategy` and `SampledStrategy` are the two kinds."""

    kind: ClassVar[Literal["one-shot", "sampled"]]  # which loop runs it
    criterion: ClassVar[Criterion]
    columns: ClassVar[tuple[str, ...]]  # of every record, in their order, after the loop's own
    figure: ClassVar[str]  # the figure that draws its records
    drawn_as: ClassVar[str] = "records"  # the key under which figures find them
    distributed: ClassVar[bool] = False  # whether several ranks may run it
    shares_weights: ClassVar[bool] = (
        False  # whether its checkpoint holds a `Supernet` to inherit weights from
    )
    own_supernet: ClassVar[bool] = False  # whether `supernet.execution` is that of its supernet
    variant: ClassVar[str | None] = None  # the key whose values the command line writes as `name:value`

    cells: Count | None = None  # depth during the search; None: the space's search size
    channels: Count | None = None  # width during the search; None: the space's search size
    # random architectures of the result's MACs, trained and evaluated next to it
    controls: CountOrZero = Field(default=0, exclude_if=lambda count: count == 0)

    # searches with seeds of their own, from which the best result is taken
    seeds: Count = Field(default=1, exclude_if=lambda count: count == 1)

    @property
    def alone(self) -> Self:
        """Return the strategy without repetitions and what follows the search: what its own result depends on."""
        return self.model_copy(update={"controls": 0, "seeds": 1})

    @property
    def followed(self) -> bool:
        """Return whether networks are trained and evaluated after the search."""
        return self.controls > 0

    @property
    def measured(self) -> tuple[str, ...]:
        """Return the columns that are measured of candidates in addition to the evaluator's."""
        return ()

    def size(self, space: CellSpace) -> Size:
        """Return depth and width during the search."""
        return Size(cells=self.cells or space.search.cells, channels=self.channels or space.search.channels)

    @property
    def own_precision(self) -> Literal["float32", "bf16"]:
        """Return the precision in which the search itself computes; that of a candidate's training is the recipe's."""
        return "float32"

    @property
    def weight_loss(self) -> Loss | None:
        """Return the training loss of the search's own weights where a config names one."""
        return None

    @property
    def trains(self) -> bool:
        """Return whether the result depends on the run's training recipe."""
        return False

    def describe(self) -> str:
        """Return the method in a few words, for captions."""
        return self.label

    def result(self, records: Sequence[Record]) -> dict[str, Any]:
        """Return the numbers of the whole search for `result.json`, its criterion among them."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its records amount to")

    @classmethod
    def spellings(cls, name: str) -> list[str]:
        """Return how the command line may write the strategy called `name`."""
        if cls.variant is None:
            return [name]
        return [f"{name}:{value}" for value in get_args(cls.model_fields[cls.variant].annotation)]
