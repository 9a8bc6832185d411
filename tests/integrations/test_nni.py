"""The bridge to NNI: its model spaces are ours, its supernet computes ours, its search attacks and repeats itself."""

import shutil
import signal
import socket

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("nni")
pytest.importorskip("pytorch_lightning")

from cases import small_space

from robust_nas.attacks import FGSM, FGSMRS
from robust_nas.data import Augment, Images, split
from robust_nas.data.order import batches
from robust_nas.errors import ArchitectureError, CheckpointError, DivergenceError, SearchSpaceError
from robust_nas.integrations import nni as bridge
from robust_nas.integrations.nni_strategy import NNI, NNIAlphaOptimiser
from robust_nas.integrations.samples import from_sample, to_sample
from robust_nas.nets import Supernet, build_network, channels_last
from robust_nas.run_folder import CHECKPOINT, Run, read_checkpoint
from robust_nas.search import SearchContext, WeightOptimiser, run_strategy
from robust_nas.spaces import Size, count, load_architecture, load_space, sample
from robust_nas.training.schedules import cosine

SMALL = Size(cells=4, channels=2)
SPACES = {name: load_space(name) for name in ("darts", "dsara")}  # of DARTS's topology
CLASSES = 4
TINY = small_space(2, ["max_pool_3x3", "skip_connect", "sep_conv_3x3"])
STRATEGIES = ["darts", "gumbel-darts"]


@pytest.fixture(scope="module", params=SPACES)
def both(request):
    """A shipped space and the model space that NNI gets of it."""
    space = SPACES[request.param]
    return space, bridge.to_model_space(space, cells=SMALL.cells, channels=SMALL.channels, in_channels=1)


def test_a_model_space_has_the_choices_of_its_space(both):
    space, model_space = both
    choices = model_space.simplify()
    for kind in space.layout.kinds:
        for node, source in space.edges:
            assert choices.pop(f"{kind}.{node}.{source}").values == list(space.operations)
        for node in range(space.nodes):
            choice = choices.pop(f"{kind}.{node}")
            assert choice.values == list(range(node + 2))
            assert choice.n_chosen == space.edges_per_node
    assert choices == {}


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_what_nni_draws_is_an_architecture_and_its_sample_the_same_draw(both, seed):
    space, model_space = both
    drawn = {}
    for label, choice in model_space.simplify().items():
        choice.random(drawn, np.random.RandomState(seed ^ hash(label) % 2**32))
    assert model_space.contains(drawn)
    again = to_sample(space, from_sample(space, drawn))
    assert again.keys() == drawn.keys()
    for label, value in drawn.items():
        node, _, source = label.rpartition(".")
        if label.count(".") == 1 or int(source) in drawn[node]:
            assert again[label] == value
    ours = sample(space, seed)
    assert model_space.contains(to_sample(space, ours))


def test_a_space_of_another_topology_is_refused():
    for space in (load_space("nas-bench-201"), load_space("dsara", {"edges_per_node": "all"})):
        with pytest.raises(SearchSpaceError, match="a model space of NNI has DARTS's topology"):
            bridge.to_model_space(space)


def test_a_frozen_model_is_our_network_of_the_architecture(both):
    space, model_space = both
    drawn = sample(space, 1, size=SMALL)
    published = load_architecture("arnas").resized(SMALL.cells, SMALL.channels)
    architecture = {"darts": drawn, "dsara": published}[space.name]
    frozen = model_space.freeze(to_sample(space, architecture)).eval()
    network = build_network(architecture, input_shape=(1, 8, 8), seed=7).eval()
    network.load_state_dict(frozen.state_dict())
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(frozen(images), network(images))
    assert sum(p.numel() for p in frozen.parameters()) == count(architecture, (1, 8, 8)).params
    own = {parameter.data_ptr() for parameter in model_space.parameters()}
    assert own.isdisjoint(parameter.data_ptr() for parameter in frozen.parameters())


def test_a_space_with_too_few_cells_to_hold_every_kind_is_refused():
    with pytest.raises(ArchitectureError, match="cells: got 3, which leaves no robust cell"):
        bridge.to_model_space(SPACES["dsara"], cells=3, channels=2)


class Ones(torch.nn.Module):
    """In the place of a softmax: every source counts once."""

    def forward(self, x):
        return torch.ones_like(x)


@pytest.mark.parametrize("name", SPACES)
def test_nnis_supernet_is_ours_but_for_the_weights_of_a_nodes_sources(name):
    space = SPACES[name]
    theirs = bridge.darts_supernet(space, SMALL.channels, SMALL.cells, in_channels=1, seed=3)
    ours = Supernet(space, 10, 1, SMALL.channels, SMALL.cells, seed=4)
    alphas = bridge.architecture_parameters(theirs)
    chosen = {id(alpha) for alpha in alphas.values()}
    weights = [parameter for parameter in theirs.parameters() if id(parameter) not in chosen]
    with torch.no_grad():
        for mine, other in zip(ours.weights(), weights, strict=True):
            mine.copy_(other)
        for kind, alpha in ours.alphas.items():
            for row, (node, source) in zip(alpha, space.edges, strict=True):
                alphas[f"{kind}.{node}.{source}"].copy_(row.copy_(torch.randn(len(row))))
    for module in theirs.modules():
        if type(module).__name__ == "DifferentiableMixedInput":
            module._softmax = Ones()
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(theirs.train()(images), ours.train()(images), rtol=1e-4, atol=1e-4)
    mixing, sources = bridge.choice_weights(space, theirs)
    for kind, alpha in ours.alphas.items():
        torch.testing.assert_close(mixing[kind], alpha.detach().softmax(1))
        assert [len(row) for row in sources[kind]] == [2, 3, 4, 5]


class Stopped(Exception):  # noqa: N818 - no error
    """Stands for a kill."""


def images():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (48, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(48) % CLASSES)


STEPS = 3  # of an epoch: 24 images in each half, 8 a batch


def options(**changes):
    values = {
        "epochs": 3,
        "batch_size": 8,
        "cells": 3,
        "channels": 2,
        "attack": FGSMRS(eps=0.1, keep="last"),
        "weights": WeightOptimiser(learning_rate=0.1),
        "alphas": NNIAlphaOptimiser(learning_rate=0.1),
        **changes,
    }
    return NNI(**values)


def run_search(folder, values, *, mode="new", progress=lambda *_: None, seed=3, augmentation=None):
    with Run(folder, values, mode) as run:
        context = SearchContext(
            run=run,
            space=TINY,
            images=images(),
            classes=CLASSES,
            mean=(0.0,),
            std=(1.0,),
            name="found",
            seed=seed,
            augmentation=augmentation or Augment(crop=1),
            network=SMALL,
            checkpoint_seconds=0.0,
            progress=progress,
        )
        return run_strategy(values, context), run.records()


def found(outcome):
    return outcome.architecture, outcome.edge_weights, outcome.sources, outcome.last


@pytest.mark.parametrize("strategy", ["darts"])
def test_a_search_repeats_itself_by_its_seed_and_leaves_the_world_as_it_was(
    strategy, tmp_path, monkeypatch, capfd
):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)

    def refuse(*_):
        raise AssertionError("a port was opened")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    torch.manual_seed(11)
    before, handler = torch.get_rng_state(), signal.getsignal(signal.SIGINT)
    values = options(strategy=strategy)
    outcome, records = run_search(tmp_path / "a", values)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    again, same = run_search(tmp_path / "b", values)
    other, _ = run_search(tmp_path / "c", values, seed=4)
    assert (found(again), same) == (found(outcome), records)
    assert other.edge_weights != outcome.edge_weights
    assert [record["step"] for record in records] == list(range(3 * STEPS))
    assert signal.getsignal(signal.SIGINT) is handler
    assert tuple(capfd.readouterr()) == ("", "")
    assert [*home.rglob("*"), *here.rglob("*")] == []
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        ".lock",
        "config.yaml",
        "metrics.jsonl",
        CHECKPOINT,
    }


def test_the_architecture_is_made_of_the_strongest_choices(tmp_path):
    outcome, records = run_search(tmp_path, options())
    for cell in outcome.architecture.genotype:
        for number, node in enumerate(cell.nodes):
            for edge in node:
                row = outcome.edge_weights[cell.kind][TINY.edges.index((number, edge.source))]
                assert edge.operation == TINY.operations[max(range(len(row)), key=row.__getitem__)]
            weights = outcome.sources[cell.kind][number]
            kept = sorted(range(len(weights)), key=lambda source: -weights[source])[:2]
            assert sorted(kept) == [edge.source for edge in node]
    assert outcome.last == records[-1]


def test_a_search_is_the_plain_loop_of_darts_on_adversarial_batches(tmp_path):
    values = options(attack=FGSM(eps=0.1, keep="last", bn="batch"), epochs=2)
    outcome, records = run_search(tmp_path, values, augmentation=Augment())

    net = bridge.to_model_space(
        TINY, cells=3, channels=2, classes=CLASSES, in_channels=1, supernet=True, seed=3
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = channels_last(bridge.DARTS().mutate_model(net)).train()
    alphas = bridge.architecture_parameters(net)
    chosen = {id(alpha) for alpha in alphas.values()}
    weights = [parameter for parameter in net.parameters() if id(parameter) not in chosen]
    adam = torch.optim.Adam(alphas.values(), 0.1, betas=(0.5, 0.999), weight_decay=1e-3)
    sgd = torch.optim.SGD(weights, 0.1, momentum=0.9, weight_decay=3e-4)
    halves = [images().subset(indices) for indices in split(images().labels, 0.5, 3)]
    losses, moved = [], 0
    for epoch in range(2):
        sgd.param_groups[0]["lr"] = cosine(epoch, 2, 0.1, 0.001)
        for step in range(STEPS):
            for which, optimiser in ((1, adam), (0, sgd)):
                order = batches(24, 8, seed=2 * 3 + which, epoch=epoch)
                part = halves[which].subset(order[step])
                natural = part.float().contiguous(memory_format=torch.channels_last)
                x = values.attack(net, natural, part.labels, torch.Generator())
                moved += int((x != natural).any())
                loss = torch.nn.functional.cross_entropy(net(x), part.labels)
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(weights, 5.0)
                optimiser.step()
                losses.append(loss.item())
    assert moved > 2 * STEPS
    assert losses[::2] == [record["loss_adversarial"] for record in records]
    assert losses[1::2] == [record["loss_weights"] for record in records]
    mixing, sources = bridge.choice_weights(TINY, net)
    assert outcome.sources == sources
    assert outcome.edge_weights == {kind: rows.tolist() for kind, rows in mixing.items()}


@pytest.mark.parametrize("strategy", ["gumbel-darts"])  # whose steps draw
def test_a_search_stopped_after_any_step_resumes_to_the_same_bits(tmp_path, strategy):
    values = options(strategy=strategy)
    outcome, records = run_search(tmp_path / "whole", values)
    for mode, at in (("new", 1), ("resume", STEPS + 2), ("resume", 2 * STEPS), ("resume", 3 * STEPS)):

        def stop(job, done, total, note="", at=at):
            if done == at:
                raise Stopped

        with pytest.raises(Stopped):  # one search, killed four times
            run_search(tmp_path / "cut", values, mode=mode, progress=stop)
    assert found(run_search(tmp_path / "cut", values, mode="resume")[0]) == found(outcome)
    assert found(run_search(tmp_path / "cut", values, mode="resume")[0]) == found(outcome)
    whole, cut = (read_checkpoint(tmp_path / name / CHECKPOINT) for name in ("whole", "cut"))
    assert all(torch.equal(cut["supernet"][name], tensor) for name, tensor in whole["supernet"].items())
    for number, moments in whole["alpha_optimiser"]["state"].items():
        again = cut["alpha_optimiser"]["state"][number]
        assert all(torch.equal(again[key], value) for key, value in moments.items())
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut")]
    assert lines[0] == lines[1]
    assert len(lines[0].splitlines()) == len(records)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a search that was stopped in its second epoch."""

    def stop(job, done, total, note=""):
        if done == STEPS + 1:
            raise Stopped

    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Stopped):
        run_search(folder, options(), progress=stop)
    return folder


def _swap_moments(state):
    states = state["alpha_optimiser"]["state"]  # of an edge's operations, and of a node's sources
    (edge, *_), (node, *_) = (
        [number for number, moments in states.items() if len(moments["exp_avg"]) == size] for size in (3, 2)
    )
    states[edge], states[node] = states[node], states[edge]


@pytest.mark.parametrize(
    "damage",
    [
        _swap_moments,
        lambda state: state["alpha_optimiser"]["param_groups"][0]["params"].pop(),
        lambda state: state["supernet"].update(foreign=torch.zeros(1)),
        lambda state: state["weight_optimiser"]["param_groups"][0]["params"].pop(),
        lambda state: state["strategy"].update(global_generator=torch.zeros(3)),
        lambda state: state.update(job="nni"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(stopped, tmp_path, damage):
    values = options()
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    state = read_checkpoint(tmp_path / CHECKPOINT)
    damage(state)
    torch.save(state, tmp_path / CHECKPOINT)
    with pytest.raises(CheckpointError, match=r"does not fit|not of a one-shot search"):
        run_search(tmp_path, values, mode="resume")


def test_an_absurd_learning_rate_stops_with_a_sound_checkpoint(tmp_path):
    values = options(epochs=20, weights=WeightOptimiser(learning_rate=1e15, clip_norm=1e9))
    with pytest.raises(DivergenceError, match=r"search, (before )?epoch \d+.*: diverged.*checkpoint stays"):
        run_search(tmp_path, values)


def test_an_interrupt_stays_one(tmp_path):
    handler = signal.getsignal(signal.SIGINT)

    def interrupt(job, done, total, note=""):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search(tmp_path, options(), progress=interrupt)
    assert signal.getsignal(signal.SIGINT) is handler
