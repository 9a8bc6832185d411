"""The measures of a compression: a dense form is attacked in the network's place only where it computes the same."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from robust_nas.attacks import PGD
from robust_nas.data import DataOptions, load_dataset
from robust_nas.layers import factorised
from robust_nas.layers.factorised import LayerForm, rebuild
from robust_nas.run_folder import read_json
from robust_nas.workflows.compress_measures import accuracies, describe


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        own = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)
        )  # fmt: skip
        rebuild(own, [LayerForm("2", "tucker-2", (3, 3))])
    return own.eval()


@pytest.fixture
def context(tmp_path):
    validation = load_dataset(DataOptions(name="digits"), seed=0).test.draw(40, 0)
    description = SimpleNamespace(input_shape=(1, 8, 8))
    return SimpleNamespace(
        original=SimpleNamespace(folder=None, model=SimpleNamespace(description=description)),
        recipe=SimpleNamespace(validation_attack=PGD(eps=0.1, steps=2)),
        root=tmp_path,
        validation=validation,
        device=torch.device("cpu"),
        seed=0,
    )


def test_a_dense_form_with_other_logits_is_not_attacked(context, monkeypatch):
    own = network()
    assert "model_form" not in describe(context, None, own)["validation"]
    (path,) = context.root.glob("validation/*.json")
    path.unlink()
    wrong = network()
    with torch.no_grad():
        wrong[-1].weight.neg_()
    monkeypatch.setattr(factorised, "dense", lambda _: wrong)
    row = describe(context, None, own)["validation"]
    assert row["model_form"] == "as it is: its dense form gives other logits"
    attack = context.recipe.validation_attack
    clean, robust = accuracies(own, own, context.validation, attack, context.seed)
    assert read_json(path) == {"clean": clean, "robust": robust, "model_form": row["model_form"]}
