"""GDAS: one step against its definition, its samples, and options that do not fit."""

import copy

import pytest
import torch
from cases import config, small_space
from plain_supernet import adam, gradient, sgd

from robust_nas.attacks import FGSM
from robust_nas.attacks.batch_generator import BatchGenerator
from robust_nas.errors import ConfigError
from robust_nas.search import AlphaOptimiser, Batch, OneShotSearch, WeightOptimiser
from robust_nas.search.gdas import GDAS, gumbel

CLASSES = 4
SPACE = small_space(2, ["max_pool_3x3", "skip_connect", "sep_conv_3x3"])
OPTIONS = {
    "cells": 3,
    "channels": 2,
    "epochs": 3,
    "attack": FGSM(eps=0.1, keep="last"),
    "weights": WeightOptimiser(learning_rate=0.1, clip_norm=0.5),
    "alphas": AlphaOptimiser(learning_rate=0.05),
}


def make(execution="fused", **options):
    strategy = GDAS(**{**OPTIONS, **options})
    supernet = strategy.build_supernet(
        SPACE, classes=CLASSES, mean=(0.0,), std=(1.0,), seed=0, execution=execution
    ).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for alpha in supernet.alphas.values():
            alpha.copy_(torch.randn(alpha.shape, generator=generator))
    own = BatchGenerator()
    own.manual_seed(5)
    return OneShotSearch(strategy, supernet, SPACE, generator=own)


def natural(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(6, 1, 8, 8, dtype=torch.float64, generator=generator)
    return x, torch.randint(CLASSES, (6,), generator=generator)


def attacking(search, seen=None):
    """What the loop's `draw` does: each half's batch, attacked under the sample of now."""

    def draw(*halves):
        found = []
        for half in halves:
            x, labels = natural(len(half))
            found.append(Batch(x, search.attack(x, labels, search.generator), labels))
            if seen is not None:
                seen[half] = found[-1]
        return found

    return draw


@pytest.mark.parametrize("execution", ["fused", "plain"])
def test_a_step_is_the_published_one(execution):
    search = make(execution)
    net = copy.deepcopy(search.supernet)
    search.epoch = 1
    tau = 10 - (10 - 0.1) / 2  # of the second of three epochs
    generator = torch.Generator().manual_seed(5)
    noises = [
        {kind: gumbel(alpha.detach(), generator) for kind, alpha in net.alphas.items()} for _ in range(2)
    ]
    choices = [
        {kind: (net.alphas[kind].log_softmax(1) + noise).argmax(1) for kind, noise in own.items()}
        for own in noises
    ]  # of the alphas before the step
    seen = {}
    search.strategy.step(search, attacking(search, seen))

    def edge_of(which, straight_through):
        def edge(cell, number, x):
            choice = int(choices[which][cell.kind][number])
            out = cell.edges[number][choice](x)
            if not straight_through:
                return out
            logits = net.alphas[cell.kind][number].log_softmax(0) + noises[which][cell.kind][number]
            p = (logits / tau).softmax(0)
            h = torch.nn.functional.one_hot(torch.tensor(choice), len(p)) - p.detach() + p
            return h[choice] * out

        return edge

    alphas = list(net.alphas.values())
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    found = gradient(net, seen["alphas"].adversarial, seen["alphas"].labels, edge_of(0, True), alphas)
    assert all(own.abs().min() > 0 for own in found)  # also of operations that were not sampled
    adam(alphas, found, search.strategy.alphas)
    for name, buffer in net.named_buffers():
        buffer.copy_(buffers[name])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    weights = net.weights()
    found = gradient(net, seen["weights"].adversarial, seen["weights"].labels, edge_of(1, False), weights)
    assert any(own is None for own in found)
    sgd(weights, found, search.strategy.weights)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(search.supernet.state_dict()[name], value, rtol=1e-8, atol=1e-9, msg=name)
    for cell, place in zip(net.cells, range(len(net.cells)), strict=True):
        for number in range(len(cell.edges)):
            unused = set(range(3)) - {int(choices[1][cell.kind][number])}
            for index in unused:
                prefix = f"cells.{place}.edges.{number}.{index}."
                for name, value in search.supernet.state_dict().items():
                    if name.startswith(prefix):
                        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("execution", ["fused", "plain"])
@pytest.mark.parametrize("bn", ["eval", "batch"])
def test_each_half_is_attacked_under_the_sample_of_its_pass(execution, bn):
    search = make(execution, attack=FGSM(eps=0.1, keep="last", bn=bn))
    samples = []

    def draw(half):
        x, labels = natural(len(half))
        attacked = search.attack(x, labels, search.generator)
        now = copy.deepcopy(search.supernet)  # it has no trace and no folded copy of an earlier sample
        now.execution = "plain"
        own = FGSM(eps=0.1, keep="last", bn=bn, fold=False)
        torch.testing.assert_close(attacked, own.craft(now, x, labels, torch.Generator()))
        samples.append(tuple(cell.chosen for cell in now.cells))
        return [Batch(x, attacked, labels)]

    for _ in range(2):
        search.strategy.step(search, draw)
    assert len(set(samples)) == 4


def test_samples_follow_the_softmax_of_alpha_whatever_the_temperature():
    search = make()
    kind = "accurate"
    counts = torch.zeros_like(search.alphas[kind].detach())
    for sample in search.strategy.samples(search, 4000):
        counts += sample.hard[kind]
    share = search.alphas[kind].detach().softmax(1)
    error = (counts / 4000 - share).abs()
    assert (error < 4.5 * (share * (1 - share) / 4000).sqrt()).all()


def test_the_one_hot_sample_has_the_gradient_of_the_relaxed_one():
    search = make()
    (sample,) = search.strategy.samples(search, 1)
    for kind, alpha in search.alphas.items():
        h = sample.straight_through(kind, alpha)
        assert torch.equal(h, sample.constant(kind, alpha))  # exactly: p - p is 0
        weights = torch.randn(h.shape, dtype=h.dtype, generator=torch.Generator().manual_seed(1))
        p = ((alpha.log_softmax(1) + sample.noise[kind]) / sample.tau).softmax(1)
        found = [torch.autograd.grad((weights * one).sum(), alpha)[0] for one in (h, p)]
        torch.testing.assert_close(*found)
        assert sample.chosen[kind] == p.argmax(1).tolist()


def test_the_temperature_falls_linearly_over_the_epochs():
    strategy = GDAS(epochs=5, tau_max=9, tau_min=1)
    assert [strategy.tau(epoch) for epoch in range(5)] == [9, 7, 5, 3, 1]
    assert GDAS(epochs=1).tau(0) == 10


def test_gumbel_noise_is_finite_for_every_draw():
    class Zeros(torch.Tensor):
        def exponential_(self, *, generator=None):
            return self.zero_()

    like = torch.ones(3).as_subclass(Zeros)
    assert torch.isfinite(gumbel(like, torch.Generator())).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("search.tau_min=11", "tau_min is 11, more than tau_max 10"),
        ("search.tau_max=0", "search.tau_max"),
        ("search.tau=1", "search.tau"),
    ],
)
def test_options_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        config("search={name: gdas, cells: 4, channels: 4}", change)
