"""The strategies of `robust-nas search`: NNI's on real digits, and what is said where NNI is not installed."""

import json
import sys
from pathlib import Path

import pytest
from cli_outcome import Call

from robust_nas import integrations, load_architecture, load_config
from robust_nas.cli.search import _show
from robust_nas.search import DARTS
from robust_nas.spaces import load_space
from robust_nas.workflows.search_job import SearchResult


def test_the_command_line_searches_digits_adversarially(call: Call) -> None:
    pytest.importorskip("nni")
    pytest.importorskip("pytorch_lightning")
    arguments = (
        *("search", "quickstart", "--strategy", "nni:darts", "--out", "found", "--json", "--quiet"),
        *("search.epochs=1", "search.channels=2", "search.batch_size=50", "data.limit=260"),
        "space.changes.nodes=2",
    )
    done = call(*arguments)
    assert (done.code, done.err) == (0, "")
    record = json.loads(done.out)
    assert record["params"] > 0
    folder = Path("found")
    config = (folder / "config.yaml").read_text()
    assert "\n  name: nni\n" in config
    assert "\n  strategy: darts\n" in config
    assert "name: fgsm-rs" in config
    architecture = load_architecture(folder)
    assert (architecture.layout, architecture.channels) == (load_space("dsara").layout, 16)
    alphas = json.loads((folder / "alphas.json").read_text())
    assert alphas["operations"] == list(load_space("dsara").operations)
    assert [len(row) for row in alphas["sources"]["robust"]] == [2, 3]
    assert all((folder / name).exists() for name in record["artifacts"])
    again = call(*arguments, "--resume")
    assert json.loads(again.out) == record
    assert call(*arguments).code == 2


TINY = (
    *("search", "quickstart", "--quiet", "search.epochs=1", "search.stage1_epochs=0", "search.channels=2"),
    *("search.batch_size=20", "data.limit=100", "space.changes.nodes=1"),
)


def test_a_search_ends_with_its_findings_and_the_word(call: Call) -> None:
    done = call(*TINY, "--out", "found", "search.seeds=2")
    verdict = json.loads(Path("found/verdict.json").read_text())
    assert done.code == 0
    assert f"verdict on the search: {verdict['status']}\n" in done.out
    assert done.out.count("search --resume found search.controls=3") >= 1
    for finding in verdict["findings"]:
        assert f"{finding['status']:<8} {finding['name']}" in done.out
        assert finding["status"] == "PASS" or f"{finding['name']}: {finding['text']}" in done.out
    assert "edges shared between two seeds" in done.out
    again = call("search", "--resume", "found", "--quiet", "--json")
    record = json.loads(again.out)
    assert record["verdict"] == verdict
    assert len(record["per_seed"]) == 2
    assert record["fitness"]["images"] == 45


def test_mistakes_in_what_follows_a_search_are_bad_usage(call: Call) -> None:
    for override, message in (
        ("search.seeds=0", "search.seeds: got 0"),
        (
            "search.short_trainings=2",
            "search.short_trainings: got 2; the interval of a rank correlation needs 6",
        ),
    ):
        done = call(*TINY, override)
        assert done.code == 2
        assert message in done.err
        assert not Path("results/quickstart-search").exists()


def test_a_search_by_nni_without_it_is_bad_usage_and_leaves_nothing(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "robust_nas.integrations.nni", raising=False)
    monkeypatch.delattr(integrations, "nni", raising=False)
    monkeypatch.setitem(sys.modules, "nni", None)
    for name in [name for name in sys.modules if name.startswith("nni.")]:
        monkeypatch.delitem(sys.modules, name)
    done = call("search", "quickstart", "--strategy", "nni:darts", "--quiet")
    assert done.code == 2
    assert "pip install 'robust-nas[nni]'" in done.err
    assert list(Path("results").iterdir()) == []


def test_a_config_of_an_nni_search_is_checked_and_printed_without_nni(call: Call, tmp_path: Path) -> None:
    done = call("search", "quickstart", "--strategy", "nni:gumbel-darts", "search.epochs=2", "--print-config")
    assert (done.code, done.err) == (0, "")
    (tmp_path / "mine.yaml").write_text(done.out)
    assert load_config(tmp_path / "mine.yaml").search.strategy == "gumbel-darts"


def test_a_search_that_stopped_early_says_of_which_epoch_its_result_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"seed": 0, "loss_adversarial": 1.5, "params": 1, "macs": 1, "skips": {"robust": 1}, "seconds": 2.0,
              "stopped": {"reason": "the robust cell has 3 skip connections", "at": 6, "epoch": 5}}  # fmt: skip
    found = SearchResult(tmp_path, load_architecture("arnas"), record)
    _show("tiny", found, DARTS.criterion)
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "stopped after epoch 7: the robust cell has 3 skip connections; the result is that of epoch 6" in text
    )
