"""The one-shot loop: stages and records, resuming to the same bits, refusing what is damaged or has diverged."""

import math
import shutil

import pytest
import torch
from cases import small_space

from robust_nas.attacks import FGSM
from robust_nas.attacks.batch_generator import together
from robust_nas.data import Augment, Images
from robust_nas.errors import CheckpointError, DivergenceError
from robust_nas.run_folder import CHECKPOINT, Run, read_checkpoint
from robust_nas.search import (
    DSARA,
    AlphaOptimiser,
    OneShotSearch,
    SearchContext,
    WeightOptimiser,
    run_strategy,
)
from robust_nas.search.spread import collapsed
from robust_nas.spaces import Edge, Size

CLASSES = 4
OPERATIONS = ["skip_connect", "sep_conv_3x3"]
SPACE = small_space(1, OPERATIONS)
STEPS = 2  # of an epoch: 16 images in each half, 8 a batch


class Stopped(Exception):  # noqa: N818 - no error
    """Stands for a kill."""


def options(**changes):
    values = {
        "epochs": 3,
        "stage1_epochs": 1,
        "batch_size": 8,
        "cells": 3,
        "channels": 2,
        "attack": FGSM(eps=0.1),
        "alphas": AlphaOptimiser(learning_rate=0.1),
        **changes,
    }
    return DSARA(**values)


def images():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (32, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(32) % CLASSES)


def context(run, progress):
    return SearchContext(
        run=run,
        space=SPACE,
        images=images(),
        classes=CLASSES,
        mean=(0.0,),
        std=(1.0,),
        name="found",
        seed=3,
        augmentation=Augment(crop=1),
        network=Size(cells=3, channels=2),
        checkpoint_seconds=0.0,
        progress=progress,
    )


def run_search(folder, values, *, mode="new", progress=lambda *_: None, spoil=None):
    """The outcome, the records and the supernet of a search; `spoil` gets the supernet and every step's number."""
    built = []

    class Kept(DSARA):
        """DSARA, whose supernet is at hand."""

        def build_supernet(self, *args, **more):
            built.append(super().build_supernet(*args, **more))
            return built[-1]

    def report(job, done, total, note=""):
        if spoil is not None:
            spoil(built[0], done)
        progress(job, done, total, note)

    with Run(folder, values, mode) as run:
        outcome = run_strategy(Kept(**dict(values)), context(run, report))
        return outcome, run.records(), built[0]


@pytest.mark.parametrize("order", [1, 2])
def test_a_search_stopped_after_any_step_resumes_to_the_same_bits(tmp_path, order):
    values = options(order=order)
    expected, records, net = run_search(tmp_path / "whole", values)

    for mode, at in (
        ("new", 1),
        ("resume", 2),
        ("resume", 3),
        ("resume", 6),
    ):  # one search, killed four times

        def stop(job, done, total, note="", at=at):
            if done == at:
                raise Stopped

        with pytest.raises(Stopped):
            run_search(tmp_path / "cut", values, mode=mode, progress=stop)
    found, again, resumed = run_search(tmp_path / "cut", values, mode="resume")
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), resumed.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), resumed.buffers(), strict=True))
    assert found.architecture == expected.architecture
    assert (found.edge_weights, found.last, again) == (expected.edge_weights, expected.last, records)


@pytest.mark.parametrize(("bn", "sizes"), [("eval", [16]), ("batch", [8, 8])])
def test_both_halves_are_attacked_in_one_batch_unless_it_has_statistics(tmp_path, monkeypatch, bn, sizes):
    seen, attack = [], OneShotSearch.attack

    def counted(search, images, labels, generator):
        seen.append((len(images), generator.whole, generator.rows))
        return attack(search, images, labels, generator)

    monkeypatch.setattr(OneShotSearch, "attack", counted)
    run_search(tmp_path / "run", options(epochs=1, attack=FGSM(eps=0.1, bn=bn)))
    assert seen == [(size, size, slice(0, size)) for size in sizes] * STEPS


def test_rows_of_two_halves_that_are_drawn_for_as_one():
    assert together([slice(0, 4), slice(0, 3)], [4, 3]) == slice(0, 7)
    assert together([slice(1, 3), slice(0, 2)], [4, 3]) == [1, 2, 4, 5]


def test_the_record_of_every_step_says_what_its_stage_did(finished):
    values = options()
    _, records, net = finished[1]
    assert [record["step"] for record in records] == list(range(3 * STEPS))
    assert [record["stage"] for record in records] == [1] * STEPS + [2] * 2 * STEPS
    natural = ("loss_natural", "gamma", "norm_natural", "cosine")
    for record in records:
        for key in natural:
            assert (record[key] is None) == (record["stage"] == 1)
        assert record.keys() >= {"epoch", "step", "learning_rate", "loss_weights", *natural}
        assert record["norm_adversarial"] > 0
        assert record["entropy"].keys() == record["skips"].keys() == set(net.alphas)
        assert all(0 <= value <= math.log(len(OPERATIONS)) + 1e-6 for value in record["entropy"].values())
        if record["stage"] == 2:
            assert 0 <= record["gamma"] <= 1
            assert -1.0001 <= record["cosine"] <= 1.0001
    rates = [record["learning_rate"] for record in records[::STEPS]]
    assert rates[0] == values.weights.learning_rate
    assert rates == sorted(rates, reverse=True)


def test_without_a_second_stage_the_natural_loss_never_matters(tmp_path):
    _, records, _ = run_search(tmp_path, options(stage1_epochs=3))
    assert {record["stage"] for record in records} == {1}
    assert {record["loss_natural"] for record in records} == {None}


def test_the_second_stage_moves_the_alphas_elsewhere(finished, tmp_path):
    one, _, _ = run_search(tmp_path / "a", options(stage1_epochs=3))
    two, _, _ = finished[1]
    added, _, _ = run_search(tmp_path / "c", options(stage1_epochs=1, combine="sum"))
    assert one.edge_weights != two.edge_weights
    assert two.edge_weights != added.edge_weights


def test_the_mixing_is_the_softmax_of_the_final_alphas_and_the_architecture_its_derivation(finished):
    outcome, records, net = finished[1]
    assert outcome.architecture == net.derive("found")
    for kind, alpha in net.alphas.items():
        assert outcome.edge_weights[kind] == alpha.detach().softmax(1).tolist()
    ends = [record["step"] for record in records if "edge_weights" in record]
    assert ends == [STEPS - 1, 2 * STEPS - 1, 3 * STEPS - 1]  # of every epoch, for the verdict
    for kind, rows in outcome.edge_weights.items():
        assert torch.allclose(torch.tensor(records[-1]["edge_weights"][kind]), torch.tensor(rows), atol=1e-6)


@pytest.mark.parametrize("order", [1, 2])
def test_an_absurd_learning_rate_stops_with_a_sound_checkpoint(tmp_path, order):
    weights = WeightOptimiser(learning_rate=1e15, clip_norm=1e9)
    values = options(epochs=20, weights=weights, order=order)
    with pytest.raises(
        DivergenceError,
        match=r"search, (before )?epoch \d+, step \d+: diverged.*checkpoint stays.*search\.weights\.l",
    ):
        run_search(tmp_path, values)
    state = read_checkpoint(tmp_path / CHECKPOINT)
    assert all(t.isfinite().all() for t in state["supernet"].values() if t.is_floating_point())
    with pytest.raises(DivergenceError):
        run_search(tmp_path, values, mode="resume")


@pytest.mark.parametrize("stage1_epochs", [1, 9])
def test_alphas_that_their_own_step_breaks_name_their_own_learning_rate(tmp_path, stage1_epochs):
    values = options(epochs=9, stage1_epochs=stage1_epochs, alphas=AlphaOptimiser(learning_rate=1e38))
    with pytest.raises(DivergenceError, match=r"alphas is nan.*A smaller search\.alphas\.learning_rate may"):
        run_search(tmp_path, values)


@pytest.mark.parametrize("name", ["classifier.bias", "alphas.robust"])
@pytest.mark.parametrize("at", [3, 3 * STEPS])
def test_a_supernet_that_breaks_in_a_step_is_never_saved(tmp_path, name, at):
    def spoil(net, done):
        if done == at:
            with torch.no_grad():
                net.get_parameter(name).view(-1)[0] = float("nan")

    with pytest.raises(DivergenceError, match=f"{name} holds NaN"):
        run_search(tmp_path, options(), spoil=spoil)
    state = read_checkpoint(tmp_path / CHECKPOINT)
    assert state["supernet"][name].isfinite().all()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a search, and what it returned."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, run_search(folder, options())


def _wrong_alphas(state):
    state["supernet"]["alphas.robust"] = torch.zeros(5, 5)


def _wrong_moments(state):
    state["alpha_optimiser"]["state"][0]["exp_avg"] = torch.zeros(9)


@pytest.mark.parametrize(
    "damage",
    [
        _wrong_alphas,
        _wrong_moments,
        lambda state: state["supernet"].update(foreign=torch.zeros(1)),
        lambda state: state["weight_optimiser"]["param_groups"][0]["params"].pop(),
        lambda state: state.pop("epoch"),
        lambda state: state.update(job="train"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(finished, tmp_path, damage):
    values = options()
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    state = read_checkpoint(tmp_path / CHECKPOINT)
    damage(state)
    torch.save(state, tmp_path / CHECKPOINT)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(CheckpointError, match=r"does not fit|not of a one-shot search"):
        run_search(tmp_path, values, mode="resume")
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_cell_of_mostly_skips_is_warned_of():
    def architecture(*operations):
        node = [Edge(operation, source) for source, operation in enumerate(operations)]
        return SPACE.architecture("x", {kind: [node] for kind in SPACE.layout.kinds})

    assert collapsed(architecture("skip_connect", "sep_conv_3x3")) == []
    warnings = collapsed(architecture("skip_connect", "skip_connect"))
    assert len(warnings) == len(SPACE.layout.kinds)
    assert "the robust cell collapsed: 2 of its 2 operations are skip connections" in warnings
