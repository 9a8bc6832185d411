"""Every plot and cell drawing, from plain values; each is written as PNG and SVG, and its numbers as CSV."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robust_nas.figures.budget import plot_eps_curve
    from robust_nas.figures.cells import draw_cells
    from robust_nas.figures.compression_layers import plot_layers
    from robust_nas.figures.compression_ranks import plot_ranks
    from robust_nas.figures.compression_tradeoff import plot_compression
    from robust_nas.figures.curves import plot_search, plot_training
    from robust_nas.figures.evaluation import plot_evaluation
    from robust_nas.figures.examples import plot_adversarial_grid
    from robust_nas.figures.sampled_search import plot_sampled_search
    from robust_nas.figures.study_budgets import plot_study_budgets
    from robust_nas.figures.study_curve import plot_study_curve
    from robust_nas.figures.study_effects import plot_study_effects
    from robust_nas.figures.study_heat_map import plot_study_heat_map
    from robust_nas.figures.study_inherited import plot_study_inherited
    from robust_nas.figures.study_learning import plot_study_learning
    from robust_nas.figures.study_lipschitz import plot_study_lipschitz
    from robust_nas.figures.study_seeds import plot_study_seeds
    from robust_nas.figures.study_stages import plot_study_stages
    from robust_nas.figures.style import new_figure, save
    from robust_nas.figures.traces import plot_loss_traces

__all__ = [
    "draw_cells",
    "new_figure",
    "plot_adversarial_grid",
    "plot_compression",
    "plot_eps_curve",
    "plot_evaluation",
    "plot_layers",
    "plot_loss_traces",
    "plot_ranks",
    "plot_sampled_search",
    "plot_search",
    "plot_study_budgets",
    "plot_study_curve",
    "plot_study_effects",
    "plot_study_heat_map",
    "plot_study_inherited",
    "plot_study_learning",
    "plot_study_lipschitz",
    "plot_study_seeds",
    "plot_study_stages",
    "plot_training",
    "save",
]

_FILES = {
    "draw_cells": "cells",
    "new_figure": "style",
    "plot_adversarial_grid": "examples",
    "plot_compression": "compression_tradeoff",
    "plot_eps_curve": "budget",
    "plot_evaluation": "evaluation",
    "plot_layers": "compression_layers",
    "plot_loss_traces": "traces",
    "plot_ranks": "compression_ranks",
    "plot_sampled_search": "sampled_search",
    "plot_search": "curves",
    "plot_study_budgets": "study_budgets",
    "plot_study_curve": "study_curve",
    "plot_study_effects": "study_effects",
    "plot_study_heat_map": "study_heat_map",
    "plot_study_inherited": "study_inherited",
    "plot_study_learning": "study_learning",
    "plot_study_lipschitz": "study_lipschitz",
    "plot_study_seeds": "study_seeds",
    "plot_study_stages": "study_stages",
    "plot_training": "curves",
    "save": "style",
}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
