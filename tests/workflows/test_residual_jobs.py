"""Residual networks and MLPs through train, evaluate and export, and the recipes that they refuse."""

import json

import pytest
import torch
from cases import config

import robust_nas
from robust_nas.errors import ArchitectureError, ConfigError

TINY = robust_nas.ResidualArchitecture(name="tiny", stem=4, depths=(1, 1), widths=(4, 4))
MLP = robust_nas.MLPArchitecture(name="flat", depth=2, width=6, initialisation="ntk")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return robust_nas.train(config("training.ema=0.9"), TINY, tmp_path_factory.mktemp("residual") / "model")


def test_a_trained_residual_network_is_a_model_folder_of_its_own_size(model):
    assert robust_nas.load_architecture(model) == TINY
    record = json.loads((model / "result.json").read_text())
    cost = robust_nas.count(TINY, (1, 8, 8), 10)
    assert (record["params"], record["macs"]) == (cost.params, cost.macs)
    assert sum(p.numel() for p in robust_nas.load_model(model).parameters()) == cost.params
    assert record["epoch"] == 0


def test_it_trains_to_the_same_bits_again(model, tmp_path):
    again = robust_nas.train(config("training.ema=0.9"), TINY, tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    robust_nas.train(config("training.ema=0.9"), TINY, again, mode="resume")


def test_it_is_evaluated_and_exported(model, tmp_path):
    verdict = robust_nas.run_evaluation(
        robust_nas.workflows.config.model_config(model), model, tmp_path / "evaluation"
    )
    assert verdict["robust"]["images"] == 20
    source = robust_nas.export_model(model, tmp_path / "export") / "network.py"
    names = {"__name__": "network", "__file__": str(source)}
    exec(compile(source.read_text(), "network.py", "exec"), names)  # noqa: S102
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(names["load"]()(x), robust_nas.load_model(model)(x))


@pytest.mark.parametrize("key", ["auxiliary_weight", "drop_path"])
def test_a_recipe_for_cell_networks_is_refused_before_anything_starts(tmp_path, monkeypatch, key):
    monkeypatch.setattr(
        robust_nas.data, "load_dataset", lambda *args, **options: pytest.fail("data was read")
    )
    with pytest.raises(
        ConfigError, match=rf"training\.{key}: got 0\.3; the network is a residual network.*: 0$"
    ):
        robust_nas.train(config(f"training.{key}=0.3"), TINY, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("architecture", "said"), [(TINY, "tiny: a residual network has"), (MLP, "flat: an MLP has")]
)
def test_it_has_no_cells_to_draw(tmp_path, architecture, said):
    with pytest.raises(ArchitectureError, match=f"{said} no cells to draw"):
        robust_nas.draw_architecture(architecture, tmp_path / "cells")
    assert list(tmp_path.iterdir()) == []


def test_an_mlp_is_trained_evaluated_and_exported(tmp_path):
    with pytest.raises(ConfigError, match=r"training\.drop_path: got 0\.3; the network is an MLP"):
        robust_nas.train(config("training.drop_path=0.3"), MLP, tmp_path / "refused")
    model = robust_nas.train(config(), MLP, tmp_path / "model")
    assert robust_nas.load_architecture(model) == MLP
    verdict = robust_nas.run_evaluation(robust_nas.workflows.config.model_config(model), model)
    assert verdict["robust"]["images"] == 20
    assert (robust_nas.export_model(model) / "network.py").is_file()
