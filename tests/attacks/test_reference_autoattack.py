"""APGD and Square against the authors' own code (pyautoattack), which runs in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from attacked import generator as seeded

from robust_nas.attacks import APGD, Square, apgd, square
from robust_nas.attacks.apgd import Adaptive
from robust_nas.attacks.norms import l2, project

EPS = {"linf": 0.1, "l2": 0.6}
STEPS = 40
T_STEPS = 12
QUERIES = 400
LOSSES = ["ce", "dlr", "dlr-targeted"]
every_run = pytest.mark.parametrize("norm", ["linf", "l2"])
every_loss = pytest.mark.parametrize("loss", LOSSES)


def runs():
    for norm, eps in EPS.items():
        for loss in LOSSES:
            targeted = loss == "dlr-targeted"
            options = {"eps": eps, "n_iter": STEPS, "targeted": targeted}
            yield f"{loss}-{norm}", "trajectory", norm, options | ({} if targeted else {"loss": loss})
        yield f"apgd-t-{norm}", "apgd-t", norm, {"eps": eps, "n_iter": T_STEPS}
        yield f"square-{norm}", "square", norm, {"eps": eps, "n_queries": QUERIES, "resc_schedule": True}


@pytest.fixture(scope="module")
def case(digits_net):
    """The network, with the images on which it is right: the authors' attacks run on no others."""
    model, images, labels = digits_net
    right = model(images).argmax(1) == labels
    return model, images[right], labels[right]


@pytest.fixture(scope="module")
def reference(case, tmp_path_factory):
    """What the authors' code finds, for every run."""
    folder = tmp_path_factory.mktemp("autoattack")
    model, images, labels = case
    work = {"state": model.state_dict(), "images": images, "labels": labels, "runs": list(runs())}
    torch.save(work, folder / "given.pt")
    worker = Path(__file__).with_name("autoattack_worker.py")
    command = [sys.executable, "-W", "ignore", worker, folder / "given.pt", folder / "found.pt"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "found.pt")


class AsInTheirCode(Adaptive):
    """Their first comparison is with 0, not with the loss at the start: it reads the last row of an empty record.

    The paper counts the first step too (Condition 1), and so do we; for a loss that is positive throughout, such as
    cross-entropy, it makes no difference where the first step succeeds.
    """

    def __call__(self, x, gradient, loss):
        first = self.before is None
        ahead = super().__call__(x, gradient, loss)
        if first:
            self.last = torch.zeros_like(loss)
        return ahead


def trajectory(case, loss, norm):
    """The best loss of each example, and whether every iterate was classified rightly."""
    model, images, labels = case
    targets = 1 if loss == "dlr-targeted" else None
    attack = APGD(eps=EPS[norm], norm=norm, steps=STEPS, loss=loss, targets=targets, fold=False)
    result = attack.run(model, images, labels, seeded(0), trace=True)
    return result.loss[0].max(0).values, ~result.wrong[0].any(0)


@every_run
@every_loss
def test_apgd_follows_the_authors_trajectory(case, reference, loss, norm, monkeypatch):
    # From the same start. Linf steps are signs, hence exact; in L2, rounding grows over the steps of a few examples.
    monkeypatch.setattr(apgd, "Adaptive", AsInTheirCode)
    best, right = trajectory(case, loss, norm)
    expected = reference[f"{loss}-{norm}"]
    close = (best - expected["loss"]).abs() <= 1e-5
    assert close.float().mean() >= (1 if norm == "linf" else 0.9)
    assert (best - expected["loss"]).abs().max() < (1e-5 if norm == "linf" else 0.05)
    assert torch.equal(right, expected["right"])


@every_run
@every_loss
def test_apgd_as_in_the_paper_is_as_strong(case, reference, loss, norm):
    best, right = trajectory(case, loss, norm)
    expected = reference[f"{loss}-{norm}"]
    assert (best - expected["loss"]).mean().abs() < (2e-3 if norm == "linf" else 6e-3)
    assert (right != expected["right"]).sum() <= 1


@every_run
def test_the_targeted_ensemble_is_as_strong(case, reference, norm):
    # Nine targets from fresh starts, of which the authors spare the examples that are broken: other draws.
    model, images, labels = case
    attack = APGD(eps=EPS[norm], norm=norm, steps=T_STEPS, loss="dlr-targeted")
    right = model(attack(model, images, labels, seeded(1))).argmax(1) == labels
    expected = reference[f"apgd-t-{norm}"]["right"]
    assert (right != expected).sum() <= 2


def their_corner(x, side, draws):
    """Windows that never reach the last row and column: their integers are drawn below H - S, not up to it."""
    return tuple(torch.randint(max(size - side, 1), (len(x), 1), generator=draws) for size in x.shape[2:])


def their_start(images, eps, norm, draws):
    """Tiles from the same corner on until the image ends: of 8 x 8 pixels, all but the first row and column."""
    if norm == "linf":
        return STARTS(images, eps, norm, draws)
    delta = torch.zeros_like(images)
    delta[:, :, 1:, 1:] = 2.0 * torch.randint(2, (len(images), 1, 7, 7), generator=draws) - 1
    return project(images + eps * delta / l2(delta), images, eps, norm)


STARTS = square._start


def robust_accuracy(case, norm, seeds):
    model, images, labels = case
    attack = Square(eps=EPS[norm], norm=norm, queries=QUERIES)
    right = [model(attack(model, images, labels, seeded(seed))).argmax(1) == labels for seed in seeds]
    return torch.stack(right).float().mean().item()


@every_run
def test_square_with_the_authors_indices_is_as_strong(case, reference, norm, monkeypatch):
    monkeypatch.setattr(square, "_corner", their_corner)
    monkeypatch.setattr(square, "_start", their_start)
    theirs = reference[f"square-{norm}"]["right"].float().mean().item()
    assert 0.5 < theirs < 0.9
    assert robust_accuracy(case, norm, range(2)) == pytest.approx(theirs, abs=0.04)


@every_run
def test_square_as_in_the_paper_is_stronger_on_small_images(case, reference, norm):
    # Every corner up to H - S: on 8 x 8 pixels, the last row and column are a quarter of the image.
    theirs = reference[f"square-{norm}"]["right"].float().mean().item()
    assert theirs - 0.15 < robust_accuracy(case, norm, range(1)) < theirs
