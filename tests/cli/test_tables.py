"""Tables show every text as it is, whatever it holds, and cut nothing; narrow terminals fold it."""

import io
import re
from pathlib import Path

import pytest
from cli_outcome import Call

import robust_nas.cli
from robust_nas.cli import common

HOSTILE = ["[/x]", "[bold]b[/bold]", "$x_1$", "<b>b</b>", ":smile:", "[link=http://a]b"]
NAMES = [f"d1-1-1.w16-32-8+training.learning_rate={rate}" for rate in ("0.05", "0.1")]


class Terminal(io.StringIO):
    """Standard output that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def columns(text: str) -> list[str]:
    """Return the text of each column of a table, its folded lines joined, without blanks."""
    rows = [line.strip("│┃").replace("┃", "│").split("│") for line in text.splitlines() if line[:1] in "│┃"]
    return ["".join(cells).replace(" ", "") for cells in zip(*rows, strict=True)]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_no_markup(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    common.table(text, ("name", text), [[text, "1"], ["a", text]])
    assert capsys.readouterr().out.count(text) == 4


@pytest.mark.parametrize("text", HOSTILE)
def test_findings_and_reasons_are_no_markup(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    finding = {"status": "FAIL", "name": text, "value": 1.0, "images": 3, "allowed": text, "text": text}
    verdict = {"status": "UNRELIABLE", "findings_version": 2, "reasons": [text], "next_step": text}
    common.show_findings({"findings": [finding], "verdict": verdict})
    assert capsys.readouterr().out.count(text) == 6


@pytest.mark.parametrize("text", HOSTILE)
def test_the_reason_of_a_failed_trial_is_printed_whole(
    text: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = f"{text} " + "r" * 500
    rows = [
        {"trial": "0" * 16, "name": name, "seed": 0, "state": "failed", "seconds": None, "reason": reason}
        for name in [text, *NAMES]
    ]
    monkeypatch.setattr("robust_nas.studies.run.runner.statuses", lambda folder: rows)
    done = call("study", "status", "somewhere")
    assert (done.code, done.err) == (0, "")
    assert done.out.count(reason) == 3
    assert all(done.out.count(name) == 2 for name in NAMES)


def test_off_a_terminal_nothing_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    wide = "w" * 3000
    common.table("title", ("name", "a", "b"), [[name, "1", wide] for name in NAMES])
    out = capsys.readouterr().out
    assert all(name in out for name in NAMES)
    assert out.count(wide) == 2


@pytest.mark.parametrize("width", [60, 80, 110])
def test_a_narrow_terminal_folds_and_cuts_nothing(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    header = (
        "configuration",
        "params",
        "ratio",
        "MACs",
        "ratio",
        "last stage",
        "r_D",
        "trials",
        "training MACs",
    )
    rows = [
        [name, "1,234,567", "1.00", "1,234.56 M", "1.00", "12 %", "0.50", "3", "1.23e+12"] for name in NAMES
    ]
    common.table("title", header, rows)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    wanted = ["".join(cells).replace(" ", "") for cells in zip(header, *rows, strict=True)]
    assert columns(shown) == wanted


def test_one_file_of_the_command_line_prints_with_rich() -> None:
    files = [path for path in Path(robust_nas.cli.__file__).parent.glob("*.py") if path.name != "common.py"]
    assert [path.name for path in files if "rich." in path.read_text(encoding="utf-8")] == []
