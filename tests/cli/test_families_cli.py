"""`spaces` and `count` answer for every family, NAS-Bench-201 among them, without torch."""

import json
import subprocess
import sys
from pathlib import Path

from cli_outcome import Call

from robust_nas.config import to_dict
from robust_nas.spaces import load_architecture, load_space

STRING = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def test_a_string_of_nas_bench_201_is_counted(call: Call) -> None:
    (found,) = json.loads(call("count", STRING, "--json").out)
    assert (found["name"], found["params"], found["macs"]) == (
        "nb201-333333.c15.ch16",
        1_531_546,
        220_119_680,
    )
    assert [stage["name"] for stage in found["stages"]] == ["stem", "stage 1", "stage 2", "stage 3", "head"]
    (small,) = json.loads(call("count", STRING, "--cells", 3, "--channels", 4, "--json").out)
    assert small["params"] < 40_000


def test_its_space_is_shown_and_sampled_and_its_architectures_shown_and_drawn(
    call: Call, tmp_path: Path
) -> None:
    assert json.loads(call("spaces", "show", "nas-bench-201", "--json").out) == to_dict(
        load_space("nas-bench-201")
    )
    assert json.loads(call("spaces", "show", STRING, "--json").out) == to_dict(load_architecture(STRING))
    assert "a string of NAS-Bench-201" in call("spaces", "list").out
    assert call("spaces", "sample", "nas-bench-201", "--params", "0.2M:1M", "--out", "found.yaml").code == 0
    assert json.loads(call("count", "found.yaml", "--json").out)[0]["params"] <= 1e6
    assert call("spaces", "show", "found.yaml").out == (tmp_path / "found.yaml").read_text()
    assert call("spaces", "draw", "found.yaml", "--out", "cells").code == 0
    assert (tmp_path / "cells.svg").is_file()


def test_a_family_without_cells_is_neither_drawn_nor_resized(call: Call) -> None:
    for arguments in (("spaces", "draw", "wrn-10-1"), ("count", "wrn-10-1", "--cells", 4)):
        done = call(*arguments)
        assert done.code == 2
        assert "wrn-10-1" in done.err
        assert "a residual network" in done.err


def test_no_torch_is_imported_for_an_answer(tmp_path: Path) -> None:
    code = f"""
import sys
from robust_nas.cli import app
for arguments in (
    ["spaces", "list"], ["spaces", "show", "nas-bench-201"], ["spaces", "sample", "nas-bench-201", "--json"],
    ["count", {STRING!r}, "arnas", "wrn-10-1"],
):
    assert not app(arguments, standalone_mode=False), arguments
    assert "torch" not in sys.modules, arguments
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
