"""The training in two ranks with all that a recipe may ask: the network of one rank with the same global batch."""

from pathlib import Path

import pytest
import torch
from in_ranks import in_ranks, results
from training_cases import FULL, LOSSES, NEEDED, STEPS, extra_images, images, network, options, residual_for

from robust_nas.attacks import PGD
from robust_nas.data import Augment, augment
from robust_nas.errors import ConfigError
from robust_nas.layers.batch_norm import synchronise
from robust_nas.training import (
    AWP,
    PGDAT,
    SWA,
    EarlyStopping,
    EpsSchedule,
    ExtraImages,
    GaussianNoise,
    LabelSmoothing,
    Natural,
    OverfittingGuard,
    loop,
)
from robust_nas.training import LOSSES as REGISTRY
from robust_nas.training.hooks.overfitting_guard import Guard
from robust_nas.workflows.context import open_run

PGD_AT = PGDAT(attack=PGD(eps=0.1, steps=2, keep="last"))
RECIPES = {
    **{loss.name: {"loss": loss} for loss in LOSSES.values()},
    "free-at": {"loss": Natural(), "step": {"name": "free-at", "eps": 0.1, "replays": 2}},
    "hooks": {
        "loss": PGD_AT,
        "ema": None,
        "hooks": [
            OverfittingGuard(images=4),
            SWA(from_epoch=0),
            LabelSmoothing(),
            EpsSchedule(epochs=2),
            EarlyStopping(patience=1),
            ExtraImages(path=extra_images(), share=0.4),
        ],
    },
    "awp": {"loss": PGD_AT, "hooks": [AWP(gamma=0.02)]},
    "er-cla": {
        "loss": Natural(),
        "step": {"name": "er-cla", "critic_width": 8, "critic_rate": 0.01, "clip": 0.3, "weight": 1.0},
    },
    "gaussian-noise": {"loss": Natural(), "hooks": [GaussianNoise(sigma=0.3)]},
    "ensemble": {"loss": PGD_AT, "step": STEPS["ensemble"]},
    "ig-bnn": {"loss": PGD_AT, "step": STEPS["ig-bnn"]},
}
OWN_NETWORK = {  # of recipes whose network has neither auxiliary head nor drop path
    name: found
    for name, recipe in RECIPES.items()
    for found in (recipe["loss"], recipe.get("step"))
    if type(found) in NEEDED
}
REFUSED = {name for name, recipe in RECIPES.items() if recipe["loss"].single_rank}


def run_trainings(ranks, folder_of):
    """Each recipe: two epochs of two steps in float64, 7 images a batch, so that the ranks have 3 and 4.

    Returns the weights of each, or why it is refused.
    """
    loop.augment = lambda *arguments: augment(*arguments).double()
    loop._Training.validate = lambda self: (0.5, 0.5)  # which is in float32, as is what the guard measures:
    Guard._accuracy = lambda self, attack, epoch: 0.9 - 0.6 * epoch  # it undoes the second epoch
    found = {}
    for name, recipe in RECIPES.items():
        own = OWN_NETWORK.get(name)
        without = {} if own is None else {"auxiliary_weight": 0.0, "drop_path": 0.0}
        values = options(**{**FULL, **without, **recipe}, batch_size=7)
        net = (network(auxiliary=True) if own is None else residual_for(own)).double()
        if ranks.count > 1:
            synchronise(net)
        augmentation = Augment(crop=1, flip=True)
        try:
            with open_run(ranks, Path(folder_of) / f"{name}-{ranks.count}", values, "new") as run:
                outcome = loop.train(
                    run, net, images(14), images(12), values, augmentation, seed=3, ranks=ranks
                )
            found[name] = outcome.state
        except ConfigError as error:
            found[name] = str(error)
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    (expected,), (one, two) = results(
        in_ranks(run_trainings, folder / "ranks", [1, 2], folder_of=str(folder))
    ).values()
    return expected, one, two


def test_every_loss_of_the_registry_is_tried_in_ranks():
    assert {recipe["loss"].name for recipe in RECIPES.values()} == set(REGISTRY.built_in)


@pytest.mark.parametrize("recipe", sorted(RECIPES.keys() - REFUSED))
def test_two_ranks_are_one_rank_with_the_global_batch(trained, recipe):
    expected, one, two = (found[recipe] for found in trained)
    for name, value in expected.items():
        assert torch.equal(one[name], two[name]), name
        torch.testing.assert_close(one[name], value, rtol=1e-7, atol=1e-10, msg=name)


@pytest.mark.parametrize("recipe", sorted(REFUSED))
def test_a_loss_that_cannot_be_split_is_refused_on_every_rank_with_the_reason(trained, recipe):
    expected, one, two = (found[recipe] for found in trained)
    assert isinstance(expected, dict)  # alone it is trained
    assert one == two
    reason = RECIPES[recipe]["loss"].single_rank
    assert one == f"training.loss: got {recipe!r} for 2 ranks; {reason}; start it without torchrun"


def validate(ranks, folder_of):
    """The accuracies on 257 images: the second batch has one, for two ranks."""
    values = options(validation_attack=PGD(eps=0.05, steps=2, restarts=2))
    net = network().train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    net(images(64).float())  # or it would give every image the same class in eval mode
    with open_run(ranks, Path(folder_of) / str(ranks.count), values, "new") as run:
        job = loop._Training(run, net, images(24), images(257, seed=1), values, Augment(), 3, ranks)
        return torch.tensor(job.validate())


def test_the_validation_split_is_judged_in_parts_to_the_same_accuracies(tmp_path):
    found = results(in_ranks(validate, tmp_path / "ranks", [1, 2], folder_of=str(tmp_path)))
    (expected,), (one, two) = found.values()
    assert expected[0] > expected[1] > 0
    assert torch.equal(one, expected)
    assert torch.equal(two, expected)
