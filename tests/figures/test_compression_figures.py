"""The figures of a compression: three files each, the numbers as they were given, and nothing to draw is told."""

import csv
from pathlib import Path

import pytest

from robust_nas import figures
from robust_nas.errors import RunError


def point(label, method, split, macs, robust, **more):
    return {
        "label": label, "method": method, "split": split, "macs": macs, "params": macs // 10, "latency_ms": macs / 1e7,
        "clean": 0.9, "robust": robust, "low": robust - 0.05, "high": robust + 0.05, "chosen": False, **more,
    }  # fmt: skip


POINTS = [
    point("original", "original", split, 9_000_000, 0.7) for split in ("validation", "test")
] + [
    point(f"gdws-{share}", "gdws", "validation", int(9e6 * share), 0.7 - (1 - share) / 4)
    for share in (0.75, 0.5, 0.35)
] + [
    point("gdws-0.5", "gdws", "test", 4_500_000, 0.66, chosen=True),
    point("truncate-4", "truncate", "test", 3_000_000, 0.6),
]  # fmt: skip


def rows(stem: Path) -> list[dict[str, str]]:
    with stem.with_suffix(".csv").open() as file:
        return list(csv.DictReader(file))


def test_the_trade_off_is_drawn_with_and_without_milliseconds(tmp_path):
    paths = figures.plot_compression(POINTS, tmp_path / "a", latency="ONNX Runtime", caption="digits")
    assert {path.suffix for path in paths} == {".png", ".svg", ".csv"}
    assert [row["label"] for row in rows(tmp_path / "a")] == [p["label"] for p in POINTS]
    assert "ONNX Runtime, ms" in (tmp_path / "a.svg").read_text()
    untimed = [{**p, "latency_ms": None} for p in POINTS]
    figures.plot_compression(untimed, tmp_path / "b")
    assert ", ms" not in (tmp_path / "b.svg").read_text()
    with pytest.raises(RunError, match="nothing to draw of a compression"):
        figures.plot_compression([], tmp_path / "c")


def test_the_accuracies_of_both_splits_name_their_attacks(tmp_path):
    attacks = {"validation": "PGD", "test": "suite cascade"}
    figures.plot_compression(POINTS, tmp_path / "a", attacks=attacks)
    text = (tmp_path / "a.svg").read_text()
    assert "validation split (hollow), PGD" in text
    assert "test set, 95 % interval, suite cascade" in text


def test_ranks_and_residuals_are_drawn(tmp_path):
    records = [
        {
            "epoch": epoch,
            "primal_residual": 0.3 / (epoch + 1),
            "primal_residual_max": 0.5 / (epoch + 1),
            "rho": 0.1,
            "clean": None if epoch < 2 else 0.9,
            "robust": None if epoch < 2 else 0.7,
            "ranks": {"a.conv": [3, 4], "b": [2 + epoch]},
        }
        for epoch in range(4)
    ]
    figures.plot_ranks(records, tmp_path / "ranks", caption="ratio 4")
    found = rows(tmp_path / "ranks")
    assert [row["b"] for row in found] == ["2", "3", "4", "5"]
    assert found[0]["a.conv"] == "3x4"
    assert "a.conv" in (tmp_path / "ranks.svg").read_text()
    with pytest.raises(RunError, match="nothing to draw of a low-rank training"):
        figures.plot_ranks([], tmp_path / "none")


def test_layers_are_drawn_with_the_reasons_of_those_that_stay(tmp_path):
    stays = {
        "name": "stem", "form": "dense", "reason": "first convolution", "kernels": None, "g_min": None,
        "g_median": None, "g_max": None, "error": None, "macs": 100, "macs_after": 100, "params": 9, "params_after": 9,
    }  # fmt: skip
    taken = {
        **stays, "name": "conv", "form": "gdws", "reason": None, "kernels": 12, "g_min": 1, "g_median": 2.0, "g_max": 3,
        "error": 0.1, "macs_after": 50, "params_after": 5,
    }  # fmt: skip
    figures.plot_layers([stays, taken], tmp_path / "layers")
    text = (tmp_path / "layers.svg").read_text()
    assert "first convolution" in text
    assert [row["form"] for row in rows(tmp_path / "layers")] == ["dense", "gdws"]
    with pytest.raises(RunError, match="the report is empty"):
        figures.plot_layers([], tmp_path / "none")
