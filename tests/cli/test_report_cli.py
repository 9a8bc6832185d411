"""`robust-nas report`: the page of a folder, by one command."""

import json

from pages import read_page
from typer.testing import CliRunner

from robust_nas.cli import app


def test_help_has_an_example_and_the_call_in_python():
    shown = CliRunner().invoke(app, ["report", "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert "Example: robust-nas report" in shown.output
    assert "In Python: robust_nas.write_report(" in shown.output


def test_the_path_is_printed_and_json_has_it_too(call, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("name: t\narchitecture: {type: x}\ntraining: {epochs: 10}\n")
    (folder / ".lock").touch()
    (folder / "metrics.jsonl").write_text('{"epoch":2,"loss":1.0}\n')
    path = folder / "report.html"
    assert call("report", folder, "--quiet") == (0, f"{path}\n", "")
    assert "Not finished: epoch 3 of 10." in read_page(path).text
    done = call("report", folder, "--json", "--quiet")
    assert json.loads(done.out) == {"report": str(path), "bytes": path.stat().st_size}


def test_a_folder_that_is_no_run_is_a_mistake(call, tmp_path):
    done = call("report", tmp_path / "none")
    assert done.code != 0
    assert "none: holds no config.yaml of a run" in done.err
