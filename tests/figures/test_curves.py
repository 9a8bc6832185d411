"""Curves and bars: the CSV is the record itself, the picture may leave out what cannot be seen."""

import csv
import math
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from figure_records import KINDS, TRAINING, search_records
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from robust_nas.errors import RunError
from robust_nas.figures import plot_evaluation, plot_ranks, plot_search, plot_training, series

EVALUATION = [
    {"label": "clean", "accuracy": 0.846, "low": 0.839, "high": 0.853, "images": 10000},
    {"label": "PGD-20", "accuracy": 0.0, "low": 0.0, "high": 0.004, "images": 1000},
    {"label": "CW", "accuracy": 0.5, "low": None, "high": None, "images": None},
    {"label": "worst case", "accuracy": None, "low": None, "high": None, "images": None},
]


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def texts(path):
    root = ET.parse(path).getroot()  # noqa: S314 (our own file)
    return {"".join(e.itertext()).strip() for e in root.iter() if e.tag.endswith("text")}


def same(cell, value):
    return cell == "" if value is None else cell == value or float(cell) == value or value != value


def test_search_csv_is_the_record_and_the_picture_is_whole(tmp_path):
    records = list(search_records(300, 120))
    png, svg, table = plot_search(records, tmp_path / "s", stage2_from_step=120, caption="PGD-7, seed 0")
    rows = read(table)
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        flat = {k: v for k, v in record.items() if not isinstance(v, dict)} | {"epoch": record["epoch"] + 1}
        flat |= {f"{key}_{kind}": record[key][kind] for key in ("entropy", "skips") for kind in KINDS}
        assert row.keys() == flat.keys()
        assert all(same(row[key], value) for key, value in flat.items())
    with Image.open(png) as image:
        assert image.size[0] == 1536
    assert {"stage 2", "losses", "alpha entropy", "PGD-7, seed 0", *KINDS} <= texts(svg)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.csv", "s.png", "s.svg"]


def test_long_searches_are_thinned_in_the_picture_only(tmp_path):
    _, svg, table = plot_search(list(search_records(10000, 4000)), tmp_path / "s", stage2_from_step=4000)
    assert len(read(table)) == 10000
    assert svg.stat().st_size < 1_000_000


def test_a_search_of_one_step_in_stage_one(tmp_path):
    _, svg, _ = plot_search(list(search_records(1, 100)), tmp_path / "s")
    assert "not recorded" in texts(svg)
    assert "stage 2" not in texts(svg)


def test_a_search_with_nothing_but_steps(tmp_path):
    records = [{"step": 0, "norm_natural": 0.0}, {"step": 1, "loss_weights": math.inf}]
    _, svg, table = plot_search(records, tmp_path / "s")
    assert "not recorded" in texts(svg)
    assert [row["step"] for row in read(table)] == ["0", "1"]


@pytest.mark.parametrize("best", [None, 0])
def test_training(tmp_path, best):
    _, svg, table = plot_training(TRAINING, tmp_path / "t", best_epoch=best, attack="pgd-10")
    shown = [{**record, "epoch": record["epoch"] + 1} for record in TRAINING]
    assert all(
        same(row[key], record[key]) for row, record in zip(read(table), shown, strict=True) for key in row
    )
    assert (f"kept: epoch 1 of {len(TRAINING)}" in texts(svg)) == (best is not None)
    assert "validation, pgd-10" in texts(svg)


def test_epochs_are_counted_from_one_on_the_axes_too(drawn):
    figure = drawn(plot_training, TRAINING, best_epoch=len(TRAINING) - 1)
    accuracy, loss = figure.axes[:2]
    assert list(loss.lines[0].get_xdata()) == list(range(1, len(TRAINING) + 1))
    assert accuracy.lines[-1].get_xdata()[0] == len(TRAINING)  # the mark of the last epoch
    ranks = [
        {**record, "primal_residual": 1, "primal_residual_max": 1, "ranks": {"a": [1]}} for record in TRAINING
    ]
    distance, validated, _ = drawn(plot_ranks, ranks, attack="pgd-10").axes
    assert list(distance.lines[0].get_xdata()) == list(range(1, len(TRAINING) + 1))
    assert [line.get_label() for line in validated.lines] == ["clean", "pgd-10"]


def test_evaluation(tmp_path):
    _, svg, table = plot_evaluation(EVALUATION, tmp_path / "e", caption="L-infinity, eps 8/255")
    assert all(same(row[k], r[k]) for row, r in zip(read(table), EVALUATION, strict=True) for k in row)
    assert {"84.6  [83.9, 85.3]", "0.0  [0.0, 0.4]", "50.0", "not measured"} <= texts(svg)
    _, svg, _ = plot_evaluation(EVALUATION[:1], tmp_path / "one")
    assert "accuracy (%), 95% Wilson interval, 10,000 images" in texts(svg)


@pytest.mark.parametrize(
    ("plot", "records"),
    [
        (plot_search, list(search_records(50, 20))),
        (plot_training, TRAINING),
        (plot_evaluation, EVALUATION),
    ],
)
def test_same_call_gives_same_bytes_and_empty_is_refused(tmp_path, plot, records):
    first, second = plot(records, tmp_path / "a"), plot(records, tmp_path / "b")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    with pytest.raises(RunError, match="expected at least one"):
        plot([], tmp_path / "c")
    assert not list(tmp_path.glob("c*"))


numbers = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60)


@given(numbers, st.integers(1, 70))
def test_running_mean_is_the_mean_of_the_last_values(values, window):
    mean = series.running_mean(np.array(values), window)
    expected = [np.mean(values[max(0, i + 1 - window) : i + 1]) for i in range(len(values))]
    np.testing.assert_allclose(mean, expected, atol=1e-6)


def test_thinning_keeps_every_spike_and_the_order():
    x = np.arange(50_000.0)
    y = np.zeros_like(x)
    y[[7, 33_333]] = 5, -5
    kept_x, kept_y = series.thin(x, y)
    assert len(kept_x) <= 1200
    assert (np.diff(kept_x) > 0).all()
    assert {(7.0, 5.0), (33_333.0, -5.0)} <= set(zip(kept_x, kept_y, strict=True))
