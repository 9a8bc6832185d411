"""Search for neural architectures that stay accurate under adversarial attack.

Public names are resolved on first use, so that a config is checked before torch is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from robust_nas._version import __version__

if TYPE_CHECKING:
    from robust_nas.attacks import Predictor
    from robust_nas.data import DataOptions, load_dataset
    from robust_nas.evaluation import ThreatModel, evaluate
    from robust_nas.nets import Supernet, build_network, load_model
    from robust_nas.spaces import (
        CellArchitecture,
        CellSpace,
        MLPArchitecture,
        ResidualArchitecture,
        count,
        load_architecture,
        load_space,
        sample,
    )
    from robust_nas.studies.config import StudyConfig, load_study
    from robust_nas.studies.runner import plan_study, report_study, run_study
    from robust_nas.workflows.compress import compress, compress_module
    from robust_nas.workflows.config import CompressionConfig, RunConfig, compression_config, load_config
    from robust_nas.workflows.evaluate import run_evaluation
    from robust_nas.workflows.export import export_model
    from robust_nas.workflows.pipeline import run
    from robust_nas.workflows.search import draw_architecture, run_search
    from robust_nas.workflows.train import train

_HOMES = {
    "CellArchitecture": "spaces",
    "CellSpace": "spaces",
    "CompressionConfig": "workflows.config",
    "DataOptions": "data",
    "MLPArchitecture": "spaces",
    "Predictor": "attacks",
    "ResidualArchitecture": "spaces",
    "RunConfig": "workflows.config",
    "StudyConfig": "studies.config",
    "Supernet": "nets",
    "ThreatModel": "evaluation",
    "build_network": "nets",
    "compress": "workflows.compress",
    "compress_module": "workflows.compress",
    "compression_config": "workflows.config",
    "count": "spaces",
    "draw_architecture": "workflows.search",
    "evaluate": "evaluation",
    "export_model": "workflows.export",
    "load_architecture": "spaces",
    "load_config": "workflows.config",
    "load_dataset": "data",
    "load_model": "nets",
    "load_space": "spaces",
    "load_study": "studies.config",
    "plan_study": "studies.runner",
    "report_study": "studies.runner",
    "run": "workflows.pipeline",
    "run_evaluation": "workflows.evaluate",
    "run_search": "workflows.search",
    "run_study": "studies.runner",
    "sample": "spaces",
    "train": "workflows.train",
}

__all__ = [
    "CellArchitecture",
    "CellSpace",
    "CompressionConfig",
    "DataOptions",
    "MLPArchitecture",
    "Predictor",
    "ResidualArchitecture",
    "RunConfig",
    "StudyConfig",
    "Supernet",
    "ThreatModel",
    "__version__",
    "build_network",
    "compress",
    "compress_module",
    "compression_config",
    "count",
    "draw_architecture",
    "evaluate",
    "export_model",
    "load_architecture",
    "load_config",
    "load_dataset",
    "load_model",
    "load_space",
    "load_study",
    "plan_study",
    "report_study",
    "run",
    "run_evaluation",
    "run_search",
    "run_study",
    "sample",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
