"""RSE: noise before every convolution, a network that stays as it is, and the plain network where there is no noise."""

import threading

import pytest
import torch
from torch import nn

from robust_nas.attacks import PGD, Predictor
from robust_nas.attacks.folding import folded
from robust_nas.defences import RSE, StoredDefence
from robust_nas.errors import ConfigError
from robust_nas.layers.cuts import changed_inputs
from robust_nas.layers.gdws_conv import GDWSConv2d
from robust_nas.layers.noise_layers import convolutions, noise_layers, with_changed_inputs
from robust_nas.nets import build_network, inference_state, read_model, save_model
from robust_nas.spaces import MLPArchitecture, ResidualArchitecture

RESIDUAL = ResidualArchitecture(name="residual", stem=2, depths=(1, 1), widths=(2, 4))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=3):
    return torch.rand(count, 1, 8, 8, generator=generator())


def residual():
    return build_network(RESIDUAL, input_shape=(1, 8, 8), classes=4, seed=0).eval()


def identities():
    """Return two convolutions that give what they get."""
    layers = [nn.Conv2d(1, 1, 1, bias=False) for _ in range(2)]
    for layer in layers:
        nn.init.ones_(layer.weight)
    return nn.Sequential(*layers, nn.Flatten()).eval()


@pytest.fixture(params=["cells", "residual"])
def network(request, model_folder):
    return read_model(model_folder).network if request.param == "cells" else residual()


def test_without_noise_it_is_the_plain_network_bit_for_bit(network):
    draws = torch.get_rng_state()
    defended = RSE(std_init=0, std_inner=0).wrap(network)
    assert torch.equal(defended(images()), network(images()))
    assert torch.equal(torch.get_rng_state(), draws)


@pytest.mark.parametrize(("std_init", "std_inner"), [(0.3, 0.0), (0.0, 0.2), (0.3, 0.2)])
def test_noise_has_the_size_that_each_layer_says(std_init, std_inner):
    defended = RSE(std_init=std_init, std_inner=std_inner).wrap(identities())
    torch.manual_seed(0)
    found = defended(torch.zeros(50, 1, 20, 20)).detach()
    assert float(found.std()) == pytest.approx((std_init**2 + std_inner**2) ** 0.5, rel=0.02)
    assert abs(float(found.mean())) < 0.01


def test_every_convolution_that_runs_gets_noise_once(network):
    called, drawn = [], []
    handles = [
        layer.register_forward_hook(lambda module, given, output: called.append(given[0].shape))
        for layer in convolutions(network)
    ]
    network(images())
    for handle in handles:
        handle.remove()

    def draw(z):
        drawn.append(z.shape)
        return torch.zeros_like(z)

    noisy = with_changed_inputs(network, noise_layers(network, 0.1, 0.1, draw, "x"))
    assert torch.equal(noisy(images()), network(images()))
    assert drawn == called
    assert len(drawn) > 2


def test_it_is_random_in_eval_mode_and_drawn_from_the_global_generator(network):
    defended = RSE(samples=3).wrap(network)
    assert not any(module.training for module in defended.modules())
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(defended(images()))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert Predictor.of(defended).samples == 3
    assert RSE().inference_samples == 10


def test_the_undefended_network_never_has_the_layers():
    """Neither while the defended one runs, which a module in its middle sees, nor in another thread."""
    network, seen = residual(), []
    twin = network(images())

    class Watching(nn.Module):
        def forward(self, x):
            hooked = [bool(layer._forward_pre_hooks) for layer in convolutions(network)]
            seen.append((any(hooked), torch.equal(network(images()), twin)))
            return x

    defended = RSE().wrap(nn.Sequential(Watching(), network, Watching()).eval())
    others = []
    thread = threading.Thread(target=lambda: others.extend(network(images()) for _ in range(20)))
    thread.start()
    for _ in range(5):
        defended(images())
    thread.join()
    assert seen == [(False, True)] * 10
    assert all(torch.equal(other, twin) for other in others)
    assert defended.own_state() == {}


def test_two_defences_of_one_network_do_not_meet():
    network = identities()
    small, large = (RSE(std_init=std, std_inner=0).wrap(network) for std in (0.1, 10.0))
    x = torch.zeros(4, 1, 20, 20)
    assert large(x).std() > 5
    assert small(x).std() < 0.2


def test_it_follows_its_network_in_type_mode_and_weights():
    network = residual()
    defended = RSE(std_init=0, std_inner=1e-9).wrap(network)
    defended.double()
    torch.testing.assert_close(defended(images().double()), network(images().double()))
    means = [buffer for name, buffer in network.named_buffers() if name.endswith("running_mean")]
    assert not any(mean.any() for mean in means)
    defended.train()
    defended(images().double())
    assert all(mean.any() for mean in means)  # the network's own
    defended.eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)
    torch.testing.assert_close(defended(images().double()), network(images().double()))


def test_gradients_go_through_the_noise_and_to_the_weights():
    network = residual()
    defended = RSE().wrap(network)
    x = images().requires_grad_()
    defended(x)[:, 0].sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None for p in network.parameters())


def test_it_is_attacked_as_it_is():
    """A trace would not see the noise."""
    network = residual()
    defended = RSE(std_init=1e-9, std_inner=1e-9).wrap(network)
    found = folded(defended, images())
    assert found.network is None
    assert "torch.fx cannot trace it" in found.model_form
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    attacked = PGD(eps=0.1, steps=2)(
        Predictor.of(RSE().wrap(network)), images(), torch.arange(3), generator()
    )
    assert (attacked - images()).abs().max() <= 0.1 + 1e-6
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())
    assert folded(network, images()).network is not None


def test_a_layer_in_factors_is_one_convolution():
    network = nn.Sequential(nn.Conv2d(1, 3, 3), GDWSConv2d(nn.Conv2d(3, 2, 3), (1, 2, 1)), nn.Flatten())
    assert convolutions(network) == [network[0], network[1]]


def test_training_hooks_and_the_defence_have_the_same_layers(network):
    torch.manual_seed(4)
    expected = RSE(std_init=0.3, std_inner=0.2).wrap(network)(images())
    draws = generator(4)

    def draw(z):
        return torch.randn(z.shape, generator=draws)

    with changed_inputs(noise_layers(network, 0.3, 0.2, draw, "x")):
        found = network(images())
    torch.testing.assert_close(found, expected)


def test_a_network_without_convolutions_is_refused():
    network = build_network(MLPArchitecture(name="mlp", depth=1, width=4), input_shape=(1, 8, 8), classes=4)
    with pytest.raises(ConfigError, match=r"defence rse: noise layers precede convolutions, and .* has none"):
        RSE().wrap(network)
    with pytest.raises(ConfigError, match="std_inner"):
        RSE(std_inner=-1)


def test_a_folder_of_it_gives_the_same_answers(model_folder, tmp_path):
    model = read_model(model_folder)
    defended = RSE(samples=2).wrap(model.network)
    stored = StoredDefence.of(RSE(samples=2), {}, None, model.digest)
    description = model.description.model_copy(update={"defence": stored})
    save_model(tmp_path / "defended", model.architecture, inference_state(defended), description)
    found = read_model(tmp_path / "defended").network
    assert found.samples == 2
    logits = []
    for each in (defended, found):
        torch.manual_seed(0)
        logits.append(each(images()))
    assert torch.equal(*logits)
