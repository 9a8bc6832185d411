"""The fitness of a supernet at the end of a one-shot search: what is measured, on what, and that the search stays."""

import json
import math

import pytest
import torch
from in_ranks import in_ranks, results
from small_search import CLASSES, ONE_SHOT, SPACE, context, found, images, searched

from robust_nas.attacks import PGD
from robust_nas.distributed import ALONE
from robust_nas.errors import ConfigError
from robust_nas.evaluation import correctness
from robust_nas.layers.batch_norm import synchronise
from robust_nas.nets import Supernet, channels_last
from robust_nas.nets.inherited import estimate_statistics, sub_network
from robust_nas.run_folder import Run
from robust_nas.search import DSARA, OneShotSearch, Trained
from robust_nas.search.one_shot import loop, rank_correlation
from robust_nas.search.one_shot.fitness import FitnessImages, dropped_weight, measure_fitness
from robust_nas.spaces import load_space

STRATEGY = DSARA(stage1_epochs=1, **ONE_SHOT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The outcome and the records of a search."""
    return searched(tmp_path_factory.mktemp("whole") / "run", STRATEGY)


class Foreign(DSARA):
    """DSARA as a strategy whose supernet gives no weights."""

    shares_weights = False


def trained_supernet(seed=1):
    """A supernet whose batch norms know statistics and whose alphas differ."""
    supernet = Supernet(SPACE, CLASSES, 1, channels=2, cells=3, seed=seed)
    generator = torch.Generator().manual_seed(2)
    supernet.train()
    with torch.no_grad():
        supernet(torch.rand(16, 1, 8, 8, generator=generator))
        for alpha in supernet.alphas.values():
            alpha.copy_(torch.randn(alpha.shape, generator=generator))
    return channels_last(supernet)


def measured(supernet, strategy=STRATEGY, ranks=ALONE):
    search = OneShotSearch(strategy, supernet, SPACE, ranks)
    judged = FitnessImages(images(24), images(32), seed=3, batch_size=16)
    alphas = {kind: alpha.detach() for kind, alpha in supernet.alphas.items()}
    weights = strategy.edge_weights(SPACE, alphas)
    architecture = strategy.derive(search, alphas, "found")
    return measure_fitness(strategy, search, judged, architecture, weights, CLASSES)


def test_accuracies_are_those_of_the_supernet_and_of_its_sub_network_under_ten_steps_of_pgd():
    supernet = trained_supernet()
    fitness = measured(supernet)
    attack = PGD(eps=0.1, steps=10)
    network = channels_last(sub_network(supernet, supernet.derive()))
    estimate_statistics(network, images(32), 16)
    for key, model in (("supernet", supernet), ("derived", network)):
        clean = correctness(model, images(24), attack, torch.Generator().manual_seed(3)).clean
        right = images(24).subset(clean.nonzero()[:, 0])
        robust = correctness(model, right, attack, torch.Generator().manual_seed(3), batch_size=16).robust
        assert fitness[key] == {"clean": int(clean.sum()) / 24, "robust": int(robust.sum()) / 24}
        assert 0 < fitness[key]["clean"] < 1
    assert fitness["attack"] == "pgd, 10 steps, linf eps 0.1"
    assert (fitness["images"], fitness["classes"], fitness["chance"]) == (24, CLASSES, 0.25)
    assert fitness["rank_correlation"] is None


def test_nothing_of_the_search_changes(whole, tmp_path, monkeypatch):
    supernet = trained_supernet().train()
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    draws = torch.get_rng_state()
    measured(supernet)
    assert supernet.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in supernet.parameters())
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())
    assert torch.equal(torch.get_rng_state(), draws)
    outcome, records = whole
    monkeypatch.setattr(loop, "measure_fitness", lambda *_: None)
    plain, same = searched(tmp_path / "plain", STRATEGY)
    assert (found(outcome)[:-1], records) == (found(plain)[:-1], same)
    assert outcome.fitness["images"] == 16  # half of the images
    assert plain.fitness is None


def test_it_is_a_function_of_the_last_checkpoint(whole, tmp_path, monkeypatch):

    def killed(*_):
        raise InterruptedError

    with monkeypatch.context() as patched:
        patched.setattr(loop, "measure_fitness", killed)
        with pytest.raises(InterruptedError):
            searched(tmp_path / "cut", STRATEGY)
    again, _ = searched(tmp_path / "cut", STRATEGY, mode="resume")
    assert found(again) == found(whole[0])


@pytest.mark.parametrize(("name", "kept", "all_weight"), [("dsara", 8, 14), ("nas-bench-201", 6, 6)])
def test_the_dropped_weight_of_an_undecided_and_of_a_decided_supernet(name, kept, all_weight):
    space = load_space(name)
    supernet = Supernet(space, 4, 1, channels=2, cells=4)
    shape = len(space.edges), len(space.operations)
    equal = {kind: torch.full(shape, 1 / shape[1]) for kind in space.kinds}
    expected = 1 - kept / shape[1] / all_weight
    assert dropped_weight(space, supernet.derive(), equal) == pytest.approx(expected)
    one = {
        kind: torch.nn.functional.one_hot(alpha.argmax(1), shape[1]).float()
        for kind, alpha in supernet.alphas.items()
    }
    architecture = space.architecture(
        "one", {kind: supernet.derive_nodes(rows) for kind, rows in one.items()}
    )
    connected = expected == pytest.approx(1 - 1 / shape[1])
    lost = dropped_weight(space, architecture, one)
    assert lost == pytest.approx(0 if connected else 1 - kept / all_weight, abs=1e-6)


def test_a_strategy_without_inherited_weights_has_the_supernet_alone():
    fitness = measured(trained_supernet(), Foreign(stage1_epochs=1, **ONE_SHOT))
    assert fitness["derived"] is None
    assert fitness["supernet"] == measured(trained_supernet())["supernet"]


def test_logits_that_are_not_finite_are_wrong_answers():
    supernet = trained_supernet()
    with torch.no_grad():
        supernet.classifier.bias[0] = math.nan
    fitness = measured(supernet)
    assert fitness["supernet"] == fitness["derived"] == {"clean": 0.0, "robust": 0.0}
    json.dumps(fitness, allow_nan=False)


def on_rank(ranks):
    """The fitness on one of several ranks, whose supernets share their batch statistics."""
    supernet = trained_supernet()
    if ranks.count > 1:
        synchronise(supernet)
    fitness = measured(supernet, ranks=ranks)
    return {
        f"{key} {kind}": torch.tensor(fitness[key][kind])
        for key in ("supernet", "derived")
        for kind in ("clean", "robust")
    }


def test_all_ranks_measure_the_same(tmp_path):
    one, two = results(in_ranks(on_rank, tmp_path, [2]))[2]
    assert one == two


def test_short_trainings_are_compared_with_inherited_scores(whole, tmp_path, monkeypatch):
    strategy = DSARA(stage1_epochs=1, short_trainings=6, **ONE_SHOT)
    assert strategy.trains
    asked, losses, loss = [], [], rank_correlation.adversarial_loss

    def kept_loss(*args):
        losses.append(loss(*args))
        return losses[-1] + 100 * len(losses)  # each worse than those before

    def trained(architecture, kept, held_out, epochs):
        asked.append((architecture, len(kept), len(held_out), epochs))
        return Trained(clean=0.5, robust=1 / len(asked))

    monkeypatch.setattr(rank_correlation, "adversarial_loss", kept_loss)
    outcome, records = searched(tmp_path / "short", strategy, train=trained)
    assert [(count, held, epochs) for _, count, held, epochs in asked] == [(26, 6, 5)] * 6
    assert {(one.cells, one.channels) for one, *_ in asked} == {(3, 2)}
    assert outcome.fitness["rank_correlation"] == {"networks": 6, "kendall": 1.0, "interval": [1.0, 1.0]}
    assert all(math.log(CLASSES) / 6 < value < 20 for value in losses)
    plain, same = whole
    assert (found(outcome)[:-1], records) == (found(plain)[:-1], same)
    assert {**outcome.fitness, "rank_correlation": None} == plain.fitness


def test_accuracies_that_are_all_equal_rank_nothing(tmp_path):
    equal = Trained(clean=0.5, robust=0.5)
    strategy = DSARA(stage1_epochs=1, short_trainings=6, **ONE_SHOT)
    outcome, _ = searched(tmp_path / "run", strategy, train=lambda *_: equal)
    assert outcome.fitness["rank_correlation"] is None


def test_short_trainings_in_the_record_and_too_few_of_them(tmp_path):
    assert "short_trainings" not in STRATEGY.model_dump()
    assert not STRATEGY.trains
    with pytest.raises(
        ConfigError, match=r"a rank correlation needs 6 architectures; allowed: 0, or at least 6"
    ):
        DSARA(short_trainings=5)
    several = type(ALONE)(**{**vars(ALONE), "count": 2})
    strategy = DSARA(stage1_epochs=1, short_trainings=6, **ONE_SHOT)
    with Run(tmp_path / "run", strategy) as run, pytest.raises(ConfigError, match="got 6 with 2 ranks"):
        loop.search(strategy, context(run, ranks=several))
