"""The report of a run folder: what it says of every record, and that nothing in a folder breaks or runs in the page.

The folders are records that are kept in the repository, and small ones made here: no job is done.
"""

import json
import shutil
import warnings

import pytest
from package_files import ROOT
from pages import read_page

from robust_nas import write_report
from robust_nas.errors import ConfigError, RecordWarning
from robust_nas.workflows.report import write
from robust_nas.workflows.report.at_end import reporting
from robust_nas.workflows.report.part import Part
from robust_nas.workflows.report.sections import SECTIONS

REFERENCE = ROOT / "results" / "reference"
EVIL = "<script>alert(1)</script>\"'><img src=http://x onerror=alert(2)>&amp;{{ 7*7 }}</style>"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="72pt" height="36pt"><path id="m"/><use href="#m"/>{}</svg>'
SHARE = {"count": 9, "of": 10, "share": 0.9, "low": 0.6, "high": 0.98}
COUNTED = {"accuracy": SHARE, "false_alarms": None}
NETWORK = {
    "label": "result",
    "group": "result",
    "params": 10,
    "macs": 100,
    "clean": 0.5,
    "robust": 0.25,
    "robust_interval": [0.1, 0.4],
    "verdict": "RELIABLE",
}
EDGE = {"kind": "normal", "node": 0, "source": 1, "operation": "skip", "weight": 0.6, "noise": 0.01}
ROW = {"class": "all", "pairs": 9, "attack_success": 0.5, "pgd_success": 0.75}


def step(epoch):
    weights = {"normal": [[0.4, 0.6], [0.5, 0.5]]}
    return {"epoch": epoch, "step": epoch, "entropy": {"normal": 0.6}, "edge_weights": weights}


def point(evaluations, regret):
    mean = {"mean": 0.5 - regret, "low": 0.2, "high": 0.4}
    return {
        "evaluations": evaluations,
        **mean,
        "regret": regret,
        "regret_low": 0.1,
        "regret_high": 0.3,
        "optimal": 0.0,
    }


SEARCHED = {
    "config.yaml": "name: s\nseed: 3\nspace: {name: x}\nsupernet: {}\nsearch: {name: mine, epochs: 10}\n",
    "metrics.jsonl": "".join(json.dumps(step(epoch)) + "\n" for epoch in range(3)) + '{"epoch": 3, "st',
    ".lock": "",
}
# A folder of each section: its files.
FOLDERS = {
    "search": {
        **SEARCHED,
        "alphas.json": {"operations": ["skip", "conv"]},
        "verdict.json": {
            "status": "FAILED",
            "reasons": ["it did not learn"],
            "edges": [EDGE],
            "findings": [],
        },
        "result.json": {"seed": 3, "params": 1234567, "macs": 2, "skips": {"normal": 1}, "artifacts": []},
    },
    "training": {
        "config.yaml": "name: t\narchitecture: {type: x}\ntraining: {epochs: 14, loss: {name: mine}}\n",
        "metrics.jsonl": '{"epoch":0,"loss":2.0,"clean":null,"robust":null}\n{"epoch":1,"loss":1.5,"clean":0.5}\n',
        ".lock": "",
    },
    "attack_set": {
        "attack.json": {
            **{"label": "mine", "attack": {"name": "mine"}, "threat_model": {"norm": "linf", "eps": None}},
            **{
                "model": "m",
                "data": {"name": "digits", "part": "test"},
                "seed": 0,
                "images": 10,
                "seconds": 1.5,
            },
            **{
                "clean": SHARE,
                "robust": {**SHARE, "count": 3, "share": 0.3},
                "success": {**SHARE, "count": 6},
            },
            **{"distances": {"linf": {"median": 0.0625, "largest": 0.25}, "l2": None}, "flags": ["stuck"]},
            **{"passes": {"forward": 2.0, "backward": 1.0}, "queries": {"mean": 7.5, "most": 9}},
        }
    },
    "benchmark": {
        "benchmark.json": {
            **{"table": "t.csv", "networks": 7, "objectives": {"acc": "max"}, "measure": "best value"},
            **{"optimum": 0.5, "reference": {}, "batch": 1, "left_out": {"tpe": "needs a package"}},
            "strategies": {
                name: {
                    "runs": 3,
                    "cpu_seconds": 0.5,
                    "ended_early": 0,
                    "points": [point(5, 0.25), point(9, regret)],
                }
                for name, regret in (("mine", 0.125), ("random", 0.25))
            },
        }
    },
    "controls": {
        "config.yaml": "name: c\n",
        "controls.json": {
            "images": 8,
            "networks": [NETWORK],
            "words": "not better than random at equal MACs",
            "difference": {"robust": {"effect": 0.125, "interval": [-0.1, 0.35], "includes_seeds": False}},
        },
    },
    "defence": {
        "config.yaml": "name: d\n",
        "defence.json": {
            "label": "mine",
            "method": {"name": "mine"},
            "values": {"threshold": 1.5},
            "validation": {"images": 10, "dataset": "digits", "seed": 0},
            "undefended": COUNTED,
            "defended": {**COUNTED, "false_alarms": {**SHARE, "share": 0.1}},
            "certifies": False,
            "not_exported": None,
            "model": "../m",
            "warnings": [],
        },
    },
    "distillation": {
        "config.yaml": "name: k\n",
        "result.json": {
            **{"method": "mine", "kernel": "k", "support": 20, "step": 7, "validation_images": 9, "seed": 0},
            **{
                "validation_clean": 0.875,
                "validation_robust": 0.5,
                "start": {"clean": 0.25, "robust": 0.125},
            },
            **{"dataset": "digits", "seconds": 1.5, "artifacts": []},
        },
    },
    "generator": {
        "config.yaml": "name: g\n",
        "report.json": {
            **{"method": "mine", "pgd_label": "pgd-7", "times_faster": 12.5, "all": ROW, "classes": [ROW]},
            **{
                "model": "../m",
                "threat_model": {"norm": "linf", "eps": 0.1},
                "images": 9,
                "dataset": "digits",
            },
            **{"ms_per_image": {"attack": 1.0, "pgd": 12.5}, "macs": {"attack": 5, "pgd": 50}, "epoch": 1},
            "seconds": 5.0,
        },
    },
    "ranking": {
        "config.yaml": "name: r\n",
        "result.json": {
            **{"method": "mine", "number": 1, "artifacts": []},
            "ranking": [{"rank": 1, "name": "first", "params": 5, "macs": 6, "score": 0.5}],
        },
    },
    "evaluation": {
        "evaluation.json": REFERENCE / "quickstart-seed0" / "evaluation.json",
        "config.yaml": "name: e\n",
    },
    "pipeline": {"summary.json": REFERENCE / "quickstart-seed0" / "summary.json", "config.yaml": "name: p\n"},
    "compression": {
        "compression.json": REFERENCE / "quickstart-compression-seed0" / "compression.json",
        "config.yaml": "name: c\n",
    },
}
SAID = {
    "attack_set": "mine (linf no bound) turns 6 of 10 right images wrong: 30.0 % of 10 test images",
    "benchmark": "After 9 evaluations mine is first: best value 0.375 [0.2, 0.4], of all 7 networks 0.5.",
    "search": "mine found an architecture of 1.23 M parameters and 2 MACs; the search is FAILED.",
    "training": "Not finished: epoch 2 of 14.",
    "controls": "not better than random at equal MACs: +12.5 points [-10.0, +35.0] in robust accuracy.",
    "defence": "With mine 90.0 % of the validation images are answered right, without it 90.0 %; it rejects 10.0 %",
    "distillation": "Kernel regression on 20 learned images is right on 87.5 %",
    "generator": "mine leads 50.0 % of the images to the class it aims at, pgd-7 75.0 %, and takes 1/12.5 of its time.",
    "ranking": "Of 1 candidates first is first by mine: score 0.5",
    "evaluation": "Under attack (linf eps 0.1)",
    "pipeline": "The network found for digits keeps",
    "compression": "cstar-1.5 is chosen: 1.44 x fewer MACs, 1.48 x fewer parameters",
}


def made(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if isinstance(content, dict):
            content = json.dumps(content)
        elif not isinstance(content, str):
            content = content.read_text()
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def test_every_section_has_a_folder_here():
    assert {make.__name__ for make in SECTIONS} == FOLDERS.keys() == SAID.keys()


@pytest.mark.parametrize("name", FOLDERS)
def test_the_answer_comes_first(tmp_path, name):
    page = read_page(write_report(made(tmp_path / "folder", FOLDERS[name])))
    assert SAID[name] in page.text
    assert page.text.index(SAID[name]) < page.text.index("Limits")
    assert "damaged" not in page.text.lower()


def test_equal_folders_give_equal_pages_and_an_equal_page_is_not_written_again(tmp_path, monkeypatch):
    path = write_report(made(tmp_path / "a", FOLDERS["search"]))
    before = path.read_bytes()
    monkeypatch.setattr(write, "write_atomic", None)
    assert write_report(tmp_path / "a").read_bytes() == before


def test_a_search_shows_edges_alphas_and_entropy_with_its_level(tmp_path):
    page = read_page(write_report(made(tmp_path / "folder", FOLDERS["search"])))
    for part in (
        "Edges of the normal cell",
        "0.6 0.01",
        "ln 2: all alike",
        "Edge weights over time",
        "edge 2",
        "conv",
    ):
        assert part in page.text
    assert (
        page.tags.count("svg") == 1 + 2 + 3
    )  # entropy, two edges, and the keys of three lines in their legends


def test_a_compression_says_how_much_faster_and_slower(tmp_path):
    page = read_page(write_report(made(tmp_path / "folder", FOLDERS["compression"])))
    tree = json.loads((tmp_path / "folder" / "compression.json").read_text())
    before, after = (row["latency_ms"]["torch"]["1"]["median_ms"] for row in tree["networks"][:2])
    word = f"{before / after:.2f} x faster" if before > after else f"{after / before:.2f} x slower"
    assert f"{word} in torch" in page.text


def test_an_evaluation_has_its_attacks_verdict_and_sentence(tmp_path):
    shutil.copytree(ROOT / "tests" / "fixtures" / "old_evaluation", tmp_path / "old")
    tree = json.loads((tmp_path / "old" / "evaluation.json").read_text())
    page = read_page(write_report(tmp_path / "old"))
    for attack in tree["attacks"]:
        assert attack["label"] in page.text
        assert f"{attack['broken']} of {attack['attacked']}" in page.text
    assert f"{100 * tree['robust']['accuracy']:.1f} %" in page.text


def test_a_run_shows_its_parts_and_how_far_it_is(tmp_path):
    folder = made(
        tmp_path / "run", {"config.yaml": "name: r\nspace: {}\nsearch: {}\nsteps: []\n", ".lock": ""}
    )
    made(folder / "search", FOLDERS["search"])
    made(folder / "model", FOLDERS["training"])
    page = read_page(write_report(folder))
    assert "Not finished: model, epoch 2 of 14." in page.text
    assert "Search (search)" in page.text
    assert "Training (model)" in page.text


@pytest.mark.parametrize("content", ["{", "[1]", '{"clean": 1}', '{"clean": {"accuracy": "x"}, "robust": 3}'])
def test_a_damaged_record_is_named_and_the_rest_is_shown(tmp_path, content):
    folder = made(tmp_path / "folder", {**FOLDERS["defence"], "evaluation.json": content})
    page = read_page(write_report(folder))
    assert "Damaged:" in page.text
    assert "evaluation" in page.text
    assert SAID["defence"] in page.text


def test_a_record_that_was_changed_after_its_run_is_named(tmp_path):
    files = {
        **FOLDERS["evaluation"],
        "result.json": {"artifacts": [], "digests": {"evaluation.json": "0" * 64}},
    }
    page = read_page(write_report(made(tmp_path / "folder", files)))
    assert "was changed after its run ended" in page.text
    assert SAID["evaluation"] not in page.text


def test_names_cannot_inject(tmp_path):
    def poisoned(tree):
        if isinstance(tree, dict):
            return {key: poisoned(value) for key, value in tree.items()}
        if isinstance(tree, list):
            return [poisoned(value) for value in tree]
        return EVIL if isinstance(tree, str) else tree

    for name, files in FOLDERS.items():
        trees = {
            file: json.loads(json.dumps(tree)) if isinstance(tree, dict) else tree
            for file, tree in files.items()
        }
        trees = {f: json.loads(t.read_text()) if hasattr(t, "read_text") else t for f, t in trees.items()}
        trees = {file: poisoned(tree) if isinstance(tree, dict) else tree for file, tree in trees.items()}
        if "compression.json" in trees:
            trees["compression.json"]["chosen"] = EVIL
        trees["environment.json"] = {
            "command": ["robust-nas", EVIL],
            "packages": {EVIL: EVIL},
            "platform": EVIL,
        }
        folder = made(tmp_path / f"{name}<b onclick='x'>&", trees)
        page = read_page(write_report(folder))
        assert "<b onclick='x'>&" in page.text  # the folder's name, as text
        assert "img" not in page.tags
        assert "49" not in page.text.partition("alert(2)>")[2][:40]  # {{ 7*7 }} is text


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        '<image href="http://example.org/x.png"/>',
        '<path onclick="x()"/>',
        "<style>@import 'x'</style>",
        '<path style="fill: url(http://example.org/x)"/>',
        "<foreignObject><b/></foreignObject>",
        "<g>",
    ],
)
def test_a_drawing_that_is_more_is_not_shown(tmp_path, inside):
    files = {**FOLDERS["training"], "figures/good.svg": SVG.format(""), "figures/bad.svg": SVG.format(inside)}
    page = read_page(write_report(made(tmp_path / "folder", files)))
    assert "good" in page.text
    assert "Not shown: bad.svg" in page.text


def test_a_figure_that_is_missing_or_too_large_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "ROOM", 1000)
    result = {
        "epoch": 0,
        "validation_clean": 0.5,
        "validation_robust": 0.25,
        "artifacts": ["figures/gone.png"],
    }
    files = {**FOLDERS["training"], "result.json": {**result, "not_drawn": ["failed"]}}
    files["figures/large.svg"] = SVG.format("<title>" + "x" * 2000 + "</title>")
    page = read_page(write_report(made(tmp_path / "folder", files)))
    for text in (
        "Not in the folder: the figures gone, failed.",
        "for its size: figures/large.svg",
    ):
        assert text in page.text


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no config\.yaml"):
        write_report(tmp_path)


def test_of_jobs_in_a_job_the_outer_one_alone_writes(tmp_path):
    outer, inner = (made(tmp_path / name, FOLDERS["training"]) for name in ("outer", "inner"))
    with reporting(outer):
        with reporting(inner):
            pass
        assert not (outer / "report.html").exists()
    assert (outer / "report.html").is_file()
    assert not (inner / "report.html").exists()


def test_a_report_that_fails_is_a_warning_and_a_failed_job_has_none(tmp_path, monkeypatch):
    folder = made(tmp_path / "folder", FOLDERS["training"])
    with pytest.raises(KeyError), reporting(folder):
        raise KeyError
    assert not (folder / "report.html").exists()

    def fails(folder, live):
        raise ValueError("no page")

    monkeypatch.setattr(write, "run_page", fails)
    with (
        pytest.warns(RecordWarning, match=r"report\.html is not written: ValueError: no page"),
        reporting(folder),
    ):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Part(folder).problems == []
