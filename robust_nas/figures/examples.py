"""Attacked images next to the clean ones, the change between them, and both predictions.

Perturbations are shown as 0.5 + factor * (adversarial - clean): grey is unchanged. One factor serves the whole
page, the largest whole number at which none leaves the range, so that sizes compare.
Lengths are in points. Shapes: C channels (1 or 3), H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from robust_nas.errors import RunError
from robust_nas.figures import series, style
from robust_nas.figures.figure import Figure, Job, Record

REJECTED = -1

_MOST = 16
_GAP = 7.0  # between the pictures of one example
_ALLEY = 26.0  # between examples side by side
_MARGIN = 12.0
_ABOVE = 26.0  # an example's two lines
_BELOW = 23.0  # a picture's two lines
_BETWEEN = 10.0
_HEADER = 20.0
_LINE = 10.5
_SMALL, _NOTE = 7.5, 8.0
_DIVERGING = LinearSegmentedColormap.from_list("change", [style.BLUE, "#D9D9D9", style.VERMILLION])


_Dashes = str | tuple[float, tuple[float, float]]


class _Verdict(NamedTuple):
    """How a prediction shows: by a sign, a frame and a colour, each of which tells it alone."""

    sign: str
    colour: str
    frame: _Dashes
    word: str


_RIGHT = _Verdict("\N{CHECK MARK}", style.BLUE, "solid", "right, solid frame")
_WRONG = _Verdict("\N{BALLOT X}", style.VERMILLION, (0, (3, 1.5)), "wrong, dashed frame")
_NEITHER = _Verdict("\N{EN DASH}", style.GREY, (0, (1, 1)), "rejected, dotted frame")


class AdversarialGrid(Figure):
    """A page of attacked images."""

    of: ClassVar[Job] = "evaluation"
    needs: ClassVar[tuple[str, ...]] = ("examples", "class_names")

    name: Literal["examples"] = "examples"

    def caption(self, record: Record, about: str) -> str:
        """Return `about`, and the attacks."""
        attacks = ", ".join(row["label"] for row in record["attacks"])
        return f"{about}; the first images that were attacked; attacks: {attacks}"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw `examples`, with the names of `class_names`."""
        return plot_adversarial_grid(
            list(record["examples"]), stem, class_names=record["class_names"], caption=caption
        )


@style.drawing()
def plot_adversarial_grid(
    examples: Sequence[series.Record], stem: Path, *, class_names: Sequence[str], caption: str = ""
) -> tuple[Path, ...]:
    """Draw a page of attacked images; return the paths. The CSV holds predictions and norms, no pixels.

    Args:
        examples: up to 16 mappings with `clean` and `adversarial` (float [C, H, W] in 0..1, C 1 or 3),
            `label`, `clean_prediction`, `adversarial_prediction` (classes; -1 is "rejected"),
            `confidence_clean`, `confidence_adversarial` (0..1, or None), `attack`, `broken` (did the attack
            succeed) and `perturbation` (its norm).
        stem: where to write, without a suffix.
        class_names: the name of each class.
        caption: model, threat model, seed, in a line under the pictures.

    Raises:
        RunError: there are no examples or more than 16, an image or a class is not as described above, or the
            files cannot be written.
    """
    series.require(examples, "a page of attacked images")
    if len(examples) > _MOST:
        raise RunError(f"a page holds up to {_MOST} attacked images, got {len(examples)}")
    pairs = [_images(number, example) for number, example in enumerate(examples)]
    for number, example in enumerate(examples):
        for key in ("label", "clean_prediction", "adversarial_prediction"):
            _check_class(number, key, example[key], len(class_names))
    page = _Page(len(examples), _notes(examples, pairs), caption)
    factor = _factor(pairs)
    for number, (example, (clean, adversarial)) in enumerate(zip(examples, pairs, strict=True)):
        left, top = page.place(number)
        outcome = "broken by" if example["broken"] else "withstands"
        size = f", norm {example['perturbation']:.3g}"
        page.text(left, top + 9, class_names[example["label"]], page.wide, size=_NOTE, weight="bold")
        attack = page.fit(f"{outcome} {example['attack']}", page.wide - page.width_of(size, _SMALL), _SMALL)
        page.text(left, top + 20, attack + size, page.wide, size=_SMALL, color=style.GREY)
        top += _ABOVE
        for column, (image, which) in enumerate(((clean, "clean"), (adversarial, "adversarial"))):
            x = left + 2 * column * (page.side + _GAP)
            prediction, confidence = example[f"{which}_prediction"], example[f"confidence_{which}"]
            verdict = _verdict(prediction, example["label"])
            page.picture(x, top, image, verdict.colour, verdict.frame, 2.0)
            name = "rejected" if prediction == REJECTED else class_names[prediction]
            page.text(x, top + page.side + 11, f"{verdict.sign} {name}", page.side, color=verdict.colour)
            if confidence is not None and math.isfinite(confidence):
                below = f"{100 * confidence:.0f}% sure"
                page.text(x, top + page.side + 21, below, page.side, color=verdict.colour)
        change = np.clip(0.5 + factor * (adversarial - clean), 0, 1)
        page.picture(left + page.side + _GAP, top, change, "#B0B0B0", "solid", 0.8, change=True)
    for number in range(min(page.columns, len(examples))):
        left, _ = page.place(number)
        for column, name in enumerate(("clean", f"change \N{MULTIPLICATION SIGN} {factor:g}", "adversarial")):
            page.text(left + column * (page.side + _GAP), 14, name, page.side, size=_NOTE, color=style.GREY)
    return style.save(page.figure, stem, _table(examples, class_names))


class _Page:
    """A figure of known size in points, y downwards: examples in rows of `columns`, notes and caption below.

    All is in one pair of axes as large as the page: a pair for each picture takes most of the time of a page.
    """

    def __init__(self, count: int, notes: str, caption: str) -> None:
        self.columns, self.side = (1, 92.0) if count <= 2 else (2, 74.0) if count <= 8 else (3, 64.0)
        self.wide = 3 * self.side + 2 * _GAP
        self.high = _ABOVE + self.side + _BELOW + _BETWEEN
        width = 2 * _MARGIN + self.columns * self.wide + (self.columns - 1) * _ALLEY
        foot = "\n".join(style.wrap(part, width / 72) for part in (notes, caption) if part)
        bottom = _HEADER + math.ceil(count / self.columns) * self.high
        height = bottom + _LINE * (foot.count("\n") + 1) + _MARGIN
        self.figure = MatplotlibFigure(figsize=(width / 72, height / 72), dpi=style.DPI)
        self._renderer = FigureCanvasAgg(self.figure).get_renderer()  # type: ignore[no-untyped-call]
        self._axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        self._axes.set_axis_off()
        text = self._axes.text(_MARGIN, bottom, foot, va="top", parse_math=False)
        text.set(fontsize=8, color=style.GREY, linespacing=1.25)

    def place(self, number: int) -> tuple[float, float]:
        """Return the upper left corner of an example."""
        row, column = divmod(number, self.columns)
        return _MARGIN + column * (self.wide + _ALLEY), _HEADER + row * self.high

    def picture(
        self,
        x: float,
        y: float,
        image: series.Array,
        colour: str,
        frame: _Dashes,
        width: float,
        *,
        change: bool = False,
    ) -> None:
        """Show an image [C, H, W] with its upper left corner at `x`, `y`, in a frame."""
        grey = _DIVERGING if change else "gray"
        extent = (x, x + self.side, y + self.side, y)
        shown = AxesImage(self._axes, cmap=grey, interpolation="nearest", extent=extent)
        shown.set_data(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
        shown.set_clim(0, 1)
        self._axes.add_image(shown)
        look: Any = {"edgecolor": colour, "linestyle": frame, "linewidth": width}
        self._axes.add_patch(Rectangle((x, y), self.side, self.side, facecolor="none", **look))

    def text(self, x: float, y: float, text: str, room: float, *, size: float = _SMALL, **look: Any) -> None:
        """Write from `x` on, on the line `y`, as much as `room` holds."""
        text = self.fit(text, room, size, look.get("weight", "normal"))
        self._axes.text(x, y, text, fontsize=size, parse_math=False, **look)

    def fit(self, text: str, room: float, size: float, weight: str = "normal") -> str:
        """Return the text, shortened at its end where it is wider than `room`."""
        if self.width_of(text, size, weight) <= room:
            return text
        while text and self.width_of(text + "\N{HORIZONTAL ELLIPSIS}", size, weight) > room:
            text = text[:-1].rstrip()
        return text + "\N{HORIZONTAL ELLIPSIS}"

    def width_of(self, text: str, size: float, weight: str = "normal") -> float:
        """Return the width of a text."""
        font = FontProperties(size=size, weight=weight)
        pixels, _, _ = self._renderer.get_text_width_height_descent(text, font, ismath=False)
        return float(pixels) * 72 / style.DPI


def _images(number: int, example: series.Record) -> tuple[series.Array, series.Array]:
    """Return both images [C, H, W], clipped to 0..1, which rounding may have left."""
    clean, adversarial = (np.asarray(example[key], dtype=np.float64) for key in ("clean", "adversarial"))
    if clean.ndim != 3 or len(clean) not in (1, 3) or clean.shape != adversarial.shape:
        raise RunError(
            f"example {number}: images of shape {clean.shape} (clean) and {adversarial.shape} (adversarial); "
            "expected the same [channels, height, width] with 1 or 3 channels"
        )
    for key, image in (("clean", clean), ("adversarial", adversarial)):
        if not ((image >= -1e-4) & (image <= 1 + 1e-4)).all():
            raise RunError(
                f"example {number}: {key} is not in 0..1, it spans {image.min():g}..{image.max():g}"
            )
    return clean.clip(0, 1), adversarial.clip(0, 1)


def _check_class(number: int, key: str, value: int, classes: int) -> None:
    lowest = 0 if key == "label" else REJECTED
    if not lowest <= value < classes:
        raise RunError(f"example {number}: {key} is {value}, expected {lowest}..{classes - 1}")


def _factor(pairs: Sequence[tuple[series.Array, series.Array]]) -> float:
    largest = max(float(np.abs(adversarial - clean).max()) for clean, adversarial in pairs)
    if largest == 0:
        return 1.0
    # A hair more, so that 0.1 in float32 counts as 0.1.
    return float(math.floor(0.5 / largest * (1 + 1e-4))) or 0.5


def _verdict(prediction: int, label: int) -> _Verdict:
    if prediction == REJECTED:
        return _NEITHER
    return _RIGHT if prediction == label else _WRONG


def _notes(examples: Sequence[series.Record], pairs: Sequence[tuple[series.Array, series.Array]]) -> str:
    """Return the meaning of the signs on this page."""
    keys = ("clean_prediction", "adversarial_prediction")
    used = {_verdict(example[key], example["label"]) for example in examples for key in keys}
    signs = ";  ".join(f"{v.sign} {v.word}" for v in (_RIGHT, _WRONG, _NEITHER) if v in used)
    grey = any(len(clean) == 1 for clean, _ in pairs)
    tints = ", blue darker, orange brighter" if grey else ""
    return f"Bold: the true class.  {signs}.  Change: grey is none{tints}."


def _table(examples: Sequence[series.Record], class_names: Sequence[str]) -> style.Table:
    keys = (
        "label",
        "clean_prediction",
        "confidence_clean",
        "adversarial_prediction",
        "confidence_adversarial",
    )
    names = [*class_names, "rejected"]  # -1 is the last
    header = ["example", "attack", "broken", "perturbation"]
    header += [*keys, "label_name", "clean_name", "adversarial_name"]
    rows = [
        [number, e["attack"], e["broken"], e["perturbation"], *(e[key] for key in keys)]
        + [names[e[key]] for key in ("label", "clean_prediction", "adversarial_prediction")]
        for number, e in enumerate(examples)
    ]
    return header, rows
