"""A Gaussian posterior over the weights: draws, their divergence from the prior, and the posterior mean."""

import copy

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from robust_nas.attacks import PGD, Predictor
from robust_nas.attacks.folding import folded
from robust_nas.nets import build_network, channels_last
from robust_nas.nets.build import seeded
from robust_nas.spaces import MeanFieldArchitecture, MLPArchitecture, ResidualArchitecture

TINY = ResidualArchitecture(name="tiny", stem=4, depths=(1, 1), widths=(4, 4))
MLP = MLPArchitecture(name="flat", depth=2, width=6)


def built(member=TINY, seed=4, **options):
    architecture = MeanFieldArchitecture(name="x", member=member, **options)
    return build_network(architecture, input_shape=(1, 8, 8), classes=3, seed=seed)


def images(count=6):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_the_mean_is_the_plain_network_and_sigma_starts_as_the_options_say():
    network = built(initial_sigma=0.05)
    plain = build_network(TINY, input_shape=(1, 8, 8), classes=3, seed=4)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(network.member.state_dict()[name], tensor)
    posterior = network.posterior()
    assert len(posterior) == len(network.rho)
    for _, sigma in posterior.values():
        torch.testing.assert_close(sigma, torch.full_like(sigma, 0.05))


def test_all_weights_but_those_of_batch_norms_have_a_posterior():
    network = built()
    names = dict(network.member.named_parameters()).keys()
    assert names - network.posterior().keys() == {name for name in names if "norm" in name}
    assert any("norm" in name for name in names)
    assert len(built(MLP).posterior()) == len(dict(built(MLP).member.named_parameters()))


def test_the_divergence_is_that_of_torch_s_distributions():
    network = built().double()
    with torch.no_grad():
        for number, rho in enumerate(network.rho.values()):
            rho.copy_(torch.randn(rho.shape, generator=torch.Generator().manual_seed(number)))
    prior = Normal(torch.zeros((), dtype=torch.float64), 0.3)
    expected = sum(
        kl_divergence(Normal(mu, sigma), prior).sum() for mu, sigma in network.posterior().values()
    )
    torch.testing.assert_close(network.kl(0.3), expected, rtol=1e-12, atol=0)


def test_the_divergence_vanishes_at_the_prior_and_its_gradient_leads_there():
    network = built(initial_sigma=0.2)
    with torch.no_grad():
        for mu, _ in network.posterior().values():
            mu.zero_()
    assert network.kl(0.2).abs() < 1e-2
    network.kl(0.1).backward()
    assert all((rho.grad > 0).all() for rho in network.rho.values())  # descent narrows what is too wide
    assert all(not mu.grad.any() for mu, _ in network.posterior().values())


@pytest.mark.parametrize("member", [TINY, MLP])
def test_without_noise_a_pass_is_the_posterior_mean(member):
    network = built(member).eval()
    mean = network.posterior_mean()
    assert not torch.equal(network(images()), mean(images()))
    with torch.no_grad():
        for rho in network.rho.values():
            rho.fill_(-200.0)
    assert torch.equal(network(images()), mean(images()))
    assert type(mean) is type(build_network(member, input_shape=(1, 8, 8), classes=3))
    assert torch.equal(mean(images()), mean(images()))


def test_every_pass_draws_anew_from_the_global_generator_and_follows_its_seed():
    network = built().eval()
    x = images()
    with seeded(0):
        one, other = network(x), network(x)
    with seeded(0):
        same = network(x)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    with seeded(0):
        assert torch.equal(network.staged(x)[-1], one)
    last = channels_last(copy.deepcopy(network))  # the same draws in another memory format
    with seeded(0):
        torch.testing.assert_close(last(x), one, rtol=1e-4, atol=1e-5)


def test_the_gradient_is_that_of_the_drawn_weights():
    network = built(MLP).double()
    x = images().double()
    with seeded(0):
        network(x).square().sum().backward()
    with seeded(0):
        drawn = {name: weight.detach() for name, weight in network.drawn().items()}
        noise = {
            name: (drawn[name] - mu.detach()) / sigma.detach()
            for name, (mu, sigma) in network.posterior().items()
        }
    plain = network.posterior_mean()
    plain.zero_grad()
    plain.load_state_dict(drawn, strict=False)
    plain(x).square().sum().backward()
    for name, weight in plain.named_parameters():
        rho = network.rho[name.replace(".", "/")]
        torch.testing.assert_close(dict(network.member.named_parameters())[name].grad, weight.grad)
        torch.testing.assert_close(rho.grad, weight.grad * noise[name] * rho.detach().sigmoid())


def test_the_training_s_generator_serves_training_mode_alone():
    network = built(MLP)
    generator = torch.Generator().manual_seed(0)
    network.draw_from(generator)
    before = generator.get_state()
    network.eval()(images())
    assert torch.equal(before, generator.get_state())
    state = torch.get_rng_state()
    first = network.train()(images())
    assert torch.equal(state, torch.get_rng_state())
    generator.manual_seed(0)
    assert torch.equal(network(images()), first)


def test_it_is_attacked_by_its_own_rule_and_never_through_a_copy():
    network = built(samples=3).eval()
    assert Predictor.of(network).samples == 3
    assert folded(network, images()).network is None
    before = copy.deepcopy(network.state_dict())
    made = PGD(eps=0.1, steps=1, eot=2).run(network, images(), torch.zeros(6, dtype=torch.int64))
    assert made.model_form == "as it is: it is random"
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(parameter.grad is not None for parameter in network.parameters())
