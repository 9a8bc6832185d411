"""The live report of a study: of the trials that are done, and read again until the last one has ended."""

from pathlib import Path

import pytest
from pages import Page, read_page
from small_study import HereEngine, small_study

from robust_nas.studies.run.runner import run_study
from robust_nas.workflows.report.live import following


def test_a_live_report_is_of_the_trials_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, path = tmp_path / "study", tmp_path / "study" / "report.html"
    monkeypatch.setattr("robust_nas.studies.report.page.illustrate", lambda tree, folder, own: ())
    monkeypatch.setattr("robust_nas.workflows.report.live.SHARE", 0)
    pages: list[Page | None] = []

    def seen(job: str, done: int, total: int, note: str = "") -> None:
        pages.append(read_page(path) if path.is_file() else None)

    with following(seen, seconds=0) as progress:
        run_study(small_study(seeds=[0]), folder, engine=HereEngine(), progress=progress)
    assert pages[0] is pages[1] is None  # no trial was done
    shown = [page.text for page in pages[2:5] if page is not None]
    assert ["1 of 4 planned" in shown[0], "2 of 4 planned" in shown[1], "3 of 4 planned" in shown[2]] == [
        True
    ] * 3
    assert all("while the run works" in text for text in shown)
    last = read_page(path)
    assert "4 of 4 planned" in last.text
    assert ("meta", "http-equiv", "refresh") not in last.attributes
    assert not list(folder.glob("trials/**/report.html"))
