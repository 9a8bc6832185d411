"""The passes that a comparison plans are those that a training of each method takes, counted on its network."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compared_methods import DEEP, NETWORK, OWN_NETWORK, comparison, fit_for_training
from torch.utils._python_dispatch import TorchDispatchMode

from robust_nas.errors import StudyError
from robust_nas.nets import build_network
from robust_nas.run_folder import Run
from robust_nas.studies.run.runner import plan_study
from robust_nas.training import HOOKS, LOSSES, STEPS
from robust_nas.training.loop import _Training, train


class CountPasses(TorchDispatchMode):
    """Counts the images that go through the hidden layers, W wide on both sides, forward or backward.

    A forward pass, a gradient of the inputs, or of the weights is one matrix product of W x W a layer and image, also
    where it is differentiated again: whatever calls it.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.width, self.layers, self.products = width, layers, 0

    @property
    def passes(self) -> float:
        return self.products / self.layers

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            one, other = args[-2:]
            sizes = [*one.shape, other.shape[1]]
            if sizes.count(self.width) == 2:
                sizes.remove(self.width)
                sizes.remove(self.width)
                self.products += sizes[0]
        return func(*args, **(kwargs or {}))


# Options of hooks without which they cannot be, or would not be seen in two epochs.
HOOK_OPTIONS: dict[str, dict[str, Any]] = {
    "awp": {"warmup_epochs": 1},
    "swa": {"from_epoch": 1},
    "overfitting-guard": {"drop": 0.99, "gap": 0.99},
}
NO_STEP = {
    "frozen-sparta",
    "noise-layers",
}  # they are of maps, which the MLP does not have, and add no passes
HOOK_LOSS = {"gaussian-noise": "natural"}  # of hooks that an attack cannot be next to


@pytest.fixture
def extra(tmp_path: Path) -> dict[str, Any]:
    pixels = np.zeros((8, 8, 8), np.uint8)
    np.savez(tmp_path / "extra.npz", image=pixels, label=np.arange(8))
    return {"path": str(tmp_path / "extra.npz")}


def test_the_plan_is_what_a_training_takes(
    extra: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every loss, step, attack and hook of the registries; validation is no part of it, nor are checks at the start."""
    hooks = {
        name: {"loss": HOOK_LOSS.get(name, "pgd-at"), "hooks": [{"name": name, **HOOK_OPTIONS.get(name, {})}]}
        for name in HOOKS.names()
        if name not in NO_STEP
    }
    hooks["extra-images"]["hooks"][0] |= extra
    hooks["free-awp-swa"] = {"loss": "natural", "step": "free-at", "hooks": ["awp", "swa"]}
    names = [*LOSSES.names(), *STEPS.names()[1:], *fit_for_training()]
    methods = [
        name for name in dict.fromkeys(names) if name != "pgd" and name not in OWN_NETWORK
    ]  # pgd is pgd-at
    config = comparison(
        *methods,
        *hooks,
        changes=[
            f"compare.methods={json.dumps(hooks)}",
            "compare.equal_passes=[trades]",
            "data.limit=50",
            "training.batch_size=40",  # of which a tenth, whose saliency j-sigr needs, is a whole number
        ],
        architecture=DEEP,
    )
    plan, context = plan_study(config)
    assert {point.method for point in plan.points} == {*methods, *hooks}
    count = CountPasses(DEEP.width, DEEP.depth - 1)

    def unseen(*_: Any, **__: Any) -> tuple[float, float]:
        return 0.0, 0.0

    monkeypatch.setattr(_Training, "validate", unseen)
    monkeypatch.setattr("robust_nas.training.validation.validate", unseen)  # of the guard
    # 16 images, once, to see whether the folded copy is the model; and one, to see how many classes there are
    monkeypatch.setattr("robust_nas.attacks.folding.same_logits", lambda *_: True)
    monkeypatch.setattr("robust_nas.training.losses.ladder.checked_classes", lambda *_: 10)  # by two images
    monkeypatch.setattr("robust_nas.training.hooks.extra_images._classes", lambda *_: 10)
    shape: dict[str, Any] = {"input_shape": context.dataset.shape, "classes": context.dataset.classes}
    for number, point in enumerate(plan.points):
        network: Any = build_network(point.architecture, **shape, seed=0)
        network.activations[0] = torch.nn.BatchNorm1d(DEEP.width)  # which SWA renews
        count.products = 0
        with Run(tmp_path / str(number), NETWORK, "new") as run, count:
            train(
                run,
                network,
                context.images,
                context.validation,
                point.training,
                plan.config.data.augment,
                seed=0,
            )
        assert count.passes == plan.training_passes(point), point.name


@pytest.mark.parametrize("name", OWN_NETWORK)
def test_the_plan_is_what_a_training_of_particles_or_of_a_posterior_takes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass of all particles is one. IG-BNN attacks one particle: the plan is the most that it can take."""
    particles = getattr(OWN_NETWORK[name], "particles", 1)
    changes = ["data.limit=50", "training.batch_size=40"]
    config = comparison(name, changes=changes, architecture=OWN_NETWORK[name])
    if OWN_NETWORK[name].inference_samples is not None:
        with pytest.raises(StudyError, match="is random"):
            plan_study(config)
        monkeypatch.setattr(
            type(OWN_NETWORK[name]), "inference_samples", None
        )  # its passes are counted all the same
    plan, context = plan_study(config)
    (point,) = (point for point in plan.points if point.method == name)
    monkeypatch.setattr(_Training, "validate", lambda *_: (0.0, 0.0))
    monkeypatch.setattr("robust_nas.attacks.folding.same_logits", lambda *_: True)
    built = build_network(
        point.architecture, input_shape=context.dataset.shape, classes=context.dataset.classes, seed=0
    )
    count = CountPasses(DEEP.width, DEEP.depth - 1)
    augmentation = plan.config.data.augment
    with Run(tmp_path, NETWORK, "new") as run, count:
        train(run, built, context.images, context.validation, point.training, augmentation, seed=0)
    attack = point.training.loss.inner_attack
    assert attack is not None
    spared = (
        attack.crafting_passes * (1 - 1 / particles) * 40 * point.training.epochs if name == "ig-bnn" else 0
    )
    assert count.passes / particles == pytest.approx(plan.training_passes(point) - spared)
