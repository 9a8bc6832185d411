"""PC-DARTS: one step against its definition, the warm-up, the derivation, and options that do not fit."""

import copy

import pytest
import torch
import torch.nn.functional as F
from cases import config, small_space
from plain_supernet import adam, gradient, sgd
from small_search import ONE_SHOT, searched

from robust_nas.attacks import FGSM
from robust_nas.errors import ConfigError
from robust_nas.run_folder import CHECKPOINT
from robust_nas.search import AlphaOptimiser, Batch, OneShotSearch, WeightOptimiser
from robust_nas.search.pc_darts import PCDARTS

CLASSES, K = 4, 2
SPACE = small_space(2, ["max_pool_3x3", "skip_connect", "sep_conv_3x3"])
OPTIONS = {
    "cells": 3,
    "channels": 4,
    "k": K,
    "epochs": 2,
    "warmup_epochs": 0,
    "attack": FGSM(eps=0.1, keep="last"),
    "weights": WeightOptimiser(learning_rate=0.1, clip_norm=0.5),
    "alphas": AlphaOptimiser(learning_rate=0.05),
}


def make(**options):
    strategy = PCDARTS(**{**OPTIONS, **options})
    supernet = strategy.build_supernet(SPACE, classes=CLASSES, mean=(0.0,), std=(1.0,), seed=0).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (*supernet.alphas.values(), *supernet.betas.values()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return OneShotSearch(strategy, supernet, SPACE)


def batches(count=2):
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(count):
        x = torch.rand(6, 1, 8, 8, dtype=torch.float64, generator=generator)
        moved = (x + 0.2 * torch.rand(x.shape, generator=generator) - 0.1).clamp(0, 1)
        found.append(Batch(x, moved, torch.randint(CLASSES, (6,), generator=generator)))
    return found


def test_a_step_is_the_published_one():
    search = make()
    net = copy.deepcopy(search.supernet)
    weights_batch, alphas_batch = batches()
    measured = search.strategy.step(
        search, lambda *halves: [{"weights": weights_batch, "alphas": alphas_batch}[half] for half in halves]
    )

    def edge(cell, number, x):
        node = cell.ends[number][0]
        incoming = [other for other, (end, _) in enumerate(cell.ends) if end == node]
        beta = net.betas[cell.kind][incoming].softmax(0)[incoming.index(number)]
        weights = net.alphas[cell.kind][number].softmax(0)
        c = x.shape[1] // K
        mixed = sum(w * operation(x[:, :c]) for w, operation in zip(weights, cell.edges[number], strict=True))
        rest = x[:, c:] if mixed.shape[2] == x.shape[2] else F.max_pool2d(x[:, c:], 2, 2)
        return beta * F.channel_shuffle(torch.cat([mixed, rest], dim=1), K)

    architecture = [*net.alphas.values(), *net.betas.values()]
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    adam(architecture, gradient(net, alphas_batch.adversarial, alphas_batch.labels, edge, architecture),
         search.strategy.alphas)  # fmt: skip
    for name, buffer in net.named_buffers():  # the alpha step leaves the running statistics
        buffer.copy_(buffers[name])
    weights = net.weights()
    sgd(weights, gradient(net, weights_batch.adversarial, weights_batch.labels, edge, weights),
        search.strategy.weights)  # fmt: skip
    for name, value in net.state_dict().items():
        torch.testing.assert_close(search.supernet.state_dict()[name], value, rtol=1e-8, atol=1e-9, msg=name)
    assert measured.keys() == {"loss_weights", "loss_adversarial"}


def test_during_the_warm_up_the_weights_alone_move_and_the_alphas_half_is_not_drawn():
    search = make(warmup_epochs=1)
    before = {name: tensor.clone() for name, tensor in search.supernet.state_dict().items()}
    drawn = []

    def draw(*halves):
        drawn.extend(halves)
        return batches(len(halves))

    assert search.strategy.warm_up_step(search, draw).keys() == {"loss_weights"}
    assert drawn == ["weights"]
    for name, tensor in search.supernet.state_dict().items():
        if name.startswith(("alphas", "betas")):
            assert torch.equal(tensor, before[name]), name
    assert not torch.equal(search.supernet.classifier.weight, before["classifier.weight"])
    search.epoch = 1
    search.strategy.step(search, draw)
    assert drawn == ["weights", "weights", "alphas"]
    assert not torch.equal(search.supernet.betas["accurate"], before["betas.accurate"])


def test_edges_are_ranked_by_beta_times_the_best_operation():
    search = make()
    alphas = {name: torch.zeros_like(alpha) for name, alpha in search.alphas.items()}
    kind = "accurate"  # the second node has three edges: shares .2, .3, .5 and best operations .9, .5, .4
    alphas[f"{kind} beta"][-3:] = torch.tensor([0.2, 0.3, 0.5]).log()
    best = torch.tensor([[0.9, 0.05, 0.05], [0.25, 0.5, 0.25], [0.3, 0.3, 0.4]]).log()
    alphas[kind][-3:] = best
    cell = search.strategy.derive(search, alphas, "derived").cell(kind)
    # .18, .15, .20: the first and the third edge, where alphas alone would keep the first and the second.
    assert [(edge.source, edge.operation) for edge in cell.nodes[1]] == [
        (0, "max_pool_3x3"),
        (2, "sep_conv_3x3"),
    ]
    shares = search.strategy.source_weights(SPACE, alphas)[kind]
    assert [len(row) for row in shares] == [2, 3]
    assert shares[1] == pytest.approx([0.2, 0.3, 0.5])


def test_betas_are_in_the_outcome_and_in_the_checkpoint(tmp_path):
    strategy = PCDARTS(**{**ONE_SHOT, "k": 2, "warmup_epochs": 1})
    outcome, records = searched(tmp_path, strategy)
    assert outcome.sources.keys() == outcome.edge_weights.keys()
    assert all(sum(row) == pytest.approx(1) for rows in outcome.sources.values() for row in rows)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert {name for name in state["supernet"] if name.startswith("betas.")}
    absent = [record["loss_adversarial"] is None for record in records]
    assert absent == [record["epoch"] == 0 for record in records]


def test_the_warm_up_is_as_long_as_published_at_any_number_of_epochs():
    assert PCDARTS().warmup_epochs == 15
    assert PCDARTS(epochs=6).warmup_epochs == 1
    assert PCDARTS(epochs=1).warmup_epochs == 0


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{epochs: 3, warmup_epochs: 3}", "warmup_epochs is 3 of 3 epochs"),
        ("{k: 1}", r"search.k: .*at least 2 is needed"),
        ("{k: many}", r"search.k"),
    ],
)
def test_options_that_do_not_fit_are_refused(section, message):
    with pytest.raises(ConfigError, match=message):
        config("search={name: pc-darts, cells: 4, channels: 4}", *_keys(section))


def _keys(section):
    pairs = [pair.split(": ") for pair in section.strip("{}").split(", ")]
    return [f"search.{key}={value}" for key, value in pairs]


def test_channels_that_k_does_not_divide_are_refused_with_the_key():
    with pytest.raises(ConfigError, match=r"search.channels: a cell has 6 channels, which search.k = 4"):
        make(channels=6, k=4)


def test_the_plain_supernet_can_be_asked_for():
    asked = config("search={name: pc-darts, cells: 4, channels: 4}", "supernet.execution=plain")
    assert asked.supernet.execution == "plain"
