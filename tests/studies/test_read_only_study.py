"""A study is shown where nothing may be written."""

from collections.abc import Callable
from pathlib import Path

from cli_outcome import Call
from run_configs import files
from small_study import HereEngine, small_study

import robust_nas


def test_a_study_is_shown_where_nothing_may_be_written(
    tmp_path: Path, call: Call, protect: Callable[[Path], None]
) -> None:
    fixed = tmp_path / "fixed"
    study = small_study(seeds=1, space=[{"name": "grid", "axes": {"width": [8]}}])
    robust_nas.run_study(study, fixed, engine=HereEngine())
    protect(fixed)
    before = files(fixed)
    assert call("study", "status", fixed).code == 0
    done = call("study", "report", fixed, "--quiet")
    assert (done.code, "2 of 2 trials" in done.out) == (0, True), done.err
    assert files(fixed) == before
