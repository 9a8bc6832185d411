"""A figure for a notebook: of a record, an evaluation, an architecture or a run folder, as matplotlib's own object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_nas.config import expand_path
from robust_nas.errors import ArchitectureError, ConfigError
from robust_nas.evaluation.report import RECORDED
from robust_nas.figures import FIGURES, Figure, Job
from robust_nas.records import read_lines, read_record
from robust_nas.run_folder import METRICS
from robust_nas.spaces import Architecture, has_cells, load_architecture
from robust_nas.workflows.config import load_config
from robust_nas.workflows.run_table import row_of
from robust_nas.workflows.train import trained_record

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

    from robust_nas.evaluation import Evaluation

# The verb that records a job, and where its folder is in the folder of a run.
PLACES: dict[Job, tuple[str, str]] = {
    "search": ("search", "search"),
    "training": ("train", "model"),
    "evaluation": ("evaluate", "evaluation"),
    "compression": ("compress", "compressed"),
}


def figure(
    name: str, of: Mapping[str, Any] | Evaluation | Architecture | Path | str, *, caption: str | None = None
) -> MatplotlibFigure:
    """Return a figure as it would be in a run folder; no file is written.

    It is a `matplotlib.figure.Figure`: a notebook with `%matplotlib inline` shows it, `savefig` stores it, and `axes`
    are there to be changed. It makes its axes itself, since most figures have several.

    Args:
        name: of `robust_nas.figures.FIGURES`, such as `training`, `search`, `cells`, `evaluation`, `compression`.
        of: the folder of a finished run (or of one that holds it), what `robust_nas.evaluate` returned, a cell
            architecture, or a record of plain values (`figures/figure.py`).
        caption: the line under it; default: what the folder says of itself.

    Raises:
        ConfigError: there is no such figure, or nothing for it to draw.
        RunError: a record of the folder is missing or damaged.
    """
    from robust_nas.figures.style import kept

    drawing = FIGURES.make(name)
    record, about = _record(drawing, of)
    if not drawing.has_data(record):
        missing = ", ".join(key for key in drawing.needs if not record.get(key))
        drawn = ", ".join(each for each in FIGURES.built_in if _draws(each, drawing.of, record)) or "none"
        raise ConfigError(
            f"figure {name!r}: there is nothing to draw ({missing or 'no data'}); there is for: {drawn}"
        )
    with kept() as figures:
        drawing.draw(
            record, Path(drawing.stem), caption=drawing.caption(record, about) if caption is None else caption
        )
    if not figures:
        raise ConfigError(
            f"figure {name!r}: draws without robust_nas.figures.save, and can be had as files alone"
        )
    return figures[0]


def _draws(name: str, job: Job, record: Mapping[str, Any]) -> bool:
    made = FIGURES.make(name)
    return made.of == job and made.has_data(record)


def _record(drawing: Figure, of: Any) -> tuple[Mapping[str, Any], str]:
    """Return the record that a figure draws, and what it is of."""
    if isinstance(of, Mapping):
        return of, ""
    if isinstance(of, Architecture):
        return _cells(of), of.name
    if isinstance(of, str | Path):
        return _stored(drawing, expand_path(of))
    if hasattr(of, "to_dict") and hasattr(of, "examples"):
        names = [str(number) for number in range(of.classes)]
        return {**of.to_dict(), "examples": list(of.examples), "class_names": names}, ""
    raise ConfigError(
        f"figure: got {type(of).__name__}; a run folder, an evaluation, an architecture or a record is needed"
    )


def _cells(architecture: Architecture) -> dict[str, Any]:
    if not has_cells(architecture):
        raise ArchitectureError(f"{architecture.name}: {architecture.called} has no cells to draw")
    cells, concat, inputs = architecture.drawing()
    return {"cells": cells, "concat": concat, "inputs": inputs}


def _stored(drawing: Figure, folder: Path) -> tuple[Mapping[str, Any], str]:
    """Return the record of the job in a run folder, or of the folder inside that has it."""
    if drawing.of not in PLACES:
        raise ConfigError(
            f"figure {drawing.label!r}: is of a {drawing.of}, whose record is to be given; of folders there are the "
            f"figures of a {', '.join(PLACES)}"
        )
    verb, inner = PLACES[drawing.of]
    rows = [row_of(place) for place in (folder, folder / inner) if (place / "config.yaml").is_file()]
    found = next((row for row in rows if row.verb == verb), None)
    if found is None:
        held = ", ".join(row.verb for row in rows if row.verb) or "no run"
        raise ConfigError(f"figure {drawing.label!r}: is of a {drawing.of}; {folder} holds {held}")
    place = Path(found.folder)
    seed = "" if found.seed is None else f", seed {found.seed}"
    return _READ[drawing.of](place), f"{found.name or place.name} on {found.data or 'unknown data'}{seed}"


def _search(folder: Path) -> dict[str, Any]:
    lines = read_lines(folder / METRICS)
    cells = folder / "architecture.yaml"
    return {
        load_config(str(folder)).search.drawn_as: lines,
        **(_cells(load_architecture(cells)) if cells.is_file() else {}),
    }


def _training(folder: Path) -> dict[str, Any]:
    made = trained_record(folder)
    return {
        "records": read_lines(folder / METRICS),
        "best_epoch": made["epoch"],
        "validation_attack": load_config(str(folder)).training.validation_attack.label,
    }


_READ: dict[Job, Callable[[Path], dict[str, Any]]] = {
    "search": _search,
    "training": _training,
    "evaluation": lambda folder: read_record(folder, "evaluation.json", RECORDED),
    "compression": lambda folder: read_record(folder, "compression.json", {"networks": [object, ...]}),
}
