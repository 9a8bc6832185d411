"""Ranking methods that train: common batches, halving, paths of a supernet, its gate; resuming to the same bits."""

import contextlib
import itertools
import math
from typing import Literal

import numpy as np
import pytest
import torch
from cases import SHORT, SHORT_SUPERNET
from small_search import CLASSES, SPACE, Stopped, images
from small_search import context as search_context

from robust_nas.config import Options
from robust_nas.data import Augment
from robust_nas.errors import ConfigError, DivergenceError
from robust_nas.nets import build_network
from robust_nas.nets.single_path import SinglePathSupernet, selected, used_edges
from robust_nas.run_folder import Run
from robust_nas.search import EVALUATORS, RANKINGS, RankingContext
from robust_nas.search.ranking import paths
from robust_nas.search.ranking import supernet as supernet_file
from robust_nas.search.ranking import train as train_file
from robust_nas.search.ranking.batches import CommonBatches
from robust_nas.search.ranking.paths import fair_paths
from robust_nas.search.ranking.rank_sum import spearman
from robust_nas.search.ranking.ranks import rank_shares
from robust_nas.search.ranking.zero_cost import ZeroCost
from robust_nas.spaces import Size, load_space, sample
from robust_nas.training import Loss
from robust_nas.training.losses.natural import Natural

NB201 = load_space("nas-bench-201")
SPACES = {"small": SPACE, "nas-bench-201": NB201, "darts": load_space("darts")}
PATHS = {**SHORT_SUPERNET, "steps": 10, "clean_steps": 5, "score_images": 12}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


@pytest.fixture(autouse=True)
def _short(short_trainings, monkeypatch):
    """Zero-cost is the candidate's place."""

    def score(self, candidates, context):
        return {"score": (np.arange(len(candidates)) / 10).tolist()}

    monkeypatch.setattr(ZeroCost, "score", score)


@contextlib.contextmanager
def ranking(folder, stop_at=None, space=SPACE, **changes):
    """The context of a ranking, which is killed at the progress `stop_at`."""
    calls = itertools.count(1)

    def progress(*_):
        if next(calls) == stop_at:
            raise Stopped

    with Run(folder, Options(), "resume") as run:
        values = {
            "images": images(),
            "classes": CLASSES,
            "mean": (0.0,),
            "std": (1.0,),
            "seed": 3,
            "space": space,
        }
        values |= {"augmentation": Augment(crop=1), "checkpoint_seconds": 0.0, "progress": progress}
        yield RankingContext(run=run, **{**values, **changes})


def drawn(count, space=SPACE):
    return [sample(space, number) for number in range(count)]


def train(**changes):
    return RANKINGS.make("train", **{**SHORT, "rungs": (2, 4), **changes})


# Paths.


@every_space
def test_a_path_is_the_network_of_the_architecture_with_the_weights_of_the_supernet(space):
    size = Size(cells=5, channels=2)
    supernet = SinglePathSupernet(space, size, input_shape=(1, 8, 8), classes=CLASSES, seed=1)
    supernet.network.double().train()
    x = torch.rand(6, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for seed in range(6):
        architecture = sample(space, seed, size=size)
        path = supernet.path(architecture)
        network = build_network(architecture, input_shape=(1, 8, 8), classes=CLASSES, affine=False).double()
        shared = supernet.network.state_dict()
        names = {}
        for number, place in enumerate(architecture.places()):
            whole, own = supernet.whole.cell(place.kind), architecture.cell(place.kind)
            for node, (every, kept) in enumerate(zip(whole.nodes, own.nodes, strict=True)):
                for edge, chosen in enumerate(kept):
                    names[f"cells.{number}.nodes.{node}.{edge}."] = (
                        f"cells.{number}.nodes.{node}.{every.index(chosen)}."
                    )
        values = {}
        for key in network.state_dict():
            prefix = next((name for name in names if key.startswith(name)), None)
            values[key] = shared[key if prefix is None else names[prefix] + key.removeprefix(prefix)]
        network.load_state_dict(values)
        assert torch.allclose(path(x), network.train()(x), rtol=0, atol=1e-12)
        own = {id(parameter) for parameter in supernet.network.parameters()}
        assert {id(parameter) for parameter in path.parameters()} <= own
        assert len(list(path.parameters())) <= len(list(network.parameters()))


def test_edges_that_cannot_matter_are_left_out_and_the_numbers_stay():
    text = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
    architecture = NB201.family.from_string(text, cells=3, channels=4)
    cell = architecture.genotype[0]
    assert used_edges(cell) == [[], [cell.nodes[1][0]], [cell.nodes[2][0], cell.nodes[2][2]]]
    network = build_network(architecture, classes=CLASSES, input_shape=(1, 8, 8)).double().train()
    x = torch.rand(5, 1, 8, 8, dtype=torch.float64)
    part = selected(network, architecture, architecture)
    assert torch.equal(part(x), network(x))
    assert (
        len(list(part.parameters())) == len(list(network.parameters())) - 3 * 3
    )  # a convolution and its norm a cell


@pytest.mark.parametrize(("space", "exactly"), [(NB201, True), (SPACES["darts"], False)])
def test_a_fair_step_meets_each_operation_of_an_edge_once_or_where_sources_are_drawn_at_most_once(
    space, exactly
):
    found = fair_paths(space, space.search, np.random.default_rng(0))
    assert len(found) == len(space.operations)
    for kind in space.kinds:
        met = [
            (node, edge) for path in found for node, own in enumerate(path.cell(kind).nodes) for edge in own
        ]
        assert len(set(met)) == len(met)
        assert not exactly or len(met) == len(space.edges) * len(space.operations)
        assert all(space.mismatch(path) is None for path in found)


# Trainings of single candidates.


class Recorded(Loss):
    """The natural loss, which notes what it is given, and a draw."""

    name: Literal["recorded"] = "recorded"

    def __call__(self, model, images, labels, generator):
        draw = torch.rand((), generator=generator).item()
        SEEN.append((images.double().sum().item(), images.clone(), labels.clone(), draw))
        return Natural()(model, images, labels, generator)


SEEN = []


def test_candidates_see_the_same_bits_in_the_same_order(tmp_path):
    SEEN.clear()
    method = train(loss=Recorded(), rungs=(4,))
    with ranking(tmp_path) as context:
        method.score(drawn(2), context)
    first, second = SEEN[:4], SEEN[4:]
    assert len(SEEN) == 8
    assert all(
        torch.equal(a[1], b[1]) and torch.equal(a[2], b[2]) and a[3] == b[3]
        for a, b in zip(first, second, strict=True)
    )
    assert len({each[3] for each in first}) == 4


def test_a_batch_follows_from_its_number_and_the_seed_alone():
    make = {seed: CommonBatches(images(), 4, Augment(crop=1), seed) for seed in (1, 2)}
    later, earlier = make[1](9), make[1](2)
    assert torch.equal(make[1](9).images, later.images)
    assert torch.equal(make[1](2).labels, earlier.labels)
    assert not torch.equal(make[1](9).images, make[2](9).images)


def test_a_loss_does_not_depend_on_the_other_candidates(tmp_path):
    candidates, method = drawn(3), train(rungs=(4,))
    with ranking(tmp_path / "all") as context:
        together = method.score(candidates, context)["loss"]
    for number, candidate in enumerate(candidates):
        with ranking(tmp_path / str(number)) as context:
            assert method.score([candidate], context)["loss"] == [together[number]]
    evaluator = EVALUATORS.make("train", **SHORT, steps=4)
    with Run(tmp_path / "search", Options()) as run:
        scored = evaluator.evaluate(candidates[0].resized(4, 3), search_context(run))
    assert scored == (-together[0], {"loss": together[0]})


def test_the_rank_is_by_steps_then_by_loss_and_halving_keeps_the_best(tmp_path, monkeypatch):
    losses = {0: 5.0, 1: 4.0, 2: 3.0, 3: 2.0, 4: None, 5: 1.0}
    calls = []

    def score(self, candidate, steps, batches, context):
        number = candidates.index(candidate)
        calls.append((number, steps))
        return None if losses[number] is None else -losses[number] - steps

    candidates = drawn(6)
    monkeypatch.setattr(train_file.TrainRanking, "training_score", score)
    with ranking(tmp_path) as context:
        columns = train(rungs=(2, 4, 8), budget=6 * 2 + 3 * 4 + 2 * 8).score(candidates, context)
    assert calls == [*[(n, 2) for n in (5, 4, 3, 2, 1, 0)], (5, 4), (3, 4), (2, 4), (5, 8), (3, 8)]
    assert columns["steps"] == [2, 2, 4, 8, None, 8]
    assert columns["loss"] == [7, 6, 7, 10, None, 9]
    places = rank_shares([0, 1, 2, 3, None, 4])
    assert columns["score"][4] is None
    assert [s for s in columns["score"] if s is not None] == pytest.approx(
        [place + number / 10 for number, place in enumerate(places) if number != 4]
    )


def test_the_budget_pays_the_best_by_zero_cost(tmp_path):
    method = train(rungs=(2, 4), budget=3 * 2 + 2 * 4)
    assert method.plan(5) == [3, 2]
    with ranking(tmp_path) as context:
        columns = method.score(drawn(5), context)
    assert columns["steps"][:2] == [None, None]
    assert all(steps for steps in columns["steps"][2:])
    with pytest.raises(ConfigError, match="budget: got 5 steps; one candidate takes 6"):
        train(budget=5).plan(3)


def test_equal_genotypes_are_trained_once(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        train_file.TrainRanking, "training_score", lambda *given: seen.append(given[1].name) or -1.0
    )
    a, b = drawn(2)
    with ranking(tmp_path) as context:
        train(rungs=(2,)).score([a, b, a.model_copy(update={"name": "again"})], context)
    assert len(seen) == 2


@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_killed_ranking_by_training_resumes_to_the_same_numbers(tmp_path, at):
    method, candidates = train(), drawn(4)
    with ranking(tmp_path / "whole") as context:
        expected = method.score(candidates, context)
    with pytest.raises(Stopped), ranking(tmp_path / "cut", at) as context:
        method.score(candidates, context)
    with ranking(tmp_path / "cut") as context:
        paid = len(context.log("train").records)
        assert paid == at
        assert method.score(candidates, context) == expected


def test_a_training_that_diverges_has_no_score(tmp_path):
    with (
        ranking(tmp_path / "one") as context,
        pytest.raises(DivergenceError, match="all of 2 trainings diverged"),
    ):
        train(learning_rate=1e9, warmup=0).score(drawn(2), context)
    with Run(tmp_path / "search", Options()) as run:
        evaluator = EVALUATORS.make("train", **SHORT, steps=8, learning_rate=1e9, warmup=0)
        assert evaluator.evaluate(drawn(1)[0], search_context(run)) == (None, {})


def test_few_steps_and_rungs_out_of_order_are_refused(monkeypatch):
    monkeypatch.undo()  # of what lets the tests be short
    for make in (
        lambda: RANKINGS.make("train", rungs=(100, 400)),
        lambda: EVALUATORS.make("train", steps=100),
    ):
        with pytest.raises(ConfigError, match="got 100 steps; at least 200 are needed"):
            make()
    with pytest.raises(ConfigError, match=r"rungs: got \[400, 200\]"):
        RANKINGS.make("train", rungs=(400, 200))
    with pytest.raises(ConfigError, match="got 700 images; at least 768"):
        RANKINGS.make("supernet", score_images=700)
    with pytest.raises(ConfigError, match=r"score_attack\.bn: got 'eval'"):
        RANKINGS.make("supernet", score_attack={"name": "fgsm", "eps": 0.1})


@pytest.mark.parametrize(("space", "cells"), [("nas-bench-201", 3), ("darts", 5), ("dsara", 5)])
def test_every_stage_has_a_cell_that_does_not_reduce(space, cells):
    assert RANKINGS.make("train").sized(sample(load_space(space), 0)).cells == cells


def test_the_learning_rate_rises_then_falls_and_eps_rises_with_it():
    method = train(warmup=0.2)
    factors = [method.factor(step, 10) for step in range(1, 11)]
    assert factors == pytest.approx([0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert method.loss_at(method.loss, 1, 10).attack.eps == pytest.approx(2 / 255)
    assert method.loss_at(method.loss, 2, 10) == method.loss
    assert method.loss_at(Natural(), 1, 10) == Natural()


# The supernet.


@pytest.mark.parametrize("sampling", ["uniform", "fair"])
def test_a_killed_supernet_resumes_to_the_same_losses(tmp_path, sampling):
    method = RANKINGS.make("supernet", **PATHS, sampling=sampling)
    candidates, prior = drawn(3), [1.0, 2.0, 3.0]
    with ranking(tmp_path / "whole") as context:
        expected = method.supernet_losses(candidates, prior, context)
        assert method.supernet_losses(candidates, prior, context) == expected
    assert np.shape(expected[0]) == (3, 3)
    for at in (3, 7):
        with pytest.raises(Stopped), ranking(tmp_path / "cut", at) as context:
            method.supernet_losses(candidates, prior, context)
    with ranking(tmp_path / "cut") as context:
        assert method.supernet_losses(candidates, prior, context) == expected


def test_a_supernet_scores_on_images_that_it_does_not_train_on(tmp_path):
    method = RANKINGS.make("supernet", **PATHS)
    with ranking(tmp_path) as context:
        trained, held_out = method.split(context)
        assert len(trained.images) + len(held_out) == len(context.images)
        pixels = torch.cat([trained.images.pixels, held_out.pixels]).flatten(1)
        assert len(pixels.unique(dim=0)) == len(context.images)
        with pytest.raises(ConfigError, match="got 32 images; 30 that score and a batch of 4"):
            RANKINGS.make("supernet", **{**PATHS, "score_images": 30}).split(context)


def test_a_clean_start_is_followed_by_attacked_images_and_only_a_path_moves(tmp_path):
    """With one clean step the supernet moves as its path does; all other weights stay at their start."""
    method = RANKINGS.make("supernet", **{**PATHS, "steps": 1, "clean_steps": 0, "ema": 0.0})
    with ranking(tmp_path) as context:
        start = method.supernet(SPACE, context, context.images).network.state_dict()
        trained = paths.TrainedPaths(method, SPACE, context)
        (path,) = method.paths(SPACE, method.size(trained.supernet.whole), 0, context.seed)
        moved = {id(parameter) for parameter in trained.supernet.path(path).parameters()}
    for name, parameter in trained.supernet.network.named_parameters():
        assert torch.equal(parameter, start[name]) == (id(parameter) not in moved), name


def test_a_supernet_that_is_not_fit_has_no_weight_in_the_sum(tmp_path, monkeypatch):
    candidates = drawn(4)
    with ranking(tmp_path) as context:
        for fit in (False, True):
            verdict = supernet_file.Gate(fit, 0.0, 0.0, 0.0, "")
            given = [[4.0], [3.0], [2.0], [1.0]], verdict
            monkeypatch.setattr(
                supernet_file.SupernetRanking, "supernet_losses", lambda *_, given=given: given
            )
            columns = RANKINGS.make("supernet").score(candidates, context)
            added = rank_shares([-4, -3, -2, -1]) if fit else np.zeros(4)
            assert columns["score"] == pytest.approx((added + np.arange(4) / 10).tolist())
            assert columns["weight"] == [float(fit)] * 4


def test_ranks():
    assert rank_shares([3.0, None, 1.0, 3.0, math.nan]) == pytest.approx([0.8, 0.2, 0.5, 0.8, 0.2])
    assert spearman([1, 2, 3], [10, 30, 20]) == pytest.approx(0.5)
    assert spearman([1, 1, 1], [1, 2, 3]) == 0.0


def test_the_crop_shrinks_with_the_images(tmp_path):
    with ranking(tmp_path, augmentation=Augment(crop=4, flip=True)) as context:
        batches = train(side=4).batches(context.reduced(4), context)
    assert batches.augmentation == Augment(crop=2, flip=True)
    assert batches(1).images.shape == (4, 1, 4, 4)
