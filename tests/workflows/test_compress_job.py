"""The compression job: what it leaves, proves and refuses, and that a killed one ends in the same result."""

import shutil

import pytest
import torch
from cases import config as run_config
from pages import read_page

import robust_nas
from robust_nas.config import read_yaml, to_yaml
from robust_nas.errors import CheckpointError, CompressionError, ConfigError, RunExistsError
from robust_nas.run_folder import read_json
from robust_nas.workflows.compress import choose, declared_labels
from robust_nas.workflows.compress_measures import accuracies
from robust_nas.workflows.compression_config import compression_config

NETWORK = robust_nas.ResidualArchitecture(name="small", stem=8, depths=(1, 1), widths=(8, 16))
OPTIONS = [
    "compression.gdws.alpha.images=20",
    "compression.gdws.budgets=[0.9,0.75]",
    "compression.cstar.ratios=[2]",
    "compression.cstar.epochs=2",
    "compression.cstar.finetune_epochs=1",
    "compression.cstar.rank_multiple=1",
    "compression.max_loss=0.5",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A residual network trained for an epoch, and its evaluation beside it."""
    folder = tmp_path_factory.mktemp("compress") / "model"
    robust_nas.train(run_config(), NETWORK, folder)
    robust_nas.run_evaluation(robust_nas.workflows.config.model_config(folder), folder)
    return folder


def options(model, method, *more):
    kept = [text for text in OPTIONS if text.split(".")[1] in (*method.split("+"), "max_loss=0")]
    return compression_config(model, method, [*kept, "compression.max_loss=0.5", *more])


@pytest.fixture(scope="module")
def compressed(model):
    """Both methods on it, one after the other, and the folder."""
    folder = model.parent / "compressed"
    tree = robust_nas.compress(options(model, "cstar+gdws"), model, folder)
    return tree, folder


def test_the_report_is_in_the_folder(compressed):
    tree, folder = compressed
    page = read_page(folder / "report.html")
    assert f"{tree['chosen']} is chosen: " in page.text
    assert "Damaged" not in page.text


def test_the_tree_tells_the_original_and_everything_that_came_out(compressed, model):
    tree, folder = compressed
    assert [(row["label"], row["method"], row["baseline_of"]) for row in tree["networks"]] == [
        ("original", "original", None),
        ("cstar-2", "cstar", None),
        ("truncate-2", "truncate", "cstar-2"),
        ("truncate-short-2", "truncate-short", "cstar-2"),
        ("uniform-2", "uniform", "cstar-2"),
        ("cstar-2+gdws-0.9", "cstar+gdws", None),
        ("cstar-2+gdws-0.75", "cstar+gdws", None),
    ]
    assert read_json(folder / "compression.json") == tree
    original = tree["networks"][0]
    cost = robust_nas.count(NETWORK, (1, 8, 8), 10)
    assert (original["params"], original["macs"]) == (cost.params, cost.macs)
    assert original["bytes"] == (model / "model.safetensors").stat().st_size
    for row in tree["networks"]:
        assert set(row["latency_ms"]["torch"]) == {"1", "16"}
        assert 0 <= row["validation"]["robust"] <= row["validation"]["clean"] <= 1
    cstar = tree["networks"][1]
    assert cstar["params"] < original["params"] / 1.5


def test_every_folder_is_rebuilt_and_costs_what_the_table_says(compressed):
    tree, folder = compressed
    for row in tree["networks"][1:]:
        network = robust_nas.load_model(folder / row["folder"])
        assert sum(p.numel() for p in network.parameters()) == row["params"]
        size = (folder / row["folder"] / "model.safetensors").stat().st_size
        assert size == row["bytes"]


def test_the_chosen_network_has_a_name_and_can_be_evaluated_and_exported(compressed, tmp_path):
    tree, folder = compressed
    row = next(row for row in tree["networks"] if row["label"] == tree["chosen"])
    x = torch.rand(3, 1, 8, 8)
    network = robust_nas.load_model(folder / "model")
    with torch.no_grad():
        assert torch.equal(network(x), robust_nas.load_model(folder / row["folder"])(x))
    again = robust_nas.run_evaluation(
        robust_nas.workflows.config.model_config(folder / "model"), folder / "model", tmp_path / "again"
    )
    assert again["robust"]["accuracy"] == row["test"]["robust"]["accuracy"]
    source = robust_nas.export_model(folder / "model", tmp_path / "export") / "network.py"
    names = {"__name__": "network", "__file__": str(source)}
    exec(compile(source.read_text(), "network.py", "exec"), names)  # noqa: S102
    with torch.no_grad():
        torch.testing.assert_close(names["load"]()(x), network(x))


def test_the_test_set_is_met_by_what_was_declared_alone(compressed):
    tree, folder = compressed
    tested = {row["label"] for row in tree["networks"] if row["test"]}
    chosen = next(row for row in tree["networks"] if row["label"] == tree["chosen"])
    assert tested >= {"original", chosen["label"]}
    for row in tree["networks"][1:]:
        assert (folder / row["folder"] / "evaluation").exists() == (row["label"] in tested)


def test_the_evaluation_that_the_original_has_is_taken_over(compressed, model):
    tree, folder = compressed
    assert not (folder / "original").exists()
    known = read_json(model / "evaluation" / "evaluation.json")
    assert tree["networks"][0]["test"]["robust"] == known["robust"]


def test_one_of_another_protocol_is_not(model, tmp_path):
    folder = tmp_path / "compressed"
    robust_nas.compress(options(model, "gdws", "evaluation.batch_size=16"), model, folder)
    assert (folder / "original" / "evaluation.json").exists()


def without_times(tree):
    """A tree but for what a clock measured."""
    networks = [{key: row[key] for key in row if key != "latency_ms"} for row in tree["networks"]]
    return {**tree, "networks": networks, "not_measured": None}


def test_a_compression_that_died_ends_in_the_same_result(compressed, model, tmp_path, monkeypatch):
    tree, folder = compressed
    own = model.parent / "died"
    place = robust_nas.workflows.compress
    for mode, moment, call in (("new", "describe", 3), ("resume", "speed", 1), ("resume", "verdicts", 1)):
        real, calls = getattr(place, moment), []

        def dies(*given, real=real, calls=calls, last=call):
            calls.append(given)
            if len(calls) == last:
                raise KeyboardInterrupt
            return real(*given)

        with monkeypatch.context() as patched:
            patched.setattr(place, moment, dies)
            with pytest.raises(KeyboardInterrupt):
                robust_nas.compress(options(model, "cstar+gdws"), model, own, mode=mode)
        assert not (own / "compression.json").exists()
    again = robust_nas.compress(options(model, "cstar+gdws"), model, own, mode="resume")
    assert without_times(again) == without_times(tree)
    for row in tree["networks"][1:]:
        ours, theirs = (root / row["folder"] / "model.safetensors" for root in (own, folder))
        assert ours.read_bytes() == theirs.read_bytes()


def test_what_is_there_is_not_overwritten(compressed, model):
    _, folder = compressed
    with pytest.raises(RunExistsError, match="exists already"):
        robust_nas.compress(options(model, "cstar+gdws"), model, folder)
    with pytest.raises(RunExistsError, match="config"):
        robust_nas.compress(options(model, "gdws"), model, folder, mode="resume")


@pytest.fixture
def record(model, tmp_path):
    """Run a small compression with one more override; the call returns its folder and how to go on with it."""

    def compress(override, mode="new"):
        chosen = options(model, "gdws", "compression.gdws.budgets=[0.9]", "evaluation.images=8", override)
        robust_nas.compress(chosen, model, tmp_path / "out", mode=mode)
        return tmp_path / "out"

    return compress


def test_the_attacks_of_a_suite_s_file_are_part_of_what_was_asked(record, tmp_path):
    suite = tmp_path / "mine.yaml"
    suite.write_text("attacks:\n- attack: {name: fgsm}\n")
    override = f"evaluation={{threat_model: {{eps: 0.1}}, images: 8, suite: {suite}}}"
    folder = record(override)
    assert [step["attack"]["name"] for step in read_yaml(folder / "config.yaml")["steps"]] == ["fgsm"]
    record(override, "resume")
    suite.write_text("attacks:\n- attack: {name: fgsm, precision: bf16}\n")
    with pytest.raises(RunExistsError, match="different: steps"):
        record(override, "resume")


def test_a_compression_of_earlier_code_is_finished_where_its_attacks_are_known(record, tmp_path):
    suite = tmp_path / "mine.yaml"
    suite.write_text("attacks:\n- attack: {name: fgsm}\n")
    known = [
        "evaluation.attacks=[{attack: {name: fgsm}}]",
        "evaluation={threat_model: {eps: 0.1}, suite: quick}",
    ]
    for override in known:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        path = record(override) / "config.yaml"
        tree = read_yaml(path)
        del tree["steps"]
        path.write_text(to_yaml(tree))
        before = (tmp_path / "out" / "compression.json").read_bytes()
        record(override, "resume")
        assert (tmp_path / "out" / "compression.json").read_bytes() == before
    tree["evaluation"]["suite"] = str(suite)  # what this file held then is not known
    path.write_text(to_yaml(tree))
    with pytest.raises(RunExistsError, match="different: steps"):
        record(f"evaluation={{threat_model: {{eps: 0.1}}, suite: {suite}}}", "resume")


def test_mistakes_are_refused_before_anything_is_written(model, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="holds the model"):
        robust_nas.compress(options(model, "gdws"), model, model.parent)
    with pytest.raises(
        ConfigError,
        match=r"got 'svd'; allowed: gdws, cstar, file\.py:Class of your own, or several joined",
    ):
        compression_config(model, "svd")
    with pytest.raises(ConfigError, match=r"compression\.cstar: is set, but --method is gdws"):
        compression_config(model, "gdws", ["compression.cstar.epochs=3"])
    with pytest.raises(ConfigError, match=r"budgets.*1\.5"):
        compression_config(model, "gdws", ["compression.gdws.budgets=[1.5]"])
    with pytest.raises(ConfigError, match="ratios"):
        compression_config(model, "cstar", ["compression.cstar.ratios=[0.5]"])
    with pytest.raises(ConfigError, match="takes images of shape"):
        robust_nas.compress(options(model, "gdws", "data.name=fashion-mnist"), model, out)
    assert not out.exists()


def test_a_budget_out_of_reach_is_an_error_before_anything_is_written(model, tmp_path):
    with pytest.raises(CompressionError, match=r"0\.01"):
        robust_nas.compress(
            options(model, "gdws", "compression.gdws.budgets=[0.01]"), model, tmp_path / "out"
        )
    with pytest.raises(CompressionError, match="500"):
        robust_nas.compress(
            options(model, "cstar", "compression.cstar.ratios=[500]"), model, tmp_path / "other"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_share_or_a_beta_that_cannot_be_is_refused_before_cstar_trains_or_a_folder_is_made(model, tmp_path):
    with pytest.raises(
        CompressionError, match=r"macs: got 0\.35 of cstar-2's MACs; about 0\.\d\d of them stay"
    ):
        robust_nas.compress(
            options(model, "cstar+gdws", "compression.gdws.budgets=[0.9,0.35]"), model, tmp_path / "out"
        )
    with pytest.raises(ConfigError, match=r"betas\.0: got 0; more than 0 is needed"):
        options(model, "gdws", "compression.gdws.budgets=null", "compression.gdws.betas=[0]")
    tiny = ["compression.gdws.budgets=null", "compression.gdws.betas=[1e-9]", "compression.gdws.alpha=null"]
    with pytest.raises(CompressionError, match="leaves every layer dense"):
        robust_nas.compress(compression_config(model, "gdws", tiny), model, tmp_path / "other")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_refused(model, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "model"
    shutil.copytree(model, broken)
    state = load_file(broken / "model.safetensors")
    state["stem.weight"][0, 0, 0, 0] = torch.nan
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"stem\.weight holds NaN"):
        robust_nas.compress(options(model, "gdws"), broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_compresses_what_it_found_where_the_recipe_says_so(tmp_path, monkeypatch):
    config = run_config(
        "network.channels=8",
        "compression.cstar.ratios=[1.3]",
        "compression.cstar.epochs=1",
        "compression.cstar.finetune_epochs=1",
        "compression.cstar.baselines=[]",
        "compression.max_loss=0.9",
    )
    folder = tmp_path / "run"
    summary = robust_nas.run(config, folder)
    assert summary["compressed"] == "cstar-1.3"
    assert all((folder / path).exists() for path in summary["artifacts"].values())
    tree = read_json(folder / summary["artifacts"]["compression"])
    assert tree["not_measured"] == [
        "ONNX Runtime: none_such not installed (pip install 'robust-nas[export]')"
    ]
    assert tree["networks"][0]["test"]["robust"]["accuracy"] == summary["robust"]
    assert not (folder / "compressed" / "original").exists()  # met the test set once
    (folder / "result.json").unlink()
    (folder / "compressed" / "result.json").unlink()
    again = robust_nas.run(config, folder, mode="resume")
    assert {key: again[key] for key in ("robust", "compressed")} == {
        key: summary[key] for key in ("robust", "compressed")
    }
    lost = [folder / "compressed" / name for name in ("model/model.safetensors", "export/weights.pt")]
    for path in lost:
        held = path.read_bytes()
        path.unlink()
        robust_nas.run(config, folder, mode="resume")
        assert path.read_bytes() == held


def test_the_choice_is_the_fewest_macs_within_the_loss():
    def row(label, macs, robust, baseline_of=None):
        return {
            "label": label,
            "macs": macs,
            "params": macs,
            "baseline_of": baseline_of,
            "validation": {"robust": robust},
        }

    rows = [row("original", 100, 0.6), row("a", 70, 0.6), row("b", 50, 0.595), row("c", 30, 0.5)]
    assert choose(rows, 0.01) == ("b", True)
    assert choose([*rows, row("baseline", 10, 0.6, "b")], 0.01) == ("b", True)
    assert choose([rows[0], rows[3]], 0.01) == ("c", False)


def test_what_a_chosen_network_was_made_from_meets_the_test_set_too():
    rows = [
        {"label": label, "made_from": made_from, "baseline_of": baseline_of}
        for label, made_from, baseline_of in [
            ("original", None, None),
            ("cstar-2", None, None),
            ("truncate-2", None, "cstar-2"),
            ("cstar-4", None, None),
            ("cstar-2+gdws-0.5", "cstar-2", None),
            ("cstar-2+gdws-0.5-tuned", "cstar-2+gdws-0.5", None),
        ]
    ]
    chosen = "cstar-2+gdws-0.5-tuned"
    assert declared_labels(rows, chosen, "chosen") == {chosen, "cstar-2+gdws-0.5", "cstar-2", "truncate-2"}
    assert declared_labels(rows, "cstar-4", "chosen") == {"cstar-4"}


def test_accuracies_on_the_dense_copy_are_those_of_the_network(compressed, model):
    from robust_nas.layers.factorised import dense

    _, folder = compressed
    config = options(model, "gdws")
    images = robust_nas.load_dataset(config.data).test.subset(torch.arange(60))
    attack = config.training.validation_attack
    network = robust_nas.load_model(folder / "model")
    found = accuracies(network, dense(network), images, attack, 0)
    assert found == accuracies(network, network, images, attack, 0)
