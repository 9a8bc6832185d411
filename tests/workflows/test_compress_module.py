"""The compression of a user's module: rebuilt from itself, and refused before anything is written."""

import pytest
import torch
from cases import config as run_config

import robust_nas
from robust_nas import data
from robust_nas.cli.compress import show
from robust_nas.compression.cstar import CSTAR
from robust_nas.compression.gdws import GDWS
from robust_nas.errors import CheckpointError, CompressionError, ConfigError, DivergenceError, FigureWarning
from robust_nas.export import latency
from robust_nas.workflows.compress_steps import refuse_out_of_reach
from robust_nas.workflows.config import CompressionConfig, RunConfig

MODULE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10))

def flat():
    return nn.Sequential(nn.Flatten(), nn.ReLU())

class Dict(nn.Sequential):
    def forward(self, x):
        return {"logits": super().forward(x)}

def of_dict():
    return Dict(*build())

def double():
    return build().double()

class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.state = nn.RNNCell(64, 10), None

    def forward(self, x):
        self.state = self.cell(x.flatten(1), self.state)
        return self.state

def recurrent():
    return Recurrent()

class Around(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.net, self.change = build(), change

    def forward(self, x):
        return self.change(self, x)

def few():
    return Around(lambda own, x: own.net(x)[:, :3])

def detached():
    return Around(lambda own, x: own.net(x).detach())

def masked():
    return Around(lambda own, x: own.net(x) + 0 * x[:, :, 0, 0].sqrt())

def infinite():
    return Around(lambda own, x: own.net(x) / 0)

def reading():
    return Around(lambda own, x: own.net(x.to(own.net[2].weight.dtype)))

def reading_in_training():
    return Around(lambda own, x: own.net(x) + (own.net[2].weight.mean() if own.training else 0))

def frozen():
    return build().requires_grad_(False)

def lazy():
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.Flatten(), nn.LazyLinear(10).double())
"""


@pytest.fixture
def module(tmp_path):
    (tmp_path / "net.py").write_text(MODULE)
    return f"{tmp_path / 'net.py'}:build"


def module_options(method="gdws"):
    tree = run_config().model_dump()
    tree["compression"] = {
        "gdws": {"budgets": [0.6], "alpha": {"images": 10}},
        "max_loss": 0.9,
    }
    return CompressionConfig.of(RunConfig(**tree))


def test_any_torch_module_is_compressed_and_rebuilt_from_itself(module, tmp_path, monkeypatch):
    from robust_nas.nets.user_module import load_module

    folder, loaded, load_dataset = tmp_path / "out", [], data.load_dataset
    monkeypatch.setattr(data, "load_dataset", lambda *a, **k: loaded.append(a) or load_dataset(*a, **k))
    tree = robust_nas.compress(module_options(), module, folder)
    assert len(loaded) == 1  # and passed on to the evaluations
    assert tree["networks"][1]["macs"] <= 0.6 * tree["networks"][0]["macs"]
    assert tree["networks"][1]["test"]["robust"]["images"] == 20
    assert tree["tested"]["text"].startswith("360 of the 360 test images of digits (split by robust_nas")
    for warning, said in zip(
        tree["warnings"],
        (
            "net.py:build was not trained by robust_nas, which made this split",
            "no weights were given for net.py:build",
            "net.py:build was probably trained on the validation images, which are training images of digits",
        ),
        strict=True,
    ):
        assert warning["text"].startswith(said)
    with pytest.raises(CheckpointError, match=r"made from the module net\.py:build"):
        robust_nas.load_model(folder / "model")
    own = load_module(module)
    network = robust_nas.load_model(folder / "model", module=own)
    assert any(type(part).__name__ == "GDWSConv2d" for part in network.modules())
    assert not any(type(part).__name__ == "GDWSConv2d" for part in own.modules())
    x = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(load_module(module, folder / "model")(x), network(x))


def test_what_fails_after_the_work_is_a_gap_and_not_its_loss(module, tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise ValueError("no clock")

    monkeypatch.setattr(latency, "_timed", fails)
    monkeypatch.setattr(GDWS, "draw", fails)
    with pytest.warns(FigureWarning, match="figure 'gdws' is not drawn: ValueError: no clock"):
        tree = robust_nas.compress(module_options(), module, tmp_path / "out")
    show(tree, tmp_path / "out")
    shown = capsys.readouterr().out
    assert "not measured: torch: ValueError: no clock" in shown
    assert "warning: net.py:build was probably trained on the validation images" in shown
    assert tree["not_measured"][0] == "torch: ValueError: no clock"
    assert all(row["latency_ms"] == {} and row["validation"] for row in tree["networks"])
    assert (tmp_path / "out" / "figures" / "compression.png").is_file()  # without the panel of milliseconds
    monkeypatch.undo()
    again = robust_nas.compress(module_options(), module, tmp_path / "out", mode="resume")
    assert again == tree
    assert (tmp_path / "out" / "figures" / "layers.png").is_file()


def test_a_module_whose_layers_share_weights_is_refused_before_anything_is_written(module, tmp_path):
    (tmp_path / "net.py").write_text(
        MODULE.replace(
            "nn.ReLU(), nn.AdaptiveAvgPool2d(1)",
            "nn.ReLU(), *2 * [nn.Conv2d(12, 12, 1)], nn.AdaptiveAvgPool2d(1)",
        )
    )
    with pytest.raises(CompressionError, match=r"net\.py:build: 6\.weight and 5\.weight are one tensor"):
        robust_nas.compress(module_options(), module, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("of_dict", r"net\.py:of_dict: gives dict; float32 logits"),
        ("double", r"double: does not take float32 images of \(1, 8, 8\) in a batch of 2: RuntimeError"),
        ("lazy", r"lazy: 2\.weight has no shape yet"),
        ("few", "few: gives 3 logits; the dataset has 10 classes"),
        (
            "detached",
            "its loss has no gradient for the images in eval mode: RuntimeError: element 0 of tensors",
        ),
        ("masked", "masked: the gradient of its loss for the images is not finite in eval mode"),
        ("infinite", "infinite: gives logits that are NaN or infinite for images of the dataset"),
        (
            "reading",
            "gdws: Around fails with its layers in another form: AttributeError: 'GDWSConv2d' object has no",
        ),
        ("recurrent", "in a batch of 1: RuntimeError: Input batch size 1 doesn't match"),
    ],
)
def test_a_module_that_does_not_make_logits_is_refused_before_anything_is_written(
    module, tmp_path, function, said
):
    with pytest.raises(ConfigError, match=said):  # a CompressionError is one
        robust_nas.compress(module_options(), module.replace(":build", f":{function}"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            "reading_in_training",
            "cstar: Around fails with its layers in another form: AttributeError: 'Tucker2",
        ),
        ("frozen", "the gradient of its loss for the weights is missing in training mode"),
    ],
)
def test_a_module_that_cannot_be_trained_is_refused_before_anything_is_written(
    module, tmp_path, function, said
):
    tree = {**module_options().model_dump(), "compression": {"cstar": {"ratios": [1.2]}}}
    with pytest.raises(CompressionError, match=said):
        robust_nas.compress(
            CompressionConfig(**tree), module.replace(":build", f":{function}"), tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


def test_a_loss_that_needs_more_of_the_module_is_refused_before_anything_is_written(module, tmp_path):
    tree = {**module_options().model_dump(), "compression": {"cstar": {"ratios": [1.2]}}}
    tree["training"]["loss"] = {"name": "iat", "layers": 1, "attack": {"name": "pgd", "eps": 0.1}}
    with pytest.raises(ConfigError, match=r"iat mixes the outputs of layers; .* has no `mixing_points`"):
        robust_nas.compress(CompressionConfig(**tree), module, tmp_path / "out")
    assert not (tmp_path / "out").exists()


LOW_RANK = {"ratios": [1.2], "epochs": 1, "finetune_epochs": 1, "baselines": []}


@pytest.mark.parametrize(
    ("compression", "key"),
    [
        ({"cstar": {**LOW_RANK, "learning_rate": 1e20}}, r"compression\.cstar\.learning_rate"),
        (
            {"cstar": {**LOW_RANK, "finetune_learning_rate": 1e20}},
            r"compression\.cstar\.finetune_learning_rate",
        ),
        (
            {
                "steps": [
                    {
                        "name": "gdws",
                        "budgets": [0.6],
                        "alpha": None,
                        "finetune_epochs": 1,
                        "finetune_learning_rate": 1e20,
                    },
                    {"name": "gdws", "budgets": [0.9]},
                ]
            },
            r"compression\.steps\.0\.finetune_learning_rate",
        ),
    ],
)
def test_a_divergence_names_the_learning_rate_of_its_step(module, tmp_path, compression, key):
    tree = {**module_options().model_dump(), "compression": compression}
    tree["training"]["batch_size"] = 8
    with pytest.raises(DivergenceError, match=rf"diverged.*A smaller {key} or a training\.clip_norm"):
        robust_nas.compress(CompressionConfig(**tree), module, tmp_path / "out")


def test_a_beta_that_the_measured_alphas_put_out_of_reach_leaves_nothing_behind(module, tmp_path):
    tree = {**module_options().model_dump(), "compression": {"gdws": {"betas": [1e-30]}}}
    with pytest.raises(CompressionError, match="beta 1e-30 leaves every layer dense"):
        robust_nas.compress(CompressionConfig(**tree), module, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_compressed_folder_is_no_file_of_weights(module, tmp_path):
    with pytest.raises(ConfigError, match="is a folder; the weights of the uncompressed module"):
        robust_nas.compress(module_options(), module, tmp_path / "out", weights=tmp_path)


def test_cells_without_anything_for_gdws_are_refused_before_cstar_trains():
    cells = robust_nas.load_architecture("arnas").resized(3, 4)
    network = robust_nas.build_network(cells, input_shape=(1, 8, 8), classes=10)
    work = CompressionConfig.of(
        RunConfig(**{**run_config().model_dump(), "compression": {"cstar": {"ratios": [1.2]}, "gdws": {}}})
    )
    with pytest.raises(CompressionError, match="nothing can be factorised"):
        refuse_out_of_reach(network, (1, 8, 8), work.compression.steps)
    # By itself GDWS, the default, has nothing to take either: what works is said.
    said = r"^gdws: nothing can be factorised: .*; what works: robust-nas compress m --method cstar --ratio ([0-9.]+)$"
    with pytest.raises(CompressionError, match=said) as caught:
        refuse_out_of_reach(network, (1, 8, 8), work.compression.steps[1:], "robust-nas compress m ")
    ratio = float(str(caught.value).split()[-1])
    refuse_out_of_reach(network, (1, 8, 8), (CSTAR(ratios=(ratio,)),))


def test_a_module_without_convolutions_is_refused(module, tmp_path):
    with pytest.raises(CompressionError, match="no convolution"):
        robust_nas.compress(module_options(), module.replace(":build", ":flat"), tmp_path / "out")
