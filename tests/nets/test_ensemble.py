"""An ensemble of particles: the mean of their probabilities, by a loop and by vmap, and what a drawn particle gives."""

import copy

import pytest
import torch
from torch import nn

from robust_nas.attacks import PGD, Predictor
from robust_nas.attacks.folding import folded
from robust_nas.errors import AttackError
from robust_nas.layers.batch_norm import synchronise
from robust_nas.nets import build_network, channels_last
from robust_nas.nets.build import seeded
from robust_nas.nets.ensemble import _is_vectorisable, vectorised_logits
from robust_nas.spaces import (
    EnsembleArchitecture,
    MLPArchitecture,
    ResidualArchitecture,
    Size,
    load_space,
    sample,
)

TINY = ResidualArchitecture(name="tiny", stem=4, depths=(1, 1), widths=(4, 4))
MLP = MLPArchitecture(name="flat", depth=2, width=6, initialisation="ntk")
CELLS = sample(load_space("dsara", {"nodes": 2}), 2, size=Size(cells=3, channels=3))


def built(particles=3, member=TINY, seed=4, draws=None):
    architecture = EnsembleArchitecture(name="x", member=member, particles=particles, draws=draws)
    return build_network(architecture, input_shape=(1, 8, 8), classes=3, seed=seed)


def images(count=6, dtype=torch.float32):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize("member", [TINY, MLP, CELLS])
@pytest.mark.parametrize("training", [False, True])
def test_vmap_gives_logits_gradients_and_statistics_of_a_loop(member, training):
    loop = built(member=member).double().train(training)
    mapped = copy.deepcopy(loop)
    x = images(dtype=torch.float64)
    weights = torch.linspace(-1, 1, 3 * 6 * 3, dtype=torch.float64).view(3, 6, 3)
    one, other = loop.member_logits(x), vectorised_logits(mapped.members, x)
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    (one * weights).sum().backward()
    (other * weights).sum().backward()
    for first, second in zip(loop.parameters(), mapped.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, rtol=1e-10, atol=1e-12)
    for first, second in zip(loop.buffers(), mapped.buffers(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)


def test_what_vmap_cannot_take_goes_by_the_loop():
    assert _is_vectorisable(built().members)
    assert not _is_vectorisable(built(member=MLP).members)  # layers of ours
    synchronised, hooked = built(), built()
    synchronise(synchronised)
    assert not _is_vectorisable(synchronised.members)
    hooked.members[1].stem.register_forward_hook(lambda *_: None)
    assert not _is_vectorisable(hooked.members)


def test_softmax_of_the_answer_is_the_mean_probability_of_the_members():
    network = built().double().eval()
    x = images(dtype=torch.float64)
    mean = torch.stack([member(x).softmax(1) for member in network.members]).mean(0)
    torch.testing.assert_close(network(x).softmax(1), mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(network(x).exp().sum(1), torch.ones(6, dtype=torch.float64))
    assert network.member_logits(x).shape == (3, 6, 3)


def test_the_first_member_is_the_network_of_the_seed_and_the_others_differ():
    plain = build_network(TINY, input_shape=(1, 8, 8), classes=3, seed=4).eval()
    one, three = built(1).eval(), built(3).eval()
    x = images()
    assert torch.equal(one(x), plain(x))
    assert torch.equal(three.member_logits(x)[0], plain(x))
    assert torch.pdist(three.member_logits(x).flatten(1)).min() > 0.1


def test_every_member_has_its_own_statistics():
    network = built().train()
    alone = [copy.deepcopy(member) for member in network.members]
    network(images())
    for member, own in zip(network.members, alone, strict=True):
        own(images())
        assert all(torch.equal(a, b) for a, b in zip(member.buffers(), own.buffers(), strict=True))
    means = [member.norm.running_mean for member in network.members]
    assert not torch.equal(means[0], means[1])


def test_under_autocast_the_mean_is_taken_in_float32():
    network = built().eval()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(images())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, network(images()), rtol=0.05, atol=0.05)


def test_channels_last_changes_nothing_but_rounding():
    network = built().eval()
    before = network(images())
    torch.testing.assert_close(channels_last(network)(images()), before, rtol=1e-4, atol=1e-5)


def test_a_deterministic_ensemble_is_attacked_through_its_folded_copy():
    network = built().eval()
    found = folded(network, images(16))
    assert found.model_form == "folded"
    norms = [
        sum(isinstance(each, nn.BatchNorm2d) for each in own.modules()) for own in (network, found.network)
    ]
    assert (
        norms[0] - norms[1] == 3 * 2
    )  # of each particle, the norms behind the first convolutions of two blocks
    made = PGD(eps=0.1, steps=2).run(network, images(), torch.zeros(6, dtype=torch.int64))
    assert made.model_form == "folded"
    assert not Predictor.of(network).random


def test_with_draws_a_pass_is_one_particle_and_the_answer_the_mean_of_passes():
    network = built(3, draws=4).double().eval()
    x = images(dtype=torch.float64)
    members = network.member_logits(x)
    seen = set()
    for seed in range(20):
        with seeded(seed):
            logits = network(x)
        seen |= {index for index in range(3) if torch.equal(logits, members[index])}
    assert seen == {0, 1, 2}
    predictor = Predictor.of(network)
    assert (predictor.samples, predictor.random) == (4, True)
    with seeded(0):
        drawn = torch.randint(3, (4,))
    with seeded(0):
        answer = predictor(x)
    torch.testing.assert_close(answer.softmax(1), members[drawn].softmax(2).mean(0).float())
    made = PGD(eps=0.1, steps=1, eot=2).run(network.float(), images(), torch.zeros(6, dtype=torch.int64))
    assert made.model_form == "as it is: it is random"


def test_the_training_s_generator_serves_training_mode_alone():
    network = built(3, draws=2)
    generator = torch.Generator().manual_seed(0)
    network.draw_from(generator)
    before = generator.get_state()
    network.eval()(images())
    assert torch.equal(before, generator.get_state())
    state = torch.get_rng_state()
    network.train()(images())
    assert not torch.equal(before, generator.get_state())
    assert torch.equal(state, torch.get_rng_state())


def test_a_number_of_passes_that_is_none_is_refused():
    network = built()
    network.inference_samples = "many"
    with pytest.raises(
        AttackError, match=r"ParticleEnsemble.inference_samples: got many; a number of passes"
    ):
        Predictor.of(network)
