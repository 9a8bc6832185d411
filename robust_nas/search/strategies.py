"""`STRATEGIES`, which knows search strategies by name, and the search section of a config for another strategy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robust_nas.config import Options, suggestion
from robust_nas.errors import ConfigError, UnknownMethodError
from robust_nas.registry import Method, MethodField, Registry
from robust_nas.search.strategy import Strategy
from robust_nas.user_code import is_code

# Seen from the package itself: a bridge to a foreign package is a strategy too, and lives with the other bridges.
STRATEGIES = Registry(
    "strategy",
    Strategy,
    "robust_nas",
    {
        "dsara": "search.dsara:DSARA",
        "darts": "search.darts:DARTS",
        "advrush": "search.advrush:AdvRush",
        "pc-darts": "search.pc_darts:PCDARTS",
        "gdas": "search.gdas:GDAS",
        "nni": "integrations.nni_strategy:NNI",
        "random": "search.random_search:RandomSearch",
        "local-search": "search.local_search:LocalSearch",
        "evolution": "search.evolution:Evolution",
        "single-path": "search.single_path:SinglePath",
        "successive-halving": "search.successive_halving:SuccessiveHalving",
        "nsga2": "integrations.optuna_nsga2:NSGA2",
        "tpe": "integrations.optuna_tpe:TPE",
        "nni:random": "integrations.nni_random:NNIRandom",
        "nni:evolution": "integrations.nni_evolution:NNIEvolution",
    },
    group="robust_nas.strategies",
    elsewhere={
        "nni:enas": "not possible: NNI's ENAS chooses one source a node, and its controller needs the package "
        "tianshou; use evolution",
        "nni:policy-based-rl": "not possible: its controller needs the package tianshou; use evolution",
        "nni:random-one-shot": "not a search: NNI's RandomOneShot trains a supernet and returns an arbitrary network; "
        "single-path trains one so, and then chooses",
        "nni:grid-search": "not a search: NNI's GridSearch enumerates a space from its first network; use random",
        "nni:tpe": "Optuna's here: use tpe",
        "nni:regularized-evolution": "called nni:evolution here",
    },
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
    whole = is_code(strategy) or strategy in STRATEGIES.names()
    name, variant = (strategy, "") if whole else strategy.partition(":")[::2]
    try:
        chosen = STRATEGIES.get(name)
    except UnknownMethodError:
        chosen = None
    if chosen is None or (not is_code(strategy) and strategy not in chosen.spellings(name)):
        got = f"{strategy[:200]!r}"
        if strategy in STRATEGIES.elsewhere:
            got = f"{got}, which is {STRATEGIES.elsewhere[strategy]}"
        hint = suggestion(strategy, strategy_names())
        raise ConfigError(f"strategy: got {got}; allowed: {', '.join(strategy_names())}{hint}")
    # What a strategy with a derivation of its own would refuse stays behind, as after `search.name=` (`choices.py`).
    left = {"name"} if getattr(chosen, "derives_by_weights", True) else {"name", "max_skips", "derive_by"}
    shared = {key: value for key, value in _shared(section, chosen).items() if key not in left}
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
