"""The reference of a run: the same files by one process or two; what is refused, and what a failure leaves."""

import json

import pytest
from cases import config
from pages import read_page

import robust_nas
from robust_nas.errors import ArchitectureError, CompressionError, ConfigError, RunError, RunExistsError
from robust_nas.run_folder import is_finished
from robust_nas.workflows import pipeline, reference
from robust_nas.workflows.run_job import RunJob

QUICK = ("reference=wrn-10-1", "evaluation.images=10", "evaluation.findings=none")
GDWS = "compression={gdws: {budgets: [0.5], alpha: null, refit: 0}, max_loss: 0.9}"


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "run"
    return folder, robust_nas.run(config(*QUICK, GDWS), folder)


def untimed(path):
    """Return a record without seconds."""

    def without(tree):
        if isinstance(tree, dict):
            return {key: without(value) for key, value in tree.items() if "seconds" not in key}
        return [without(each) for each in tree] if isinstance(tree, list) else tree

    return without(json.loads(path.read_text()))


def test_what_is_compressed_is_the_reference_and_the_summary_has_all_networks(one_process):
    folder, summary = one_process
    found, known, small = summary["networks"]
    assert [one["label"] for one in (found, known, small)] == ["found", "reference", "compressed"]
    assert (known["network"], small["network"]) == ("wrn-10-1", "gdws-0.5")
    assert found["robust"] == summary["robust"]
    assert known["params"] == sum(
        p.numel() for p in robust_nas.load_model(folder / "reference/model").parameters()
    )
    assert small["macs"] < 0.51 * known["macs"]
    assert small["bytes"] == (folder / "compressed/model/model.safetensors").stat().st_size
    compressed = json.loads((folder / "compressed/compression.json").read_text())
    assert compressed["model"] == "../reference/model"
    original = next(row for row in compressed["networks"] if row["label"] == "original")
    assert original["test"]["robust"]["accuracy"] == known["robust"]
    page = read_page(folder / "report.html").text
    assert all(words in page for words in ("The networks", "wrn-10-1", "gdws-0.5"))


def test_a_second_process_makes_the_same_files(one_process, tmp_path):
    folder, _ = one_process
    said = []
    summary = robust_nas.run(
        config(*QUICK, "workers=2"), tmp_path / "run", progress=lambda job, *_: said.append(job)
    )
    assert "reference" in said
    assert [one["label"] for one in summary["networks"]] == ["found", "reference"]
    for name in ("model/model.safetensors", "reference/model/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (folder / name).read_bytes()
    assert untimed(tmp_path / "run/reference/evaluation/evaluation.json") == untimed(
        folder / "reference/evaluation/evaluation.json"
    )
    assert not list((tmp_path / "run").rglob("reference*.log"))
    assert [path.parent for path in (tmp_path / "run").rglob("report.html")] == [tmp_path / "run"]


def test_a_reference_that_fails_costs_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "FUNCTION", "robust_nas.workflows.reference:no_such_function")
    run = config(*QUICK, "workers=2")
    with pytest.raises(RunError, match=r"reference: AttributeError: .*no_such_function.*--resume"):
        robust_nas.run(run, tmp_path / "run")
    assert is_finished(tmp_path / "run/evaluation")
    assert not is_finished(tmp_path / "run")
    robust_nas.run(config(*QUICK), tmp_path / "run", mode="resume")
    assert is_finished(tmp_path / "run/reference/evaluation")


def test_a_search_that_fails_ends_the_second_process(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RunError("the search failed")

    run = config(*QUICK, "workers=2")
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "find_architecture", fail)
        with pytest.raises(RunError, match="the search failed"):
            robust_nas.run(run, tmp_path / "run")
    robust_nas.run(config(*QUICK), tmp_path / "run", mode="resume")  # nobody is left in the folder


@pytest.mark.parametrize(
    ("overrides", "error", "match"),
    [
        (["reference=wrn-10"], ArchitectureError, "reference: .*wrn-10"),
        (
            ["training.auxiliary_weight=0.4", "network.cells=8"],
            ConfigError,
            "training.auxiliary_weight: got 0.4",
        ),
        ([GDWS.replace("0.5", "0.0001")], CompressionError, "the reference wrn-10-1: macs: got 0.0001"),
        (["network.particles=2", "reference=no_such.yaml"], ArchitectureError, "reference: .*no_such.yaml"),
    ],
)
def test_what_cannot_be_a_reference_is_refused_before_anything_is_written(tmp_path, overrides, error, match):
    run = config(*QUICK, *overrides)
    with pytest.raises(error, match=match):
        robust_nas.run(run, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_another_reference_is_another_run(one_process):
    folder, _ = one_process
    with pytest.raises(RunExistsError, match="different: reference"):
        robust_nas.run(config(*QUICK, GDWS, "reference=wrn-10-2"), folder, mode="resume")
    assert "reference" in (folder / "config.yaml").read_text()
    plain = RunJob.of(config())
    assert "reference" not in plain.model_dump(mode="json")
