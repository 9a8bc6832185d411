"""The tutorial on logistic regression runs, and no attack passes the exact worst case."""

import csv
import importlib
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def tutorial(monkeypatch):
    """The script with fewer fits, and attacks of fewer queries."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    script = importlib.import_module("tutorial_logistic")
    monkeypatch.setattr(script, "COPIES", 2)
    few = {"Square, 1000 scores": 60, "HopSkipJump, 1000 decisions": 60}
    attacks = {
        name: attack.model_copy(update={"queries": few[name]}) if name in few else attack
        for name, attack in script.ATTACKS.items()
    }
    monkeypatch.setattr(script, "ATTACKS", attacks)
    name, smoothing = list(script.DEFENCES.items())[-1]
    monkeypatch.setitem(script.DEFENCES, name, smoothing.model_copy(update={"n": 100, "samples": 4}))
    return script


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_it_runs_and_no_attack_passes_the_exact_worst_case(tutorial, tmp_path, capsys):
    tutorial.main(["--splits", "1", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert printed.startswith("| fit | eps 0 | eps 0.05 |")
    assert (tmp_path / "table.md").read_text() in printed
    found = rows(tmp_path / "attacks.csv")
    assert {row["attack"] for row in found} == set(tutorial.ATTACKS)
    for row in found:
        assert float(row["accuracy"]) >= float(row["exact"]) - 1e-9
        if "gradient" in row["attack"]:  # of a linear model one is enough
            assert float(row["accuracy"]) == pytest.approx(float(row["exact"]))
    assert len(rows(tmp_path / "digits_3_8.csv")) == 357
    assert [row["term"] for row in rows(tmp_path / "coefficients.csv")][:2] == ["bias", "p0"]
    assert all(
        float(row["worst_within_0.1"]) <= float(row["clean"]) for row in rows(tmp_path / "margins.csv")
    )


def test_a_wrong_number_of_splits_is_refused(tutorial, tmp_path, capsys):
    with pytest.raises(SystemExit):
        tutorial.main(["--splits", "0", "--out", str(tmp_path / "none")])
    assert "--splits: got 0" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
