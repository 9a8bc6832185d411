"""The waterfall: each bar ends at what is left, and its hatched part starts there and ends at what was left before."""

import csv

import pytest

from robust_nas.figures import plot_evaluation

LABELS = (
    "apgd-ce",
    "apgd-t (dlr-targeted, 9 targets)",
    "fab-t",
    "square",
    "transfer",
    "spsa " + "long " * 14,
)


def ladder(clean, broken, images=1000):
    rows, left = [{"label": "clean", "accuracy": clean / images, "images": images}], clean
    for label, count in zip(LABELS, broken, strict=False):
        rows.append({"label": f"+ {label}", "attacked": left, "broken": count, "images": images})
        left -= count
        rows[-1]["accuracy"] = left / images
    rows.append({"label": "worst case", "accuracy": left / images, "images": images})
    return [
        {**row, "low": max(0, row["accuracy"] - 0.03), "high": min(1, row["accuracy"] + 0.03)} for row in rows
    ]


def spans(figure):
    """Row -> (start, end) of its bars in percent, what is left first."""
    bars = {}
    for patch in figure.axes[0].patches:
        row = round(patch.get_y() + patch.get_height() / 2)
        bars.setdefault(row, []).append((patch.get_x(), patch.get_x() + patch.get_width()))
    return bars


def words(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_what_was_left_is_what_is_left_and_what_was_broken(drawn):
    figure = drawn(plot_evaluation, ladder(846, (330, 36, 0)))
    bars = spans(figure)
    assert [len(bars[row]) for row in range(5)] == [1, 2, 2, 1, 1]
    assert [bars[row][0] for row in range(5)] == [
        (0, pytest.approx(left)) for left in (84.6, 51.6, 48.0, 48.0, 48.0)
    ]
    assert bars[1][1] == pytest.approx((51.6, 84.6))
    assert bars[2][1] == pytest.approx((48.0, 51.6))
    assert {"330 of 846  (39.0%)", "36 of 516  (7.0%)", "0 of 480  (0.0%)"} <= set(words(figure))


def test_without_counts_the_row_above_tells_where_the_images_are_as_many(drawn):
    rows = ladder(846, (330, 36))
    rows[2]["images"] = rows[3]["images"] = 200
    rows = [{k: v for k, v in row.items() if k not in ("attacked", "broken")} for row in rows]
    figure = drawn(plot_evaluation, rows)
    assert [len(spans(figure)[row]) for row in range(4)] == [1, 2, 1, 1]
    assert "33.0 points" in words(figure)


def test_own_counts_stand_before_a_row_above_that_judged_other_images(drawn):
    rows = ladder(846, (330,))
    rows[1].update(images=100, attacked=80, broken=20, accuracy=0.6)
    bars = spans(drawn(plot_evaluation, rows))
    assert bars[1] == [(0, pytest.approx(60)), (pytest.approx(60), pytest.approx(80))]


def test_bytes_are_equal_and_the_csv_holds_the_counts_where_there_are_some(tmp_path):
    rows = ladder(846, (330, 36))
    first, second = (plot_evaluation(rows, tmp_path / name) for name in "ab")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    table = first[2]
    with table.open(newline="") as file:
        read = list(csv.DictReader(file))
    for got, row in zip(read, rows, strict=True):
        assert got.keys() == {"label", "accuracy", "low", "high", "images", "attacked", "broken"}
        assert all(got[key] == str(row.get(key, "")) for key in got)
    header = plot_evaluation(rows[:1], tmp_path / "clean")[2].read_text().splitlines()[0]
    assert header == "label,accuracy,low,high,images"


@pytest.mark.parametrize("broken", [(), (846,), (330, 36, 0, 1, 0, 12), (846, 0, 0)])
def test_legible(drawn, legible, broken):
    legible(drawn(plot_evaluation, ladder(846, broken), caption="residual-16-4 on cifar10, Linf 8/255. " * 5))


def test_legible_with_other_images_per_row(drawn, legible):
    rows = ladder(1000, (330, 36, 0, 1, 0, 12))
    for number, row in enumerate(rows[:-1]):
        row["images"] = 1000 + number
    rows[-1]["accuracy"] = None
    figure = drawn(plot_evaluation, rows)
    legible(figure)
    assert "not measured" in words(figure)
