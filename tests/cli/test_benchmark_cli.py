"""`robust-nas benchmark` on small tables."""

import csv
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from pages import read_page
from small_tables import COLUMN, cells_csv, darts_csv, write

from robust_nas.spaces import count, load_architecture
from robust_nas.spaces.nas_bench_201 import string_of
from robust_nas.statistics import MEASURES

CODES = ("000300", "333333", "222222", "444444", "133333", "000200", "030303")
VALUES = (0.40, 0.47, 0.43, 0.30, 0.46, 0.35, 0.41)
PLACE = ("benchmark", "scores", "--draws", "50", "--table", "table.csv.gz", "--column")


@pytest.fixture(autouse=True)
def table(tmp_path):
    return cells_csv(tmp_path / "table.csv.gz", {COLUMN: VALUES}, CODES)


def written(path, *lines):
    return write(path, "\n".join(lines) + "\n")


def test_params_and_macs_are_compared_on_the_sample_of_the_scores(call, tmp_path):
    lines = [f"{7 * number},{value},{-value}" for number, value in enumerate(VALUES)]
    lines[1] = f"{string_of(CODES[1])},0.47,"  # by its string, and without the second score
    written(tmp_path / "scores.csv", "arch,good,loss", *lines)
    options = ("--scores", "scores.csv", "--lower", "loss", "--json", "--out", "out.csv")
    found = json.loads(call(*PLACE, COLUMN, *options).out)
    assert (found["architectures"], found["left_out"]) == (6, 1)
    assert list(found["scores"]) == ["params", "macs", "good", "loss"]
    assert found["scores"]["good"] == found["scores"]["loss"]
    good = found["scores"]["good"]["measures"]
    assert good["spearman"]["value"] == pytest.approx(1)
    assert good["regret first"]["value"] == 0
    picked = max(
        (code for code in CODES if code != CODES[1]),
        key=lambda code: count(load_architecture(string_of(code))).params,
    )
    regret = 0.46 - VALUES[CODES.index(picked)]
    assert found["scores"]["params"]["measures"]["regret first"]["value"] == pytest.approx(regret)
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * len(MEASURES)
    assert float(rows[0]["value"]) == pytest.approx(
        found["scores"]["params"]["measures"]["spearman"]["value"], rel=1e-5
    )


def test_a_folder_has_the_numbers_and_a_report(call, tmp_path):
    call(*PLACE, COLUMN, "--out", "scores")
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == [
        *("benchmark.json", "environment.json", "report.html", "scores.csv")
    ]
    text = read_page(tmp_path / "scores" / "report.html").text
    assert re.search(r"Of 2 scores (params|macs) ranks 7 networks best by .*: Spearman [\d.-]+ \[", text)
    assert "exists; --overwrite replaces it" in call(*PLACE, COLUMN, "--out", "scores").err
    assert call(*PLACE, COLUMN, "--out", "scores", "--overwrite").code == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    assert "has no scores.csv" in call(*PLACE, COLUMN, "--out", "other", "--overwrite").err


def test_tables_for_people(call):
    shown = call(*PLACE, COLUMN)
    assert "7 architectures" in shown.out
    assert "minus params, paired" in shown.out
    assert "| spearman | " in call(*PLACE, COLUMN, "--markdown").out


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        (None, (), "has no column"),
        (None, ("--lower", "x"), "lower is better: got 'x'"),
        (None, ("--reader", "tiny-robustbench"), "line 1: has no column"),
        (None, ("--codes", "ops.json"), "codes"),
        (None, ("--out", "table.csv.gz"), "exists; --overwrite replaces it"),
        (None, ("--out", "none/x.csv"), "cannot be written: there is no folder none"),
        (("arch,s", "0,1", "99,2"), (), "line 3: "),
        (("arch,s", "0,1", "0,2"), (), "line 3: the class of 0 comes twice, first at"),
        (("arch,s", "0,x"), (), "line 2: s: got 'x'; a finite number is needed"),
        (("arch,params", "0,1", "7,2", "14,3"), (), "got one called 'params'"),
        (("arch",), (), "at least one score"),
        (("arch,s", "0,1"), (), "needed: 3 architectures"),
        (("arch,s,weight", "0,1,", "7,1,1", "14,1,1"), (), "line 2: weight: got ''"),
        (("arch,s,weight", "0,1,0", "7,1,1", "14,1,1"), (), "weights above 0"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(scores, options, message, call, tmp_path):
    column = "val_pgd_8" if message == "has no column" else COLUMN
    if scores is not None:
        written(tmp_path / "scores.csv", *scores)
        options = (*options, "--scores", "scores.csv")
    before = (tmp_path / "table.csv.gz").read_bytes()
    found = call(*PLACE, column, *options)
    assert found.code in (1, 2)
    assert message in found.err
    assert "Traceback" not in found.err
    assert (tmp_path / "table.csv.gz").read_bytes() == before


def test_no_torch_is_imported(table):
    code = (
        "import sys; from robust_nas.cli import app; "
        f"app({[*PLACE[:-2], str(table), '--column', COLUMN]!r}, standalone_mode=False); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


STRATEGIES = (
    "benchmark",
    "strategies",
    "--quiet",
    "--table",
    "many.csv.gz",
    "--runs",
    "2",
    "--evaluations",
    "2,6",
)
LATENCY = ("--latency", "latency.csv", "--device", "pixel3")
TWO = ("--objectives", f"{COLUMN}, latency_ms:min")


@pytest.fixture
def many(tmp_path):
    """A table of 200 random cells, so that draws meet one of them, and a table of their latencies."""
    codes = ["".join(map(str, code)) for code in np.random.default_rng(0).integers(5, size=(200, 6))]
    robust = [round(sum(map(int, code)) / 60 + int(code) % 7 / 1000, 4) for code in codes]
    cells_csv(tmp_path / "many.csv.gz", {COLUMN: robust}, codes)
    cells_csv(tmp_path / "latency.csv", {"pixel3_ms": [1 + number / 10 for number in range(200)]}, codes)


@pytest.mark.usefixtures("many")
def test_strategies_by_best_value_and_by_hypervolume(call, tmp_path):
    one = json.loads(call(*STRATEGIES, "--column", COLUMN, "--external-runs", "1", "--json").out)
    assert (one["measure"], list(one["left_out"])) == ("best value", ["single-path", "successive-halving"])
    assert [each["runs"] for each in one["strategies"].values()] == [2, 2, 2, 1, 1, 1, 1]
    assert one["optimum"] >= one["strategies"]["random"]["points"][1]["mean"]
    options = (*TWO, *LATENCY, "--strategies", "random,local-search", "--out", "out")
    shown = call(*STRATEGIES, *options, "--markdown")
    assert f"hypervolume above {COLUMN}" in shown.out
    assert "| local-search | " in shown.out
    with (tmp_path / "out" / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["evaluations"] for row in rows] == ["2", "6"] * 2
    assert call(*STRATEGIES, *options, "--markdown").out == shown.out


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--column (one objective) or --objectives (several) is needed"),
        (("--column", COLUMN, *TWO), "and not both"),
        (("--column", "val_pgd_8"), "has no column 'val_pgd_8'; it has advtrain"),
        (("--column", f"{COLUMN}:up"), "--column: got"),
        (("--objectives", COLUMN), "--objectives: got one"),
        (TWO, "has no column 'latency_ms'"),
        (
            (*TWO, "--latency", "latency.csv"),
            "--latency (a file) and --device (its column) are needed together",
        ),
        ((*TWO, *LATENCY[:3], "abacus"), "has no device 'abacus'; it has pixel3"),
        ((*TWO, "--latency", "darts.csv", "--device", "clean_best"), "is a table of darts"),
        ((*TWO, *LATENCY, "--reference", "0"), "--reference: got 1 numbers"),
        ((*TWO, *LATENCY, "--reference", "0,x"), "--reference: got '0,x'"),
        (("--column", COLUMN, "--evaluations", "2,1000"), "evaluations: got 2, 1000; 1.."),
        (("--column", COLUMN, "--evaluations", "2.5"), "--evaluations: got '2.5'; whole numbers"),
        (("--column", COLUMN, "--strategies", "annealing"), "strategies: got 'annealing'; allowed: random"),
        (("--column", COLUMN, "--strategies", "successive-halving"), "has no rungs"),
    ],
)
def test_mistakes_about_strategies_are_named_and_nothing_is_written(options, message, call, tmp_path):
    darts_csv(tmp_path)
    found = call(*STRATEGIES, *options, "--out", "out")
    assert found.code in (1, 2)
    assert message in found.err
    assert "Traceback" not in found.err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("many")
def test_no_torch_is_imported_for_strategies_and_their_figure(tmp_path):
    words = [*STRATEGIES, "--column", COLUMN, "--strategies", "random,local-search,evolution", "--out", "out"]
    code = (
        "import sys; from robust_nas.cli import app; "
        f"app({words!r}, standalone_mode=False); assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "strategies.png").is_file()
