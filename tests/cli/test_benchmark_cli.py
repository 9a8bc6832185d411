"""`robust-nas benchmark scores` on a small table."""

import csv
import json
import subprocess
import sys

import pytest
from small_tables import COLUMN, cells_csv, write

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
