"""The training loop: what it keeps, averages, clips and drops; resuming to the same bits; when it stops."""

import math
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from training_cases import (
    CLASSES,
    FULL,
    HOOKS,
    Stopped,
    images,
    network,
    options,
    residual,
    run_training,
    same,
    stop_at,
)

from robust_nas.attacks import PGD
from robust_nas.config import to_dict
from robust_nas.data import Augment
from robust_nas.errors import CheckpointError, DivergenceError
from robust_nas.nets import inference_state
from robust_nas.run_folder import CHECKPOINT, Run, read_checkpoint
from robust_nas.training import PGDAT, Cosine, Natural, loop
from robust_nas.training.average import exponential
from robust_nas.training.validation import validate


@pytest.mark.parametrize(
    ("changes", "build"),
    [({}, None), (FULL, None), ({"ema": 0.9}, residual), ({**FULL, "hooks": [HOOKS["awp-late"]]}, None)],
    ids=["plain", "full", "residual", "hook"],
)
def test_a_training_stopped_after_any_step_resumes_to_the_same_bits(tmp_path, changes, build):
    values = options(**changes)
    made = build or (lambda: None)
    expected, records, net = run_training(tmp_path / "whole", values, net=made())

    for mode, at in (
        ("new", 1),
        ("resume", 3),
        ("resume", 4),
        ("resume", 6),
    ):  # one training, killed four times
        with pytest.raises(Stopped):
            run_training(tmp_path / "cut", values, mode=mode, progress=stop_at(at), net=made())
    found, again, resumed = run_training(tmp_path / "cut", values, mode="resume", net=made())
    assert same(found.state, expected.state)
    assert same(resumed.state_dict(), net.state_dict())
    assert again == records
    assert (found.epoch, found.clean, found.robust) == (expected.epoch, expected.clean, expected.robust)


def test_a_finished_training_resumes_to_its_result_without_a_step(tmp_path):
    values = options()
    expected, records, _ = run_training(tmp_path, values)
    steps = []
    found, again, _ = run_training(tmp_path, values, mode="resume", progress=lambda *told: steps.append(told))
    assert steps == []
    assert same(found.state, expected.state)
    assert again == records


def test_the_global_generator_neither_decides_nor_is_moved(tmp_path):
    values = options(drop_path=0.5)
    first, _, _ = run_training(tmp_path / "a", values)
    with torch.random.fork_rng():
        torch.manual_seed(12345)
        before = torch.get_rng_state()
        second, _, _ = run_training(tmp_path / "b", values)
        assert torch.equal(torch.get_rng_state(), before)
    assert same(first.state, second.state)


def test_drop_path_rises_linearly_from_zero_and_changes_the_training(tmp_path, monkeypatch):
    seen = []
    net = network()
    monkeypatch.setattr(net, "set_drop_path", lambda p, generator: seen.append(p))
    run_training(tmp_path / "a", options(epochs=4, drop_path=0.4), net=net)
    assert seen == pytest.approx([0.0, 0.1, 0.2, 0.3])
    _, _, dropped = run_training(tmp_path / "b", options(drop_path=0.9))
    _, _, plain = run_training(tmp_path / "c", options())
    assert not same(dropped.state_dict(), plain.state_dict())


SCORES = [  # clean, robust
    (0.5, 0.3),
    (0.9, 0.2),
    (0.5, 0.4),
    (0.6, 0.4),
    (0.6, 0.4),
    (0.99, 0.0),
    (0.99, 0.1),
    (0.2, 0.1),
]


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        pytest.param({}, (3, 0.6, 0.4), id="robust, then clean"),
        pytest.param({"keep": "clean"}, (6, 0.99, 0.1), id="clean, then robust"),
        pytest.param({"keep": "last"}, (7, 0.2, 0.1), id="last"),
    ],
)
def test_the_epoch_that_the_recipe_asks_for_is_kept(tmp_path, monkeypatch, changes, kept):
    scores = iter(SCORES)
    monkeypatch.setattr(loop._Training, "validate", lambda self: next(scores))
    net = network()
    states = []

    def remember(job, done, total, note=""):
        states.append({name: tensor.clone() for name, tensor in net.state_dict().items()})

    outcome, records, _ = run_training(tmp_path, options(epochs=8, **changes), net=net, progress=remember)
    assert (outcome.epoch, outcome.clean, outcome.robust) == kept
    assert [(record["clean"], record["robust"]) for record in records] == SCORES
    assert same(outcome.state, states[(kept[0] + 1) * 3 - 1])  # after the last of its three steps


def test_what_is_kept_is_recorded_where_it_is_not_the_usual():
    """Records of earlier trainings keep their bytes."""
    assert "keep" not in to_dict(options())
    assert to_dict(options(keep="last"))["keep"] == "last"


def test_only_due_epochs_are_validated_and_always_the_last(tmp_path):
    _, records, _ = run_training(tmp_path, options(epochs=6, validate_from=1, validate_every=3))
    assert [record["epoch"] for record in records if record["robust"] is not None] == [1, 4, 5]


def test_validation_scores_the_kept_model_and_repeats_itself(tmp_path):
    values = options(ema=0.5, validation_images=5)
    with Run(tmp_path, values) as run:
        job = loop._Training(run, network(), images(24), images(12, seed=1), values, Augment(), 3)
        assert len(job.validation) == 5
        assert job.state.model is not job.state.network
        first = job.validate()
        assert job.validate() == first
        with torch.no_grad():
            x = job.validation.float()
            clean = (job.state.model.eval()(x).argmax(1) == job.validation.labels).double().mean()
        assert first[0] == pytest.approx(float(clean))
        assert first[1] <= first[0]


@pytest.mark.parametrize("clip_norm", [1e-4, 1e-2])
def test_clipping_bounds_the_step_of_all_weights_together(tmp_path, clip_norm):
    values = options(
        epochs=1, batch_size=24, clip_norm=clip_norm, momentum=0.0, weight_decay=0.0, learning_rate=0.5
    )
    start = {name: p.detach().clone() for name, p in network().named_parameters()}
    _, _, net = run_training(tmp_path, values)
    moved = torch.cat([(p.detach() - start[name]).flatten() for name, p in net.named_parameters()])
    assert float(moved.norm()) == pytest.approx(0.5 * clip_norm, rel=2e-2)


@given(st.floats(0.0, 0.999), st.integers(1, 10_000))
def test_the_average_is_a_linear_recursion_with_a_fixed_point(decay, updates):
    update = exponential(decay, lambda: updates)
    average, value = torch.tensor([1.0, -2.0, 8.0]), torch.tensor([3.0, -2.0, 0.5])
    d = min(decay, (1 + updates) / (10 + updates))
    expected = d * average + (1 - d) * value
    counter = torch.tensor(3)
    update([average], [value], torch.tensor(updates))  # torch calls it with one dtype after the other
    update([counter], [torch.tensor(7)], torch.tensor(updates))
    torch.testing.assert_close(average, expected)
    assert counter == 7  # whole numbers, such as batch norm's counter, are copied
    fixed = value.clone()
    update([fixed], [value], updates)
    assert torch.equal(fixed, value)


def test_the_average_of_a_run_follows_the_recursion_step_by_step(tmp_path):
    values = options(epochs=1, ema=0.7)
    name = "classifier.weight"
    net = network()
    seen = []
    outcome, _, _ = run_training(
        tmp_path, values, net=net, progress=lambda *_: seen.append(net.state_dict()[name].clone())
    )
    expected = seen[0]
    for updates, value in enumerate(seen[1:], start=1):
        d = min(0.7, (1 + updates) / (10 + updates))
        expected = d * expected + (1 - d) * value
    torch.testing.assert_close(outcome.state[name], expected)


def test_the_learning_rate_follows_the_schedule(tmp_path):
    _, records, _ = run_training(tmp_path, options(epochs=4, schedule=Cosine()))
    progress = [(epoch + 2 / 3) / 4 for epoch in range(4)]  # at the last of three steps
    expected = [0.05 * (1 + math.cos(math.pi * share)) / 2 for share in progress]
    assert [record["learning_rate"] for record in records] == pytest.approx(expected)


def test_the_kept_state_rebuilds_the_model_without_its_auxiliary_head(tmp_path):
    outcome, _, net = run_training(tmp_path, options(auxiliary_weight=0.4))
    plain = network()
    assert plain.load_state_dict(outcome.state)
    assert any(name.startswith("auxiliary.") for name in net.state_dict())
    assert outcome.state.keys() == inference_state(plain).keys()


def test_an_absurd_learning_rate_stops_with_a_sound_checkpoint(tmp_path):
    values = options(epochs=20, learning_rate=1e12, loss=Natural())
    with pytest.raises(DivergenceError, match=r"training, epoch \d+, step \d+: diverged.*smaller training"):
        run_training(tmp_path, values)
    state = read_checkpoint(tmp_path / CHECKPOINT)
    assert all(t.isfinite().all() for t in state["network"].values() if t.is_floating_point())
    with pytest.raises(DivergenceError):
        run_training(tmp_path, values, mode="resume")


@pytest.mark.parametrize("keep", ["best", "last"])
def test_logits_that_the_inner_attack_breaks_are_a_divergence(tmp_path, keep):
    """The best iterate was once the last one with a number: the training went on with a model that gives none."""
    net = network()

    def break_moved(module, given, logits):
        levels = 255 * given[0].detach()
        off = ((levels - levels.round()).abs() > 0.02).flatten(1).any(1)
        return logits.masked_fill(off.unsqueeze(1), torch.nan)

    net.register_forward_hook(break_moved)
    loss = PGDAT(attack=PGD(eps=0.1, steps=2, keep=keep))
    with pytest.raises(DivergenceError, match="diverged, the loss is nan"):
        run_training(tmp_path, options(loss=loss), net=net)


def test_logits_that_the_validation_attack_breaks_are_a_divergence():
    class Moved(nn.Module):
        def forward(self, x):
            levels = 255 * x.detach()
            off = ((levels - levels.round()).abs() > 0.02).flatten(1).any(1)
            return x.flatten(1)[:, :CLASSES].masked_fill(off.unsqueeze(1), torch.nan)

    with pytest.raises(DivergenceError, match="validation split are not finite"):
        validate(Moved(), images(8), PGD(eps=0.1, steps=1), seed=0, where="here")


@pytest.mark.parametrize("at", [2, 5, 6])
def test_weights_that_break_in_a_step_are_never_saved_nor_kept(tmp_path, at):
    """The loss of the step is still sound: only the next one, or the validation, would meet the NaN."""
    net = network()

    def spoil(job, done, total, note=""):
        if done == at:
            with torch.no_grad():
                net.classifier.bias[0] = float("nan")

    with pytest.raises(DivergenceError, match=r"classifier\.bias holds NaN"):
        run_training(tmp_path, options(), net=net, progress=spoil)
    state = read_checkpoint(tmp_path / CHECKPOINT)
    assert state["network"]["classifier.bias"].isfinite().all()


def _of_another_network(state):
    state["network"]["classifier.weight"] = torch.zeros(3, 3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a training with an average of the weights."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run_training(folder, options(ema=0.9))
    return folder


def _wrong_momentum(state):
    first = state["optimiser"]["state"][0]
    first["momentum_buffer"] = torch.zeros(7)


def _wrong_best(state):
    state["best"]["state"]["classifier.weight"] = torch.zeros(3, 3)


@pytest.mark.parametrize(
    "damage",
    [
        _of_another_network,
        _wrong_momentum,
        _wrong_best,
        lambda state: state["network"].pop("classifier.bias"),
        lambda state: state.pop("optimiser"),
        lambda state: state.update(generator=torch.zeros(3, dtype=torch.uint8)),
        lambda state: state.update(job="search"),
        lambda state: state.update(average={}),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(finished, tmp_path, damage):
    values = options(ema=0.9)
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    state = read_checkpoint(tmp_path / CHECKPOINT)
    damage(state)
    torch.save(state, tmp_path / CHECKPOINT)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(CheckpointError, match=r"does not fit|not of a training"):
        run_training(tmp_path, values, mode="resume")
    assert (tmp_path / CHECKPOINT).read_bytes() == before
