"""Live reports: the page of a run that works, which a browser reads again, at a bounded cost and without an effect."""

import json
import re

import pytest
from cases import config
from pages import read_page
from run_configs import files

import robust_nas
from robust_nas.errors import RecordWarning
from robust_nas.stages import Stage
from robust_nas.workflows.config import model_config
from robust_nas.workflows.evaluate import run_evaluation
from robust_nas.workflows.report import live, write
from robust_nas.workflows.report.at_end import reporting
from robust_nas.workflows.report.live import LiveReport, following

TINY = robust_nas.ResidualArchitecture(name="tiny", stem=4, depths=(1, 1), widths=(4, 8))
REFRESH = ("meta", "http-equiv", "refresh")


def follow(monkeypatch, folder, stop=None):
    """A context of a live report written at every step, and the pages after each; `stop` (a job) is interrupted."""
    monkeypatch.setattr(live, "SHARE", 0)
    pages = []

    def seen(job, done, total, note=""):
        if (path := folder / "report.html").is_file():
            pages.append(read_page(path))
            if job == stop:
                raise KeyboardInterrupt

    return following(seen, seconds=0), pages


def training(tmp_path, **more):
    return robust_nas.train(config("data.limit=100", "training.epochs=2"), TINY, tmp_path / "model", **more)


def test_the_page_of_a_training_follows_it_and_changes_nothing(tmp_path, monkeypatch):
    context, pages = follow(monkeypatch, tmp_path / "live" / "model")
    with context as progress:
        training(tmp_path / "live", progress=progress)
    training(tmp_path / "quiet")
    assert len(pages) > 2
    assert all(REFRESH in page.attributes for page in pages)
    assert "Running: no step is recorded." in pages[0].text
    assert "Running: epoch 1 of 2." in pages[-1].text
    assert "So far epoch 1 of 2 is the best" in pages[-1].text
    assert "train 3 of 4, epoch 2/2" in pages[-1].text
    last = read_page(tmp_path / "live" / "model" / "report.html")
    assert REFRESH not in last.attributes
    assert "of 2 is kept" in last.text
    assert "Running" not in last.text
    live_files, quiet_files = (files(tmp_path / name / "model") for name in ("live", "quiet"))
    assert live_files.keys() == quiet_files.keys()
    for name in ("model.safetensors", "config.yaml"):
        assert live_files[name] == quiet_files[name]


def test_a_run_that_failed_says_how_to_continue_it(tmp_path, monkeypatch):
    context, _ = follow(monkeypatch, tmp_path / "model", stop="train")
    with pytest.raises(KeyboardInterrupt), context as progress:
        training(tmp_path, progress=progress)
    page = read_page(tmp_path / "model" / "report.html")
    assert REFRESH not in page.attributes
    assert "Not finished: no step is recorded." in page.text
    assert "Continue it by" in page.text
    assert "--resume" in page.text


def test_an_evaluation_that_was_stopped_shows_its_accuracy_so_far(tmp_path):
    model = training(tmp_path)
    changes = ["evaluation.images=12", "evaluation.batch_size=4", "evaluation.findings=none"]
    chosen = model_config(model, changes)
    label = chosen.evaluation.steps[0].attack.label

    def stopped(job, done, total, note=""):
        if job == f"evaluate: {label}" and done > 40:
            raise KeyboardInterrupt

    whole = run_evaluation(chosen, model, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_evaluation(chosen, model, tmp_path / "part", progress=stopped)
    page = read_page(robust_nas.write_report(tmp_path / "part"))
    clean = 100 * whole["clean"]["accuracy"]
    assert re.search(rf"So far [\d.]+ % \[[\d., ]+\] of 12 test images are right .* {clean:.1f} %", page.text)
    assert f"{label} " in page.text
    assert "damaged" not in page.text.lower()


def test_all_batches_of_the_attacks_give_the_accuracy_of_the_record(tmp_path):
    model = training(tmp_path)
    tree = run_evaluation(
        model_config(model, ["evaluation.images=12", "evaluation.batch_size=4", "evaluation.findings=none"]),
        model,
        tmp_path / "evaluation",
    )
    for name in ("result.json", "evaluation.json"):
        (tmp_path / "evaluation" / name).unlink()
    text = read_page(robust_nas.write_report(tmp_path / "evaluation")).text
    assert f"So far {100 * tree['robust']['accuracy']:.1f} %" in text
    for attack in tree["attacks"]:
        assert not attack["attacked"] or f"{attack['broken']} of {attack['attacked']}" in text


class Clock:
    """A clock that stands still but for the reports, which take `cost` seconds."""

    def __init__(self, monkeypatch, cost):
        self.now, self.written = 0.0, []

        def report(folder, shown):
            self.written.append(self.now)
            self.now += cost

        monkeypatch.setattr(write, "write_run_report", report)

    def __call__(self):
        return self.now


@pytest.mark.parametrize(("cost", "pause"), [(0.1, 30.0), (2.0, 100.0)])
def test_reports_are_due_after_a_pause_and_take_a_fiftieth_at_most(tmp_path, monkeypatch, cost, pause):
    clock = Clock(monkeypatch, cost)
    shown = LiveReport(lambda *call: None, 30.0, clock=clock)
    shown.start(tmp_path)
    for _ in range(1000):
        shown("train", 1, 2)
        clock.now += 1.0
    assert clock.written[0] == 0.0
    pauses = [after - before - cost for before, after in zip(clock.written, clock.written[1:], strict=False)]
    assert len(pauses) > 5
    assert all(pause - 1e-9 <= each <= pause + 1 for each in pauses)


def test_calls_are_passed_on_and_the_jobs_that_follow_are_named(tmp_path, monkeypatch):
    calls, pages = [], []
    monkeypatch.setattr(write, "write_run_report", lambda folder, shown: pages.append(shown.jobs))
    shown = LiveReport(lambda *call: calls.append(call))
    shown.plan([Stage("search"), Stage("train"), Stage("reference")])
    shown.start(tmp_path)
    shown("search", 3, 9, "epoch 1")
    assert calls == [("search", 3, 9, "epoch 1")]
    assert pages == [[("search", "3 of 9, epoch 1"), ("train", ""), ("reference", "")]]


def test_a_report_that_fails_is_one_warning_and_the_run_goes_on(tmp_path, monkeypatch):
    def fails(folder, shown=None):
        raise OSError("full")

    monkeypatch.setattr(live, "SHARE", 0)
    monkeypatch.setattr(write, "write_run_report", fails)
    shown = LiveReport(lambda *call: None, 0.0)
    shown.start(tmp_path)
    with pytest.warns(RecordWarning, match="is not written: OSError: full"):
        shown("train", 0, 3)
    shown("train", 1, 3)  # a second warning would be an error
    with pytest.raises(KeyboardInterrupt), following(print, 0), reporting(tmp_path):
        raise KeyboardInterrupt  # nothing was written, and nothing is


def test_the_option_names_the_page(call, tmp_path, monkeypatch):
    options = [
        "device=cpu",
        "threads=1",
        "method.kernel={name: linear}",
        "method.per_class=1",
        "method.steps=4",
    ]
    options += ["method.batch_size=20", "method.validate_every=2", "data.limit=100", "data.validation=0.2"]
    done = call("distill", "quickstart", *options, "--out", tmp_path / "set", "--live", "--json", "--quiet")
    assert f"live report: {tmp_path / 'set' / 'report.html'}" in done.err
    assert json.loads(done.out)["folder"] == str(tmp_path / "set")
    assert REFRESH not in read_page(tmp_path / "set" / "report.html").attributes
