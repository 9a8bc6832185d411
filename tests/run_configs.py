"""A small config of a run, what its folder holds, and code run in another process."""

import subprocess
import sys
import textwrap

from robust_nas.config import Options


class Inner(Options):
    rate: float = 0.1


class Config(Options):
    name: str = "x"
    seed: int = 0
    inner: Inner = Inner()


def files(folder):
    """Every file of a folder with its content, but for the lock."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def child(code, *arguments):
    """Runs Python code in another process and returns its output."""
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout
