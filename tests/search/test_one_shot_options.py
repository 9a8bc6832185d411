"""The options that every one-shot strategy has: each against its definition, and resumed to the same bits."""

import json
from itertools import pairwise

import pytest
import torch
from cases import small_space
from dsara_steps import alpha_gradient, draw, make
from small_search import ONE_SHOT, SPACE, Stopped, found, searched

from robust_nas.config import to_dict
from robust_nas.errors import ConfigError
from robust_nas.run_folder import CHECKPOINT, read_checkpoint
from robust_nas.search import DARTS, DSARA, STRATEGIES, AdvRush, AlphaOptimiser, AlphaStep, OneShotSearch
from robust_nas.search.min_norm import min_norm
from robust_nas.search.one_shot.derivation import refuse_space
from robust_nas.search.strategy import counted

STEPS = 2  # of an epoch
FAST = AlphaOptimiser(learning_rate=0.1)
OPTIONS = {
    "warm-up": {"warmup_epochs": 2},
    "cosine": {"alphas": AlphaOptimiser(learning_rate=0.1, schedule="cosine", min_learning_rate=0.01)},
    "max-skips": {"max_skips": 0},
    "perturbation-max-skips": {"derive_by": "perturbation", "max_skips": 0},
    "stop": {"stop_on_collapse": 1, "epochs": 6},
}


def options(**changes):
    return {**ONE_SHOT, "epochs": 4, "alphas": FAST, **changes}


class Turning(DARTS):
    """DARTS whose alphas move away from skip connections for two epochs, and towards them afterwards."""

    def alpha_gradient(self, search, alphas_batch, weights_batch):
        found = super().alpha_gradient(search, alphas_batch, weights_batch)
        sign = torch.tensor([1.0, -1.0] if search.epoch < 2 else [-1.0, 1.0])  # skip_connect, sep_conv_3x3
        gradient = sign.repeat(len(found.gradient) // 2)
        return AlphaStep(gradient, found.measured)


TURNING = {"alphas": AlphaOptimiser(learning_rate=0.1, betas=(0.0, 0.5))}


@pytest.mark.parametrize("case", OPTIONS)
def test_an_option_changes_the_search_which_repeats_itself_and_resumes_to_the_same_bits(tmp_path, case):
    make = Turning if case == "stop" else DARTS
    more = TURNING if case == "stop" else {}
    strategy = make(**{**options(**more), **OPTIONS[case]})
    outcome, records = searched(tmp_path / "whole", strategy)
    plain, _ = searched(tmp_path / "plain", make(**{**options(**more), "epochs": strategy.epochs}))
    assert found(outcome) != found(plain)
    for mode, at in (("new", STEPS + 1), ("resume", len(records))):  # one search, killed twice
        with pytest.raises(Stopped):
            searched(tmp_path / "cut", strategy, mode=mode, stop_at=at)
    again, same = searched(tmp_path / "cut", strategy, mode="resume")
    assert (found(again), same, again.stopped) == (found(outcome), records, outcome.stopped)


@pytest.mark.parametrize("name", ["dsara", "darts", "advrush"])
def test_defaults_are_left_out_of_the_record(name):
    new = {"warmup_epochs", "derive_by", "max_skips", "stop_on_collapse", "normalise"}
    tree = to_dict(STRATEGIES.make(name, attack=ONE_SHOT["attack"]))
    assert not new & tree.keys()
    assert set(tree["alphas"]) == {"learning_rate", "betas", "weight_decay"}


@pytest.mark.parametrize("make", [DARTS, DSARA, AdvRush])
def test_the_warm_up_trains_the_weights_alone_and_attacks_their_half_alone(tmp_path, monkeypatch, make):
    stages = {} if make is DARTS else {"stage1_epochs": 2}
    strategy = make(**options(warmup_epochs=2, **stages))
    seen, attack = [], OneShotSearch.attack
    moved = []

    def counted(search, images, labels, generator):
        seen.append(len(images))
        moved.append({kind: alpha.detach().clone() for kind, alpha in search.alphas.items()})
        return attack(search, images, labels, generator)

    monkeypatch.setattr(OneShotSearch, "attack", counted)
    _, records = searched(tmp_path, strategy)
    assert seen == [8] * 2 * STEPS + [16] * 2 * STEPS
    for before, after in pairwise(moved[: 2 * STEPS + 1]):
        assert all(torch.equal(before[kind], after[kind]) for kind in before)
    assert not torch.equal(moved[-1]["robust"], moved[0]["robust"])
    for record in records:
        warm = record["epoch"] < 2
        assert record["loss_weights"] > 0
        assert [record[key] is None for key in ("loss_adversarial", "norm_adversarial")] == [warm] * 2
        assert strategy.note(record)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ({}, [0.0, 0.1, 0.1, 0.1]),
        ({"schedule": "cosine", "min_learning_rate": 0.02}, [0.0, 0.1, 0.08, 0.04]),
    ],
)
def test_the_alphas_learning_rate_begins_behind_the_warm_up(tmp_path, schedule, rates):
    used = {}

    class Watched(DARTS):
        """DARTS that remembers the alphas' learning rate."""

        def alpha_gradient(self, search, alphas_batch, weights_batch):
            used[search.epoch] = search.alpha_optimiser.param_groups[0]["lr"]
            return super().alpha_gradient(search, alphas_batch, weights_batch)

    alphas = AlphaOptimiser(learning_rate=0.1, **schedule)
    searched(tmp_path, Watched(**options(warmup_epochs=1, alphas=alphas)))
    assert [used.get(epoch, 0.0) for epoch in range(4)] == pytest.approx(rates)


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_gradients_are_normalised_before_the_min_norm_step_and_logged_as_they_are(weight):
    v, w = draw(1), draw(2)
    plain = alpha_gradient(make(adversarial_weight=weight), 2, v, w)
    one, two = plain.natural, plain.adversarial / weight
    unit = alpha_gradient(make(adversarial_weight=weight, normalise="unit"), 2, v, w)
    gamma, expected = min_norm(one / one.norm(), weight * two / two.norm())
    torch.testing.assert_close((unit.gamma, unit.gradient), (gamma, expected))
    if weight == 1:  # the point halves the angle
        assert float(unit.gamma) == pytest.approx(0.5, abs=1e-9)
        torch.testing.assert_close(unit.gradient, (one / one.norm() + two / two.norm()) / 2)
        assert all(unit.gradient.dot(gradient) > 0 for gradient in (one, two))
    loss = alpha_gradient(make(adversarial_weight=weight, normalise="loss"), 2, v, w)
    gamma, expected = min_norm(one / plain.loss_natural, weight * two / plain.loss_adversarial)
    torch.testing.assert_close((loss.gamma, loss.gradient), (gamma, expected))
    for step in (unit, loss):
        assert torch.equal(step.natural, plain.natural)
        assert torch.equal(step.adversarial, plain.adversarial)
        for norm in ("norm_natural", "norm_adversarial"):
            assert torch.equal(step.measured[norm], plain.measured[norm])


def test_a_search_stops_on_collapse_with_the_outcome_of_the_epoch_before(tmp_path):
    whole, records = searched(tmp_path / "whole", Turning(**options(**TURNING, epochs=6)))
    many = [r for r in records if r["step"] % STEPS == STEPS - 1]  # the ends of the epochs
    first = next(r["epoch"] for r in many[2:] if max(r["skips"][kind] for kind in SPACE.layout.stages) >= 1)
    assert 2 <= first < 5
    strategy = Turning(**options(**TURNING, epochs=6, stop_on_collapse=1))
    outcome, seen = searched(tmp_path / "stopped", strategy)
    assert seen == records[: (first + 1) * STEPS]
    assert (outcome.stopped["epoch"], outcome.stopped["at"]) == (first - 1, first)
    assert "cell has" in outcome.stopped["reason"]
    assert outcome.last == seen[first * STEPS - 1]
    assert all(outcome.last["skips"][kind] == 0 for kind in SPACE.layout.stages)
    assert counted(seen, outcome.stopped) == seen[: first * STEPS]
    assert (whole.stopped, counted(records, whole.stopped)) == (None, records)
    state = read_checkpoint(tmp_path / "stopped" / CHECKPOINT)
    for kind, rows in outcome.edge_weights.items():
        assert rows == state["supernet"][f"alphas.{kind}"].softmax(1).tolist()
    again, same = searched(tmp_path / "stopped", strategy, mode="resume")
    assert (found(again), same, again.stopped) == (found(outcome), seen, outcome.stopped)
    assert json.loads(json.dumps(outcome.stopped)) == outcome.stopped


def test_a_search_that_never_had_fewer_skip_connections_goes_on(tmp_path):
    class Skipping(Turning):
        """Alphas that move towards skip connections at once."""

        def alpha_gradient(self, search, alphas_batch, weights_batch):
            found = super().alpha_gradient(search, alphas_batch, weights_batch)
            return AlphaStep(found.gradient * (-1 if search.epoch < 2 else 1), found.measured)

    outcome, records = searched(tmp_path, Skipping(**options(**TURNING, stop_on_collapse=1)))
    assert (outcome.stopped, len(records)) == (None, 4 * STEPS)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"warmup_epochs": 4}, r"warmup_epochs is 4 of 4 epochs.*allowed: 0\.\.3"),
        ({"warmup_epochs": -1}, "warmup_epochs: got -1"),
        ({"alphas": {"min_learning_rate": 1e-5}}, "min_learning_rate is 1e-05, but schedule is 'constant'"),
        (
            {"alphas": {"schedule": "cosine", "min_learning_rate": 1}},
            "min_learning_rate is 1.0; allowed: at m",
        ),
        ({"derive_by": "loss"}, "derive_by: got 'loss'; allowed: argmax, perturbation"),
        ({"max_skips": -1}, "max_skips: got -1"),
        ({"stop_on_collapse": 0}, "stop_on_collapse: got 0"),
    ],
)
@pytest.mark.parametrize("name", ["dsara", "darts", "advrush", "nni"])
def test_a_value_that_does_not_fit_is_refused(name, changes, text):
    stages = {"stage1_epochs": 1} if name in ("dsara", "advrush") else {}
    with pytest.raises(ConfigError, match=text):
        STRATEGIES.make(name, epochs=4, attack=ONE_SHOT["attack"], **stages, **changes)


def test_a_strategy_with_a_derivation_of_its_own_refuses_ours():
    for key, value, text in (
        ("derive_by", "perturbation", "derive_by is 'perturbation', but nni:darts derives by.*it: argmax"),
        ("max_skips", 2, "max_skips is 2, but nni:darts derives by a rule of its own; allowed with it: null"),
    ):
        with pytest.raises(ConfigError, match=text):
            STRATEGIES.make("nni", attack=ONE_SHOT["attack"], **{key: value})


def test_a_normaliser_without_a_min_norm_step_is_refused():
    with pytest.raises(
        ConfigError, match=r"normalise is 'unit', but combine is 'sum'.*allowed with it: none"
    ):
        DSARA(normalise="unit", combine="sum", attack=ONE_SHOT["attack"])


@pytest.mark.parametrize(
    ("key", "operations", "text"),
    [
        ("stop_on_collapse", ["avg_pool_3x3", "sep_conv_3x3"], "the space .* has no skip connection"),
        ("stop_on_collapse", ["none", "skip_connect"], "edges of the space .* skip connections alone"),
        ("max_skips", ["none", "skip_connect"], "edges of the space .* skip connections alone"),
    ],
)
def test_a_space_without_what_an_option_is_about_is_refused_before_the_first_step(
    tmp_path, key, operations, text
):
    with pytest.raises(ConfigError, match=f"search.{key}: got 2; {text}"):
        searched(tmp_path, DARTS(**options(**{key: 2})), space=small_space(1, operations))
    assert not (tmp_path / CHECKPOINT).exists()


def test_a_limit_on_skips_holds_by_itself_where_there_are_none():
    refuse_space(small_space(1, ["avg_pool_3x3", "sep_conv_3x3"]), "max_skips", 2)
