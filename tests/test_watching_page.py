"""The loggers on the page on watching, run against imitations of the packages that they pass numbers to."""

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from run_configs import Config

from robust_nas.config import Options
from robust_nas.logger import LOGGERS, Logger
from robust_nas.run_folder import Run
from robust_nas.user_code import own_config

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "watching.md"
FILES = {m[1]: m[2] for m in re.finditer(r"```python\n# (\w+\.py)\n(.*?)```", PAGE.read_text(), re.DOTALL)}


class Recipe(Options):
    loggers: tuple[Logger, ...] = ()


class FakeWandB(ModuleType):
    """Keeps the history of runs by id; a resumed one begins at its next step, and takes no earlier one."""

    def __init__(self):
        super().__init__("wandb")
        self.runs = {}

    def init(self, *, project, id, name, config, dir, resume):
        history = self.runs.setdefault(id, [])

        def log(scalars, step):
            history.append((step, scalars["loss"]))

        return SimpleNamespace(step=len(history), log=log, finish=lambda: None)

    def points(self):
        (history,) = self.runs.values()
        return history


class FakeMLflow(ModuleType):
    """Keeps points by run; one that is logged twice is there twice."""

    def __init__(self):
        super().__init__("mlflow")
        self.tags, self.logged, self.ended = {}, {}, []

    def MlflowClient(self):  # noqa: N802 - as the package calls it
        return self

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        return "7"

    def search_runs(self, experiments, wanted):
        return [self._run(run) for run, tags in self.tags.items() if tags["robust_nas_id"] in wanted]

    def create_run(self, experiment, tags):
        self.tags[str(len(self.tags))] = tags
        return self._run(str(len(self.tags) - 1))

    def _run(self, run):
        return SimpleNamespace(info=SimpleNamespace(run_id=run))

    def get_metric_history(self, run, name):
        return [SimpleNamespace(step=step) for step, _ in self.logged.get((run, name), ())]

    def log_metric(self, run, name, value, step):
        self.logged.setdefault((run, name), []).append((step, value))

    def set_terminated(self, run):
        self.ended.append(run)

    def points(self):
        (history,) = self.logged.values()
        return history


@pytest.mark.parametrize(
    ("file", "name", "fake"),
    [("wandb_logger.py", "WandB", FakeWandB), ("mlflow_logger.py", "MLflow", FakeMLflow)],
)
def test_a_logger_of_the_page_logs_every_point_once(tmp_path, monkeypatch, file, name, fake):
    (tmp_path / file).write_text(FILES[file])
    package = fake()
    monkeypatch.setitem(sys.modules, package.__name__, package)
    with own_config(tmp_path):
        recipe = Recipe(loggers=(LOGGERS.make(f"{file}:{name}"),))
    for mode, first, last in (("new", 0, 3), ("resume", 1, 5)):
        with Run(tmp_path / "run", Config(), mode, recipe=recipe) as run:
            if mode == "resume":
                run.load_checkpoint()
            for epoch in range(first, last):
                run.log({"epoch": epoch, "loss": 1 / (epoch + 1)})
                if mode == "new" and epoch == 0:
                    run.save_checkpoint({"job": "test"})
            if mode == "resume":
                run.finish({}, [])
    assert package.points() == [(epoch, 1 / (epoch + 1)) for epoch in range(5)]


def test_the_page_shows_these_files_and_says_that_they_were_not_run():
    assert FILES.keys() == {"wandb_logger.py", "mlflow_logger.py"}
    assert "They were not run here" in " ".join(PAGE.read_text().split())
