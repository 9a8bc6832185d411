"""The weight step of a one-shot search by any training loss."""

import pytest
import torch
from small_search import ONE_SHOT, SPACE, Stopped, found, images, searched

from robust_nas.attacks import FGSM, PGD, SecondOrder
from robust_nas.config import check, to_dict
from robust_nas.distributed import Ranks
from robust_nas.errors import ConfigError
from robust_nas.nets import Supernet
from robust_nas.search import DSARA, OneShotSearch, WeightOptimiser
from robust_nas.training import IAT, JSIGR, MART, PGDAT, TRADES, GradAlign, Natural, SecondOrderAT
from robust_nas.training import LOSSES as REGISTRY
from robust_nas.training.losses.iat import Mixture, mixed_logits

ATTACK = PGD(eps=0.1, steps=2, keep="last")
LOSSES = [
    Natural(),
    PGDAT(attack=ATTACK),
    TRADES(attack=PGD(eps=0.1, steps=2, keep="last", loss="kl")),
    MART(attack=ATTACK),
    IAT(attack=ATTACK, layers="all"),
    JSIGR(grid=4),
    SecondOrderAT(attack=SecondOrder(eps=0.1, steps=1, krylov=2, keep="last")),
    GradAlign(attack=FGSM(eps=0.1)),
]


def strategy(loss, **changes):
    return DSARA(**{**ONE_SHOT, "stage1_epochs": 1, "weights": WeightOptimiser(loss=loss), **changes})


def test_every_loss_of_the_registry_is_tried():
    # What fits parts between steps is refused by a search (`test_ladder_training.py`).
    named = {name for name in REGISTRY.built_in if not REGISTRY.get(name).fits_parts}
    assert {loss.name for loss in LOSSES} == named


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """The records of a search without a loss of its own."""
    return searched(tmp_path_factory.mktemp("usual") / "run", strategy(None))[1]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_a_search_by_it_differs_and_resumes_to_the_same_bits(tmp_path, usual, loss):
    values = strategy(loss)
    expected, records = searched(tmp_path / "whole", values)
    assert all(record["loss_weights"] > 0 for record in records)
    assert [record["loss_weights"] for record in records] != [record["loss_weights"] for record in usual]
    with pytest.raises(Stopped):
        searched(tmp_path / "cut", values, stop_at=3)
    outcome, again = searched(tmp_path / "cut", values, mode="resume")
    assert found(outcome) == found(expected)
    assert again == records


def test_the_natural_loss_is_the_usual_step_without_a_perturbation(tmp_path):
    still = FGSM(eps=0.0)
    usual, records = searched(tmp_path / "usual", strategy(None, attack=still))
    named, again = searched(tmp_path / "named", strategy(Natural(), attack=still))
    assert again == records
    assert found(named) == found(usual)


def test_only_the_half_of_the_alphas_is_attacked_by_the_search(tmp_path, monkeypatch):
    attack, counts = OneShotSearch.attack, []
    monkeypatch.setattr(
        OneShotSearch, "attack", lambda own, x, *given: counts.append(len(x)) or attack(own, x, *given)
    )
    _, records = searched(tmp_path / "usual", strategy(None))
    assert sum(counts) == 2 * 8 * len(records)
    counts.clear()
    searched(tmp_path / "named", strategy(Natural()))
    assert sum(counts) == 8 * len(records)


@pytest.mark.parametrize("execution", ["fused", "plain"])
def test_a_supernet_is_mixed_behind_its_cells(execution):
    net = Supernet(SPACE, 4, 1, channels=2, cells=3, seed=0, execution=execution).double().eval()
    x = images(6).float().double()
    whole, points = net(x), net.mixing_points()
    order = torch.tensor([1, 2, 3, 4, 5, 0])
    assert len(points) == 3
    for place in range(4):
        ratios = [Mixture(torch.tensor(r).double(), order, torch.tensor(place)) for r in (1.0, 0.0, 0.5)]
        same, swapped, mixed = (mixed_logits(net, points, x, ratio) for ratio in ratios)
        torch.testing.assert_close(same, whole)
        torch.testing.assert_close(swapped, whole[order])
        assert place == 3 or not torch.allclose(mixed, (whole + whole[order]) / 2)


def test_a_config_without_it_is_written_as_before():
    assert "loss" not in to_dict(strategy(None))["weights"]
    named = strategy(TRADES(attack=PGD(eps=0.1, loss="kl")))
    assert to_dict(named)["weights"]["loss"]["name"] == "trades"
    assert check(DSARA, to_dict(named), "again") == named
    assert named.describe() == "fgsm-rs, linf eps 0.1, weights by trades"


def test_what_makes_no_sense_is_refused_with_its_keys():
    with pytest.raises(
        ConfigError, match=r"order is 2.*weights\.loss is 'natural'; allowed with it: order 1"
    ):
        strategy(Natural(), order=2)
    with pytest.raises(ConfigError, match=r"precision is 'bf16', but weights\.loss 'j-sigr'"):
        strategy(JSIGR(), precision="bf16")
    net = Supernet(SPACE, 4, 1, channels=2, cells=3, seed=0)
    with pytest.raises(ConfigError, match=r"search\.weights\.loss: got 'iat' for 2 ranks"):
        OneShotSearch(strategy(IAT(attack=ATTACK)), net, SPACE, Ranks(0, 2))
    foreign = torch.nn.Identity()
    foreign.alphas = net.alphas
    with pytest.raises(
        ConfigError, match=r"search\.weights\.loss: iat mixes.*Identity has no `mixing_points`"
    ):
        OneShotSearch(strategy(IAT(attack=ATTACK, layers=1)), foreign, SPACE)


def test_an_attack_of_second_order_works_on_the_supernet_itself():
    """Its folded copy has no second derivative."""
    attack = SecondOrder(eps=0.1, steps=1, krylov=2, keep="last")
    net = Supernet(SPACE, 4, 1, channels=2, cells=3, seed=0)
    x, labels = images(6).float(), images(6).labels
    draws = [torch.Generator().manual_seed(1) for _ in range(2)]
    found = OneShotSearch(strategy(None, attack=attack), net, SPACE).attack(x, labels, draws[0])
    assert torch.equal(found, attack(net, x, labels, draws[1]))
