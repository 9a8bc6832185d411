"""The protocol of figures, and `FIGURES`, which knows them by name.

A figure draws itself from the record of a finished job, a mapping of plain values, into `<stem>.png`, `.svg` and
`.csv`. A new figure is a subclass with `draw`, in a file of its own, and a line in `FIGURES`. The records:

    search       records (metrics.jsonl, a mapping a step) or candidates (a mapping each), cells (kind to nodes), concat
    training     records (metrics.jsonl, a mapping an epoch), best_epoch (that is kept), validation_attack (its label);
                 what the loss explains: saliency (`before` and `after` the training, `plot_saliency`);
                 latent_boundary (of LADDER's parts, `plot_latent_boundary`)
    evaluation   the keys of evaluation.json, and examples, class_names (`plot_adversarial_grid`)
    compression  the keys of compression.json, and layers (of layers.json), records (of the low-rank training)
    ranking      ranking (a mapping a candidate, best first, with rank, name, params, macs, score; maybe spread, truth)
    attack       records (metrics.jsonl, a mapping an epoch of the generator's training), best_epoch (that is kept)
    distillation images (a learned set, [N, C, H, W] in 0..1), labels, targets, class_names, and kept (its step)
    benchmark    measure, optimum, curves (strategy to runs and points, `plot_strategies`) of strategies on a table
    study        the keys of analysis.json, and published (factor to lowest and highest best value, and its source)

Epochs of records count from 0, as in the files of a run; figures show them from 1 (`series.from_one`).
A record may lack keys: a figure is drawn where the record has what it `needs`. Nothing here imports matplotlib.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from robust_nas.errors import FigureWarning, RobustNASError
from robust_nas.registry import Method, Registry

Job = Literal[
    "search",
    "training",
    "evaluation",
    "compression",
    "ranking",
    "attack",
    "distillation",
    "benchmark",
    "study",
]
Record = Mapping[str, Any]


class Figure(Method):
    """Base of all figures."""

    of: ClassVar[Job]  # the job whose record it draws
    needs: ClassVar[tuple[str, ...]] = ()  # keys of the record without which there is nothing to draw
    file: ClassVar[str] = ""  # what its files are called, without a suffix; empty: as the figure itself

    @property
    def stem(self) -> str:
        """Return the name of the figure's files, without a suffix."""
        return self.file or self.label

    def has_data(self, record: Record) -> bool:
        """Return whether the record holds what the figure shows."""
        return all(record.get(key) for key in self.needs)

    def title(self, record: Record) -> str:
        """Return the heading of the figure in a report."""
        return self.label

    def caption(self, record: Record, about: str) -> str:
        """Return the line under the figure: `about`, which says what the job was, and what the figure adds."""
        return about

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw the record into `<stem>.png` and `.svg`, its numbers into `<stem>.csv`; return the paths.

        `robust_nas.figures.new_figure` and `save` give the house style and write the files.
        """
        raise NotImplementedError(f"{type(self).__name__} does not draw anything")


FIGURES = Registry(
    "figure",
    Figure,
    "robust_nas.figures",
    {
        "search": "search_curves:SearchCurves",
        "sampled-search": "sampled_search:SampledSearch",
        "cells": "cells:Cells",
        "training": "training_curves:TrainingCurves",
        "saliency": "saliency:SaliencyPictures",
        "latent-boundary": "latent_boundary:LatentBoundaryPictures",
        "evaluation": "evaluation:Waterfall",
        "eps-curve": "budget:EpsCurve",
        "eot-curve": "eot_curve:EOTCurve",
        "loss-traces": "traces:LossTraces",
        "queries": "queries:QueryCurves",
        "roc": "roc:DetectionCurves",
        "certified": "certified:CertifiedCurve",
        "examples": "examples:AdversarialGrid",
        "compression": "compression_tradeoff:CompressionTradeoff",
        "layers": "compression_layers:CompressionLayers",
        "ranks": "compression_ranks:CompressionRanks",
        "ranking": "ranking:RankedScores",
        "generator": "generator_curves:GeneratorCurves",
        "learned-set": "learned_set:LearnedSetPictures",
        "strategies": "strategy_curves:StrategyCurves",
        "study-methods": "study_methods:StudyMethods",
        "study-effects": "study_effects:StudyEffects",
        "study-budgets": "study_budgets:StudyBudgets",
        "study-curve": "study_curve:StudyCurve",
        "study-heat-map": "study_heat_map:StudyHeatMap",
        "study-stages": "study_stages:StudyStages",
        "study-seeds": "study_seeds:StudySeeds",
        "study-lipschitz": "study_lipschitz:StudyLipschitz",
        "study-learning": "study_learning:StudyLearning",
        "study-inherited": "study_inherited:StudyInherited",
    },
    group="robust_nas.figures",
)


class Drawn(NamedTuple):
    """A figure that was drawn: `<stem>.png`, `.svg` and `.csv` lie in the folder."""

    stem: str
    title: str
    caption: str


def draw_figures(
    of: Job, record: Record, folder: Path, *, about: str = "", figures: Iterable[Figure | str] | None = None
) -> list[Drawn]:
    """Draw the figures of a finished job into a folder, and return what was drawn, in order.

    Figures of other jobs, and those that the record has no data for, are left out. So is one that fails, with a
    `FigureWarning` that names it: the result does not depend on it.

    Args:
        of: which job.
        record: its plain values (see the head of this file).
        folder: where the files go.
        about: what the job was, for the captions.
        figures: figures or their names; None: every built-in one, in the order of the registry.

    Raises:
        UnknownMethodError: nobody has a figure of that name.
    """
    due = due_figures(of, record, figures)
    drawn = [draw_figure(figure, record, folder / figure.stem, about=about) for figure in due]
    return [one for one in drawn if one is not None]


def due_figures(of: Job, record: Record, figures: Iterable[Figure | str] | None = None) -> list[Figure]:
    """Return the figures of a job that the record has the data for; None: of every built-in one."""
    chosen = FIGURES.built_in if figures is None else figures
    made = [FIGURES.make(each) if isinstance(each, str) else each for each in chosen]
    return [figure for figure in made if figure.of == of and figure.has_data(record)]


def draw_figure(figure: Figure, record: Record, stem: Path, *, about: str = "") -> Drawn | None:
    """Draw one figure into files of this stem; return it, or None, with a `FigureWarning`, where it fails."""
    with optional(figure.name):
        caption = figure.caption(record, about)
        figure.draw(record, stem, caption=caption)
        return Drawn(stem.name, figure.title(record), caption)
    return None


@contextlib.contextmanager
def optional(name: str) -> Iterator[None]:
    """Turn what a drawing inside raises into a `FigureWarning` of this name: a figure must not cost a finished job."""
    try:
        yield
    except RobustNASError as error:
        _warn(name, str(error))
    except Exception as error:  # whatever a figure, or what it draws, of the user's own raises
        _warn(name, f"{type(error).__name__}: {error}")


def draw_own(of: Job, record: Record, folder: Path, *, about: str, figures: Iterable[Figure]) -> None:
    """Draw the figures that a config asks for in addition to the usual ones, from the record of a finished job.

    Warns (`FigureWarning`) of each that fails, and of each that is not there and has no data in the record.
    """
    own = [figure for figure in figures if figure.of == of]
    draw_figures(of, record, folder, about=about, figures=own)
    for figure in own:
        if not figure.has_data(record) and not (folder / f"{figure.stem}.png").is_file():
            missing = [key for key in figure.needs if not record.get(key)]
            _warn(figure.name, f"the record of the {of} has no data for it ({', '.join(missing)})")


def _warn(name: str, reason: str) -> None:
    warnings.warn(f"figure {name!r} is not drawn: {reason[:200]}", FigureWarning, stacklevel=3)
