"""IG-BNN and independent particles: their losses in closed form, the sign of the information gain, and the limits."""

import math

import pytest
import torch
import torch.nn.functional as F
from cases import config
from hypothesis import given
from hypothesis import strategies as st
from training_cases import (
    CLASSES,
    ENSEMBLE,
    EPS,
    LOSSES,
    generator,
    images,
    options,
    residual,
    run_training,
    same,
)

import robust_nas
from robust_nas.attacks import PGD
from robust_nas.errors import ConfigError
from robust_nas.nets import build_network
from robust_nas.spaces import ResidualArchitecture
from robust_nas.training import (
    IGBNN,
    PGDAT,
    Batch,
    IndependentParticles,
    LabelSmoothing,
    Natural,
    TrainingContext,
)
from robust_nas.training.steps.ig_bnn import mutual_information

ATTACK = PGD(eps=EPS, steps=2, keep="last")


def ensemble(particles=3, start=None):
    """Particles for images 1 x 8 x 8 in float64; with `start`, all begin as that network."""
    architecture = ENSEMBLE.model_copy(update={"particles": particles})
    network = build_network(architecture, input_shape=(1, 8, 8), classes=CLASSES, seed=0).double().train()
    for member in network.members if start is not None else ():
        member.load_state_dict(start.state_dict())
    return network


def batch():
    part = images(8)
    return Batch(part.pixels.double() / 255, part.labels, torch.arange(8))


def started(step, network, loss=None, hooks=()):
    training = TrainingContext(
        network=network, loss=loss or PGDAT(attack=ATTACK), generator=generator(), batch_size=8
    )
    training.hooks.extend(hooks)
    return step.start(training, hooks)


def flat(network):
    """Weights and gradients of every particle, `[n, P]` each."""
    return (
        torch.stack(
            [torch.cat([of(p).reshape(-1) for p in member.parameters()]) for member in network.members]
        )
        for of in (torch.Tensor.detach, lambda p: p.grad)
    )


def entropy(p):
    return -(p * p.log()).sum(-1)


def test_mutual_information_is_the_entropy_of_the_mean_less_the_mean_of_the_entropies():
    p = torch.randn(3, 6, 4, dtype=torch.float64, generator=generator()).softmax(2)
    torch.testing.assert_close(mutual_information(p.log()), entropy(p.mean(0)) - entropy(p).mean(0))


@given(n=st.integers(1, 6), classes=st.integers(2, 5), scale=st.floats(0, 50), seed=st.integers(0, 99))
def test_mutual_information_lies_between_zero_and_the_logarithm_of_the_fewer(n, classes, scale, seed):
    logits = scale * torch.randn(n, 4, classes, dtype=torch.float64, generator=generator(seed))
    found = mutual_information(logits.log_softmax(2))
    assert (found >= -1e-12).all()
    assert (found <= math.log(min(n, classes)) + 1e-12).all()


def test_particles_that_are_sure_of_different_classes_have_the_most_and_equal_ones_none():
    sure = torch.tensor([[[200.0, 0.0, 0.0]], [[0.0, 200.0, 0.0]]]).log_softmax(2)
    torch.testing.assert_close(mutual_information(sure), torch.tensor([math.log(2)]))
    equal = torch.randn(1, 5, 4, generator=generator()).log_softmax(2)
    assert torch.equal(mutual_information(equal), torch.zeros(5))
    torch.testing.assert_close(mutual_information(equal.expand(3, 5, 4)), torch.zeros(5))


def test_with_one_particle_it_descends_twice_the_adversarial_cross_entropy():
    network, again = ensemble(1), ensemble(1)
    step = started(IGBNN(information=5.0), network)
    draws = generator()
    draws.set_state(step.training.generator.get_state())
    measured = step.gradients(batch())
    x, y, _, _ = batch()
    attacked = ATTACK.craft(again.members[0], x, y, draws)
    loss = 2 * F.cross_entropy(again.members[0](attacked), y)
    loss.backward()
    torch.testing.assert_close(measured.loss, loss.detach())
    for found, expected in zip(network.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)


def equation_9(network, x, attacked, y, chosen, information, absolute):
    """L, from its formula."""
    clean = torch.stack([member(x) for member in network.members]).softmax(2)
    logits = [member(attacked) for member in network.members]
    p = torch.stack(logits).softmax(2)
    gain, gain_attacked = (entropy(q).mean(0) - entropy(q.mean(0)) for q in (clean, p))  # Eq 8
    term = gain - gain_attacked
    cross = [F.cross_entropy(z, y) for z in logits]
    return sum(cross) / len(cross) + cross[chosen] + information * (term.abs() if absolute else term).mean()


@pytest.mark.parametrize("absolute", [False, True])
def test_the_gradients_are_algorithm_1_on_equation_9(absolute, monkeypatch):
    network, again = ensemble(), ensemble()
    step = started(IGBNN(information=2.0, gamma=0.7, absolute=absolute), network)
    seen, craft = [], PGD.craft
    monkeypatch.setattr(PGD, "craft", lambda *given: seen.append((given[1], craft(*given))) or seen[-1][1])
    measured = step.gradients(batch())
    (victim, attacked), *others = seen
    assert others == []  # one particle is attacked
    (chosen,) = (i for i, member in enumerate(network.members) if member is victim)
    x, y, _, _ = batch()
    loss = equation_9(again, x, attacked, y, chosen, 2.0, absolute)
    loss.backward()
    torch.testing.assert_close(measured.loss, loss.detach())
    particles, gradients = flat(again)
    h = torch.pdist(particles).median()
    _, phi = flat(network)
    for i in range(3):
        k = (-(particles - particles[i]).square().sum(1) / (2 * h**2)).exp()[:, None]
        slope = -(particles - particles[i]) / h**2 * k  # of the kernel, for its first argument
        torch.testing.assert_close(phi[i], (k * gradients - 0.7 / 3 * slope).sum(0))


def test_every_particle_is_attacked_in_turn_by_chance():
    network, seen = ensemble(), set()
    step = started(IGBNN(), network, Natural())
    step._loss = lambda batch, attacked: (
        seen.add(attacked)
        or (
            sum(p.sum() for p in network.parameters()),
            torch.zeros(3, 8, CLASSES),
        )
    )
    for _ in range(20):
        step.gradients(batch())
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("absolute", [False, True])
def test_without_a_perturbation_the_information_gain_is_the_same(absolute):
    """And the loss, by two passes of the same images in training mode, does not depend on lambda, to the bit."""
    found = []
    for weight in (0.0, 100.0):
        network = ensemble()
        step = started(IGBNN(information=weight, absolute=absolute), network, Natural())
        found.append((step.gradients(batch()).loss, *(p.grad for p in network.parameters())))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_term_lowers_what_attacked_images_have_more_of(monkeypatch):
    """IG(x) - IG(x') with IG = -MI is MI(x') - MI(x): a step on it alone brings down its value, which was positive."""
    x, y, _, _ = batch()
    attacked = torch.rand(x.shape, dtype=torch.float64, generator=generator(7))
    monkeypatch.setattr(PGD, "craft", lambda *_: attacked)

    def information(network, images):
        with torch.no_grad():
            return float(mutual_information(network.member_logits(images).log_softmax(2)).mean())

    network = ensemble()
    if information(network, attacked) < information(network, x):  # so that the attacked ones have more
        x, attacked = attacked, x
    before = information(network, attacked), information(network, x)
    assert before[0] > before[1]
    losses, gradients = [], []
    for weight in (0.0, 1.0):
        for p in network.parameters():
            p.grad = None
        step = started(IGBNN(information=weight, gamma=0.0, bandwidth=1e-6), network)
        losses.append(float(step.gradients(Batch(x, y, torch.arange(8))).loss))
        gradients.append([p.grad.clone() for p in network.parameters()])
    assert losses[1] - losses[0] == pytest.approx(before[0] - before[1])
    with torch.no_grad():
        for p, without, full in zip(network.parameters(), *gradients, strict=True):
            p.sub_(1e-3 * (full - without))
    after = information(network, attacked), information(network, x)
    assert after[0] - after[1] < before[0] - before[1]


def test_identical_particles_move_alike_by_the_sum_of_their_parts_of_the_gradient():
    """k = 1: phi_i = sum_j grad_j L, of particles on the same images that of 2 CE, as if there were one."""
    network, alone = ensemble(3, residual()), ensemble(1, residual())
    for each in (network, alone):
        started(IGBNN(information=0.0, gamma=10.0), each, Natural()).gradients(batch())
    (_, phi), (_, expected) = flat(network), flat(alone)
    torch.testing.assert_close(phi, expected.expand_as(phi))


def test_labels_are_smoothed_in_both_cross_entropies():
    network, again = ensemble(), ensemble()
    hook = LabelSmoothing(smoothing=0.2).start(
        TrainingContext(network=network, loss=Natural(), generator=generator())
    )
    measured = started(IGBNN(information=0.0), network, Natural(), [hook]).gradients(batch())
    x, y, _, _ = batch()
    step = started(IGBNN(information=0.0), again, Natural())
    chosen = _chosen(step)
    cross = [F.cross_entropy(member(x), y, label_smoothing=0.2) for member in again.members]
    torch.testing.assert_close(measured.loss, (sum(cross) / 3 + cross[chosen]).detach())


def _chosen(step):
    seen = []
    own, step._loss = step._loss, lambda batch, attacked: seen.append(attacked) or own(batch, attacked)
    step.gradients(batch())
    step._loss = own
    return seen[0]


def test_a_training_moves_the_particles_apart_with_a_strong_repulsion(tmp_path):
    spread = []
    for number, gamma in enumerate((0.0, 50.0)):
        values = options(loss=Natural(), step=IGBNN(gamma=gamma, information=0.0), epochs=1)
        _, _, network = run_training(tmp_path / str(number), values, net=ensemble(2).float())
        particles, _ = flat(network)
        spread.append(float(torch.pdist(particles).min()))
    assert spread[1] > spread[0] + 0.3


def test_independent_particles_are_trained_as_if_alone(tmp_path):
    """By a loss without draws, which the first particle of the stream would share with the second."""
    values = options(loss=Natural(), epochs=1, clip_norm=0.1)
    both = values.model_copy(update={"step": IndependentParticles()})
    network = ensemble(2).float()
    states = [{name: t.clone() for name, t in m.state_dict().items()} for m in network.members]
    run_training(tmp_path / "both", both, net=network)
    for number, state in enumerate(states):
        alone = residual()
        alone.load_state_dict(state)
        run_training(tmp_path / str(number), values, net=alone)
        assert same(network.members[number].state_dict(), alone.state_dict())


def test_independent_particles_are_each_attacked_on_themselves(monkeypatch):
    network, seen = ensemble(), []
    craft = PGD.craft
    monkeypatch.setattr(PGD, "craft", lambda *given: seen.append(given[1]) or craft(*given))
    started(IndependentParticles(), network).gradients(batch())
    assert seen == list(network.members)


TINY = ResidualArchitecture(name="tiny", stem=2, depths=(1,), widths=(2,))


@pytest.mark.parametrize("step", ["ig-bnn", "ensemble"])
def test_a_network_without_particles_is_refused_before_anything_starts(tmp_path, step):
    run = config(f"training.step={step}", "training.loss=pgd-at")
    with pytest.raises(
        ConfigError, match=rf"training\.step: {step} .* is a residual network.*network\.particles"
    ):
        robust_nas.train(run, TINY, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with pytest.raises(ConfigError, match="the network is ResidualNetwork, which has none"):
        run_training(tmp_path / "run", options(loss=LOSSES["pgd-at"], step={"name": step}), net=residual())


def test_a_loss_that_does_not_fit_is_refused_with_what_does():
    with pytest.raises(ConfigError, match=r"step 'ig-bnn' has a loss of its own.*'trades'.*needs pgd-at"):
        options(loss=LOSSES["trades"], step=IGBNN())
    with pytest.raises(ConfigError, match=r"step 'ensemble' trains each particle by itself.*'ladder'"):
        options(loss=LOSSES["ladder"], step=IndependentParticles())
    with pytest.raises(ConfigError, match=r"step\.bandwidth"):
        options(step={"name": "ig-bnn", "bandwidth": "mean"})
    with pytest.raises(ConfigError, match=r"step\.bandwidth"):
        options(step={"name": "ig-bnn", "bandwidth": 0})
