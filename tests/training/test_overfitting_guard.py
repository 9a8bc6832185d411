"""The guard against catastrophic overfitting, provoked on purpose: what it undoes, strengthens and records."""

import math

import pytest
import torch
from torch import nn
from training_cases import KL, options, run_training, same

from robust_nas.attacks import FGSM, PGD, SecondOrder
from robust_nas.data import Augment, DataOptions, load_dataset
from robust_nas.errors import CheckpointError, ConfigError
from robust_nas.run_folder import CHECKPOINT, Run, read_checkpoint
from robust_nas.training import PGDAT, SWA, LabelSmoothing, OverfittingGuard, Piecewise, Training, loop
from robust_nas.training.hooks.overfitting_guard import Guard, strengthened


class Leaky(nn.Module):
    """A perceptron that also sees a wave of the pixels: single steps of eps betray the label in it, iterates do not."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, x):
        x = x.flatten(1)
        return self.net(torch.cat([x, 0.1 * torch.sin(8 * math.pi * x)], 1))


def single_step_training(
    folder, hooks, mode="new", progress=lambda *_: None, checkpoint_seconds=60.0, epochs=10
):
    digits = load_dataset(DataOptions()).train
    values = Training(
        epochs=epochs,
        batch_size=50,
        loss=PGDAT(attack=FGSM(eps=0.2)),
        learning_rate=0.05,
        momentum=0.9,
        weight_decay=0.0,
        schedule=Piecewise(milestones=(999,)),
        validation_attack=PGD(eps=0.2),
        hooks=hooks,
    )
    parts = digits.subset(torch.arange(1000)), digits.subset(torch.arange(1000, 1100))
    net = Leaky()
    with Run(folder, values, mode) as run:
        outcome = loop.train(
            run,
            net,
            *parts,
            values,
            Augment(),
            seed=0,
            progress=progress,
            checkpoint_seconds=checkpoint_seconds,
        )
        return outcome, run.records(), net


def test_catastrophic_overfitting_is_undone_and_the_attack_strengthened(tmp_path):
    _, plain, _ = single_step_training(tmp_path / "plain", ())
    robust = [record["robust"] for record in plain]
    assert max(robust) - robust[-1] > 0.2  # it happens
    assert plain[-1]["train_accuracy"] > 0.9
    _, records, _ = single_step_training(tmp_path / "gap", [OverfittingGuard()])
    undone = [record for record in records if "rolled_back_to" in record]
    assert undone[0]["overfitting"] == "FGSM and PGD differ"
    assert [record["strengthened_to"] for record in undone] == ["pgd-2", "pgd-4", "pgd-8", "pgd-10"][
        : len(undone)
    ]
    assert {record["rolled_back_to"] for record in undone} == {undone[0]["epoch"] - 1}
    assert undone[0]["robust"] == records[undone[0]["epoch"] - 1]["robust"]  # the same weights again
    assert records[-1]["robust"] > max(robust)


def test_a_fall_of_the_robust_accuracy_is_undone_too_and_resumes_to_the_same_bits(tmp_path):
    hooks = [OverfittingGuard(gap=0.99)]
    expected, records, net = single_step_training(tmp_path / "whole", hooks, epochs=6)
    undone = [record["epoch"] for record in records if record.get("overfitting") == "robust accuracy fell"]
    assert undone

    class Killed(Exception):  # noqa: N818 - no error
        pass

    def kill(job, done, total, text=""):
        if done == 20 * (undone[0] + 1) + 7:  # in the epoch after
            raise Killed

    with pytest.raises(Killed):
        single_step_training(tmp_path / "cut", hooks, progress=kill, checkpoint_seconds=0.0, epochs=6)
    found, again, resumed = single_step_training(tmp_path / "cut", hooks, mode="resume", epochs=6)
    assert again == records
    assert same(found.state, expected.state)
    assert same(resumed.state_dict(), net.state_dict())


def test_what_a_strengthened_attack_is():
    assert strengthened(FGSM(eps=0.1), 1, 10) == PGD(eps=0.1, steps=2, keep="last")
    assert strengthened(PGD(eps=1.0, norm="l2", steps=3, loss="kl"), 1, 10).steps == 6
    assert strengthened(PGD(eps=0.1, steps=3), 2, 10).steps == 10
    assert strengthened(KL, 1, 10).loss == "kl"
    assert strengthened(SecondOrder(eps=0.1, steps=2, krylov=2), 1, 40).steps == 12
    for attack in (PGD(eps=0.1, steps=20), SecondOrder(eps=0.1)):  # never weakened
        assert strengthened(attack, 1, 10) is attack


def test_hooks_that_take_the_weights_of_an_epoch_come_after_the_guard():
    options(hooks=[OverfittingGuard(), SWA(from_epoch=0)])
    with pytest.raises(ConfigError, match=r"swa before it in the list .* list overfitting-guard first"):
        options(hooks=[LabelSmoothing(), SWA(from_epoch=0), OverfittingGuard()])


def test_the_guard_puts_back_weights_optimiser_and_average(tmp_path, monkeypatch):
    accuracies = iter([("pgd", 0.8), ("fgsm", 0.8), ("pgd", 0.1), ("fgsm", 0.1)])
    monkeypatch.setattr(Guard, "_accuracy", lambda self, attack, epoch: next(accuracies)[1])
    seen = []

    def note(self):
        state = self.state
        seen.append([t.clone() for t in state.model.state_dict().values()])
        seen[-1] += [s["momentum_buffer"].clone() for s in state.optimiser.state.values()]
        return 0.5, 0.5

    monkeypatch.setattr(loop._Training, "validate", note)
    run_training(tmp_path, options(ema=0.5, hooks=[OverfittingGuard()]))
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))


def test_a_checkpoint_of_another_guard_is_refused(tmp_path):
    values = options(hooks=[OverfittingGuard(images=4, steps=1)])
    run_training(tmp_path, values)
    state = read_checkpoint(tmp_path / CHECKPOINT)
    state["hooks"][0]["good"]["network"]["classifier.weight"] = torch.zeros(2, 2)
    torch.save(state, tmp_path / CHECKPOINT)
    with pytest.raises(CheckpointError, match="does not fit"):
        run_training(tmp_path, values, mode="resume")
