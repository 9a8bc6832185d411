"""Search strategies by name, the two loops that run them, and what scores a candidate: evaluators and proxies."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from robust_nas.config import Options
from robust_nas.errors import ConfigError, UnknownMethodError
from robust_nas.registry import Method, MethodField, Registry
from robust_nas.search.evaluators import EVALUATORS
from robust_nas.search.evaluators.evaluator import Evaluator, Scored
from robust_nas.search.one_shot.batch import AlphaStep, Batch
from robust_nas.search.one_shot.optimisers import AlphaOptimiser, WeightOptimiser
from robust_nas.search.one_shot.strategy import OneShotStrategy, SupernetOptions
from robust_nas.search.proxies import PROXIES
from robust_nas.search.proxies.proxy import Proxy
from robust_nas.search.sampled.history import Candidate, SampledSearch
from robust_nas.search.sampled.strategy import SampledStrategy
from robust_nas.search.strategy import (
    Criterion,
    SearchContext,
    SearchOutcome,
    Strategy,
    TrainCandidate,
    Trained,
)
from robust_nas.user_code import is_code

if TYPE_CHECKING:
    from robust_nas.search.dsara import DSARA
    from robust_nas.search.loops import run_strategy
    from robust_nas.search.one_shot.steps import OneShotSearch
    from robust_nas.search.random_search import RandomSearch

# Seen from the package itself: a bridge to a foreign package is a strategy too, and lives with the other bridges.
STRATEGIES = Registry(
    "strategy",
    Strategy,
    "robust_nas",
    {
        "dsara": "search.dsara:DSARA",
        "nni": "integrations.nni_strategy:NNI",
        "random": "search.random_search:RandomSearch",
    },
    group="robust_nas.strategies",
)


def strategy_field() -> MethodField:
    """Return what makes a field of options hold a strategy; a config that names none gets DSARA."""
    return STRATEGIES.field(default="dsara")


def strategy_names() -> list[str]:
    """Return every strategy as the command line may write it; asking imports their files, but not torch."""
    return [text for name in STRATEGIES.names() for text in STRATEGIES.get(name).spellings(name)]


def with_strategy(section: Mapping[str, Any], strategy: str) -> dict[str, Any]:
    """Return the search section of a config for another strategy: the keys that it has too keep their values.

    `strategy` is a name, `name:variant` such as `nni:darts`, or `file.py:Class`. Raises `ConfigError` for another text.
    """
    name, variant = (strategy, "") if is_code(strategy) else strategy.partition(":")[::2]
    try:
        chosen = STRATEGIES.get(name)
    except UnknownMethodError:
        chosen = None
    if chosen is None or (not is_code(strategy) and strategy not in chosen.spellings(name)):
        raise ConfigError(f"strategy: got {strategy[:200]!r}; allowed: {', '.join(strategy_names())}")
    shared = {key: value for key, value in _shared(section, chosen).items() if key != "name"}
    return {"name": name, **shared, **({chosen.variant: variant} if chosen.variant else {})}


def _shared(section: Mapping[str, Any], options: type[Options]) -> dict[str, Any]:
    """Return the entries of a section that these options know; a method within it stays as it is."""
    kept = {}
    for key, value in section.items():
        if key in options.model_fields:
            inner: Any = options.model_fields[key].annotation
            plain = isinstance(inner, type) and issubclass(inner, Options) and not issubclass(inner, Method)
            kept[key] = _shared(value, inner) if plain and isinstance(value, Mapping) else value
    return kept


_HOMES = {
    "DSARA": "dsara",
    "OneShotSearch": "one_shot.steps",
    "RandomSearch": "random_search",
    "run_strategy": "loops",
}

__all__ = [
    "DSARA",
    "EVALUATORS",
    "PROXIES",
    "STRATEGIES",
    "AlphaOptimiser",
    "AlphaStep",
    "Batch",
    "Candidate",
    "Criterion",
    "Evaluator",
    "OneShotSearch",
    "OneShotStrategy",
    "Proxy",
    "RandomSearch",
    "SampledSearch",
    "SampledStrategy",
    "Scored",
    "SearchContext",
    "SearchOutcome",
    "Strategy",
    "SupernetOptions",
    "TrainCandidate",
    "Trained",
    "WeightOptimiser",
    "run_strategy",
    "strategy_field",
    "strategy_names",
    "with_strategy",
]


def __getattr__(name: str) -> Any:
    """Resolves the rest on first use: a strategy's file is imported when it is named."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
