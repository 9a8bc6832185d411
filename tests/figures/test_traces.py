"""Loss traces: what was recorded is what is drawn, and the last fall of the share still right is marked."""

import csv
import math

import numpy as np
import pytest

from robust_nas.errors import RunError
from robust_nas.figures import FIGURES, plot_loss_traces

NAMES = (
    "pgd-20",
    "apgd-ce (100 steps)",
    "apgd-t (dlr-targeted, 9 targets)",
    "fab-t (9 targets)",
    "square (5,000 queries)",
    "spsa with a very long name (batch 256, 100 steps)",
)


def trace(steps, start=0.8, drop=0.3, until=0.6):
    rows = []
    for step in range(steps + 1):
        done = min(1.0, step / max(1, until * steps))
        mean = 2 - 1.5 * math.exp(-4 * step / max(1, steps))
        share = start - drop * done
        rows.append({"step": step, "mean": mean, "low": mean - 0.4, "high": mean + 1, "still_right": share})
    return rows


def test_what_was_recorded_is_drawn(drawn):
    rows = trace(20)
    loss, share = drawn(plot_loss_traces, {"pgd-20": rows}, units={"pgd-20": "nats"}).axes
    expected = [(row["step"], row["mean"]) for row in rows]
    np.testing.assert_allclose(loss.lines[0].get_xydata(), expected)
    np.testing.assert_allclose(share.lines[0].get_ydata(), [100 * row["still_right"] for row in rows])
    band = loss.collections[0].get_paths()[0].vertices
    assert {(row["step"], row[key]) for row in rows for key in ("low", "high")} <= set(map(tuple, band))
    assert (loss.get_ylabel(), share.get_ylabel()) == ("loss (nats)", "still right (%)")


@pytest.mark.parametrize(("until", "at"), [(0.5, 10), (1.0, 20), (0.1, 2)])
def test_the_last_fall_is_marked_on_both(drawn, until, at):
    axes = drawn(plot_loss_traces, {"pgd-20": trace(20, until=until)}).axes
    for each in axes:
        assert list(each.lines[-1].get_xdata()) == [at, at]
    assert axes[1].get_title(loc="left") == f"fell last at step {at} of 20, to 50.0%"


def test_no_fall_has_no_mark(drawn):
    loss, share = drawn(plot_loss_traces, {"fab": trace(100, start=0.461, drop=0)}).axes
    assert share.get_title(loc="left") == "no fall up to step 100, at 46.1%"
    assert len(loss.lines) == len(share.lines) == 1
    low, high = share.get_ylim()
    assert low < 46.1 < high
    assert high - low >= 5


def test_a_success_that_the_curve_does_not_show_is_said(drawn):
    rows = {"apgd-t": trace(100, start=1.0, drop=0)}
    share = drawn(plot_loss_traces, rows, broken={"apgd-t": (3, 50)}).axes[1]
    assert share.get_title(loc="left") == "no fall up to step 100, at 100.0%; the attack broke 3 of 50"
    whole = drawn(plot_loss_traces, {"pgd": trace(20, start=1.0, drop=0.5)}, broken={"pgd": (25, 50)}).axes[1]
    assert whole.get_title(loc="left").endswith("to 50.0%")


def test_the_caption_says_over_which_runs_the_share_is_counted():
    row = {"label": "apgd-t", "attacked": 50, "trace": trace(3)}
    several, one, old = ({"attacks": [{**row, **runs}]} for runs in ({"runs": 9}, {"runs": 1}, {}))
    figure = FIGURES.make("loss-traces")
    assert "apgd-t 50 (right in all 9 runs)" in figure.caption(several, "")
    assert "apgd-t 50;" in figure.caption(one, "")
    assert "apgd-t 50 (right in its first run)" in figure.caption(old, "")


@pytest.mark.parametrize("count", range(1, 7))
def test_legible_with_any_number_of_attacks(drawn, legible, count):
    traces = {
        name: trace(steps) for name, steps in zip(NAMES[:count], (20, 100, 100, 1, 5000, 0), strict=False)
    }
    units = dict.fromkeys(NAMES[1:3], "margin, no unit") | {"pgd-20": "nats"}
    figure = drawn(plot_loss_traces, traces, units=units, caption="residual-16-4 on cifar10, seed 0. " * 6)
    legible(figure)
    titles = [axes.get_title(loc="left").replace("\n", " ") for axes in figure.axes if axes.axison]
    assert [title for title in titles if title in NAMES] == list(traces)
    assert sum(axes.axison for axes in figure.axes) == 2 * count


def test_what_is_absent_is_said(drawn, legible):
    traces = {"empty": [], "bare": [{"step": 0}], "pgd": [{"step": 3, "mean": math.inf, "still_right": 0.5}]}
    figure = drawn(plot_loss_traces, traces)
    legible(figure)
    said = [text.get_text() for axes in figure.axes for text in (*axes.texts, axes._left_title)]
    assert said.count("not recorded") == 5


def test_a_long_trace_is_thinned_in_the_picture_only(tmp_path):
    _, svg, table = plot_loss_traces({"square": trace(20_000)}, tmp_path / "t")
    assert len(table.read_text().splitlines()) == 20_002
    assert svg.stat().st_size < 1_000_000


def test_csv_bytes_and_errors(tmp_path):
    traces = {"a": trace(3), "b": trace(1)}
    first, second = (plot_loss_traces(traces, tmp_path / name) for name in "xy")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    with first[2].open(newline="") as file:
        read = list(csv.DictReader(file))
    flat = [{"attack": name, **row} for name, rows in traces.items() for row in rows]
    assert read == [{key: str(value) for key, value in row.items()} for row in flat]
    for nothing in ({}, {"a": []}):
        with pytest.raises(RunError, match="nothing to draw for loss traces"):
            plot_loss_traces(nothing, tmp_path / "z")
    assert not list(tmp_path.glob("z*"))
