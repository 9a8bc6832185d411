"""The report of a study: one page that needs nothing else, says everything, and cannot be injected into."""

import csv
import io
import re
from html.parser import HTMLParser

import pytest
from study_trees import study_tree

from robust_nas.figures import style
from robust_nas.figures.study_figure import is_uniform
from robust_nas.studies.report.illustrate import illustrate
from robust_nas.studies.report.page import inline, page, table_csv, write_report


class Page(HTMLParser):
    """Elements, ids, references and visible text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(value)
            if key in ("href", "xlink:href", "src"):
                self.links.append(value)

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(autouse=True, scope="module")
def unrendered():
    """Figures are rendered: a page holds them."""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    tree = study_tree(5, failed=1)
    return tree, folder, write_report(tree, folder).read_text(encoding="utf-8")


def test_every_figure_is_in_the_page_and_the_folder(written):
    _, folder, text = written
    stems = {path.stem for path in (folder / "figures").iterdir()}
    assert stems == {
        "budgets",
        "curve",
        "effects",
        "heat-map",
        "inherited",
        "learning",
        "lipschitz",
        "seeds",
        "stages",
    }
    found = Page(text)
    assert found.tags.count("svg") == len(stems)
    assert len(list((folder / "figures").iterdir())) == 3 * len(stems)


def test_the_page_is_sufficient_unto_itself(written):
    found = Page(written[2])
    assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)
    assert all(
        link.startswith(("#", "data:image/png;base64,")) for link in found.links
    )  # colour bars are pixels
    assert not re.search(r"@import|url\((?!#)", written[2])
    assert len(found.ids) == len(set(found.ids))
    used = {link[1:] for link in found.links if link.startswith("#")} | set(
        re.findall(r"url\(#([^)]+)\)", written[2])
    )
    assert used <= set(found.ids)


def test_the_page_says_what_the_tree_says(written):
    tree, _, text = written
    said = Page(text).text
    assert "not comparable to published values" in said
    assert "12 of 15 planned trainings done" in said
    for point in tree["points"]:
        assert point["name"] in said
    robust = tree["points"][0]["metrics"]["robust"]
    assert f"{100 * robust['mean']:.1f}" in said
    assert "[{:.1f}, {:.1f}]".format(*(100 * end for end in robust["interval"])) in said
    for rule in tree["rules"]:
        assert rule["statement"] in said
        assert rule["source"] in said
    assert "+1.20 pp [+0.40, +2.00]" in said
    assert "0.71 r_D [0.66, 0.75]" in said
    for row in tree["unfinished"]:
        assert row["trial"] in said
    for sentence in tree["limits"]:
        assert sentence in said
    assert "loss.attack.eps" in said
    assert "3 failed" in said
    assert "study run config.yaml" in said


def test_equal_trees_give_equal_pages(written, tmp_path):
    tree, folder, text = written
    assert write_report(tree, tmp_path).read_text(encoding="utf-8") == text
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {
        p.name for p in (folder / "figures").iterdir()
    }


def test_a_full_study_is_not_called_incomparable(tmp_path):
    for size, said in (("full", False), (None, False), ("small", True)):
        assert ("not comparable" in page(study_tree(2, size=size), tmp_path)) == said


@pytest.fixture
def empty_figures(monkeypatch):
    """Figures are made and written, but hold nothing."""
    monkeypatch.setattr(style, "_rendered", lambda *_, **__: b'<svg xmlns="http://www.w3.org/2000/svg"/>')


@pytest.mark.usefixtures("empty_figures")
def test_figures_of_an_earlier_report_go(tmp_path):
    write_report(study_tree(4, seeds=1), tmp_path)
    (tmp_path / "figures" / "mine.txt").write_text("kept")
    write_report(study_tree(4, seeds=1, gaps=True), tmp_path)
    stems = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert stems == {"budgets", "effects", "heat-map", "seeds", "stages", "mine"}


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_and_gaps(tmp_path, seeds):
    tree = study_tree(5, seeds=seeds, gaps=True, failed=4)
    tree["rules"] = tree["contrasts"] = tree["trends"] = tree["unfinished"] = []
    for point in tree["points"][:1]:
        point["metrics"]["robust"]["interval"] = None
        point.update(r_d=None, wd_ratio=None)
    said = Page(write_report(tree, tmp_path).read_text(encoding="utf-8")).text
    assert re.search(r"images only \[\d" if seeds == 1 else r"seeds \d+\.\d to \d+\.\d", said)
    assert "declares no rule" in said


def test_names_cannot_inject(tmp_path):
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;${7*7}{{ 7*7 }}"
    tree = study_tree(3)
    tree.update(name=evil, engine=evil, device=evil, limits=[evil], attacks=[evil], size="ci")
    tree["data"]["dataset"] = evil
    tree["threat_model"]["norm"] = evil
    tree["recipe"] = {evil: {evil: [evil]}}
    tree["reference"] = evil
    for point in tree["points"]:
        point.update(name=evil + point["name"], arm=evil)
        point["stages"][1]["name"] = evil
        point["factors"][evil] = evil + point["name"]
        point["metrics"][evil] = point["metrics"]["lip_adv"]
        point["rules"][0].update(rule=evil, accepted=evil)
        for when in ("initial", "trained"):
            point["lip_stages"][when][0]["stage"] = evil
    tree["points"][0]["name"] = evil
    for row in (*tree["contrasts"], *tree["rules"], *tree["trends"]):
        row.update({key: evil for key, value in row.items() if isinstance(value, str) and key != "family"})
    tree["optimum"] = None
    tree["unfinished"] = [{"trial": evil, "name": evil, "seed": 0, "state": evil, "reason": evil}]
    found = Page(write_report(tree, tmp_path).read_text(encoding="utf-8"))
    assert not {"script", "img"} & set(found.tags)
    assert "alert(1)" in found.text
    assert "{{ 7*7 }}" in found.text
    assert "49" not in Page(page(tree, tmp_path)).text.replace("4.9", "")[:400]


def test_an_inlined_svg_has_its_own_ids(tmp_path):
    path = tmp_path / "a.svg"
    path.write_text(
        '<?xml version="1.0"?>\n<svg xmlns:xlink="x" width="72pt" height="36pt" viewBox="0 0 72 36">'
        "<metadata><a/></metadata>"
        '<defs><path id="m1"/></defs><g clip-path="url(#p2)"><use xlink:href="#m1"/></g></svg>'
    )
    text = str(inline(path, "seeds"))
    assert text.startswith("<svg ")
    for part in (
        'id="seeds-m1"',
        "url(#seeds-p2)",
        ' href="#seeds-m1"',
        "max-width: 97.2pt",
        'viewBox="0 0 72 36"',
    ):
        assert part in text
    assert "metadata" not in text
    assert 'height="' not in text


def test_the_table_has_a_row_for_every_trial():
    tree = study_tree(4, failed=1)
    tree["points"][1]["metrics"]["clean"]["values"][2] = None
    rows = list(csv.DictReader(io.StringIO(table_csv(tree))))
    assert len(rows) == 12
    assert [row["state"] for row in rows].count("failed") == 3
    for row in rows:
        point = next(point for point in tree["points"] if point["name"] == row["name"])
        assert int(row["params"]) == point["params"]
        assert float(row["widths.2"]) == point["factors"]["widths.2"]
        if row["state"] == "done":
            value = point["metrics"]["robust"]["values"][int(row["seed"])]
            assert float(row["robust"]) == value
        else:
            assert row["robust"] == ""
    assert rows[5]["clean"] == ""


def test_uniform_means_one_depth_and_one_widening():
    def point(depths, widths):
        pairs = (("depths", depths), ("widths", widths))
        return {"factors": {f"{key}.{i}": v for key, values in pairs for i, v in enumerate(values)}}

    assert is_uniform(point((5, 5, 5), (160, 320, 640)))
    assert not is_uniform(point((5, 5, 5), (320, 640, 512)))
    assert not is_uniform(point((5, 5, 3), (160, 320, 640)))
    assert not is_uniform({"factors": {"depth": 3}})


def test_nothing_is_drawn_of_a_study_without_results(tmp_path):
    tree = study_tree(3, failed=2)
    tree["points"] = tree["points"][1:]
    assert illustrate(tree, tmp_path) == []
    assert not list(tmp_path.iterdir())
