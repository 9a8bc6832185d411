"""All jobs on a tiny config: what each step leaves, what the summary says, what is refused."""

import json
import shutil
import warnings

import pytest
import torch
from cases import config
from pages import read_page

import robust_nas
from robust_nas import figures
from robust_nas.config import ConfigError
from robust_nas.errors import AttackError, DataError, FigureWarning, RunExistsError
from robust_nas.evaluation.verdict import FINDINGS_VERSION
from robust_nas.figures import evaluation_bars
from robust_nas.run_folder import Run, is_complete, is_finished
from robust_nas.workflows import pipeline, search
from robust_nas.workflows.config import CompressionConfig, model_config
from robust_nas.workflows.context import load_context


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, its summary, and what was told on the way."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    told, warnings = [], []
    threads = torch.get_num_threads()
    summary = robust_nas.run(config(), folder, progress=lambda *args: told.append(args), warn=warnings.append)
    assert torch.get_num_threads() == threads
    return folder, summary, told, warnings


def test_the_report_is_in_the_folder(finished):
    folder, summary, _, _ = finished
    page = read_page(folder / "report.html")
    assert f"keeps {100 * summary['robust']:.1f} % of the test images" in page.text
    assert "Training (model)" in page.text
    assert "Evaluation (evaluation)" in page.text
    assert not (folder / "model" / "report.html").exists()
    assert "Damaged" not in page.text


def test_the_summary_says_what_was_reached_and_how(finished):
    folder, summary, _, _ = finished
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert 0 <= summary["robust"] <= 1
    assert 0 <= summary["clean"] <= 1
    assert summary["attack"] == "fgsm + pgd-2"
    assert summary["verdict"] in ("INCONCLUSIVE", "UNRELIABLE")  # attacks with fixed steps carry no claim
    assert summary["findings_version"] == FINDINGS_VERSION
    assert (summary["norm"], summary["eps"], summary["seed"]) == ("linf", 0.1, 5)
    assert (summary["images"], summary["images_clean"]) == (20, 360)
    assert summary["seconds"] > 0
    assert summary["seconds"] == pytest.approx(sum(summary["seconds_per_step"].values()), abs=0.2)
    assert all((folder / path).exists() for path in summary["artifacts"].values())
    assert not any(path.startswith(("/", "..")) for path in summary["artifacts"].values())


def test_its_cost_is_that_of_the_model_in_the_folder(finished):
    folder, summary, _, _ = finished
    model = robust_nas.load_model(folder / "model")
    assert summary["params"] == sum(p.numel() for p in model.parameters())
    architecture = robust_nas.load_architecture(folder / "search" / "architecture.yaml")
    assert (architecture.cells, architecture.channels) == (4, 2)
    cost = robust_nas.count(architecture, (1, 8, 8), 10)
    assert (summary["params"], summary["macs"]) == (cost.params, cost.macs)


def test_the_folder_records_what_the_result_depends_on(finished):
    folder, _, _, _ = finished
    for part in ("search", "model", "evaluation"):
        found = json.loads((folder / part / "environment.json").read_text())
        assert len(found["dataset_checksum"]) == 64
        assert found["images"] == {"train": 100, "test": 360}
        assert (found["device"], found["threads"]) == ("cpu", 1)
        assert found["splits"]["seed"] == 5
    mixing = json.loads((folder / "search" / "alphas.json").read_text())
    for rows in mixing["softmax"].values():
        assert all(sum(row) == pytest.approx(1, abs=1e-5) for row in rows)


def test_progress_counts_to_the_end_of_every_job(finished):
    _, _, told, _ = finished
    last = {job: (done, total) for job, done, total, *_ in told}
    assert {"search", "train", "evaluate: clean", "evaluate: fgsm"} <= last.keys()
    for job in ("search", "train", "evaluate: clean"):
        assert last[job][0] == last[job][1]
    assert all(0 <= done <= total for done, total in last.values())


def test_a_finished_run_resumes_to_its_summary_without_computing(finished):
    folder, summary, _, _ = finished
    before = {
        path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    }
    told = []
    again = robust_nas.run(config(), folder, mode="resume", progress=lambda *args: told.append(args))
    assert again == summary
    assert told == []
    after = {path: path.stat().st_mtime_ns for path in before}
    assert after == before


def test_a_run_whose_last_step_is_missing_computes_that_alone(finished):
    folder, summary, _, _ = finished
    for name in ("summary.json", "result.json"):
        (folder / name).unlink()
    told = []
    again = robust_nas.run(config(), folder, mode="resume", progress=lambda *args: told.append(args))
    assert told == []
    assert {**again, "seconds_this_call": 0} == {**summary, "seconds_this_call": 0}


def test_a_run_is_not_repeated_in_its_folder_nor_resumed_with_another_config(finished):
    folder, _, _, _ = finished
    with pytest.raises(RunExistsError, match="--resume"):
        robust_nas.run(config(), folder)
    with pytest.raises(RunExistsError, match=r"different: search\.epochs"):
        robust_nas.run(config("search.epochs=3"), folder, mode="resume")


@pytest.mark.parametrize(
    "change", ["threads=auto", "checkpoint_seconds=0", "device=auto", "figures=[training, eps-curve]"]
)
def test_a_run_is_known_by_what_its_result_depends_on(finished, tmp_path, change):
    folder, summary, _, _ = finished
    if torch.cuda.is_available() and change.startswith("device"):
        pytest.skip("auto is another device")
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "result.json").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FigureWarning)  # this evaluation has no eps curve
        again = robust_nas.run(config(change), copy, mode="resume")
        finished_again = robust_nas.run(config(change), copy, mode="resume")
    assert finished_again == again
    assert {**again, "seconds_this_call": 0} == {**summary, "seconds_this_call": 0}


def test_the_run_of_a_version_that_kept_the_whole_config_is_continued(finished, tmp_path):
    folder, summary, _, _ = finished
    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.move(copy / "recipe.yaml", copy / "config.yaml")
    again = robust_nas.run(config(), copy, mode="resume")
    assert {**again, "seconds_this_call": 0} == {**summary, "seconds_this_call": 0}
    with pytest.raises(RunExistsError, match=r"different: search\.epochs\."):
        robust_nas.run(config("search.epochs=3"), copy, mode="resume")


@pytest.mark.parametrize("other", ["seed=6", "data.limit=90", "data.validation=0.3"])
def test_a_context_of_other_images_is_refused_by_every_verb(finished, tmp_path, other):
    folder, _, _, _ = finished
    context, architecture = load_context(config(other)), robust_nas.load_architecture("wrn-10-1")
    compression = CompressionConfig.of(config("compression.gdws.budgets=[0.9]"))
    for call in (
        lambda out: robust_nas.run_search(config(), out, context=context),
        lambda out: robust_nas.run_search(config(), out, seeds=2, context=context),
        lambda out: robust_nas.train(config(), architecture, out, context=context),
        lambda out: robust_nas.run_evaluation(config(), folder / "model", out, context=context),
        lambda out: robust_nas.compress(compression, folder / "model", out, context=context),
    ):
        with pytest.raises(ConfigError, match=f"context: was loaded for {other.partition('=')[0][:4]}"):
            call(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_is_counted_at_its_own_input_size(finished, call):
    folder, summary, _, _ = finished
    places = (folder, folder / "model", folder / "search", folder / "search" / "architecture.yaml")
    for row in json.loads(call("count", *places, "--json").out):
        assert (row["params"], row["macs"]) == (summary["params"], summary["macs"])


def test_the_bars_of_the_figure_are_clean_every_attack_and_the_worst_case(finished):
    folder, summary, _, _ = finished
    tree = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    bars = evaluation_bars(tree)
    assert [bar["label"] for bar in bars] == ["clean", "+ fgsm", "+ pgd-2", "worst case"]
    assert all(bar["low"] <= bar["accuracy"] <= bar["high"] for bar in bars)
    assert (bars[0]["accuracy"], bars[-1]["accuracy"]) == (summary["clean"], summary["robust"])


def test_an_export_or_a_figure_that_fails_does_not_cost_the_jobs_before_it(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise ZeroDivisionError("no text")

    monkeypatch.setattr(pipeline, "export_model", fails)
    monkeypatch.setattr(search, "draw_architecture", fails)
    monkeypatch.setattr(figures, "plot_training", fails)
    warnings = []
    with pytest.warns(FigureWarning) as warned:
        summary = robust_nas.run(config(), tmp_path / "run", warn=warnings.append)
    for name in ("cells", "training"):
        assert any(f"'{name}' is not drawn: ZeroDivisionError: no text" in str(one.message) for one in warned)
    assert not {"cells", "training_curves"} & set(summary["artifacts"])
    reason = "model: ZeroDivisionError: no text; robust-nas export tries this folder again"
    assert summary["not_exported"] == [reason]
    assert f"not exported: {reason}" in warnings
    assert "export" not in summary["artifacts"]
    for one in ("search", "model"):
        assert is_finished(tmp_path / "run" / one)
    monkeypatch.undo()
    results = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.safetensors")}
    assert robust_nas.run(config(), tmp_path / "run", mode="resume") == summary  # it is finished
    assert all(is_complete(tmp_path / "run" / one) for one in ("search", "model"))  # what failed is drawn
    assert {path: path.read_bytes() for path in results} == results


@pytest.mark.parametrize(("validation", "key"), [(0.7, "search.batch_size"), (0.9, "training.batch_size")])
def test_a_batch_of_one_image_is_refused_before_a_folder_is_touched(tmp_path, validation, key):
    old = tmp_path / "old"
    few = config(
        "data.limit=10", f"data.validation={validation}"
    )  # leaves 3 images, of which one half has 1; or 1
    calls = {
        "search.batch_size": lambda out, mode: robust_nas.run_search(few, out, mode=mode),
        "training.batch_size": lambda out, mode: robust_nas.train(
            few, robust_nas.MLPArchitecture(name="m", depth=1, width=4), out, mode=mode
        ),
    }
    Run(old, few).close()
    for call in (calls[key], lambda out, mode: robust_nas.run(few, out, mode=mode)):
        with pytest.raises(
            ConfigError, match=r"batch_size: the batch has [01] images?; at least 2 are needed"
        ):
            call(tmp_path / "new", "new")
        assert not (tmp_path / "new").exists()
        with pytest.raises(ConfigError, match="at least 2 are needed"):
            call(old, "overwrite")
        assert (old / "config.yaml").is_file()


def test_what_is_probably_not_meant_is_warned_of(finished, tmp_path):
    assert not any("eps" in warning for warning in finished[3])
    warnings = []
    other = config(
        "search.attack.eps=0.25", "training.validation_attack.eps=8/255", "evaluation.attacks.0.images=8"
    )
    robust_nas.run(other, tmp_path / "run", warn=warnings.append)
    for key, eps in (("search.attack", "0.25"), ("training.validation_attack", "8/255")):
        said = (
            f"{key} attacks with eps {eps}, the evaluation with 0.1; set {key}.eps=0.1 unless that is meant"
        )
        assert said in warnings


def test_repeated_searches_report_their_spread_and_choose_by_the_adversarial_loss(tmp_path):
    found = robust_nas.run_search(config(), tmp_path / "seeds", seeds=2)
    record = found.record
    assert [one["seed"] for one in record["per_seed"]] == [5, 6]
    losses = [one["loss_adversarial"] for one in record["per_seed"]]
    assert record["chosen_seed"] == [5, 6][losses.index(min(losses))]
    assert all({"params", "macs", "skips", "seconds"} <= one.keys() for one in record["per_seed"])
    assert len(record["edges_shared_between_pairs"]) == 1
    assert 0 <= record["edges_shared_between_pairs"][0] <= 1
    alone = robust_nas.run_search(config("seed=6"), tmp_path / "alone")
    assert alone.record["loss_adversarial"] == losses[1]
    again = robust_nas.run_search(config(), tmp_path / "seeds", seeds=2, mode="resume")
    assert again.record == record
    with pytest.raises(RunExistsError, match="got 1, it has 2"):
        robust_nas.run_search(config(), tmp_path / "seeds", seeds=1, mode="resume")
    with pytest.raises(ConfigError, match="seeds: got 0"):
        robust_nas.run_search(config(), tmp_path / "none", seeds=0)


@pytest.fixture
def folder_of_images(tmp_path):
    """Ten classes of 8x8 colour images, two in each."""
    from PIL import Image

    for part in ("train", "test"):
        for label in range(10):
            (tmp_path / "images" / part / str(label)).mkdir(parents=True)
            for index in range(2):
                Image.new("RGB", (8, 8), (label, index, 9 * (part == "test"))).save(
                    tmp_path / "images" / part / str(label) / f"{index}.png"
                )
    return tmp_path / "images"


def test_a_model_is_not_judged_on_images_of_another_shape(finished, folder_of_images, tmp_path):
    other = config("data.name=image-folder", f"data.path={folder_of_images}", "data.limit=null")
    with pytest.raises(ConfigError, match=r"takes images of shape \(1, 8, 8\), image-folder has \(3, 8, 8\)"):
        robust_nas.run_evaluation(other, finished[0] / "model", tmp_path / "evaluation")
    assert not (tmp_path / "evaluation" / "evaluation.json").exists()


def test_an_evaluation_is_not_resumed_for_a_model_trained_anew(finished, tmp_path):
    folder, summary, _, _ = finished
    architecture = robust_nas.load_architecture(folder / "search" / "architecture.yaml")
    model = robust_nas.train(config(), architecture, tmp_path / "model")
    tree = robust_nas.run_evaluation(config(), model, tmp_path / "evaluation")
    assert tree["clean"]["accuracy"] == summary["clean"]  # the same seed trains the same model
    robust_nas.train(config("seed=6"), architecture, model, mode="overwrite")
    with pytest.raises(RunExistsError, match="different: digest"):
        robust_nas.run_evaluation(config(), model, tmp_path / "evaluation", mode="resume")


def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"device: got 'cuda:99'; this torch sees \d+ GPUs"):
        robust_nas.run_search(config("device=cuda:99"), tmp_path / "run")


def test_the_search_never_sees_the_validation_split():
    context = load_context(config())
    dataset, images, validation = context.dataset, context.images, context.validation
    seen, held_out = ({pixels.numpy().tobytes() for pixels in part.pixels} for part in (images, validation))
    every = {pixels.numpy().tobytes() for pixels in dataset.train.pixels}
    assert len(images) + len(validation) == len(dataset.train)
    assert seen | held_out == every
    assert not seen & held_out


def test_changed_images_are_refused_when_a_run_is_resumed(tmp_path):
    chosen = config()
    robust_nas.run_search(chosen, tmp_path / "search")
    record = json.loads((tmp_path / "search" / "environment.json").read_text())
    (tmp_path / "search" / "environment.json").write_text(json.dumps({**record, "dataset_checksum": "other"}))
    (tmp_path / "search" / "result.json").unlink()
    with pytest.raises(DataError, match="was started on other images"):
        robust_nas.run_search(chosen, tmp_path / "search", mode="resume")


def test_an_attack_that_is_for_another_model_is_refused_before_the_search(tmp_path):
    """What a run trains has no defence, of which `unaware` could attack the network."""
    listed = "evaluation.attacks=[{attack: {name: unaware, attack: {name: pgd, steps: 1}}}]"
    with pytest.raises(AttackError, match="has yet to make, and they have no defence"):
        robust_nas.run(config("evaluation.suite=null", listed), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("data.validation=0", "data.validation"),
        ("training.momentum=1.5", "training.momentum"),
        ("search.alphas.betas=[1.0, 0.9]", "search.alphas.betas"),
        ("training.auxiliary_weight=0.4", "training.auxiliary_weight"),
        ("data.path=here", "data.path"),
        ("device=cuda:7", "device"),
    ],
)
def test_what_would_fail_hours_later_is_refused_first_and_leaves_an_old_run_alone(tmp_path, override, error):
    with Run(tmp_path / "old", config()) as old:
        old.write("architecture.yaml", "precious")
    with pytest.raises(ConfigError, match=error.replace(".", r"\.")):
        robust_nas.run(config(override), tmp_path / "old", mode="overwrite")
    assert (tmp_path / "old" / "architecture.yaml").read_text() == "precious"


def test_verbs_alone_find_the_parts_of_the_run(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "tiny")
    known = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    found = robust_nas.run_evaluation(model_config(folder), folder, mode="resume")
    assert (found.folder, found) == (folder / "evaluation", known)
    assert robust_nas.export_model(folder, overwrite=True) == folder / "export"
