"""The records of a run folder, and of the runs inside it that belong to it, read for its report.

A record that is missing is None. A damaged one is None, too, and `problems` names it: a report is never refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from robust_nas.config import read_yaml
from robust_nas.errors import RobustNASError
from robust_nas.files import LOCK
from robust_nas.records import RESULT, parse_json, read_environment, read_json, read_record
from robust_nas.run_folder import CONFIG, METRICS, NOT_DRAWN, RECIPE

# Folders inside a run that its report shows, in this order.
INSIDE = (
    "search",
    "model",
    "evaluation",
    "reference/model",
    "reference/evaluation",
    "compressed",
    "controls",
)
# Records of verbs whose folders have no config: what such a folder is of.
ATTACK_SET, BENCHMARK = "attack.json", "benchmark.json"
WITHOUT_CONFIG = {ATTACK_SET: "attack run", BENCHMARK: "benchmark"}
REPORT, FIGURES = "report.html", "figures"
LONGEST = 20_000  # lines of the metrics that are read


class Live(NamedTuple):
    """What the page of a run says that works: when it was written, when the browser reads it again, and the jobs."""

    seconds: float  # until then
    written: str
    jobs: list[tuple[str, str]]  # name, and how far it is


class Part:
    """A run folder, or one inside it; `name` is its place in the outer folder, empty for this itself."""

    def __init__(self, folder: Path, name: str = "", problems: list[str] | None = None) -> None:
        self.folder, self.name = folder, name
        self.problems: list[str] = [] if problems is None else problems
        self._records: dict[str, dict[str, Any] | None] = {}

    @cached_property
    def result(self) -> dict[str, Any]:
        """Return `result.json`, empty where the job is not finished."""
        return self._read(lambda: read_json(self.folder / RESULT)) if self.has(RESULT) else {}

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Return `config.yaml`."""
        return self._yaml(CONFIG)

    @cached_property
    def recipe(self) -> Mapping[str, Any]:
        """Return the whole config that the run was started with."""
        return self._yaml(RECIPE) if self.has(RECIPE) else self.config

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Return `environment.json`."""
        return self._read(lambda: read_environment(self.folder))

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of `metrics.jsonl`; a last one that is being written is left out."""
        path = self.folder / METRICS
        if not path.is_file():
            return []
        try:
            text = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
            rows = [parse_json(line) for line in text.splitlines()[:LONGEST]]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError("a line is no JSON object")
        except (OSError, ValueError, RecursionError) as error:
            self._note(f"{path.name}: damaged: {error}")
            return []
        return rows

    @cached_property
    def inner(self) -> list[Part]:
        """Return the parts inside, those of a model folder inside too."""
        found = []
        for name in INSIDE:
            folder = self.folder / name
            if folder.is_dir() and not folder.is_symlink():
                part = Part(folder, f"{self.name}/{name}".strip("/"), self.problems)
                found += [part, *part.inner]
        return found

    @property
    def missing_figures(self) -> list[str]:
        """Return the figures that the run was to have and that are not there as SVG."""
        listed = [
            Path(str(path)) for path in self.result.get("artifacts", ()) if str(path).startswith(FIGURES)
        ]
        stems = [path.stem for path in listed] + [str(stem) for stem in self.result.get(NOT_DRAWN, ())]
        return [stem for stem in stems if not self.has(f"{FIGURES}/{Path(stem).name}.svg")]

    @property
    def started(self) -> bool:
        """Return whether a job works here, or did; else the folder holds copies of records."""
        return self.has(CONFIG) and self.has(LOCK)

    def has(self, name: str) -> bool:
        """Return whether a file is there."""
        return (self.folder / name).is_file()

    def record(self, name: str) -> dict[str, Any] | None:
        """Return a JSON record, or None where it is missing or damaged."""
        if not self.has(name):
            return None
        if name not in self._records:
            finished = bool(self.result)
            read = (
                (lambda: read_record(self.folder, name, {str: object}))
                if finished
                else (lambda: read_json(self.folder / name))
            )
            self._records[name] = self._read(read) or None
        return self._records[name]

    def _yaml(self, name: str) -> Mapping[str, Any]:
        return self._read(lambda: dict(read_yaml(self.folder / name))) if self.has(name) else {}

    def _read(self, read: Any) -> dict[str, Any]:
        try:
            found: dict[str, Any] = read()
        except (RobustNASError, OSError, ValueError, TypeError) as error:
            self._note(str(error))
            return {}
        return found

    def _note(self, problem: str) -> None:
        text = problem.replace(f"{self.folder}/", f"{self.name}/" if self.name else "")[:300]
        if text not in self.problems:
            self.problems.append(text)
