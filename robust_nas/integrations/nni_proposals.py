"""NNI's multi-trial strategies by ask and tell: an execution engine of NNI's interface that evaluates nothing.

A strategy of NNI submits models to an engine until that has no room, and listens to the end of every model. This engine
keeps what is submitted, and leaves the strategy as soon as a batch is full; `tell` ends the models with their metrics.
Nothing waits, no thread and no server is started, and a call goes on where the one before was left: the state of a
strategy is its own.

A model is a code of the space (`spaces/encoding.py`): every integer is one `Categorical` of NNI's. So there is no
choice without an effect, such as the operation of an edge that no node keeps, and a space of any topology will do.
Import `nni.py` before: it says what to install.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nni.mutable import Categorical, MutableDict
from nni.nas.execution import ExecutionEngine
from nni.nas.execution.event import ModelEventType
from nni.nas.space import ModelStatus, RawFormatModelSpace
from nni.nas.strategy import Random, RegularizedEvolution

from robust_nas.spaces.encoding import Code
from robust_nas.spaces.sampling import MAX_DRAWS

__all__ = ["AskTell", "Random", "RegularizedEvolution"]


class _BatchFullError(Exception):
    """Leaves a strategy that has submitted enough."""


class AskTell(ExecutionEngine):  # type: ignore[misc] # NNI has no types
    """A strategy of NNI's on the codes of these sizes, and the engine that it runs on."""

    def __init__(self, strategy: Any, sizes: Sequence[int]) -> None:
        super().__init__()
        self.strategy = strategy
        self._labels = [f"c{place}" for place in range(len(sizes))]
        choices = {
            label: Categorical(range(size), label=label)
            for label, size in zip(self._labels, sizes, strict=True)
        }
        strategy.initialize(RawFormatModelSpace(MutableDict(choices), None), self)
        self._submitted: list[Any] = []
        self._most = self._refused = 0
        self._accepts: Callable[[Code], bool] = lambda code: True

    def ask(self, most: int, accepts: Callable[[Code], bool]) -> list[Code]:
        """Return the codes of the next models, at most `most`; fewer where the strategy has no more.

        A model that is not accepted ends at once without a metric, as NNI's filters do; after many of them in a row
        the call ends.
        """
        self._submitted, self._most, self._refused, self._accepts = [], most, 0, accepts
        try:
            with _quiet():
                self.strategy._run()  # not `run`, which may be called once
        except _BatchFullError:
            pass
        return [self._code(model) for model in self._submitted]

    def tell(self, metrics: Sequence[float | None]) -> None:
        """End the models of the last call, in their order; higher metrics are better, None is a failure."""
        with _quiet():
            for model, metric in zip(self._submitted, metrics, strict=False):  # the last batch may be cut
                self._end(model, metric)

    def submit_models(self, *models: Any) -> None:
        """Take models of the strategy. Leaves it where the batch is full."""
        for model in models:
            if self._accepts(self._code(model)):
                self._submitted.append(model)
                self._refused = 0
            else:
                self._end(model, None)
                self._refused += 1
        if len(self._submitted) == self._most or self._refused == MAX_DRAWS:
            raise _BatchFullError

    def idle_worker_available(self) -> bool:
        """Return True: a model is taken at any time."""
        return True

    def budget_available(self) -> bool:
        """Return True: the search decides when it ends."""
        return True

    def list_models(self, status: Any = None) -> Iterator[Any]:
        """Return no model, so that nobody waits for one."""
        return iter(())

    def _code(self, model: Any) -> Code:
        return tuple(model.sample[label] for label in self._labels)

    def _end(self, model: Any, metric: float | None) -> None:
        if metric is not None:
            self.dispatch_model_event(ModelEventType.FinalMetric, model=model, metric=metric)
        status = ModelStatus.Failed if metric is None else ModelStatus.Trained
        self.dispatch_model_event(ModelEventType.TrainingEnd, model=model, status=status)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out NNI's messages inside, such as one for every model without a metric."""
    logger = logging.getLogger("nni")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
