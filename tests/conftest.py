"""What every test shares: one hypothesis profile without deadlines, for machines of any speed; and a world without NNI.

With ROBUST_NAS_HIDE_NNI=1 the tests run as if NNI and Lightning were not installed (`scripts/test.sh` does both).
"""

import base64
import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import pytest
from cli_outcome import Call, Outcome
from hypothesis import settings

# Before torch is met, also by the processes that tests start: networks as small as the tests' are several times
# slower in two threads on two busy cores than in one.
for _threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

settings.register_profile("robust_nas", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("robust_nas")

gc.disable()  # what is imported and collected stays to the end: it is looked through once
TESTS = Path(__file__).parent
SLOW = {line.split()[0] for line in (TESTS / "slow.txt").read_text().splitlines()}  # by scripts/slow_tests.py


def pytest_collection_modifyitems(items):
    """Mark the tests of slow files: `-m "not slow"` leaves them out."""
    for item in items:
        if item.path.is_relative_to(TESTS) and item.path.relative_to(TESTS).as_posix() in SLOW:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish():
    """Leave modules and thousands of collected tests out of garbage collection: they stay to the end."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # as often as Python does it takes one second in twenty-five
    gc.enable()


NOTHING = {
    "png": base64.b64decode(  # a picture of one pixel
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg=="
    ),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
}
HIDDEN = {"nni", "pytorch_lightning", "lightning_fabric", "torchmetrics"}


class _Hide(MetaPathFinder):
    """Says of the extra's packages that they are not there."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


if os.environ.get("ROBUST_NAS_HIDE_NNI") == "1":
    sys.meta_path.insert(0, _Hide())


@pytest.fixture(autouse=True, scope="module")
def unrendered():
    """Figures are made and written, but not rendered: that takes longer than the small jobs that they are of.

    The tests of figures and of the report override this fixture; a single test asks for `rendered`.
    """
    from robust_nas.figures import style

    real = {name: getattr(style, name) for name in ("_rendered", "show_literally")}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(style, "_rendered", lambda *_, format="png", **__: NOTHING[format])
        patched.setattr(style, "show_literally", lambda figure: None)  # which makes every tick
        yield real


@pytest.fixture
def rendered(unrendered: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Render figures after all."""
    for name, function in unrendered.items():
        monkeypatch.setattr(f"robust_nas.figures.style.{name}", function)


@pytest.fixture
def without_override() -> Iterator[None]:
    """Let permissions bind root too (Linux): its right to pass over them is dropped inside."""
    if os.geteuid() or not sys.platform.startswith("linux"):
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    before = sets[0]
    sets[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, of the effective ones
    assert libc.capset(header, sets) == 0
    yield
    sets[0] = before
    assert libc.capset(header, sets) == 0


@pytest.fixture
def protect(without_override: None) -> Iterator[Callable[[Path], None]]:
    """Return a call that takes everybody's right to write from a folder and what is in it."""
    fixed: list[Path] = []

    def fix(folder: Path) -> None:
        fixed.extend([folder, *folder.rglob("*")])
        for path in fixed:
            path.chmod(path.stat().st_mode & ~0o222)

    yield fix
    for path in fixed:
        path.chmod(path.stat().st_mode | 0o200)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Runs the console script's entry point in an empty folder."""
    from robust_nas.cli import main  # after NNI was hidden

    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["robust-nas", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture
def short_trainings(monkeypatch):
    """Trainings on common batches may be of 2 steps, and a supernet may be scored on 4 images."""
    from robust_nas.search.ranking import paths, standalone

    monkeypatch.setattr(standalone, "LEAST_STEPS", 2)
    monkeypatch.setattr(paths, "LEAST_IMAGES", 4)
