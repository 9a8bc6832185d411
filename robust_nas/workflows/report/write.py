"""Write the report of a run folder: at the end of a job, and at any time afterwards.

Nothing is computed here: sections read the records, figures are those of the folder. Equal folders give equal bytes.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from robust_nas.config import expand_path
from robust_nas.errors import ConfigError, RobustNASError
from robust_nas.files import write_atomic
from robust_nas.run_folder import CONFIG
from robust_nas.workflows.report.blocks import MISSING, Block, Section, Text, duration, flat, size
from robust_nas.workflows.report.page import environment, picture
from robust_nas.workflows.report.part import FIGURES, REPORT, WITHOUT_CONFIG, Live, Part
from robust_nas.workflows.report.sections import SECTIONS
from robust_nas.workflows.run_table import RunRow, row_of

ROOM = 2_300_000  # bytes of figures in a page; the others are named
SETTINGS = 600  # that are shown


class Shown(NamedTuple):
    """A figure in the page."""

    title: str
    element: Markup


class Chapter(NamedTuple):
    """A section with the figures of its folder, and what of them is not shown."""

    title: str
    answer: str
    blocks: Sequence[Block]
    pictures: Sequence[Shown]
    not_shown: Sequence[str]
    limits: Sequence[str]


def write_run_report(folder: Path, live: Live | None = None) -> Path:
    """Write `report.html` of a run folder; return its path. `live`: the run works, and the page is read again.

    Raises `ConfigError` for a folder that is no run, and `RunError` where it cannot be written. A page that is there
    and would not change is left as it is.
    """
    path = folder / REPORT
    data = run_page(folder, live).encode("utf-8", "replace")
    if not (path.is_file() and path.read_bytes() == data):
        write_atomic(path, data)
    return path


def run_page(folder: Path, live: Live | None = None) -> str:
    """Return the text of a run's page. Raises `ConfigError` for a folder that is no run."""
    folder = expand_path(folder)
    own = Part(folder)
    verbs = [verb for name, verb in WITHOUT_CONFIG.items() if own.has(name) and not own.has(CONFIG)]
    known = (CONFIG, "result.json", "evaluation.json", "compression.json")
    if not verbs and not any(own.has(name) for name in known):
        raise ConfigError(f"{folder}: holds no {CONFIG} of a run; name the folder that a verb wrote")
    row = RunRow(str(folder), verbs[0], "done") if verbs else row_of(folder)
    chapters, answer = _chapters(own)
    unfinished = _unfinished(own, row)
    verb = row.verb or "run"
    limits = list(dict.fromkeys(text for chapter in chapters for text in chapter.limits))
    settings = [(key, value[:400]) for key, value in flat(own.recipe) if own.recipe]
    said = own.environment.get("command")
    page = environment().get_template("report.html.j2")
    return page.render(
        name=folder.resolve().name,
        verb=verb,
        answer=answer or unfinished or "No result is recorded in this folder.",
        unfinished=unfinished if answer else "",
        live=live,
        resumable=own.has(CONFIG),
        resume=_resume(said) if row.state == "unfinished" and own.started else "",
        problems=own.problems + ([row.problem] if row.problem and not own.problems else []),
        about=_about(own, row),
        chapters=chapters,
        limits=limits,
        versions=_versions(own.environment),
        settings=settings[:SETTINGS],
        command=_command(said) if isinstance(said, list) else "",
        folder=shlex.quote(folder.name or str(folder)),
        missing=MISSING,
    )


def _chapters(own: Part) -> tuple[list[Chapter], str]:
    """Return the chapters of a run and its parts, and the answer of the first."""
    chapters: list[Chapter] = []
    answer, room = "", ROOM
    for part in [own, *own.inner]:
        sections = _sections(part)
        if not answer and part is own:
            answer = next((section.answer for section in sections if section.answer), "")
        for place, section in enumerate(sections):
            last = place == len(sections) - 1
            pictures, left_out, room = _pictures(part, room) if last else ([], [], room)
            where = f" ({part.name})" if part.name else ""
            blocks = section.blocks
            chapters.append(
                Chapter(f"{section.title}{where}", section.answer, blocks, pictures, left_out, section.limits)
            )
    return chapters, answer


def _sections(part: Part) -> list[Section]:
    """Return the sections that a part has records for; one whose records are not as expected says so."""
    found = []
    for make in SECTIONS:
        try:
            section = make(part)
        except Exception as error:  # records may hold anything
            name, reason = make.__name__, f"{type(error).__name__}: {error}"[:200]
            part.problems.append(
                f"the records of {part.name or 'this folder'} for the section {name}: {reason}"
            )
            section = Section(name.capitalize(), blocks=[Text("Its records are damaged.", "warn")])
        if section is not None:
            found.append(section)
    return found


def _pictures(part: Part, room: int) -> tuple[list[Shown], list[str], int]:
    """Return the figures of a part's folder, what is not shown, and the bytes that are left."""
    folder, shown, left_out = part.folder / FIGURES, [], []
    paths = sorted([*part.folder.glob("*.svg"), *folder.glob("*.svg")]) if not folder.is_symlink() else []
    for path in paths:
        prefix = "f-" + "".join(c if c.isalnum() else "-" for c in f"{part.name}-{path.stem}")
        try:
            element = picture(path, prefix)
        except (RobustNASError, OSError) as error:
            left_out.append(f"Not shown: {error}")
            continue
        if len(element) > room:
            left_out.append(f"Not shown, for its size: {path.relative_to(part.folder)}")
            continue
        room -= len(element)
        shown.append(Shown(path.stem.replace("_", " ").replace("-", " "), element))
    if missing := part.missing_figures:
        left_out.append(f"Not in the folder: the figures {', '.join(missing)}.")
    return shown, left_out, room


def _unfinished(own: Part, row: RunRow) -> str:
    """Return how far a run is that did not end, or nothing."""
    if row.state not in ("unfinished", "running") or not own.started:
        return ""
    parts = [own, *own.inner]
    now = next((part for part in reversed(parts) if part.started and not part.result), own)
    words = "Running" if row.state == "running" else "Not finished"
    if now is own and own.result:  # what it made is gone
        return f"{words}: files that {own.folder.name} ended with are missing."
    where = f"{now.name}, " if now.name else ""
    return f"{words}: {where}{_progress(now)}."


def _progress(part: Part) -> str:
    """Return the step of how many that a job is at, by its metrics."""
    if not part.metrics:
        return "no step is recorded"
    sections: list[Any] = [part.config.get("training"), part.config.get("search")]
    plans = [one for one in sections if isinstance(one, Mapping) and isinstance(one.get("epochs"), int)]
    last = part.metrics[-1].get("epoch")
    if plans and isinstance(last, int):
        return f"epoch {last + 1} of {plans[0]['epochs']}"
    return f"{len(part.metrics)} steps are recorded"


def _about(own: Part, row: RunRow) -> list[tuple[str, str]]:
    """Return what was run, and what it cost."""
    made = own.environment
    images = made.get("images")
    known = own.started or row.state == "broken" or row.verb in WITHOUT_CONFIG.values()
    return [
        ("state", row.state if known else "kept records"),
        ("data", str(row.data or "")),
        (
            "images",
            ", ".join(f"{n} {part}" for part, n in images.items()) if isinstance(images, dict) else "",
        ),
        ("seed", "" if row.seed is None else str(row.seed)),
        ("time", duration(row.seconds)),
        ("MACs of an image", size(row.macs)),
        ("device", " ".join(str(made[key]) for key in ("device", "processor") if made.get(key))),
        ("threads", str(made.get("threads", ""))),
    ]


def _command(words: Sequence[object]) -> str:
    """Return the command of a run as a shell takes it; records had `__main__.py` for the console script."""
    texts = [
        "robust-nas" if word == "__main__.py" and not place else str(word) for place, word in enumerate(words)
    ]
    return shlex.join(texts)


def _resume(said: Any) -> str:
    """Return the command that continues a run, from the one that began it; empty where none is recorded."""
    if not isinstance(said, list) or not said:
        return ""
    return _command([*(word for word in said if word not in ("--overwrite", "--resume")), "--resume"])


def _versions(made: Mapping[str, Any]) -> list[tuple[str, str]]:
    parts = [part for key in ("packages", "plugins") if isinstance(part := made.get(key), dict)]
    return [
        ("robust_nas", str(made.get("robust_nas", ""))),
        ("code", str(made.get("code") or "")),
        ("python", str(made.get("python", ""))),
        *((name, str(version)) for part in parts for name, version in part.items()),
        ("platform", str(made.get("platform", ""))),
        ("config", str(made.get("config_hash", ""))),
        ("images' checksum", str(made.get("dataset_checksum") or "")),
    ]
