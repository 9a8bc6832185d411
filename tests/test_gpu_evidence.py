"""The parts of `scripts/gpu_evidence.sh`: in order, each with its own file, none stopped by another, in the budget."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
# In the place of Python: notes what it is asked to run; the attacks fail.
STUB = """#!/bin/sh
case "$1" in -c) exit 0 ;; esac
echo "$*" >> "$CALLS"
case "$1" in *bench_attacks*) echo "no such library" >&2; exit 3 ;; *) echo "| a table |" ;; esac
"""


def run(tmp_path: Path, *words: str, **variables: str) -> tuple[int, list[str], Path]:
    stub, calls, out = tmp_path / "python", tmp_path / "calls", tmp_path / "out"
    stub.write_text(STUB)
    stub.chmod(0o755)
    calls.touch()
    environment = {**os.environ, "EVIDENCE_PYTHON": str(stub), "CALLS": str(calls), **variables}
    command = ["bash", str(ROOT / "scripts" / "gpu_evidence.sh"), "--out", str(out), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, calls.read_text().splitlines(), out


def test_every_part_has_its_own_file_and_a_failure_stops_no_other(tmp_path: Path) -> None:
    status, calls, out = run(tmp_path, "--dry-run")
    assert status == 1
    scripts = [Path(call.split()[0]).name for call in calls if "bench_search.py fashion" not in call]
    assert scripts == [
        "bench_training.py",
        "bench_supernet.py",
        "bench_attacks.py",
        "bench_search.py",
        "bench_training.py",
        "bench_supernet.py",
        "bench_supernet.py",
        "-m",
        "evidence.py",
    ]
    (published,) = [call for call in calls if call.startswith("-m robust_nas search")]
    assert " search.controls=1 " in published
    assert published.endswith(f"--seeds 2 --out {out / 'published-search'}")
    parts = sorted(out.glob("[0-9]*.md"))
    assert len(parts) == 10  # with Fashion-MNIST, or why it is skipped
    report = (out / "report.md").read_text()
    assert all(part.read_text() in report for part in parts)
    assert "| a table |" in parts[0].read_text()
    failed = next(part for part in parts if "attacks" in part.name).read_text()
    assert "FAILED, exit status 3" in failed
    assert "no such library" in failed
    assert "**Missing.**" in failed


def test_parts_that_the_budget_has_no_room_for_are_skipped_in_words(tmp_path: Path) -> None:
    status, calls, out = run(tmp_path, "--dry-run", BUDGET_S="20")
    assert (status, calls) == (0, [])
    assert (out / "report.md").read_text().count("**Skipped**") == 10


def test_without_images_the_other_parts_run_and_no_budget_but_seconds_is_taken(tmp_path: Path) -> None:
    status, calls, out = run(tmp_path)
    assert status == 1
    assert not any("evidence.py" in call or "dsara-cifar10" in call for call in calls)
    assert (out / "report.md").read_text().count("no image folder of CIFAR-10 was given") == 3
    assert run(tmp_path, BUDGET_S="12m")[0] == 2
