"""Search for neural architectures that stay accurate under adversarial attack.

Public names are resolved on first use, so that a config is checked before torch is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from robust_nas._version import __version__

if TYPE_CHECKING:
    from robust_nas.nets import Supernet, build_network, load_model
    from robust_nas.pipeline import evaluate, export, run, run_search, train
    from robust_nas.recipes import RunConfig, load_config
    from robust_nas.spaces import CellArchitecture, CellSpace, count, load_architecture, load_space, sample

_HOMES = {
    "CellArchitecture": "spaces",
    "CellSpace": "spaces",
    "RunConfig": "recipes",
    "Supernet": "nets",
    "build_network": "nets",
    "count": "spaces",
    "evaluate": "pipeline",
    "export": "pipeline",
    "load_architecture": "spaces",
    "load_config": "recipes",
    "load_model": "nets",
    "load_space": "spaces",
    "run": "pipeline",
    "run_search": "pipeline",
    "sample": "spaces",
    "train": "pipeline",
}

__all__ = [
    "CellArchitecture",
    "CellSpace",
    "RunConfig",
    "Supernet",
    "__version__",
    "build_network",
    "count",
    "evaluate",
    "export",
    "load_architecture",
    "load_config",
    "load_model",
    "load_space",
    "run",
    "run_search",
    "sample",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
