"""`robust-nas compare`: what it prints, and what it says of mistakes."""

import json
from pathlib import Path
from typing import Any

import pytest
from cli_outcome import Call

from robust_nas.figures import Drawn, draw_figures

SETTINGS = (
    "data.limit=200",
    "data.validation=0.2",
    "training.epochs=1",
    "training.batch_size=32",
    "training.ema=null",
    "training.validation_attack.steps=2",
    "evaluation.images=40",
    "evaluation.suite=quick",
    "evaluation.findings=none",
    "compare.metrics={images: 20}",
    "compare.analysis={draws: 200}",
    "compare.architecture={type: mlp, name: mlp, depth: 1, width: 8}",
    "device=cpu",
)
COMMAND = ("compare", "quickstart", *SETTINGS, "--losses", "n-fgsm, natural")


def test_a_plan_shows_passes_and_time_and_writes_nothing(call: Call) -> None:
    done = call(*COMMAND, "--plan", "--equal-passes")
    assert done.code == 0
    for text in ("n-fgsm (5 epochs)", "natural (8 epochs)", "equal-passes", "passes a training", "about"):
        assert text in done.out
    tree = json.loads(call(*COMMAND, "--plan", "--json").out)
    assert [point["name"] for point in tree["points"]] == ["pgd-at", "n-fgsm", "natural"]
    assert [point["passes"] for point in tree["points"]] == [23, 5, 3]
    assert list(Path().iterdir()) == []


def test_the_tables_are_printed_with_what_they_do_not_hold(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(tree: Any, folder: Path, own: Any) -> list[Drawn]:
        return draw_figures("study", tree, folder, figures=["study-methods"])

    monkeypatch.setattr(
        "robust_nas.studies.report.page.illustrate", draw
    )  # the others have tests of their own
    done = call(*COMMAND, "--seeds", "1", "--equal-passes", "--quiet", "--workers", "1")
    assert done.code == 0
    for text in ("the same epochs", "the same passes", "pgd-20", "one seed", "no interval", "comparison.csv"):
        assert text in done.out
    folder = Path("results/quickstart-compare")
    assert (folder / "figures" / "methods.png").is_file()
    assert "Training methods" in (folder / "report.html").read_text()


def test_mistakes_end_before_anything_is_written(call: Call) -> None:
    for more, message in (
        (("--losses", "madry"), "got method 'madry'"),
        (("--losses", "natural,natural"), "natural named twice"),
        (("--seeds", "0"), "seeds: got 0"),
        (("--engine", "ray", "--workers", "2"), "--workers"),
    ):
        done = call(*COMMAND, *more)
        assert done.code == 2
        assert message in done.err
    assert list(Path().iterdir()) == []
