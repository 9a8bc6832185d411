"""Write tests/slow.txt, the files that `scripts/test.sh --fast` leaves out, from the times of a complete run.

    scripts/test.sh --junitxml=times.xml && .venv/bin/python scripts/slow_tests.py times.xml

The files that take longest are left out until the others fit into `SECONDS` of two processes.
"""

import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree as ET

SECONDS = (
    2 * 130
)  # of tests in two processes; lint, types and the start of both take the rest of four minutes
TESTS = Path(__file__).resolve().parents[1] / "tests"


def seconds_by_file(report: Path) -> dict[str, float]:
    """Return the seconds that the tests of every file took together."""
    found: defaultdict[str, float] = defaultdict(float)
    files = {
        ".".join(path.relative_to(TESTS.parent).with_suffix("").parts): path
        for path in TESTS.rglob("test_*.py")
    }
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - our own report
        name = case.attrib["classname"]
        if name in files:
            found[files[name].relative_to(TESTS).as_posix()] += float(case.attrib["time"])
    return found


def main() -> None:
    """Write the list."""
    seconds = seconds_by_file(Path(sys.argv[1]))
    left = sum(seconds.values())
    slow = []
    for name, taken in sorted(seconds.items(), key=lambda item: -item[1]):
        if left <= SECONDS:
            break
        slow.append(f"{name} {taken:.0f}\n")
        left -= taken
    (TESTS / "slow.txt").write_text("".join(sorted(slow)))
    print(f"{len(slow)} files are left out by --fast; the others take {left:.0f} s in one process")


if __name__ == "__main__":
    main()
