"""Pages of attacked images: pixels as given, changes amplified by the factor that is told, verdicts told thrice."""

import csv

import numpy as np
import pytest
from figure_records import example

from robust_nas.errors import RunError
from robust_nas.figures import plot_adversarial_grid, style

TIMES, DASH = "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"
NAMES = [str(digit) for digit in range(9)] + [
    "a very long name of a class, such as $alligator_mississipiensis$"
]


def page(drawn, examples, **options):
    figure = drawn(plot_adversarial_grid, examples, class_names=NAMES, **options)
    return figure, [text.get_text() for text in texts(figure)]


def texts(figure):
    return figure.axes[0].texts


def pictures(figure):
    return figure.axes[0].images


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_as_given_and_changes_are_amplified_as_told(drawn, channels):
    given = example(3, channels=channels)
    figure, said = page(drawn, [given])
    clean, adversarial, change = pictures(figure)
    assert f"change {TIMES} 4" in said
    for image, expected in (
        (clean, given["clean"]),
        (adversarial, given["adversarial"]),
        (change, 0.5 + 4 * (given["adversarial"] - given["clean"])),
    ):
        expected = expected[0] if channels == 1 else expected.transpose(1, 2, 0)
        np.testing.assert_allclose(np.asarray(image.get_array()), expected, atol=1e-12)
        assert image.get_interpolation() == "nearest"
        assert image.get_clim() == (0, 1)


@pytest.mark.parametrize(
    ("eps", "factor"), [(0.125, "4"), (np.float32(0.1), "5"), (8 / 255, "15"), (1.0, "0.5"), (0.0, "1")]
)
def test_the_factor_is_the_largest_whole_one_that_stays_in_range(drawn, eps, factor):
    clean = np.full((1, 2, 2), 0.0)
    one = example(0, clean=clean, adversarial=clean + np.float64(eps))
    assert f"change {TIMES} {factor}" in page(drawn, [one])[1]


def test_verdicts_differ_in_sign_colour_and_frame(drawn):
    one = example(4, clean_prediction=4, adversarial_prediction=7)
    two = example(4, clean_prediction=-1, adversarial_prediction=4, broken=False, confidence_clean=None)
    figure, said = page(drawn, [one, two])
    assert [text for text in said if text[0] in ("✓", "✗", DASH)] == ["✓ 4", "✗ 7", f"{DASH} rejected", "✓ 4"]
    colours = {text.get_text(): text.get_color() for text in texts(figure)}
    assert [colours[key] for key in ("✓ 4", "✗ 7", f"{DASH} rejected")] == [
        style.BLUE,
        style.VERMILLION,
        style.GREY,
    ]
    frames = figure.axes[0].patches
    right, wrong, neither = frames[0], frames[1], frames[3]
    assert len({str(frame.get_linestyle()) for frame in (right, wrong, neither)}) == 3
    assert len({frame.get_edgecolor() for frame in (right, wrong, neither)}) == 3
    assert [frame.get_bbox().bounds for frame in frames] == [
        (x, y, right - x, below - y)
        for x, right, below, y in (image.get_extent() for image in pictures(figure))
    ]
    assert said.count("98% sure") == 1
    assert any(text.startswith("withstands apgd-t") and text.endswith("norm 0.125") for text in said)
    note = next(text for text in said if text.startswith("Bold")).replace("\n", " ")
    assert all(word in note for word in ("right, solid", "wrong, dashed", "rejected, dotted", "blue darker"))


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 16])
def test_legible(drawn, legible, count):
    examples = [example(number, attack="spsa " + "long " * number) for number in range(count)]
    figure, said = page(drawn, examples, caption="residual-16-4 on cifar10, seed 0. " * 6)
    legible(figure)
    assert len(pictures(figure)) == 3 * count
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in texts(figure)]
    assert not any(image.get_window_extent().overlaps(box) for image in pictures(figure) for box in boxes)
    assert figure.bbox.width / style.DPI <= style.WIDTH + 0.1
    assert said.count("clean") == min(count, {1: 1, 2: 1, 3: 2, 8: 2}.get(count, 3))


def test_csv_holds_what_is_told_and_no_pixels(tmp_path):
    examples = [example(2), example(3, adversarial_prediction=-1, broken=False)]
    first, second = (
        plot_adversarial_grid(examples, tmp_path / name, class_names=NAMES, caption="c") for name in "ab"
    )
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    with first[2].open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, given in zip(rows, examples, strict=True):
        assert all(row[key] == str(given[key]) for key in given if key not in ("clean", "adversarial"))
    assert [row["adversarial_name"] for row in rows] == ["3", "rejected"]
    assert len(rows[0]) == 12


@pytest.mark.parametrize(
    ("examples", "match"),
    [
        ([], "at least one"),
        ([example(0)] * 17, "up to 16 attacked images, got 17"),
        ([example(0), example(1, label=10)], r"example 1: label is 10, expected 0\.\.9"),
        ([example(0, label=-1)], r"label is -1, expected 0\.\.9"),
        ([example(0, adversarial_prediction=-2)], r"adversarial_prediction is -2, expected -1\.\.9"),
        ([example(0, clean=np.zeros((8, 8)))], r"shape \(8, 8\) \(clean\)"),
        ([example(0, clean=np.zeros((2, 8, 8)))], "1 or 3 channels"),
        ([example(0, adversarial=np.zeros((1, 9, 8)))], r"\(1, 9, 8\) \(adversarial\)"),
        ([example(0, adversarial=np.full((1, 8, 8), 255.0))], r"adversarial is not in 0\.\.1, it spans 255"),
        ([example(0, clean=np.full((1, 8, 8), np.nan))], r"clean is not in 0\.\.1"),
    ],
)
def test_mistakes_are_named(tmp_path, examples, match):
    with pytest.raises(RunError, match=match):
        plot_adversarial_grid(examples, tmp_path / "x", class_names=NAMES)
    assert list(tmp_path.iterdir()) == []
