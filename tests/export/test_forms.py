"""ONNX, torch.export and plain source of every family and form: the same logits at any batch, what travels with them,
what is refused, and that nothing is lost."""

import json
import sys
from pathlib import Path

import pytest
import torch
from cases import config as run_config
from exported_models import MODELS, RESIDUAL, SHAPE, make

import robust_nas
from robust_nas.data import Images
from robust_nas.errors import ConfigError, RunError, RunExistsError
from robust_nas.export import export_source
from robust_nas.export.check import compare
from robust_nas.export.latency import latencies
from robust_nas.export.metadata import as_texts, metadata
from robust_nas.export.onnx import OnnxModel, onnx_bytes
from robust_nas.export.program import load_program, program_bytes
from robust_nas.nets import Model, inference_state, save_model
from robust_nas.workflows import export as job
from robust_nas.workflows.export import check_export

every_model = pytest.mark.parametrize("name", MODELS)


def images(count: int) -> torch.Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(count))


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@every_model
def test_onnx_gives_the_same_logits_at_any_batch_and_carries_the_metadata(name, capsys):
    model = make(*MODELS[name])
    graph = OnnxModel(onnx_bytes(model.network, SHAPE, metadata=as_texts(metadata(model))))
    assert capsys.readouterr() == ("", "")
    with torch.no_grad():
        for count in (1, 2, 5):
            close(graph(images(count)), model.network(images(count)))
    texts = graph.metadata
    assert texts["format"].startswith("exported by robust_nas")
    assert json.loads(texts["class_names"]) == ["a", "b", "c"]
    assert json.loads(texts["input"]) == {"name": "images", "shape": [1, 9, 8], "range": [0.0, 1.0]}
    assert json.loads(texts["normalisation"]) == {"mean": [1 / 3], "std": [0.4], "inside": True}
    assert json.loads(texts["verdict"]) is None
    (given,) = graph.session.get_inputs()
    assert (given.name, given.shape[1:]) == ("images", [1, 9, 8])
    assert isinstance(given.shape[0], str)  # any batch


@every_model
def test_torch_export_gives_the_same_logits_at_any_batch_and_carries_the_metadata(name):
    model = make(*MODELS[name])
    network, texts = load_program(
        program_bytes(model.network, SHAPE, metadata=as_texts(metadata(model))), ("class_names", "format")
    )
    with torch.no_grad():
        for count in (1, 2, 5):
            close(network(images(count)), model.network(images(count)))
    assert json.loads(texts["class_names"]) == ["a", "b", "c"]


@every_model
def test_plain_source_gives_the_same_logits_bit_for_bit(name, tmp_path):
    model = make(*MODELS[name])
    source, _ = export_source(model, tmp_path)
    names = {"__name__": "network", "__file__": str(source)}
    exec(compile(source.read_text(), "network.py", "exec"), names)  # noqa: S102
    with torch.no_grad():
        assert torch.equal(names["load"]()(images(4)), model.network(images(4)))
    assert names["METADATA"]["compressed"] == (
        {"gdws": 3, "tucker-2": 1, "low-rank": 2} if name == "compressed" else None
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained residual network in GDWS form, and its evaluation."""
    root = tmp_path_factory.mktemp("export")
    architecture = robust_nas.ResidualArchitecture(name="small", stem=4, depths=(1, 1), widths=(8, 8))
    trained = robust_nas.train(run_config(), architecture, root / "trained")
    options = [
        "compression.gdws.budgets=[0.6]",
        "compression.gdws.alpha=null",
        "compression.max_loss=0.9",
        "evaluation.findings=none",
    ]
    config = robust_nas.compression_config(trained, "gdws", options)
    robust_nas.compress(config, trained, root / "compressed")
    return root / "compressed" / "model"


def test_a_compressed_model_is_exported_checked_and_tells_its_verdict(folder, tmp_path):
    forms = ["source", "onnx", "program"]
    out = robust_nas.export_model(folder, tmp_path / "out", forms=forms)
    assert {path.name for path in out.iterdir()} == {
        "network.py",
        "weights.pt",
        "network.onnx",
        "network.pt2",
    }
    found = check_export(robust_nas.workflows.config.model_config(folder), folder, out, forms, images=60)
    for form in forms:
        tree = found[form]
        assert tree["passes"]
        assert (tree["images"], tree["same_class"]) == (60, 1.0)
        assert tree["accuracy"] == tree["model_accuracy"]
    texts = OnnxModel(out / "network.onnx").metadata
    verdict, threat = json.loads(texts["verdict"]), json.loads(texts["threat_model"])
    evaluated = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    assert verdict["robust"] == evaluated["robust"]["accuracy"]
    assert verdict["status"] == evaluated["verdict"]["status"]
    assert threat["eps"] == 0.1
    assert json.loads(texts["compressed"])["gdws"] >= 1
    for row in json.loads((folder.parent / "compression.json").read_text())["networks"]:
        assert set(row["latency_ms"]) == {"torch", "onnxruntime"}


def test_a_verdict_of_other_weights_is_not_told(folder, tmp_path):
    import shutil

    own = tmp_path / "model"
    shutil.copytree(folder, own)
    found = robust_nas.nets.read_model(own)
    state = {
        name: tensor + 0.01
        for name, tensor in inference_state(found.network).items()
        if tensor.is_floating_point() and not name.startswith("normalise.")
    }
    save_model(own, found.architecture, {**inference_state(found.network), **state}, found.description)
    assert metadata(robust_nas.nets.read_model(own))["verdict"] is None


def test_what_is_there_is_replaced_on_request_alone_and_never_what_is_foreign(folder, tmp_path):
    robust_nas.export_model(folder, tmp_path, forms=["program"])
    before = (tmp_path / "network.pt2").read_bytes()
    with pytest.raises(RunExistsError, match=r"network\.pt2: exists already; replace it with --overwrite"):
        robust_nas.export_model(folder, tmp_path, forms=["program"])
    robust_nas.export_model(folder, tmp_path, forms=["program"], overwrite=True)
    assert len((tmp_path / "network.pt2").read_bytes()) == len(before)
    (tmp_path / "network.onnx").write_bytes(b"somebody's")
    with pytest.raises(RunExistsError, match="was not written by this export"):
        robust_nas.export_model(folder, tmp_path, forms=["onnx"], overwrite=True)
    assert (tmp_path / "network.onnx").read_bytes() == b"somebody's"


def test_an_export_that_dies_or_computes_something_else_leaves_no_file(folder, tmp_path, monkeypatch):
    def fails(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(job, "write_atomic", fails)
        with pytest.raises(KeyboardInterrupt):
            robust_nas.export_model(folder, tmp_path, forms=["program"])
    with monkeypatch.context() as patched:
        patched.setattr(job, "_reference", lambda model: lambda x: model.network(x) + 1)
        with pytest.raises(RunError, match=r"the program form computes other logits.*nothing was written"):
            robust_nas.export_model(folder, tmp_path, forms=["program"])
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_it_is_said_what_to_install(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        ConfigError, match=r"onnxscript is not installed; ONNX needs: pip install 'robust-nas\[export\]'"
    ):
        robust_nas.export_model(folder, tmp_path / "out", forms=["onnx"])
    assert not (tmp_path / "out").exists()


def test_latencies_name_what_could_not_be_measured(monkeypatch):
    model = make(RESIDUAL)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found, missing = latencies({"a": model.network, "b": model.network}, SHAPE, batches=(1,), rounds=2)
    assert set(found["a"]) == {"torch"}
    assert found["a"]["torch"]["1"]["min_ms"] > 0
    assert missing == [
        "ONNX Runtime: onnx, onnxscript, onnxruntime not installed (pip install 'robust-nas[export]')"
    ]


class Loop(torch.nn.Module):
    """Works on one image after the other, and on at most `most` of them."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.layer = most, torch.nn.Conv2d(1, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.most:
            raise ValueError(f"at most {self.most} images")
        return torch.cat([self.layer(x[i : i + 1]).mean((2, 3)) for i in range(len(x))])


def test_a_measurement_that_fails_is_a_gap_for_all_networks_and_no_error():
    good = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    found, missing = latencies({"good": good, "loop": Loop(99)}, SHAPE, batches=(1, 3), rounds=1)
    assert [set(found[name]) for name in ("good", "loop")] == [{"torch"}, {"torch"}]
    assert len(missing) == 1
    assert "ONNX for any batch: the graph takes 2 images alone" in missing[0]
    found, missing = latencies({"good": good, "few": Loop(2)}, SHAPE, batches=(1, 3), rounds=1)
    assert found == {"good": {}, "few": {}}  # what was timed at batch 1 alone is no measurement
    assert missing[0] == "torch: ValueError: at most 2 images"


def test_a_graph_that_would_take_two_images_alone_is_refused(compressed_graph):
    with pytest.raises(RunError, match="the graph takes 2 images alone, as of a module that loops"):
        onnx_bytes(Loop(99), SHAPE)
    with pytest.raises(RunError, match=r"cannot run it on images \(2, 1, 9, 7\)"):
        compressed_graph(torch.zeros(2, 1, 9, 7))


@pytest.fixture
def compressed_graph():
    return OnnxModel(onnx_bytes(make(*MODELS["compressed"]).network, SHAPE))


def test_requests_that_cannot_be_met_are_told(folder, tmp_path):
    with pytest.raises(ConfigError, match="got 'tflite'; allowed: source, onnx, program, hub, all"):
        robust_nas.export_model(folder, tmp_path, forms=["tflite"])
    with pytest.raises(RunError, match=r"network\.onnx: is not there"):
        check_export(robust_nas.workflows.config.model_config(folder), folder, tmp_path, ["onnx"])
    with pytest.raises(RunError, match="ONNX Runtime cannot load it"):
        OnnxModel(b"no graph")
    with pytest.raises(RunError, match="the archive"):
        load_program(b"no archive")
    model = make(RESIDUAL)
    foreign = Model(model.network, None, model.description.model_copy(update={"module": "net.py:build"}))
    with pytest.raises(ConfigError, match=r"net\.py:build: is a module of your own"):
        export_source(foreign, tmp_path)


class Branch(torch.nn.Module):
    """Decides by its input's values, which no graph can."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) if x.sum() > 3 else x.amax((2, 3))


def test_a_module_that_cannot_be_exported_is_told():
    with pytest.raises(RunError, match=r"torch\.export cannot follow"):
        program_bytes(Branch(), SHAPE)
    with pytest.raises(RunError, match="torch cannot export this module to ONNX"):
        onnx_bytes(Branch(), SHAPE)


def test_a_difference_is_measured_and_judged():
    pixels = torch.randint(0, 256, (70, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    some = Images(pixels, torch.zeros(70, dtype=torch.int64))

    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.mean((1, 2, 3)), x.amax((1, 2, 3))], 1)

    assert compare(model, model, some).passes
    off = compare(lambda x: model(x) + 0.5, model, some)
    assert off.max_difference == pytest.approx(0.5)
    assert not off.passes
    assert not compare(lambda x: model(x) * torch.nan, model, some).passes
    with pytest.raises(RunError, match=r"gives \(71, 1\), the model \(71, 2\)"):
        compare(lambda x: model(x)[:, :1], model, some)


@pytest.mark.parametrize("mask", [-1e9, -torch.inf])
def test_a_masked_class_hides_no_difference(mask):
    pixels = torch.randint(0, 256, (9, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    some = Images(pixels, torch.zeros(9, dtype=torch.int64))

    def model(x: torch.Tensor, sign: int = 1) -> torch.Tensor:
        own = sign * torch.stack([x.mean((1, 2, 3)), x.amax((1, 2, 3))], 1)
        return torch.cat([own, torch.full((len(x), 1), mask)], 1)

    same = compare(model, model, some)
    assert same.passes
    assert (same.disagreement, same.max_difference) == (0, 0)
    assert not compare(lambda x: model(x, -1), model, some).passes
    assert not compare(lambda x: 1.001 * model(x), model, some).passes


def test_the_model_folder_may_be_a_path_as_text(folder, tmp_path):
    assert robust_nas.export_model(str(folder), tmp_path / "out") == Path(tmp_path / "out")
