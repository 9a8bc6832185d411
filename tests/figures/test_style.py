"""Figures show every text as it is written."""

import re
from html import unescape
from pathlib import Path

import pytest

from robust_nas.figures import new_figure, save
from robust_nas.figures.figure import draw_figures

HOSTILE = ["$x_1$", r"$\frac$", "[/x]", "<b>b</b>", "a_b^c $", r"\$"]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_neither_mathematics_nor_markup(text: str, tmp_path: Path) -> None:
    figure, (axes,) = new_figure(height=2.0, caption=f"caption {text}")
    axes.plot([0, 1], [0, 1], label=f"label {text}")
    axes.set(title=f"title {text}", xlabel=f"axis {text}")
    axes.set_xticks([0, 1], [f"tick {text}", ""])
    axes.annotate(f"note {text}", (0.5, 0.5))
    axes.legend()
    _, svg, _ = save(figure, tmp_path / "a", (("x",), ((1,),)))
    shown = [unescape(found) for found in re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text())]
    for kind in ("caption", "label", "title", "axis", "tick", "note"):
        assert f"{kind} {text}" in shown


@pytest.mark.parametrize(
    ("low", "high", "shown"), [(0.02, 0.3, "0.1"), (0.3, 0.9, "0.6"), (1, 5e6, "1,000,000")]
)
def test_labels_of_a_logarithmic_axis_are_plain_numbers(
    low: float, high: float, shown: str, tmp_path: Path
) -> None:
    figure, (axes,) = new_figure(height=2.0)
    axes.plot([0, 1], [low, high])
    axes.set_yscale("log")
    _, svg, _ = save(figure, tmp_path / "a", (("x",), ((1,),)))
    labels = re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text())
    assert shown in labels
    assert not [label for label in labels if "$" in label]


@pytest.mark.parametrize("text", HOSTILE)
def test_names_of_attacks_and_classes_are_no_mathematics(text: str, tmp_path: Path) -> None:
    record = {
        "records": [
            {"epoch": n, "loss": 1.0, "train_accuracy": 0.5, "clean": 0.5, "robust": 0.4} for n in (0, 1)
        ],
        "best_epoch": 1,
        "validation_attack": text,
    }
    [drawn] = draw_figures("training", record, tmp_path, about=text, figures=["training"])
    shown = unescape((tmp_path / f"{drawn.stem}.svg").read_text())
    assert text in shown
