"""The hook that freezes the activations of another model: what moves, what is refused, and what a job is known by."""

import shutil

import pytest
import torch
import yaml
from cases import CONFIG, config
from training_cases import Stopped, options, run_training, same, stop_at

import robust_nas
from robust_nas.config import read_yaml
from robust_nas.errors import ConfigError, RunExistsError
from robust_nas.nets import (
    ModelDescription,
    build_network,
    extract_sparta,
    inference_state,
    read_model,
    save_model,
)
from robust_nas.spaces import ResidualArchitecture, load_architecture
from robust_nas.training import AWP, FrozenSparta

SMALL = ResidualArchitecture(name="small", stem=2, depths=(1, 1), widths=(2, 4), activation="sparta")
LARGE = SMALL.with_options(name="large", depths=(2, 2))
HOOK = "training.hooks=[{{name: frozen-sparta, model: {}}}]"


def donor(folder, architecture=SMALL, seed=0):
    """A model folder, of images of 28 x 28, whose activations are not those of the start."""
    network = build_network(architecture, input_shape=(1, 28, 28), classes=10, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    description = ModelDescription(
        input_shape=(1, 28, 28), class_names=tuple("abcdefghij"), mean=(0.0,), std=(1.0,)
    )
    save_model(folder, architecture, inference_state(network), description)
    return folder


def built():
    return build_network(LARGE, input_shape=(1, 8, 8), classes=4, seed=1)


def test_its_parameters_stay_to_the_bit_and_all_others_move(tmp_path):
    folder = donor(tmp_path / "donor")
    state = extract_sparta(read_model(folder).network)
    values = options(
        hooks=[AWP(gamma=0.05), FrozenSparta(model=str(folder))], ema=0.9, weight_decay=0.1, clip_norm=1.0
    )
    before = built()
    outcome, _, network = run_training(tmp_path / "whole", values, net=built())
    assert same(extract_sparta(network), state)
    kept = {key: outcome.state[f"shared_activations.{key}"] for key in state}
    assert same(kept, state)  # of the average too
    moved = dict(network.named_parameters())
    still = {name for name, parameter in before.named_parameters() if torch.equal(parameter, moved[name])}
    assert still == set()  # those of the donor are others than at the start
    with pytest.raises(Stopped):
        run_training(tmp_path / "cut", values, net=built(), progress=stop_at(4))
    again, _, resumed = run_training(tmp_path / "cut", values, net=built(), mode="resume")
    assert same(again.state, outcome.state)
    assert not any(parameter.requires_grad for parameter in resumed.shared_activations.parameters())


def test_a_training_is_known_by_the_model_and_goes_from_large_images_to_small_ones(tmp_path):
    folder = donor(tmp_path / "donor")
    state = extract_sparta(read_model(folder).network)
    run = config(HOOK.format(folder))
    assert run.training.passes == config().training.passes
    model = robust_nas.train(run, LARGE, tmp_path / "model")
    assert read_model(model).description.input_shape == (1, 8, 8)
    assert same(extract_sparta(read_model(model).network), state)
    (hook,) = read_yaml(model / "config.yaml")["training"]["hooks"]
    assert hook == {"name": "frozen-sparta", "model": str(folder), "digest": run.training.hooks[0].digest}
    robust_nas.train(config(HOOK.format(folder)), LARGE, model, mode="resume")
    donor(folder, seed=1)
    with pytest.raises(ConfigError, match="has changed since its digest was taken"):
        robust_nas.train(run, LARGE, tmp_path / "other")
    with pytest.raises(RunExistsError, match=r"different: training\.hooks"):
        robust_nas.train(config(HOOK.format(folder)), LARGE, model, mode="resume")
    shutil.rmtree(folder)
    assert read_model(model).architecture == LARGE  # which needs the donor no more
    assert type(run.training).model_validate(read_yaml(model / "config.yaml")["training"]) == run.training


def test_its_model_is_named_as_seen_from_the_config(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    donor(tmp_path / "donor")
    file = tmp_path / "configs" / "mine.yaml"
    hooks = [{"name": "frozen-sparta", "model": "../donor"}]
    file.write_text(yaml.safe_dump({**CONFIG, "training": {**CONFIG["training"], "hooks": hooks}}))
    (hook,) = robust_nas.load_config(file).training.hooks
    assert hook.model == str(tmp_path / "donor")
    monkeypatch.chdir(tmp_path)
    assert config(HOOK.format("donor")).training.hooks == (hook,)


@pytest.mark.parametrize(
    ("giving", "taking", "message"),
    [
        (
            SMALL,
            LARGE.with_options(widths=(2, 6)),
            "small in .* gives activations 1-2, 2-4; large has 1-2, 2-6",
        ),
        (
            SMALL,
            LARGE.with_options(activation="silu"),
            "gives activations 1-2, 2-4; large has none; .*silu, sparta",
        ),
        (SMALL, LARGE.with_options(activation="sparta-1x1"), "activations: sparta, sparta-1x1"),
        (SMALL.with_options(activation="relu"), LARGE, "small has no shared activations to give"),
    ],
)
def test_activations_that_do_not_fit_are_refused_before_anything_starts(tmp_path, giving, taking, message):
    run = config(HOOK.format(donor(tmp_path / "donor", giving)))
    with pytest.raises(ConfigError, match=message):
        robust_nas.train(run, taking, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_folder_without_a_model_and_a_search_are_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"training\.hooks.*none: no model of an architecture, architecture.yaml is"
    ):
        config(HOOK.format(tmp_path / "none"))
    run = config(HOOK.format(donor(tmp_path / "donor")))
    with pytest.raises(ConfigError, match="gives activations 1-2, 2-4; a cell network has none"):
        robust_nas.run(run, tmp_path / "run")
    assert not (tmp_path / "run" / "search").exists()


def test_a_wide_residual_network_is_named_with_its_activation():
    architecture = load_architecture("wrn-10-1.sparta")
    assert (architecture.name, architecture.activation) == ("wrn-10-1.sparta", "sparta")
    assert architecture.shared_activations() == ["1-16", "2-32", "3-64"]
    assert load_architecture("wrn-16-1.sparta").shared_activations() == architecture.shared_activations()
