"""Search for neural architectures that stay accurate under adversarial attack.

Public names are resolved on first use, so that a config is checked before torch is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from robust_nas._version import __version__

if TYPE_CHECKING:
    from robust_nas.jobs.evaluate import evaluate
    from robust_nas.jobs.export import export
    from robust_nas.jobs.search import draw_architecture, run_search
    from robust_nas.jobs.train import train
    from robust_nas.nets import Supernet, build_network, load_model
    from robust_nas.pipeline import run
    from robust_nas.recipes import RunConfig, load_config
    from robust_nas.spaces import (
        CellArchitecture,
        CellSpace,
        ResidualArchitecture,
        count,
        load_architecture,
        load_space,
        sample,
    )

_HOMES = {
    "CellArchitecture": "spaces",
    "CellSpace": "spaces",
    "ResidualArchitecture": "spaces",
    "RunConfig": "recipes",
    "Supernet": "nets",
    "build_network": "nets",
    "count": "spaces",
    "draw_architecture": "jobs.search",
    "evaluate": "jobs.evaluate",
    "export": "jobs.export",
    "load_architecture": "spaces",
    "load_config": "recipes",
    "load_model": "nets",
    "load_space": "spaces",
    "run": "pipeline",
    "run_search": "jobs.search",
    "sample": "spaces",
    "train": "jobs.train",
}

__all__ = [
    "CellArchitecture",
    "CellSpace",
    "ResidualArchitecture",
    "RunConfig",
    "Supernet",
    "__version__",
    "build_network",
    "count",
    "draw_architecture",
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
