"""Sparta: its limits, one module per stage, and the transfer of it between networks."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robust_nas.attacks.folding import folded
from robust_nas.compression.folding import fold_batch_norms
from robust_nas.compression.layers import survey
from robust_nas.errors import ArchitectureError
from robust_nas.layers.shared_activations import Shared
from robust_nas.layers.sparta import Sparta
from robust_nas.nets import (
    ModelDescription,
    build_network,
    extract_sparta,
    inference_state,
    load_sparta,
    read_model,
    replace_activations,
    save_model,
)
from robust_nas.spaces import ResidualArchitecture, load_architecture
from robust_nas.training.average import moving_average

SHAPE = (1, 8, 8)
NETWORKS = {
    "residual": ResidualArchitecture(name="r", stem=4, depths=(1, 2), widths=(4, 6), activation="sparta"),
    "cell": load_architecture("arnas").resized(cells=4, channels=2).with_options(activation="sparta-1x1"),
}
every_network = pytest.mark.parametrize("architecture", NETWORKS.values(), ids=NETWORKS)


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=6, seed=1):
    return torch.rand(count, *SHAPE, generator=draws(seed))


def moved(network, seed=2):
    """The network with other parameters than at its start, in eval mode."""
    generator = draws(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        network.train()(images(16))
    return network.eval()


def built(architecture, seed=0, shape=SHAPE):
    return build_network(architecture, input_shape=shape, classes=3, seed=seed)


def with_phi(beta, bias=0.0):
    module = Sparta(3).double()
    with torch.no_grad():
        module.weight.mul_(beta)
        module.bias.fill_(bias)
    return module


def test_its_limits_are_silu_relu_and_the_identity():
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64, generator=draws())
    assert torch.allclose(with_phi(1)(x), F.silu(x), rtol=0, atol=1e-12)
    assert torch.allclose(Sparta(3, mixed=True)(x.float()), F.silu(x.float()), rtol=0, atol=1e-6)
    away = x.abs() > 0.01
    assert torch.allclose(with_phi(1e4)(x)[away], F.relu(x)[away], rtol=0, atol=1e-12)
    assert torch.allclose(with_phi(0, bias=50)(x), x, rtol=0, atol=1e-12)


def test_it_looks_at_neighbours_and_moves_with_the_image():
    module, x = with_phi(1), torch.randn(1, 3, 9, 9, dtype=torch.float64, generator=draws())
    with torch.no_grad():
        module.weight.add_(torch.randn(module.weight.shape, dtype=torch.float64, generator=draws(1)))
    there = module(x.roll((1, 2), (2, 3)))
    assert torch.allclose(there[:, :, 2:-1, 3:-1], module(x).roll((1, 2), (2, 3))[:, :, 2:-1, 3:-1])
    other = x.clone()
    other[0, 0, 4, 4] += 1
    changed = (module(other) != module(x)).nonzero()
    assert {(int(row), int(column)) for _, _, row, column in changed} == {
        (row, column) for row in (3, 4, 5) for column in (3, 4, 5)
    }
    assert set(changed[:, 1].tolist()) == {0}


@pytest.mark.parametrize("mixed", [False, True])
def test_its_gradients_are_those_of_finite_differences_to_the_second_order(mixed):
    module = moved_module = Sparta(2, mixed).double()
    with torch.no_grad():
        for parameter in moved_module.parameters():
            parameter.add_(torch.randn(parameter.shape, dtype=torch.float64, generator=draws()))
    x = torch.randn(1, 2, 4, 3, dtype=torch.float64, generator=draws(3), requires_grad=True)
    names, values = zip(*module.named_parameters(), strict=True)

    def call(x, *parameters):
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *values))
    assert torch.autograd.gradgradcheck(call, (x, *values))


@every_network
def test_one_module_serves_a_stage_and_is_held_once(architecture):
    network = built(architecture)
    places = [module for module in network.modules() if isinstance(module, Shared)]
    held = dict(network.shared_activations.items())
    assert sorted(held, key=str) == sorted(architecture.shared_activations(), key=str)
    assert len(places) > len(held)
    assert {id(place.held[0]) for place in places} == {id(module) for module in held.values()}
    assert not any(isinstance(module, nn.ReLU) for module in network.modules())
    names = [name for name, _ in network.named_parameters() if ".weight" in name and "shared" in name]
    assert [name for name in network.state_dict() if ".weight" in name and "shared" in name] == names
    copied = copy.deepcopy(network)
    inside = {id(place.held[0]) for place in copied.modules() if isinstance(place, Shared)}
    assert inside == {id(module) for module in copied.shared_activations.values()}


@every_network
def test_copies_for_attacks_averages_and_folders_follow_its_parameters(architecture, tmp_path):
    network, x = moved(built(architecture)), images()
    with torch.no_grad():
        logits = network(x)
        average = moving_average(network, 0.5)
        next(iter(network.shared_activations.values())).bias.add_(1)
        now = network(x)
        assert not torch.equal(now, logits)
        copied = folded(network, x)
        assert copied.model_form == "folded"
        assert torch.allclose(copied.network(x), now, rtol=1e-4, atol=1e-5)
        assert torch.equal(average.module(x), logits)
        average.update_parameters(network)
        assert not torch.equal(average.module(x), logits)
        description = ModelDescription(
            input_shape=SHAPE, class_names=("a", "b", "c"), mean=(0.0,), std=(1.0,)
        )
        save_model(tmp_path / "model", architecture, inference_state(network), description)
        assert torch.equal(read_model(tmp_path / "model").network(x), now)


def test_compression_leaves_it_as_it_is_and_folds_around_it():
    architecture = ResidualArchitecture(
        name="r", stem=8, depths=(1, 1), widths=(8, 12), activation="sparta-1x1"
    )
    network = moved(built(architecture))
    kept = extract_sparta(network)
    convolutions = {name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    assert {layer.name for layer in survey(network, SHAPE)} == convolutions | {"classifier"}
    own, forms, why = fold_batch_norms(network, images())
    assert (why, len(forms)) == ("", 2 * 2)
    with torch.no_grad():
        assert torch.allclose(own(images()), network(images()), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(tensor, kept[key]) for key, tensor in extract_sparta(own).items())


def test_it_goes_from_wrn_10_1_to_wrn_16_1_and_to_other_images_whole():
    small = moved(built(load_architecture("wrn-10-1.sparta"), shape=(1, 28, 28)).eval().to("cpu"), 3)
    state = extract_sparta(small)
    assert sorted(state) == [
        f"{key}.{name}" for key in ("1-16", "2-32", "3-64") for name in ("bias", "weight")
    ]
    large = built(load_architecture("wrn-16-1.sparta"))
    load_sparta(large, state)
    assert all(torch.equal(tensor, state[key]) for key, tensor in extract_sparta(large).items())
    frozen = {name for name, parameter in large.named_parameters() if not parameter.requires_grad}
    assert frozen == {f"shared_activations.{key}" for key in state}
    load_sparta(large, state, freeze=False)  # takes over, and changes no flag
    before = {name: parameter.detach().clone() for name, parameter in large.named_parameters()}
    optimiser = torch.optim.SGD(large.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    F.cross_entropy(large.train()(images()), torch.arange(6) % 3).backward()
    optimiser.step()
    same = {name for name, parameter in large.named_parameters() if torch.equal(parameter, before[name])}
    assert same == frozen


def test_a_transfer_that_does_not_fit_names_both_sets_and_changes_nothing():
    state = extract_sparta(built(load_architecture("wrn-10-1.sparta")))
    other = built(load_architecture("wrn-10-2.sparta"))
    before = extract_sparta(other)
    with pytest.raises(
        ArchitectureError,
        match=r"given are those of 1-16\.bias, .*3-64\.weight; ResidualNetwork has 1-16.*3-128",
    ):
        load_sparta(other, state)
    with pytest.raises(ArchitectureError, match=r"1-16\.bias: has shape \[3\], \[16\] is needed"):
        load_sparta(other, before | {"1-16.bias": torch.zeros(3)})
    assert all(torch.equal(tensor, before[key]) for key, tensor in extract_sparta(other).items())
    with pytest.raises(
        ArchitectureError, match="has no shared activations; a network with activation sparta has"
    ):
        extract_sparta(built(load_architecture("wrn-10-1")))


class Own(nn.Module):
    """A module of a user's: two resolutions, an activation on vectors, one that is used twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.third, self.last = nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Linear(6, 3)
        self.relu, self.silu, self.vector = nn.ReLU(), nn.SiLU(), nn.ReLU()

    def forward(self, x):
        x = self.relu(self.second(self.relu(self.first(x))))
        return self.last(self.vector(self.silu(self.third(x)).mean((2, 3))))


def test_the_activations_of_a_module_of_ones_own_are_replaced():
    model = Own()
    assert replace_activations(model, images()) == ["relu", "silu"]
    assert model.training
    assert type(model.vector) is nn.ReLU
    state = extract_sparta(model)
    assert {key.partition(".")[0] for key in state} == {"1-4", "2-6"}
    silu = Own()
    silu.load_state_dict({name: t for name, t in model.state_dict().items() if "shared" not in name})
    silu.relu = nn.SiLU()
    with torch.no_grad():
        assert torch.allclose(model(images()), silu(images()), rtol=0, atol=1e-6)
    load_sparta(model, state)
    with pytest.raises(ArchitectureError, match="Own: has shared activations already"):
        replace_activations(model, images())


def test_what_cannot_be_replaced_is_said():
    with pytest.raises(
        ArchitectureError, match="none of its modules is ReLU or SiLU or GELU or Softplus on maps"
    ):
        replace_activations(nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.ReLU()), images())
    relu = nn.ReLU()
    twice = nn.Sequential(nn.Conv2d(1, 2, 3), relu, nn.Conv2d(2, 3, 3), relu)
    with pytest.raises(
        ArchitectureError, match="1: is one activation for maps of 2x6x6, 3x4x4; give every place"
    ):
        replace_activations(twice, images())
