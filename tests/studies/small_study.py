"""A study of seconds: multilayer perceptrons on a few digits, as a YAML file and as a command."""

import csv
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from robust_nas.config import check
from robust_nas.execution import Ended, Task
from robust_nas.studies.config import StudyConfig
from robust_nas.studies.run.trial import run_trial

TREE: dict[str, Any] = {
    "name": "small",
    "device": "cpu",
    "threads": 1,
    "data": {"name": "digits", "limit": 200, "validation": 0.2},
    "base": {"type": "mlp", "name": "mlp", "depth": 1, "width": 16},
    "space": [{"name": "grid", "axes": {"width": [8, 16], "depth": [1, 2]}}],
    "seeds": 2,
    "training": {
        "epochs": 2,
        "batch_size": 32,
        "learning_rate": 0.05,
        "loss": {"name": "pgd-at", "attack": {"name": "fgsm-rs", "eps": 0.1}},
        "validation_attack": {"name": "pgd", "eps": 0.1, "steps": 2},
    },
    "evaluation": {
        "threat_model": {"norm": "linf", "eps": 0.1},
        "attacks": [{"attack": {"name": "pgd", "steps": 3}}],
        "findings": "none",
        "images": 60,
    },
    "metrics": {"attack": {"steps": 3}, "images": 30, "sensitivity_draws": 2},
    "analysis": {"draws": 200, "rules": ["more_params"]},
}
TRIALS = 8


def small_study(**changes: Any) -> StudyConfig:
    """The config, with whole sections exchanged."""
    return check(StudyConfig, {**TREE, **changes}, "small study")


def command(study: Path, out: Path, *more: str) -> list[str]:
    """`robust-nas study run` on a YAML file."""
    return [
        sys.executable,
        "-m",
        "robust_nas",
        "study",
        "run",
        str(study),
        "--out",
        str(out),
        "--quiet",
        *more,
    ]


def environment() -> dict[str, str]:
    """One thread, and this checkout first."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}


def table(folder: Path) -> list[dict[str, str]]:
    """The rows of the done trials in a study's table, by configuration and seed."""
    rows = [
        row
        for row in csv.DictReader(io.StringIO((folder / "table.csv").read_text()))
        if row["state"] == "done"
    ]
    return sorted(rows, key=lambda row: (row["name"], row["seed"]))


class HereEngine:
    """Runs tasks in this process, in order; `fail` maps a task's number to the error it ends with."""

    name = text = "here"
    like_here = None  # nothing is timed

    def __init__(self, fail: dict[int, dict[str, str]] | None = None) -> None:
        self.fail = fail or {}
        self.ran: list[str] = []

    def device(self, asked: str, here: str) -> str:
        return here

    def refuse_unreachable(self) -> None:
        return None

    def run(self, tasks: Sequence[Task], started: Callable[[str, int], None]) -> Iterator[Ended]:
        for number, task in enumerate(tasks):
            started(task.id, 1)
            self.ran.append(task.id)
            if number in self.fail:
                yield Ended(task.id, None, self.fail[number], 1, 0.1)
            else:
                yield Ended(task.id, run_trial(task.payload, task.folder), None, 1, 0.1)
