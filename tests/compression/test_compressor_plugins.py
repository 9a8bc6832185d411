"""A compressor of the user's own, as a file and as an installed package, through the whole compression."""

import shutil

import pytest
import torch
from cases import config as run_config
from extending import example
from plugins import install

import robust_nas
from robust_nas.compression import COMPRESSORS
from robust_nas.errors import CodeRefusedError, CompressionError, ConfigError
from robust_nas.export import latency
from robust_nas.spaces import load_architecture
from robust_nas.workflows.compression_config import compression_config

NETWORK = robust_nas.ResidualArchitecture(name="small", stem=4, depths=(1, 1), widths=(8, 16))
SVD = example("svd.py")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return robust_nas.train(run_config(), NETWORK, tmp_path_factory.mktemp("plugin") / "model")


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(latency, "PACKAGES", ("none_such",))  # exports take most of the time here
    (tmp_path / "svd.py").write_text(SVD)
    return tmp_path / "svd.py"


def check(tree, folder, method):
    row = tree["networks"][1]
    assert (tree["chosen"], row["label"], row["method"]) == ("svd-0.25", "svd-0.25", method)
    assert row["macs"] < tree["networks"][0]["macs"]
    assert row["test"]["robust"]["images"] == 20
    network = robust_nas.load_model(folder / "model")
    assert sum(p.numel() for p in network.parameters()) == row["params"]
    assert any(type(layer).__name__ == "LowRankConv2d" for layer in network.modules())
    x = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(robust_nas.load_model(folder / row["folder"])(x), network(x))


def test_a_compressor_in_a_file_is_chosen_evaluated_and_loaded(model, file):
    folder = file.parent / "out"
    config = compression_config(model, "svd.py:SVD", ["compression.max_loss=0.9"])
    tree = robust_nas.compress(config, model, folder)
    check(tree, folder, "SVD")
    assert robust_nas.compress(config, model, folder, mode="resume") == tree


def test_a_compressor_of_an_installed_package_follows_another(model, file, monkeypatch):
    shutil.copy(file, file.with_name("installed_svd.py"))
    install(monkeypatch, file.parent, COMPRESSORS, "svd", "installed_svd:SVD")
    folder = file.parent / "out"
    changes = [
        "compression.max_loss=0.9",
        "compression.steps.1.budgets=[0.9]",
        "compression.steps.1.alpha=null",
    ]
    config = compression_config(model, "svd+gdws", changes)
    assert [step.name for step in config.compression.steps] == ["svd", "gdws"]
    tree = robust_nas.compress(config, model, folder)
    assert [(row["label"], row["method"], row["made_from"]) for row in tree["networks"]] == [
        ("original", "original", None),
        ("svd-0.25", "svd", "original"),
        ("svd-0.25+gdws-0.9", "svd+gdws", "svd-0.25"),
    ]
    assert tree["chosen"] == "svd-0.25+gdws-0.9"
    assert robust_nas.load_model(folder / "model")(torch.rand(1, 1, 8, 8)).shape == (1, 10)


def test_what_it_refuses_is_refused_before_a_folder_is_made(tmp_path, file):
    plain = robust_nas.ResidualArchitecture(name="plain", stem=4, depths=(1,), widths=(4,))
    folder = robust_nas.train(run_config(), plain, tmp_path / "plain")
    with pytest.raises(CompressionError, match="no 1x1 convolution"):
        robust_nas.compress(compression_config(folder, "svd.py:SVD"), folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("previews", [True, False])
def test_a_step_that_finds_nothing_on_what_the_step_before_it_made_is_refused(tmp_path, file, previews):
    # Cells have depthwise convolutions and 1x1 ones: GDWS finds none that it can take.
    cells = load_architecture(robust_nas.run_search(run_config(), tmp_path / "search").folder)
    folder = robust_nas.train(run_config(), cells, tmp_path / "cells")
    if not previews:
        file.write_text(SVD.replace("def previews", "def forecast"))
    config = compression_config(folder, "svd.py:SVD+gdws")
    with pytest.raises(CompressionError, match=r"^gdws on svd-0\.25: nothing can be factorised: "):
        robust_nas.compress(config, folder, tmp_path / "out")
    assert (tmp_path / "out").exists() is not previews


def test_a_folder_that_names_code_is_refused_and_a_wrong_key_named(model, tmp_path, file):
    stranger = tmp_path / "stranger"
    shutil.copytree(model, stranger)
    text = (stranger / "recipe.yaml").read_text()
    assert "\ncompression: null\n" in text
    code = "\ncompression: {steps: [{name: 'other.py:SVD'}]}\n"
    (stranger / "recipe.yaml").write_text(text.replace("\ncompression: null\n", code))
    shutil.copy(file, tmp_path / "other.py")
    with pytest.raises(CodeRefusedError, match=r"--allow-code other\.py"):
        compression_config(stranger)
    with pytest.raises(
        ConfigError, match=r"compression\.steps\.0\.shares: unknown key 'shares'; did you mean 'share'"
    ):
        compression_config(model, "svd.py:SVD", ["compression.steps.0.shares=0.5"])
