"""The search in several ranks: the alphas and weights of one rank with the same global batch."""

import pytest
import torch
from cases import small_space
from in_ranks import in_ranks, results

from robust_nas.attacks import NFGSM, PGD
from robust_nas.attacks.batch_generator import BatchGenerator, together
from robust_nas.layers.batch_norm import synchronise
from robust_nas.nets import Supernet
from robust_nas.search import DARTS, DSARA, STRATEGIES, AdvRush, Batch, OneShotSearch, WeightOptimiser
from robust_nas.search.one_shot.perturbation import perturbation_scores
from robust_nas.training import TRADES

CLASSES, IMAGES = 4, 7  # unequal rows for two ranks and for three
SPACE = small_space()
CASES = {
    "first order": {"attack": PGD(eps=0.1, steps=2)},
    "second order": {"attack": PGD(norm="l2", eps=0.5, steps=2, restarts=2, keep="best"), "order": 2},
    "batch statistics": {"attack": NFGSM(eps=0.1, bn="batch")},
    "loss of the weights": {"attack": NFGSM(eps=0.1)},
    "curvature": {"attack": NFGSM(eps=0.1)},
    "darts": {"attack": NFGSM(eps=0.1), "order": 2},
}
OTHERS = {"curvature": AdvRush, "darts": DARTS}
LOSSES = {"loss of the weights": TRADES(attack=PGD(eps=0.1, steps=2, loss="kl", keep="last"))}


def steps(ranks, case, statistics="synchronised"):
    """A step of stage 1 and two of stage 2 on this rank's rows, from draws for the whole batch."""
    supernet = Supernet(SPACE, CLASSES, 1, channels=2, cells=3, seed=0).double()
    if ranks.count > 1 and statistics == "synchronised":
        synchronise(supernet)
    weights = WeightOptimiser(learning_rate=0.1, clip_norm=0.5, loss=LOSSES.get(case))
    stages = {} if case == "darts" else {"stage1_epochs": 1}
    strategy = OTHERS.get(case, DSARA)(epochs=2, weights=weights, **stages, **CASES[case])
    generator = BatchGenerator()
    generator.manual_seed(3)
    search = OneShotSearch(strategy, supernet, SPACE, ranks, generator)
    found = {}
    for step in range(3):
        halves = []
        rows = ranks.rows(IMAGES)
        for _ in range(2):
            natural = torch.rand(IMAGES, 1, 6, 6, dtype=torch.float64, generator=generator)
            labels = torch.randint(CLASSES, (IMAGES,), generator=generator)
            halves.append((natural[rows], labels[rows]))
        if strategy.attack.bn == "eval":  # as the loop does: both halves in one batch
            generator.whole, generator.rows = 2 * IMAGES, together([rows] * 2, [IMAGES] * 2)
            both = [torch.cat(parts) for parts in zip(*halves, strict=True)]
            attacked = search.attack(*both, generator).split(len(halves[0][1]))
        else:
            generator.whole, generator.rows = IMAGES, rows
            attacked = [search.attack(*half, generator) for half in halves]
        share = ranks.share(IMAGES)
        drawn = [Batch(x, own, y, share, IMAGES) for (x, y), own in zip(halves, attacked, strict=True)]
        search.epoch = min(step, 1)
        moved = strategy.alpha_gradient(search, drawn[1], drawn[0])
        search.alpha_step(moved.gradient)
        loss, _ = search.weight_step(drawn[0])
        found |= {f"loss {step}": loss, f"gradient {step}": moved.gradient}
        found |= {f"{name} {step}": value for name, value in moved.measured.items()}
    scores = perturbation_scores(search, drawn)
    found |= {
        f"scores {kind}": torch.cat([own.operations.T, own.edges[None]]) for kind, own in scores.items()
    }
    ranks.refuse_difference(supernet.state_dict(), "the end")
    return found | {"draws": generator.get_state()} | supernet.state_dict()


def every_case(ranks, cases):
    """The steps of several cases, in the processes of one start."""
    return {case: steps(ranks, case) for case in cases}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What every case gives in one rank, and in each of several: three ranks for one of them, else two."""
    three = ["first order"]
    two = [case for case in CASES if case not in three]
    found = {}
    for count, cases in ((3, three), (2, two)):
        folder = tmp_path_factory.mktemp("ranks")
        (alone,), several = results(in_ranks(every_case, folder, [1, count], cases=cases)).values()
        found |= {case: (alone[case], [one[case] for one in several]) for case in cases}
    return found


@pytest.mark.parametrize("case", CASES)
def test_several_ranks_are_one_rank_with_the_global_batch(found, case):
    expected, several = found[case]
    assert len(several) > 1
    for one in several:
        assert one.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(one[name], several[0][name]), name
            torch.testing.assert_close(one[name], value, rtol=1e-7, atol=1e-10, msg=name)


SAMPLED_OR_PARTIAL = {
    "pc-darts": {"k": 2, "warmup_epochs": 1},
    "gdas": {},
}


def whole_steps(ranks, name):
    """Two steps of a strategy, each half attacked on this rank's rows, from draws for the whole batch."""
    weights, attack = WeightOptimiser(learning_rate=0.1, clip_norm=0.5), NFGSM(eps=0.1)
    options = {"epochs": 2, "cells": 3, "channels": 2, "weights": weights, "attack": attack}
    strategy = STRATEGIES.get(name)(**options, **SAMPLED_OR_PARTIAL[name])
    supernet = strategy.build_supernet(SPACE, classes=CLASSES, mean=(0.0,), std=(1.0,), seed=0).double()
    if ranks.count > 1:
        synchronise(supernet)
    generator = BatchGenerator()
    generator.manual_seed(3)
    search = OneShotSearch(strategy, supernet, SPACE, ranks, generator)
    rows, share = ranks.rows(IMAGES), ranks.share(IMAGES)

    def draw(*halves):
        found = []
        for _ in halves:
            natural = torch.rand(IMAGES, 1, 6, 6, dtype=torch.float64, generator=generator)[rows]
            labels = torch.randint(CLASSES, (IMAGES,), generator=generator)[rows]
            generator.whole, generator.rows = IMAGES, rows
            attacked = search.attack(natural, labels, generator)
            found.append(Batch(natural, attacked, labels, share, IMAGES))
        return found

    found = {}
    for search.epoch in range(2):
        strategy.begin_epoch(search)
        measured = strategy.step(search, draw)
        found |= {f"{column} {search.epoch}": value for column, value in measured.items()}
    ranks.refuse_difference(supernet.state_dict(), "the end")
    return found | {"draws": generator.get_state()} | supernet.state_dict()


def every_strategy(ranks, names):
    """The steps of several strategies, in the processes of one start."""
    return {name: whole_steps(ranks, name) for name in names}


def test_a_strategy_in_two_ranks_is_that_of_one(tmp_path):
    found = results(in_ranks(every_strategy, tmp_path, [1, 2], names=list(SAMPLED_OR_PARTIAL)))
    (alone,), ranks = found.values()
    for name, expected in alone.items():
        several = [one[name] for one in ranks]
        for one in several:
            assert one.keys() == expected.keys()
            for key, value in expected.items():
                assert torch.equal(one[key], several[0][key]), (name, key)
                torch.testing.assert_close(one[key], value, rtol=1e-7, atol=1e-10, msg=f"{name} {key}")


def test_local_statistics_are_another_search_with_running_statistics_that_agree(tmp_path, found):
    case = "first order"
    one, two = results(in_ranks(steps, tmp_path, [2], case=case, statistics="local"))[2]
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.allclose(one["alphas.robust"], found[case][0]["alphas.robust"], rtol=1e-7)


def part_ways(ranks):
    value = torch.ones(3)
    ranks.refuse_difference({"same": value, "other": value}, "before")
    ranks.refuse_difference({"same": value, "other": value + 1e-7 * (ranks.rank == 1)}, "step 7")


def test_ranks_that_part_ways_are_refused_on_all_and_told_once(tmp_path):
    ranks = in_ranks(part_ways, tmp_path, [3])[3]
    assert [code for _, code, _ in ranks] == [1, 1, 1]
    text = "".join(text for _, _, text in ranks)
    assert text.count("error:") == 1
    assert "step 7: the ranks hold different other" in text
