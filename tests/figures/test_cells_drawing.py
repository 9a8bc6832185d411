"""Cell drawings: nothing lies on anything else, and what is drawn is what was given."""

import csv
import itertools
import subprocess
import sys
from xml.etree import ElementTree as ET

import matplotlib
import numpy as np
import pytest
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch
from matplotlib.transforms import Bbox
from PIL import Image

from robust_nas.errors import ArchitectureError, RunError
from robust_nas.figures import Weight, draw_cells, style
from robust_nas.figures.cells import cells_figure, short_name

OPERATIONS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
MAX3, AVG3, SKIP, SEP3, SEP5, DIL3, DIL5 = OPERATIONS

ARNAS = {
    "accurate": (
        ((SKIP, 0), (SKIP, 1)),
        ((SEP5, 0), (SEP3, 1)),
        ((SEP5, 3), (SEP3, 1)),
        ((SEP5, 4), (SKIP, 0)),
    ),
    "reduce": (
        ((AVG3, 1), (AVG3, 0)),
        ((DIL5, 2), (AVG3, 0)),
        ((DIL5, 3), (DIL5, 2)),
        ((DIL5, 4), (DIL5, 3)),
    ),
    "robust": (
        ((DIL5, 0), (DIL5, 1)),
        ((DIL5, 1), (DIL5, 2)),
        ((DIL3, 3), (DIL5, 2)),
        ((DIL3, 4), (DIL3, 3)),
    ),
}
SAME_SOURCE = {"normal": (((SKIP, 0), (SEP3, 0)), ((DIL5, 2), (MAX3, 2)), ((AVG3, 0), (SEP5, 3)))}
SUPERNET = {"dense": tuple(tuple((SEP3, source) for source in range(2 + node)) for node in range(4))}


def random_cells(seed):
    draw = np.random.default_rng(seed)
    return {
        kind: [
            [(str(draw.choice(OPERATIONS)), int(source)) for source in draw.permutation(2 + node)[:2]]
            for node in range(4)
        ]
        for kind in ("accurate", "reduce", "robust")
    }


CASES = [ARNAS, SAME_SOURCE, SUPERNET, *(random_cells(seed) for seed in range(3))]


def weighted(cells):
    """Weights of all edges, with noise on every second one of a node."""
    return {
        kind: [
            [Weight(0.19, 0.02) if slot % 2 else Weight(0.153, 0.0047) for slot in range(len(node))]
            for node in nodes
        ]
        for kind, nodes in cells.items()
    }


@pytest.fixture(
    scope="module", params=[*((case, "") for case in CASES), *((case, "INCONCLUSIVE") for case in CASES[:2])]
)
def drawn(request):
    cells, verdict = request.param
    outputs = {kind: range(2, 2 + len(nodes)) for kind, nodes in cells.items()}
    weights = weighted(cells) if verdict else None
    figure = cells_figure(cells, outputs, "caption", weights=weights, verdict=verdict)
    figure.canvas.draw()
    return cells, figure, figure.canvas.get_renderer()


def apart(boxes):
    return [(a, b) for a, b in itertools.combinations(boxes, 2) if Bbox.intersection(a, b) is not None]


def test_labels_states_and_texts_do_not_overlap(drawn):
    cells, figure, renderer = drawn
    axes = figure.axes[0]
    shapes = [p for p in axes.patches if isinstance(p, FancyBboxPatch | Circle)]
    edges = sum(len(node) for nodes in cells.values() for node in nodes)
    assert sum(isinstance(p, FancyBboxPatch) for p in shapes) == edges
    assert apart([p.get_window_extent(renderer) for p in shapes]) == []
    texts = [*axes.texts, *axes.get_legend().get_texts()]
    boxes = [text.get_window_extent(renderer) for text in texts]
    assert apart(boxes) == []
    page = figure.bbox
    assert all(page.x0 <= b.x0 and b.x1 <= page.x1 and page.y0 <= b.y0 and b.y1 <= page.y1 for b in boxes)


def test_every_text_fits_its_box(drawn):
    _, figure, renderer = drawn
    axes = figure.axes[0]
    shapes = [p for p in axes.patches if isinstance(p, FancyBboxPatch | Circle)]
    outer = {tuple(np.round(b.get_window_extent(renderer).get_points().mean(0))): b for b in shapes}
    for text in axes.texts:
        centre = tuple(np.round(axes.transData.transform(text.get_position())))
        if centre in outer:
            box, inner = outer[centre].get_window_extent(renderer), text.get_window_extent(renderer)
            assert box.x0 <= inner.x0
            assert inner.x1 <= box.x1


def test_lines_touch_a_label_or_a_state_only_at_their_ends(drawn):
    _, figure, renderer = drawn
    axes = figure.axes[0]
    shapes = [p for p in axes.patches if isinstance(p, FancyBboxPatch | Circle)]
    boxes = [p.get_window_extent(renderer).padded(-1.0) for p in shapes]
    lines = [p for p in axes.patches if isinstance(p, PathPatch)]
    assert lines
    for line in lines:
        points = line.get_transform().transform_path(line.get_path()).interpolated(1)
        polygon = points.to_polygons(closed_only=False)[0]
        dense = np.concatenate([np.linspace(a, b, 5) for a, b in itertools.pairwise(polygon)])
        ends = [dense[0], dense[-1]]
        for box in boxes:
            near = box.padded(3.0)
            if any(near.contains(*end) for end in ends):
                continue
            assert not box.count_contains(dense)


def test_files_hold_what_was_given(tmp_path):
    paths = draw_cells(ARNAS, tmp_path / "deep" / "arnas.v1", caption="PGD-7, eps 8/255")
    assert [p.name for p in paths] == ["arnas.v1.png", "arnas.v1.svg", "arnas.v1.csv"]
    assert sorted(p.name for p in paths[0].parent.iterdir()) == sorted(p.name for p in paths)
    with Image.open(paths[0]) as image:
        assert image.size[0] >= 1500
    root = ET.parse(paths[1]).getroot()  # noqa: S314 (our own file)
    texts = {"".join(e.itertext()).strip() for e in root.iter() if e.tag.endswith("text")}
    assert {"skip", "sep 3x3", "sep 5x5", "dil 3x3", "dil 5x5", "avg 3x3", "PGD-7, eps 8/255"} <= texts
    with paths[2].open(newline="") as file:
        rows = list(csv.DictReader(file))
    edges = [(r["cell"], int(r["source"]), r["operation"]) for r in rows if r["operation"] != "concat"]
    assert edges == [(kind, s, op) for kind, nodes in ARNAS.items() for node in nodes for op, s in node]
    assert [int(r["source"]) for r in rows if r["operation"] == "concat"] == [2, 3, 4, 5] * 3


def test_weights_are_in_labels_and_table_and_a_search_that_decides_nothing_shows_it(tmp_path):
    weights = weighted(ARNAS)
    looks = {}
    for word in ("CONCLUSIVE", "FAILED"):
        paths = draw_cells(ARNAS, tmp_path / word, caption="A search.", weights=weights, verdict=word)
        svg = paths[1].read_text()
        looks[word] = "dasharray" in svg
        assert ("sep 5x5  .153 ±.005" in svg, "sep 3x3  .19 ±.02" in svg) == (True, True)
        assert f"Verdict on the search: {word}. A search." in svg
        assert (f"robust cell ({word.lower()})" in svg) == (word != "CONCLUSIVE")
        with paths[2].open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert (rows[0]["weight"], rows[0]["noise"], rows[0]["verdict"]) == ("0.153", "0.0047", word)
        assert (rows[-1]["operation"], rows[-1]["weight"], rows[-1]["verdict"]) == ("concat", "", word)
    assert looks == {"CONCLUSIVE": False, "FAILED": True}


@pytest.mark.parametrize(
    ("value", "noise", "text"),
    [(0.1, None, ".10"), (0.19, 0.02, ".19 ±.02"), (0.153, 0.0047, ".153 ±.005"), (1.0, 0.0, "1.000 ±.000")],
)
def test_a_weight_has_a_third_decimal_where_its_noise_needs_it(value, noise, text):
    assert str(Weight(value, noise)) == text


def test_same_call_gives_same_bytes_whatever_the_callers_settings(tmp_path):
    first = draw_cells(ARNAS, tmp_path / "a")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        second = draw_cells(ARNAS, tmp_path / "b")
        assert dict(matplotlib.rcParams) == before
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_only_concatenated_nodes_lead_to_the_output(tmp_path):
    paths = draw_cells(SAME_SOURCE, tmp_path / "c", concat={"normal": (4,)})
    assert paths[2].read_text().splitlines()[-1] == "normal,output,4,concat"
    assert paths[2].read_text().count("concat") == 1


def test_mistakes_are_named(tmp_path):
    with pytest.raises(RunError, match="no cell"):
        draw_cells({}, tmp_path / "x")
    with pytest.raises(ArchitectureError, match=r"state 2 comes from 2, not from 0\.\.1"):
        draw_cells({"k": [[(SKIP, 2)]]}, tmp_path / "x")
    with pytest.raises(ArchitectureError, match=r"concat names \[9\]"):
        draw_cells({"k": [[(SKIP, 0)]]}, tmp_path / "x", concat={"k": (9,)})
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_when_drawing_fails(tmp_path, monkeypatch):
    def broken(*_):
        raise ValueError("no ink")

    monkeypatch.setattr(style, "_csv", broken)
    with pytest.raises(ValueError, match="no ink"):
        draw_cells(ARNAS, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file_and_leaves_no_part(tmp_path, monkeypatch):
    old = tmp_path / "x.png"
    old.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(RunError, match="No space left"):
        draw_cells(SAME_SOURCE, tmp_path / "x")
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]
    assert old.read_bytes() == b"old"


def test_short_names():
    names = [short_name(operation) for operation in (*OPERATIONS, "nor_conv_1x1", "none")]
    assert names == [
        "max 3x3",
        "avg 3x3",
        "skip",
        "sep 3x3",
        "sep 5x5",
        "dil 3x3",
        "dil 5x5",
        "conv 1x1",
        "none",
    ]


def test_the_room_opens_without_matplotlib():
    code = (
        "import robust_nas.figures, sys; sys.exit('matplotlib' in sys.modules or 'networkx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
