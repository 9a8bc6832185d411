"""The analysis and report of large studies with made-up outcomes: seconds of CPU and bytes; prints a Markdown table.

    .venv/bin/python scripts/bench_study.py [--sizes 50 200 500] [--seeds 5] [--images 10000]

A grid of multilayer perceptrons, one more configuration a width, is planned as any study; its first trial is trained
and measured, the others get its outcome with other answers: right with a probability that grows with the width. Images
are as hard for every configuration, so that the answers of two are alike. Needs the package of Fashion-MNIST, whose
test set has 10,000 images.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from robust_nas.config import check
from robust_nas.execution import Ended, RunTasks, Task
from robust_nas.figures import FIGURES
from robust_nas.figures.study_figure import StudyFigure
from robust_nas.studies.config import StudyConfig
from robust_nas.studies.report import page
from robust_nas.studies.report.analysis import analyse
from robust_nas.studies.run.runner import run_study
from robust_nas.studies.run.trial import pack, run_trial

DEPTHS = 5


def study(configurations: int, seeds: int, images: int) -> StudyConfig:
    """Return the config of a grid with so many configurations."""
    widths = [8 + 2 * number for number in range(configurations // DEPTHS)]
    tree = {
        "name": f"grid-{configurations}",
        "device": "cpu",
        "threads": 1,
        "data": {"name": "fashion-mnist", "limit": 200, "validation": 0.2},
        "base": {"type": "mlp", "name": "mlp", "depth": 1, "width": 8},
        "space": [{"name": "grid", "axes": {"width": widths, "depth": list(range(1, DEPTHS + 1))}}],
        "seeds": seeds,
        "guard": {"max_training_macs": 1e18, "max_hours": 1e6},
        "training": {
            "epochs": 1,
            "loss": {"name": "natural"},
            "validation_attack": {"name": "pgd", "eps": 0.1, "steps": 1},
        },
        "evaluation": {
            "threat_model": {"norm": "linf", "eps": 0.1},
            "attacks": [{"attack": {"name": "fgsm"}}],
            "findings": "none",
            "images": images,
        },
        "metrics": {"attack": {"steps": 1}, "images": 30, "sensitivity_draws": 1},
        "analysis": {"rules": ["more_params"]},
    }
    return check(StudyConfig, tree, "bench_study")


class Invented:
    """An engine that runs one trial and invents the answers of the others."""

    name = text = "invented"
    like_here = None

    def __init__(self, images: int) -> None:
        self.images, self.draw = images, np.random.default_rng(0)
        self.hard = self.draw.standard_normal(images)

    def device(self, asked: str, here: str) -> str:
        """Return the device of the trials."""
        return here

    def refuse_unreachable(self) -> None:
        """Everything is here."""

    @contextlib.contextmanager
    def opened(self) -> Iterator[RunTasks]:
        """Give `run`: it keeps nothing."""
        yield self.run

    def run(self, tasks: Sequence[Task], started: Callable[[str, int], None]) -> Iterator[Ended]:
        """Yield an outcome for every task."""
        real = run_trial(tasks[0].payload, tasks[0].folder)
        for task in tasks:
            started(task.id, 1)
            trial = task.payload["trial"]
            skill = 0.1 * np.log2(trial["architecture"]["width"]) + 0.05 * self.draw.standard_normal()
            outcomes = {}
            for key, more in (("clean", 0.6), ("robust", 0.0), ("stable", 0.3)):
                own = 0.3 * self.draw.standard_normal(self.images)
                outcomes[key] = pack((self.hard + own < skill + more).tolist())
            yield Ended(
                task.id,
                {**real, "seed": trial["seed"], "outcomes": outcomes, "trial": task.id},
                None,
                1,
                0.1,
            )


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result and the seconds of CPU."""
    began = time.process_time()
    found = work()
    return found, time.process_time() - began


def main() -> None:
    """Print the table, and the seconds and bytes of each figure of the largest study."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200, 500])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=10_000)
    given = parser.parse_args()
    print(
        "| configurations | seeds | images | analysis (s) | report (s) | report (MB) |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as place:
        for size in given.sizes:
            config = study(size, given.seeds, given.images)
            with patch.object(page, "illustrate", lambda *_, **__: []):  # what is measured comes after
                folder = run_study(config, Path(place) / str(size), engine=Invented(given.images))
            tree, analysis = timed(lambda: analyse(folder))  # noqa: B023
            _, report = timed(lambda: page.write_report(tree, folder))  # noqa: B023
            megabytes = (folder / "report.html").stat().st_size / 1e6
            row = [size, given.seeds, given.images, f"{analysis:.1f}", f"{report:.1f}", f"{megabytes:.1f}"]
            print(f"| {' | '.join(map(str, row))} |", flush=True)
        print("\n| figure | seconds | SVG (kB) |\n|---|---|---|")
        for name in FIGURES.built_in:
            figure = FIGURES.make(name)
            if isinstance(figure, StudyFigure) and figure.applies(tree):
                stem = folder / "figures" / figure.stem
                _, seconds = timed(lambda: figure.draw(tree, stem))  # noqa: B023
                print(
                    f"| {figure.stem} | {seconds:.2f} | {stem.with_suffix('.svg').stat().st_size / 1e3:.0f} |"
                )


if __name__ == "__main__":
    main()
