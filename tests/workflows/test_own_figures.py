"""Figures that a config asks for: drawn from what is stored, also later; one that fails costs no result."""

import pytest
import yaml
from cases import CONFIG
from extending import example

import robust_nas
from robust_nas.config import apply_overrides
from robust_nas.errors import FigureWarning
from robust_nas.run_folder import RESULT, is_finished
from robust_nas.workflows.config import load_config

TINY = robust_nas.ResidualArchitecture(name="tiny", stem=4, depths=(1, 1), widths=(4, 8))
FAILS = """
from typing import ClassVar
from robust_nas.figures import Figure

class Fails(Figure):
    of: ClassVar[str] = "{}"

    def draw(self, record, stem, *, caption=""):
        raise ValueError("no such colour")
"""
JOBS = {
    "search": lambda config, folder, mode: robust_nas.run_search(config, folder, mode=mode),
    "training": lambda config, folder, mode: robust_nas.train(config, TINY, folder, mode=mode),
}


@pytest.fixture
def recipe(tmp_path):
    """A function that returns the config with these figures of files in its folder."""

    def write(*figures, **files):
        for stem, text in files.items():
            (tmp_path / f"{stem}.py").write_text(text)
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump({**apply_overrides(CONFIG, ()), "figures": list(figures)}))
        return load_config(path)

    return write


@pytest.mark.parametrize("job", JOBS)
def test_a_figure_that_fails_is_named_and_the_result_is_finished(recipe, tmp_path, job):
    config = recipe("fails.py:Fails", fails=FAILS.format(job))
    with pytest.warns(FigureWarning, match=r"figure '.*/fails\.py:Fails' is not drawn: ValueError: no such"):
        JOBS[job](config, tmp_path / "out", "new")
    assert is_finished(tmp_path / "out")
    before = (tmp_path / "out" / RESULT).read_bytes()
    JOBS[job](recipe(), tmp_path / "out", "resume")  # without it
    assert (tmp_path / "out" / RESULT).read_bytes() == before


def test_a_figure_that_fails_stops_no_run(recipe, tmp_path, capsys, monkeypatch):
    figures = [f"{job}.py:Fails" for job in ("search", "training", "evaluation")]
    files = {job: FAILS.format(job) for job in ("search", "training", "evaluation")}
    with pytest.warns(FigureWarning) as warned:
        summary = robust_nas.run(recipe(*figures, **files), tmp_path / "run")
    assert [str(one.message).partition(".py")[0].rpartition("/")[2] for one in warned] == list(files)
    assert is_finished(tmp_path / "run")
    assert robust_nas.run(recipe(), tmp_path / "run", mode="resume") == summary


def test_the_command_line_prints_one_line_of_a_figure_that_fails(recipe, tmp_path, call):
    recipe("fails.py:Fails", fails=FAILS.format("training"))
    outcome = call(
        "train", tmp_path / "own.yaml", "--architecture", "wrn-10-1", "--out", tmp_path / "out", "-q"
    )
    assert outcome.code == 0
    (line,) = outcome.err.splitlines()
    assert line.startswith("warning: figure ")
    assert line.endswith("is not drawn: ValueError: no such colour")


def test_figures_of_a_finished_job_are_drawn_when_it_is_resumed(recipe, tmp_path):
    robust_nas.run(recipe(), tmp_path / "run")
    before = {path: path.read_bytes() for path in tmp_path.rglob(RESULT)}
    own = example("log_loss.py").replace("LogLoss", "Losses")
    search = own.replace('"training"', '"search"').replace('step["loss"]', 'step["loss_natural"]')
    bars = own.replace('"training"', '"evaluation"').replace('"records"', '"attacks"')
    bars = bars.replace(
        '[(step["epoch"], step["loss"]) for step in record["attacks"]]', "[(0, 1.0), (1, 2.0)]"
    )
    config = recipe("one.py:Losses", "two.py:Losses", "three.py:Losses", one=search, two=own, three=bars)
    robust_nas.run(config, tmp_path / "run", mode="resume")
    for job in ("search", "model", "evaluation"):
        assert (tmp_path / "run" / job / "figures" / "Losses.png").is_file(), job
    assert {path: path.read_bytes() for path in tmp_path.rglob(RESULT)} == before


def test_a_figure_without_stored_data_is_said_not_to_be_drawn(recipe, tmp_path):
    model = robust_nas.train(recipe(), TINY, tmp_path / "model")
    robust_nas.run_evaluation(recipe(), model)
    for name in ("evaluation/figures/examples.png", "evaluation/figures/examples.svg"):
        (model / name).unlink(missing_ok=True)
    with pytest.warns(
        FigureWarning, match=r"figure 'eps-curve' is not drawn: the record of the evaluation has no"
    ):
        robust_nas.run_evaluation(recipe("eps-curve"), model, mode="resume")
