"""Adv-BNN: its loss in closed form, its draws, the number of images, and the networks that it refuses."""

import pytest
import torch
from cases import config
from training_cases import EPS, LOSSES, generator, images, options, residual, residual_for, run_training

import robust_nas
from robust_nas.attacks import PGD
from robust_nas.attacks.predictor import Predictor
from robust_nas.errors import ConfigError
from robust_nas.search import WeightOptimiser
from robust_nas.spaces import ResidualArchitecture
from robust_nas.training import AWP, AdvBNN, Natural, TrainingContext, cross_entropy
from robust_nas.training.context import Batch
from robust_nas.training.parameters import parameter_groups

LOSS = AdvBNN(attack=PGD(eps=EPS, steps=2, keep="last"))


def batch(count=8):
    part = images(count)
    return part.float(), part.labels


def value(loss, network, seed=0):
    return loss(network, *batch(), generator(seed)).loss


def posterior():
    return residual_for(LOSS).train()


def test_the_prior_is_weighed_by_the_number_of_images():
    """The rest does not depend on it: L = CE + alpha KL / N."""
    divergence = posterior().kl(LOSS.prior_sigma).detach()
    losses = {n: value(LOSS.of_images(n), posterior()).detach() for n in (8, 100, 10_000)}
    torch.testing.assert_close(losses[8], value(LOSS, posterior()).detach())  # the images at hand
    for n in (100, 10_000):
        torch.testing.assert_close(losses[8] - losses[n], divergence * (1 / 8 - 1 / n))
    without = LOSS.model_copy(update={"alpha": 0.0})
    torch.testing.assert_close(losses[100] - value(without, posterior()).detach(), divergence / 100)


def test_a_training_tells_it_its_images(tmp_path):
    """24 of them, of which a batch has 8; other hooks see a loss that knows them."""
    training = TrainingContext(network=posterior(), loss=LOSS, generator=generator(), images=images(24))
    training.hooks.append(LOSS.start(training))
    torch.testing.assert_close(training.value(*batch()).loss, value(LOSS.of_images(24), posterior()))
    with pytest.raises(ConfigError, match="weighs its prior by the number of images"):
        LOSS.start(TrainingContext(network=posterior(), loss=LOSS, generator=generator()))


@pytest.mark.parametrize("eot", [1, 3])
def test_every_gradient_of_the_attack_and_the_loss_have_draws_of_their_own(eot, monkeypatch):
    network, seen = posterior(), []
    drawn = network.drawn

    def noted():
        seen.append((drawn(), network.member.training))
        return seen[-1][0]

    monkeypatch.setattr(network, "drawn", noted)
    loss = LOSS.model_copy(update={"attack": LOSS.attack.model_copy(update={"eot": eot})})
    global_draws = torch.get_rng_state()
    value(loss, network)
    assert torch.equal(torch.get_rng_state(), global_draws)
    assert [training for _, training in seen] == [False] * 2 * eot + [True]
    name = next(iter(seen[0][0]))
    assert len({tuple(weights[name].flatten().tolist()) for weights, _ in seen}) == len(seen)
    assert network.present is None


def test_with_almost_no_noise_it_is_adversarial_training_with_weight_decay():
    """Of the mean: mu^2 / (2 prior_sigma^2 N) for every weight, and for sigma a constant that mu has no part in."""
    network = posterior()
    with torch.no_grad():
        for rho in network.rho.values():
            rho.fill_(-30.0)
    draws = generator()
    with network.drawing_from(draws):
        attack = LOSS.attack.model_copy(update={"fold": False})
        attacked = attack.craft(Predictor(network), *batch()[:1], batch()[1], draws)
    value(LOSS, network).backward()
    found = {name: p.grad.clone() for name, p in network.member.named_parameters()}
    network.zero_grad()
    cross_entropy(network.member(attacked), batch()[1]).backward()
    for name, p in network.member.named_parameters():
        prior = p.detach() / (LOSS.prior_sigma**2 * 8) if name in network.posterior() else 0.0
        torch.testing.assert_close(found[name], p.grad + prior, rtol=1e-3, atol=1e-5)


def test_a_training_draws_the_posterior_to_the_prior(tmp_path):
    """With a prior that outweighs the images: sigma grows from 0.08 toward 0.5."""
    loss = AdvBNN(attack=LOSS.attack, prior_sigma=0.5, alpha=20.0)
    net = posterior()
    before = net.kl(0.5).detach()
    run_training(tmp_path, options(loss=loss, weight_decay=0.0, learning_rate=0.01), net=net)
    assert net.kl(0.5) < before - 20
    assert all((sigma > 0.08).all() for _, sigma in net.posterior().values())


def test_weight_decay_leaves_sigma_alone():
    net = posterior()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimiser = torch.optim.SGD(parameter_groups(net), lr=0.1, weight_decay=0.5)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert not any(name.startswith("rho.") for name in moved)
    assert len(list(net.parameters())) == sum(len(group["params"]) for group in optimiser.param_groups)


def test_adversarial_weights_leave_sigma_alone(tmp_path):
    net, moved = posterior(), set()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    context = TrainingContext(network=net, loss=LOSS, generator=generator(0), epochs=1, steps=1, batch_size=8)
    AWP(gamma=0.1).start(context).before_step(Batch(*batch(), torch.arange(8)))
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert not any(name.startswith("rho.") for name in moved)


TINY = ResidualArchitecture(name="tiny", stem=2, depths=(1,), widths=(2,))


def test_a_network_without_a_posterior_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(ConfigError, match=r"training\.loss: adv-bnn .* is a residual network.*mean-field"):
        robust_nas.train(config("training.loss=adv-bnn"), TINY, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with pytest.raises(ConfigError, match="the network is ResidualNetwork, which has none"):
        run_training(tmp_path / "run", options(loss=LOSS), net=residual())
    with pytest.raises(ConfigError, match=r"loss: got loss 'adv-bnn', which does not fit here"):
        WeightOptimiser(loss={"name": "adv-bnn", "attack": {"name": "pgd", "eps": 0.1}})


def test_wrong_options_are_placed():
    for change in ({"prior_sigma": 0}, {"alpha": -1}, {"attack": {"name": "apgd", "eps": EPS}}):
        (key,) = change
        with pytest.raises(ConfigError, match=key):
            AdvBNN(**{"attack": LOSS.attack, **change})
    assert LOSSES["adv-bnn"].passes == 2 * 3 + 3
    assert Natural().passes == 3
