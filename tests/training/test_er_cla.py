"""ER-CLA-style training: the critic's two objectives, its limit, and latents that go to the prior."""

import pytest
import torch
from cases import config
from torch import nn
from training_cases import generator, network, options, run_training, same, small_batch, small_network

import robust_nas
from robust_nas.errors import ConfigError
from robust_nas.spaces import ResidualArchitecture
from robust_nas.training import ERCLA, Batch, Natural, TrainingContext
from robust_nas.training.steps.er_cla import Critic

STRONG = {"critic_width": 16, "critic_rate": 0.01, "clip": 0.3, "weight": 1.0}


def started(step, model, **more):
    training = TrainingContext(
        network=model, loss=Natural(), generator=generator(), **{"batch_size": 8, **more}
    )
    return step.start(training, ())


def bottleneck():
    """Return a network with two latents, `1`, whose mean is far from 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(50, 2), nn.Linear(2, 5))
    nn.init.constant_(model[1].bias, 4.0)
    return model.train()


def test_without_weight_it_is_the_standard_step(tmp_path):
    plain, records, net = run_training(tmp_path / "plain", options(loss=Natural(), epochs=1))
    found, again, other = run_training(
        tmp_path / "step", options(loss=Natural(), epochs=1, step=ERCLA(weight=0.0, critic_width=8))
    )
    assert same(found.state, plain.state)
    assert same(other.state_dict(), net.state_dict())
    assert again == records
    _, _, moved = run_training(tmp_path / "on", options(loss=Natural(), epochs=1, step=ERCLA(**STRONG)))
    assert not same(moved.state_dict(), net.state_dict())


def test_the_networks_gradient_is_that_of_the_loss_and_of_the_critic_after_its_step():
    model, again = bottleneck(), bottleneck()
    images, labels = small_batch()
    step = started(ERCLA(layer="1", **STRONG), model)
    measured = step.gradients(Batch(images, labels, torch.arange(8)))
    z = again[1](again[0](images))
    loss = nn.functional.cross_entropy(again[2](z), labels) + 1.0 * step.critic(z).mean()
    loss.backward()
    torch.testing.assert_close(measured.loss, loss.detach())
    for found, expected in zip(model.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)
    assert all(weight.grad is None for weight in step.critic.weights)


def test_the_critic_is_high_for_latents_and_low_for_the_prior_within_its_clip():
    draws = generator(1)
    options = ERCLA(critic_width=16, critic_rate=0.01, clip=0.3)
    critic = Critic(options, 2, generator(), torch.zeros(1))
    training = TrainingContext(network=nn.Identity(), loss=Natural(), generator=draws, steps=100)
    latents = torch.randn(64, 2, generator=draws) + 3
    for _ in range(60):
        critic.step(latents, training)
    prior = torch.randn(256, 2, generator=draws)
    assert critic(latents).mean() > critic(prior).mean() + 0.2
    assert all(weight.abs().max() <= 0.3 for weight in critic.weights)
    assert critic.steps == 60
    assert (critic(latents) <= 0).all()  # a log-sigmoid


def test_the_critics_rate_is_halved_after_so_many_epochs():
    options = ERCLA(critic_width=4, critic_rate=0.01, halve_every=2)
    critic = Critic(options, 2, generator(), torch.zeros(1))
    training = TrainingContext(network=nn.Identity(), loss=Natural(), generator=generator(), steps=3)
    rates = []
    for _ in range(13):
        critic.step(torch.zeros(4, 2), training)
        rates.append(critic.optimiser.param_groups[0]["lr"])
    assert rates == [0.01] * 6 + [0.005] * 6 + [0.0025]


def test_a_fitted_critic_draws_latents_to_the_prior():
    model = bottleneck()
    nn.init.zeros_(model[2].weight)  # which stays: the loss has no say in the latents
    images, labels = small_batch()
    step = started(ERCLA(layer="1", **STRONG), model)
    optimiser = torch.optim.SGD(model[1].parameters(), 0.01)
    before = model[:2](images).detach().norm(dim=1)
    for number in range(40):
        optimiser.zero_grad()
        step.gradients(Batch(images, labels, torch.arange(8)))
        if number >= 25:
            optimiser.step()
    after = model[:2](images).detach().norm(dim=1)
    assert before.min() > 4
    assert (after < 0.98 * before).all()


def test_latents_are_float32_in_bf16():
    step = started(ERCLA(**STRONG), small_network(), bf16=True)
    measured = step.gradients(Batch(*small_batch(), torch.arange(8)))
    assert measured.loss.isfinite()
    assert all(weight.dtype == torch.float32 for weight in step.critic.weights)


def test_latents_of_a_cell_network_are_the_input_of_its_classifier():
    model = network()
    step = started(ERCLA(**STRONG), model)
    step.gradients(Batch(torch.rand(8, 1, 8, 8), torch.arange(8) % 4, torch.arange(8)))
    assert step.critic.weights[0].shape == (16, model.classifier.in_features)


def test_a_critic_of_other_layers_is_refused():
    one, other = (started(ERCLA(**{**STRONG, "critic_width": width}), small_network()) for width in (4, 5))
    one.gradients(Batch(*small_batch(), torch.arange(8)))
    with pytest.raises(ValueError, match="other layers"):
        other.restore(one.state())


def test_a_layer_that_is_not_there_is_refused_before_anything_starts(tmp_path):
    run = config("training.step={name: er-cla, layer: nowhere}")
    small = ResidualArchitecture(name="small", stem=2, depths=(1,), widths=(2,))
    with pytest.raises(ConfigError, match=r"training\.step\.layer: got 'nowhere'; .* has stem"):
        robust_nas.train(run, small, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with pytest.raises(ConfigError, match=r"step\.sigma"):
        config("training.step={name: er-cla, sigma: 0}")
