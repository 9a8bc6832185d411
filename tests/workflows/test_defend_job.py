"""`defend` as a job: the folder, what is refused before anything is written, and other jobs with a defended model."""

import dataclasses
import json
import shutil
from collections import OrderedDict

import pytest
import torch
import yaml
from cases import config

import robust_nas
from robust_nas.attacks import APGD, Transfer
from robust_nas.defences import Defended
from robust_nas.errors import CheckpointError, CodeRefusedError, ConfigError, DataError, RunExistsError
from robust_nas.nets import inference_state, read_model, save_model
from robust_nas.nets.user_module import load_module
from robust_nas.workflows.attack_config import attack_config
from robust_nas.workflows.compression_config import compression_config
from robust_nas.workflows.config import model_config
from robust_nas.workflows.context import load_context
from robust_nas.workflows.defend import calibrate
from robust_nas.workflows.export import check_export

NETWORK = robust_nas.MLPArchitecture(name="mlp", depth=1, width=16)
CODE = """
from typing import ClassVar
import torch
from robust_nas.defences import Defence
from robust_nas.defences.defended import Defended
SEEN = []
class Module(Defended):
    def forward(self, x):
        logits = self.module(x)
        score = logits.softmax(1).amax(1, keepdim=True)
        return torch.cat([logits, logits.amax(1, keepdim=True) + self.values["threshold"] - score], 1)
class Doubts(Defence):
    abstains: ClassVar[bool] = True
    calibrates: ClassVar[bool] = True
    share: float = 0.25
    def calibrate(self, network, images, labels):
        assert not network.training
        SEEN.append((images.clone(), labels.clone()))
        with torch.no_grad():
            return {"threshold": float(network(images).softmax(1).amax(1).quantile(self.share))}
    def build(self, network, values):
        return Module(network, self, values)
"""

SHIFT = """
import torch
from robust_nas.defences import Defence
from robust_nas.defences.defended import BeforeNetwork
PLACES, THREADS = [], []
class Module(BeforeNetwork):
    def __init__(self, *given):
        super().__init__(*given)
        self.register_buffer("shift", 0.1 * torch.rand(1, 8, 8))
    def to(self, device):
        PLACES.append(device)
        return super().to(device)
    def transformed(self, x):
        return x + self.shift
class Shift(Defence):
    refuses: bool = False
    def calibrate(self, network, images, labels):
        THREADS.append(torch.get_num_threads())
        return {}
    def build(self, network, values):
        if self.refuses:
            raise ValueError("no such network")
        return Module(network, self, values)
"""

NET = """
from torch import nn
def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "model"
    return robust_nas.train(config("training.epochs=6", "training.learning_rate=0.3"), NETWORK, folder)


def defended(plain, out, method, *options, **more):
    robust_nas.defend(robust_nas.defence_config(plain, method, options), plain, out, **more)
    return out / "model"


@pytest.fixture(scope="module")
def blurred(plain, tmp_path_factory):
    return defended(plain, tmp_path_factory.mktemp("blur") / "made", "blur", "sigma=0.5")


@pytest.fixture(scope="module")
def cropped(plain, tmp_path_factory):
    return defended(plain, tmp_path_factory.mktemp("crop") / "made", "crop-resize", "samples=3", "share=0.9")


@pytest.fixture
def shift(tmp_path):
    (tmp_path / "shift.py").write_text(SHIFT)
    return f"{tmp_path / 'shift.py'}:Shift"


@pytest.fixture(scope="module")
def doubting(plain, tmp_path_factory):
    """Return a model that rejects, of a user's own file, and the file."""
    folder = tmp_path_factory.mktemp("doubts")
    (folder / "doubts.py").write_text(CODE)
    return defended(
        plain, folder / "made", f"{folder / 'doubts.py'}:Doubts", "images=16"
    ), folder / "doubts.py"


def test_the_record_counts_validation_images(plain, cropped):
    record = json.loads((cropped.parent / "defence.json").read_text())
    validation = load_context(model_config(plain)).validation
    assert (record["validation"]["part"], record["validation"]["images"]) == ("validation", len(validation))
    assert record["rule"] == {"samples": 3, "abstains": False}
    network = robust_nas.load_model(plain)
    right = (network(validation.float()).argmax(1) == validation.labels).sum()
    assert record["undefended"]["accuracy"]["count"] == right
    assert record["defended"]["false_alarms"] is record["calibration"] is None
    assert (record["network"], record["digest"]) == (read_model(plain).digest, read_model(cropped).digest)


def test_it_is_calibrated_on_validation_images_alone(plain, doubting):
    model, _ = doubting
    found = read_model(model)
    seen = __import__("sys").modules[type(found.network).__module__].SEEN[0]
    validation = load_context(model_config(plain)).validation.draw(16, 5)
    assert torch.equal(seen[0], validation.float())
    assert torch.equal(seen[1], validation.labels)
    record = json.loads((model.parent / "defence.json").read_text())
    # A quarter of the sixteen images is less confident than their lower quartile.
    assert record["defended"]["false_alarms"]["count"] == 4
    assert record["calibration"]["part"] == found.description.defence.calibration.part == "validation"
    assert record["values"] == found.network.values


def test_other_test_images_change_nothing(plain, doubting, tmp_path):
    _, code = doubting
    made = {}
    given = robust_nas.defence_config(plain, f"{code}:Doubts")
    context = load_context(given)
    images = context.dataset.test
    other = dataclasses.replace(images, pixels=255 - images.pixels)
    for name, test in (("own", images), ("other", other)):
        loaded = dataclasses.replace(context, dataset=dataclasses.replace(context.dataset, test=test))
        robust_nas.defend(given, plain, tmp_path / name, context=loaded)
        made[name] = [(tmp_path / name / file).read_bytes() for file in ("defence.json", "model/model.json")]
    assert made["own"] == made["other"]


def test_a_finished_one_is_shown_and_another_is_refused(plain, blurred, monkeypatch):
    folder = blurred.parent
    given = robust_nas.defence_config(plain, "blur", ["sigma=0.5"])
    monkeypatch.delattr("robust_nas.workflows.context.load_context")  # it reads no images
    record = robust_nas.defend(given, plain, folder, mode="resume")
    assert record == json.loads((folder / "defence.json").read_text())
    with pytest.raises(RunExistsError, match="exists already"):
        robust_nas.defend(given, plain, folder)
    for change in ("sigma=0.6", "seed=1", "images=3"):
        other = robust_nas.defence_config(plain, "blur", ["sigma=0.5", change])
        with pytest.raises(RunExistsError, match="another config"):
            robust_nas.defend(other, plain, folder, mode="resume")


def test_another_split_than_the_trainings_is_warned_of(plain, blurred, tmp_path):
    assert json.loads((blurred.parent / "defence.json").read_text())["warnings"] == []
    for number, change in enumerate(("seed=1", "data.validation=0.3", "data.limit=90")):
        folder = defended(plain, tmp_path / str(number), "blur", change).parent
        (warning,) = json.loads((folder / "defence.json").read_text())["warnings"]
        assert "the network was trained on images of it" in warning["text"]


def test_one_killed_before_its_end_can_be_overwritten(plain, tmp_path):
    folder = defended(plain, tmp_path / "made", "jpeg").parent
    (folder / "result.json").unlink()
    assert defended(plain, folder, "blur", mode="overwrite").is_dir()


@pytest.mark.parametrize(
    ("method", "options", "error", "reason"),
    [
        ("blurr", [], ConfigError, "--with: got 'blurr'; allowed: blur, "),
        ("blur", ["sigma=0"], ConfigError, "method.sigma: got 0"),
        ("blur", ["width=2"], ConfigError, "unknown key 'width'"),
        ("blur", ["sigma=4"], ConfigError, "needs images of more than 12 pixels a side, got 8 x 8"),
        ("jpeg", ["quality=101"], ConfigError, "method.quality: got 101"),
        ("crop-resize", ["share=0.99"], ConfigError, "leaves nothing to draw"),
        ("blur", ["images=0"], ConfigError, "images: got 0"),
        ("feature-squeezing", ["images=10"], ConfigError, "needs at least 20 validation images"),
        ("rse", [], ConfigError, "noise layers precede convolutions, and MLPNetwork has none"),
    ],
)
def test_a_mistake_leaves_no_folder(plain, tmp_path, method, options, error, reason):
    with pytest.raises(error, match=reason):
        defended(plain, tmp_path / "made", method, *options)
    assert not (tmp_path / "made").exists()
    (tmp_path / "made").mkdir()
    with pytest.raises(error, match=reason):
        defended(plain, tmp_path / "made", method, *options)
    assert not list((tmp_path / "made").iterdir())


def test_a_network_that_build_refuses_does_not_cost_what_would_be_overwritten(plain, shift, tmp_path):
    folder = defended(plain, tmp_path / "made", "jpeg").parent
    with pytest.raises(ValueError, match="no such network"):
        defended(plain, folder, shift, "refuses=true", mode="overwrite")
    assert (folder / "result.json").is_file()


def test_a_random_tensor_of_a_defence_is_of_the_seed_and_an_edited_one_is_refused(plain, shift, tmp_path):
    one, two = (defended(plain, tmp_path / name, shift) for name in ("one", "two"))
    assert read_model(one).digest == read_model(two).digest
    other = defended(plain, tmp_path / "other", shift, "seed=6")
    shutil.copy(other / "model.safetensors", one)
    with pytest.raises(CheckpointError, match="its tensors were changed"):
        read_model(one)


def test_a_defence_is_put_on_by_the_threads_and_on_the_device_of_the_job(plain, shift):
    given = robust_nas.defence_config(plain, shift, ["threads=2"])
    context, before = load_context(given), torch.get_num_threads()
    made = calibrate(given, read_model(plain), context)
    code = __import__("sys").modules[type(made.defended).__module__]
    assert (code.PLACES, code.THREADS, torch.get_num_threads()) == ([context.device], [2], before)


def test_a_tensor_of_the_network_under_the_name_of_the_defences_is_refused(plain, shift, tmp_path):
    network = torch.nn.Sequential(OrderedDict(flat=torch.nn.Flatten(), defence=torch.nn.Linear(64, 10)))
    network.defence.register_buffer("shift", torch.zeros(1, 8, 8))
    own = read_model(plain).description.model_copy(update={"module": "net.py:build"})
    save_model(tmp_path / "own", None, inference_state(network), own)
    shutil.copy(plain / "recipe.yaml", tmp_path / "own")
    (tmp_path / "made").mkdir()
    with pytest.raises(ConfigError, match=r"defence\.shift: is the name of a tensor of the network"):
        defended(tmp_path / "own", tmp_path / "made", shift, module=network)
    assert not list((tmp_path / "made").iterdir())


def test_a_model_that_cannot_be_defended_is_refused(plain, blurred, tmp_path):
    with pytest.raises(ConfigError, match="has the defence blur already; put jpeg around the undefended"):
        defended(blurred, tmp_path / "made", "jpeg")
    with pytest.raises(ConfigError, match="holds the model"):
        defended(plain, plain, "jpeg")
    with pytest.raises(ConfigError, match="has the defence blur already"):
        defended(blurred.parent, tmp_path / "made", "jpeg")
    random = shutil.copytree(plain, tmp_path / "random")
    recipe = (random / "recipe.yaml").read_text()
    assert "samples: null" in recipe
    (random / "recipe.yaml").write_text(recipe.replace("samples: null", "samples: 8"))
    with pytest.raises(ConfigError, match=r"declares evaluation\.deployed samples 8"):
        defended(random, tmp_path / "made", "jpeg")
    other = shutil.copytree(plain, tmp_path / "other")
    description = json.loads((other / "model.json").read_text())
    description["made_by"]["dataset_checksum"] = "0" * 64
    (other / "model.json").write_text(json.dumps(description))
    with pytest.raises(DataError, match="was trained on other images"):
        defended(other, tmp_path / "made", "jpeg")
    assert not (tmp_path / "made").exists()
    assert defended(other, tmp_path / "made", "jpeg", other_data=True).is_dir()


def test_a_defence_of_ones_own_is_code_that_a_stranger_has_to_allow(plain, doubting, tmp_path, monkeypatch):
    model, code = doubting
    own = read_model(model).digest
    moved = shutil.copy(code, tmp_path / "doubts.py")
    folder = shutil.copytree(model, tmp_path / "moved")
    text = (folder / "model.json").read_text()
    (folder / "model.json").write_text(text.replace(str(code), "/none/such/doubts.py"))
    with pytest.raises(CodeRefusedError, match=r"--allow-code doubts\.py"):
        read_model(folder)
    with robust_nas.allow_code([moved]):
        assert read_model(folder).digest == own


@pytest.mark.parametrize("kind", ["blurred", "cropped", "doubting"])
def test_an_evaluation_takes_the_rule_of_the_defence(kind, request, tmp_path):
    model = request.getfixturevalue(kind)
    model = model[0] if isinstance(model, tuple) else model
    given = model_config(model, ["evaluation.findings=none", "evaluation.images=40"])
    tree = robust_nas.run_evaluation(given, model, tmp_path / "made")
    rule = {"blurred": (None, False), "cropped": (3, False), "doubting": (None, True)}[kind]
    stored = yaml.safe_load((tmp_path / "made" / "config.yaml").read_text())["evaluation"]["deployed"]
    assert (stored["samples"], stored["abstains"]) == rule
    assert robust_nas.run_evaluation(given, model, tmp_path / "made", mode="resume") == tree


def test_an_evaluation_of_a_defended_model_is_extended(cropped, tmp_path):
    for images in (10, 20):
        changes = ["evaluation.findings=none", f"evaluation.images={images}"]
        given = model_config(cropped, changes)
        tree = robust_nas.run_evaluation(given, cropped, tmp_path / "made", mode="resume")
        assert tree["clean"]["images"] == images


@pytest.mark.parametrize("change", ["evaluation.deployed.samples=7", "evaluation.deployed.abstains=true"])
def test_a_config_that_contradicts_the_defence_is_refused(cropped, tmp_path, change):
    with pytest.raises(ConfigError, match=r"evaluation\.deployed\..*the predictor itself says.*crop-resize"):
        robust_nas.run_evaluation(model_config(cropped, [change]), cropped, tmp_path / "made")
    with pytest.raises(ConfigError, match=r"evaluation\.deployed\."):
        robust_nas.run_attack("fgsm", cropped, tmp_path / "made", overrides=[change], images=4)
    assert not (tmp_path / "made").exists()


def test_attack_run_averages_gradients_of_a_random_defence_and_its_set_is_judged(blurred, cropped, tmp_path):
    record = robust_nas.run_attack("fgsm", cropped, tmp_path / "set", images=8, part="validation")
    assert record["passes"]["backward"] == 16  # EOT of a declared random model
    assert record["victim"] == read_model(cropped).digest
    judged = robust_nas.evaluate_set(cropped, tmp_path / "set" / "set.npz")
    assert (judged["victim"], judged["images"]) == ("own", 8)
    assert robust_nas.evaluate_set(blurred, tmp_path / "set" / "set.npz")["victim"] == "other"


def test_a_verb_that_takes_one_pass_for_the_answer_refuses_what_has_more(cropped, doubting, tmp_path):
    for model, why in ((cropped, "several random passes"), (doubting[0], "rejects images")):
        with pytest.raises(ConfigError, match=f"{why}, and the training of ai-gan takes one pass"):
            robust_nas.train_attack(attack_config(model), model, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_an_attack_is_trained_on_a_deterministic_defence(blurred, tmp_path):
    short = ["method.epochs=1", "method.batch_size=40", "method.attacker_steps=1", "method.widths=[4, 4, 4]"]
    short += [
        "method.blocks=1",
        "report.images=4",
        "report.pgd_steps=1",
        "report.batch_size=2",
        "report.rounds=1",
    ]
    report = robust_nas.train_attack(attack_config(blurred, overrides=short), blurred, tmp_path / "made")
    assert report["victim"]["model"] == read_model(blurred).digest


def test_a_compression_is_of_the_undefended_model(blurred, tmp_path):
    with pytest.raises(ConfigError, match="compress the undefended model, then defend it"):
        robust_nas.compress(compression_config(blurred, "gdws"), blurred, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_defended_surrogate_gives_transfer_attacks(plain, blurred, cropped):
    x, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
    victim = robust_nas.load_model(plain)
    attack = Transfer(
        surrogates=(str(blurred), str(cropped)), attack=APGD(eps=0.1, steps=2), eps=0.1, norm="linf"
    )
    made = attack(victim, x, labels, torch.Generator().manual_seed(0))
    assert (made - x).abs().max() <= 0.1 + 1e-6


def test_a_blur_is_exported_and_what_has_no_graph_is_refused(blurred, cropped, plain, tmp_path):
    out = robust_nas.export_model(blurred, tmp_path / "made", forms=("onnx", "program"))
    found = check_export(model_config(blurred), blurred, out, ("onnx", "program"), images=16)
    assert all(each["passes"] and each["accuracy"] == each["model_accuracy"] for each in found.values())
    metadata = __import__("onnx").load(out / "network.onnx").metadata_props
    assert json.loads(next(p.value for p in metadata if p.key == "defence"))["sigma"] == 0.5
    jpeg = defended(plain, tmp_path / "jpeg", "jpeg")
    for model, reason in ((cropped, "its answer is random"), (jpeg, "no operation of a graph")):
        with pytest.raises(ConfigError, match=f"cannot be exported: .*{reason}"):
            robust_nas.export_model(model, tmp_path / "none", forms=("onnx",))
    with pytest.raises(ConfigError, match="--format onnx and --format program"):
        robust_nas.export_model(blurred, tmp_path / "none", forms=("source",))
    assert not (tmp_path / "none").exists()


def test_load_model_gives_the_module_that_attacks_meet(plain, blurred):
    network = robust_nas.load_model(blurred)
    assert isinstance(network, Defended)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(network.module(x), robust_nas.load_model(plain)(x))


def test_a_module_of_ones_own_is_defended_and_evaluated(plain, tmp_path):
    """A folder without an architecture, as `compress --module` leaves it."""
    (tmp_path / "net.py").write_text(NET)
    network = load_module(f"{tmp_path / 'net.py'}:build")
    own = read_model(plain).description.model_copy(update={"module": "net.py:build"})
    save_model(tmp_path / "own", None, inference_state(network), own)
    shutil.copy(plain / "recipe.yaml", tmp_path / "own")
    given = robust_nas.defence_config(tmp_path / "own", "crop-resize", ["samples=2"])
    with pytest.raises(CheckpointError, match="--module on the command line"):
        robust_nas.defend(given, tmp_path / "own", tmp_path / "made")
    assert not (tmp_path / "made").exists()
    robust_nas.defend(given, tmp_path / "own", tmp_path / "made", module=network)
    folder = tmp_path / "made" / "model"
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(robust_nas.load_model(folder, module=network).module(x), network.eval()(x))
    config = model_config(folder, ["evaluation.findings=none", "evaluation.images=8"])
    spec = f"{tmp_path / 'net.py'}:build"
    with robust_nas.allow_code([tmp_path / "net.py"]):
        robust_nas.run_evaluation(config, spec, tmp_path / "evaluation", weights=folder)
    stored = yaml.safe_load((tmp_path / "evaluation" / "config.yaml").read_text())
    assert stored["evaluation"]["deployed"]["samples"] == 2
