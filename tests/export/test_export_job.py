"""The export of a model folder: the user's own modules, damaged and hostile folders, places that cannot be written."""

import copy
import json
from pathlib import Path

import pytest
import torch
from exported_models import RESIDUAL, SHAPE, make

import robust_nas
from robust_nas.errors import CheckpointError, ConfigError, RunError, RunExistsError
from robust_nas.export.onnx import OnnxModel
from robust_nas.export.program import load_program
from robust_nas.layers.factorised import LayerForm, rebuild
from robust_nas.nets import inference_state, save_model
from robust_nas.nets.model import StoredForm
from robust_nas.nets.user_module import load_module
from robust_nas.workflows import export as job

OWN = """
from torch import nn
def build():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
"""


def folder_of(path: Path, state=None, **changes: object) -> Path:
    model = make(RESIDUAL)
    save_model(path, RESIDUAL, state or inference_state(model.network), model.description)
    tree = json.loads((path / "model.json").read_text())
    (path / "model.json").write_text(json.dumps({**tree, **changes}))
    return path


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A user's own module, the same with a GDWS layer, and the folder of that."""
    root = tmp_path_factory.mktemp("own")
    (root / "net.py").write_text(OWN)
    module = load_module(f"{root / 'net.py'}:build")
    changed = copy.deepcopy(module)
    rebuild(changed, [LayerForm("0", "gdws", (2,))])
    description = make(RESIDUAL).description.model_copy(
        update={
            "module": "net.py:build",
            "mean": (0.0,),
            "std": (1.0,),
            "layers": (StoredForm(name="0", form="gdws", numbers=(2,)),),
        }
    )
    save_model(root / "model", None, inference_state(changed), description)
    return module, changed.eval(), root / "model"


def test_a_users_own_module_has_graphs_and_no_claim_of_its_normalisation(own, tmp_path):
    module, changed, folder = own
    out = robust_nas.export_model(folder, tmp_path, forms=["onnx", "program"], module=module)
    graph = OnnxModel(out / "network.onnx")
    program, texts = load_program(out / "network.pt2", ("name",))
    x = torch.rand(5, *SHAPE)
    with torch.no_grad():
        for exported in (graph, program):
            torch.testing.assert_close(exported(x), changed(x), atol=1e-5, rtol=1e-4)
    assert texts["name"] == graph.metadata["name"] == "net.py:build"
    assert json.loads(graph.metadata["compressed"]) == {"gdws": 1}
    assert json.loads(graph.metadata["normalisation"]) == {"mean": None, "std": None, "inside": True}


def test_a_users_own_module_has_no_source_from_us_and_must_be_given(own, tmp_path):
    module, _, folder = own
    with pytest.raises(ConfigError, match=r"module of your own.*--format onnx"):
        robust_nas.export_model(folder, tmp_path / "out", forms=["onnx", "source"], module=module)
    with pytest.raises(CheckpointError, match=r"made from the module net\.py:build"):
        robust_nas.export_model(folder, tmp_path / "out", forms=["onnx"])
    with pytest.raises(CheckpointError, match="0 is a Linear; gdws takes Conv2d"):
        robust_nas.export_model(
            folder, tmp_path / "out", forms=["onnx"], module=torch.nn.Sequential(torch.nn.Linear(1, 1))
        )
    assert not (tmp_path / "out").exists()


def test_numbers_that_json_does_not_have_travel_as_texts(tmp_path):
    folder = folder_of(tmp_path / "model", made_by={"loss": float("nan"), "eps": [float("-inf")]})
    out = robust_nas.export_model(folder, tmp_path / "out", forms=["source", "onnx"])
    told = json.loads(OnnxModel(out / "network.onnx").metadata["made_by"], parse_constant=pytest.fail)
    assert told == {"loss": "NaN", "eps": ["-Infinity"]}
    names = {"__name__": "network", "__file__": str(out / "network.py")}
    exec(compile((out / "network.py").read_text(), "network.py", "exec"), names)  # noqa: S102
    assert names["METADATA"]["made_by"] == told


def test_what_made_a_model_is_a_literal_in_the_source_and_never_code(tmp_path):
    mark = tmp_path / "ran"
    attack = f'"""\'\'\'\\\n;open({str(mark)!r}, "w");' + "x " * 90
    out = robust_nas.export_model(folder_of(tmp_path / "model", made_by={attack: [attack]}), tmp_path / "out")
    names = {"__name__": "network", "__file__": str(out / "network.py")}
    exec(compile((out / "network.py").read_text(), "network.py", "exec"), names)  # noqa: S102
    assert not mark.exists()
    assert names["METADATA"]["made_by"] == {attack: [attack]}


@pytest.mark.parametrize("form", ["source", "onnx", "program"])
def test_a_broken_model_is_not_exported(tmp_path, form):
    state = inference_state(make(RESIDUAL).network)
    broken = {**state, "stem.weight": state["stem.weight"] * torch.nan}
    with pytest.raises(CheckpointError, match=r"stem\.weight holds NaN"):
        robust_nas.export_model(folder_of(tmp_path / "nan", broken), tmp_path / "out", forms=[form])
    huge = {name: tensor * 1e30 if "weight" in name else tensor for name, tensor in state.items()}
    with pytest.raises(RunError, match="nothing was written"):  # its logits are infinite
        robust_nas.export_model(folder_of(tmp_path / "huge", huge), tmp_path / "out", forms=[form])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["onnx", "program"])
def test_places_that_cannot_be_written_are_told(tmp_path, form):
    folder = folder_of(tmp_path / "model")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        robust_nas.export_model(folder, tmp_path / "file" / "out", forms=[form])
    taken = tmp_path / "out" / job.FILES[form]
    taken.mkdir(parents=True)
    with pytest.raises(RunExistsError, match="choose another folder"):
        robust_nas.export_model(folder, tmp_path / "out", forms=[form], overwrite=True)


def test_a_source_that_may_not_be_replaced_is_told_before_any_work(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "model")
    out = robust_nas.export_model(folder)
    monkeypatch.setattr(job, "_bytes", lambda *_: pytest.fail("worked"))
    with pytest.raises(RunExistsError, match=r"network\.py: exists already; replace it"):
        robust_nas.export_model(folder, forms=["onnx", "source"])
    assert sorted(path.name for path in out.iterdir()) == ["network.py", "weights.pt"]


def test_a_write_that_is_interrupted_leaves_what_was_there(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "model")
    out = robust_nas.export_model(folder, forms=["program"])
    before = (out / "network.pt2").read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("robust_nas.run_folder.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        robust_nas.export_model(folder, forms=["program"], overwrite=True)
    assert [path.name for path in out.iterdir()] == ["network.pt2"]
    assert (out / "network.pt2").read_bytes() == before


@pytest.mark.parametrize("damage", ["no weights", "cut weights", "not python"])
def test_a_damaged_source_is_told(tmp_path, damage):
    folder = tmp_path / "export"
    folder.mkdir()
    file, weights = folder / "network.py", folder / "weights.pt"
    file.write_text("def load(:\n" if damage == "not python" else "import torch\nfrom pathlib import Path\n\n\n"
                    "def load():\n    return torch.load(Path(__file__).with_name('weights.pt'))\n")  # fmt: skip
    if damage == "cut weights":
        weights.write_bytes(b"PK\x03\x04")
    with pytest.raises(RunError, match=r"network\.py: cannot be loaded"):
        job._loaded("source", file)
