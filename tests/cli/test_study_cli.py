"""`robust-nas study`: what it prints, where it writes, and what it says of mistakes."""

import csv
import json
import sys
from pathlib import Path

import pytest
from cli_outcome import Call

SETTINGS = (
    "data.limit=200",
    "data.validation=0.2",
    "base={type: mlp, name: mlp, depth: 1, width: 8}",
    "space=[{name: grid, axes: {width: [4, 8]}}]",
    "seeds=2",
    "training.epochs=1",
    "training.batch_size=32",
    "training.ema=null",
    "evaluation.images=40",
    "evaluation.attacks=[{attack: {name: pgd, steps: 2}}]",
    "metrics.attack.steps=2",
    "analysis.rules=[]",
    "analysis.draws=200",
    "device=cpu",
)
STUDY = ("huang-width-last", "--size", "ci")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies") / "mine"


def test_the_shipped_studies_are_listed_with_their_question(call: Call) -> None:
    done = call("study", "list")
    assert done.code == 0
    for text in ("huang-width-last", "zhu-mlp-init", "ci, small, full", "last stage"):
        assert text in done.out


def test_the_list_of_studies_as_json(call: Call) -> None:
    tree = json.loads(call("study", "list", "--json").out)
    found = {row["study"]: row for row in tree}
    assert found["huang-width-last"]["sizes"] == ["ci", "small", "full"]
    assert "last stage" in found["huang-width-last"]["asks"]


def test_a_plan_shows_both_budgets_cost_time_and_power_and_writes_nothing(call: Call) -> None:
    done = call("study", "plan", *STUDY, *SETTINGS)
    assert (done.code, done.err) == (0, "")
    for text in (
        "mlp-d1-w4",
        "ratio",
        "training MACs",
        "about",
        "on 2 workers",
        "smallest effect",
        "with 80 % power",
    ):
        assert text in done.out
    assert list(Path().iterdir()) == []
    tree = json.loads(call("study", "plan", *STUDY, *SETTINGS, "--json", "--no-calibrate").out)
    assert (tree["trials"], tree["seconds"]) == (4, None)
    assert tree["points"][0]["macs_ratio"] == 1.0


def test_a_plan_above_the_guard_is_shown_and_refused(call: Call) -> None:
    done = call("study", "plan", *STUDY, *SETTINGS, "guard.max_training_macs=10")
    assert done.code == 2
    assert "mlp-d1-w4" in done.out
    assert "guard.max_training_macs: 4 trials need" in done.err


def test_equal_parameters_at_other_macs_are_warned_of(call: Call) -> None:
    done = call("study", "plan", "wrn-r-vs-uniform", "--size", "ci", "--no-calibrate")
    assert done.code == 0
    assert "has the parameters of wrn-10-1 (0.98 times) but 1.62 times its MACs" in done.err


def test_a_study_runs_resumes_reports_and_exports(call: Call, folder: Path) -> None:
    arguments = ("study", "run", *STUDY, *SETTINGS, "--out", folder, "--workers", "1", "--quiet")
    done = call(*arguments, "--json")
    assert (done.code, done.err) == (0, "")
    tree = json.loads(done.out)
    assert tree["cost"]["done"] == 4
    assert (folder / "report.html").is_file()
    again = call(*arguments)
    assert again.code == 2
    assert "exists already" in again.err
    resumed = call(*arguments, "--resume")
    assert resumed.code == 0
    assert "4 of 4 trials" in resumed.out
    assert "report.html" in resumed.out
    status = call("study", "status", folder)
    assert "4 of 4 trials done" in status.out
    shown = call("study", "report", folder, "--quiet")
    assert (shown.code, "mlp-d1-w8" in shown.out) == (0, True)
    table = call("study", "export", folder)
    rows = list(csv.DictReader(table.out.splitlines()))
    assert [row["state"] for row in rows] == ["done"] * 4
    written = call("study", "export", folder, "--csv", "table.csv")
    assert (written.code, Path("table.csv").read_text()) == (0, table.out)
    assert call("study", "export", folder, "--csv", "table.csv").code == 2
    tree = json.loads(call("study", "export", folder, "--json").out)
    assert [(row["state"], row["seed"]) for row in tree] == [("done", int(row["seed"])) for row in rows]
    assert [row["clean"] for row in tree] == [float(row["clean"]) for row in rows]
    assert {row["arm"] for row in tree} == {None}


def test_a_config_can_be_printed_and_run_from(call: Call) -> None:
    done = call("study", "run", *STUDY, *SETTINGS, "--print-config")
    assert done.code == 0
    Path("mine.yaml").write_text(done.out)
    again = call("study", "plan", "mine.yaml", "--no-calibrate")
    assert again.code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("study", "run", "huang-width-last"), "choose one with --size: ci, small, full"),
        (("study", "run", "nothing"), "neither a study nor a file"),
        (("study", "run", *STUDY, "training.epoch=3"), "unknown key 'epoch'; did you mean 'epochs'"),
        (("study", "run", *STUDY, "space.0.axes={widths.3: [1]}"), "no index of a list of 3"),
        (("study", "run", *STUDY, "--ray-address", "127.0.0.1:1"), "it is for ray: change --engine"),
        (("study", "run", *STUDY, "--resume", "--overwrite"), "give one of them"),
        (("study", "status", "nowhere"), "holds no study"),
        (("study", "report", "nowhere"), "holds no study"),
        (("study", "export", "nowhere"), "holds no study"),
    ],
)
def test_mistakes_are_bad_usage_and_leave_nothing(
    call: Call, arguments: tuple[str, ...], message: str
) -> None:
    done = call(*arguments)
    assert done.code == 2
    assert message in done.err
    assert list(Path().iterdir()) == []


def test_without_the_extra_it_says_so_before_anything_is_trained(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "statsmodels", None)
    done = call("study", "run", *STUDY, *SETTINGS)
    assert done.code == 2
    assert "pip install 'robust-nas[study]'" in done.err
    assert list(Path().iterdir()) == []
