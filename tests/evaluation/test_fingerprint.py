"""A change of the model is noticed, and looked for without reading all weights after every batch."""

import pytest
import torch
from small_cascade import evaluated
from torch import nn

from robust_nas.evaluation import fingerprint
from robust_nas.evaluation.fingerprint import ModelWatch


class Keeping(nn.Module):
    """A linear layer, a buffer, and a tensor in a plain list."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("seen", torch.zeros(2))
        self.kept = [torch.ones(2)]


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.seen.add_(1),
        lambda model: model.kept[0].mul_(2),
        lambda model: model.layer.weight.requires_grad_(False),
        lambda model: model.train(),
        lambda model: setattr(model, "seen", torch.ones(2)),
        lambda model: model.kept.append(torch.ones(1)),
        lambda model: setattr(model.layer.bias, "grad", torch.ones(2)),
    ],
)
def test_a_change_is_noticed(change):
    model = Keeping().eval()
    watch = ModelWatch(model)
    assert watch.unchanged()
    with torch.no_grad():
        change(model)
    assert not watch.unchanged()
    assert not watch.unchanged_values()


def test_a_write_past_the_counters_is_noticed_by_the_values():
    model = Keeping().eval()
    watch = ModelWatch(model)
    model.layer.weight.data.add_(1)
    assert watch.unchanged()
    assert not watch.unchanged_values()


def test_equal_values_in_another_tensor_are_no_change():
    model = Keeping().eval()
    watch = ModelWatch(model)
    model.seen = torch.zeros(2)
    model.layer.weight.grad = None
    assert watch.unchanged()


def test_a_tensor_of_inference_mode_is_held_against_its_values():
    with torch.inference_mode():
        model = Keeping().eval()
    watch = ModelWatch(model)
    assert watch.unchanged()
    with torch.inference_mode():
        model.seen.add_(1)
    assert not watch.unchanged()


@pytest.mark.parametrize("batch", [4, 48])
def test_the_weights_are_read_once_an_attack_whatever_the_batch(robust, dataset, monkeypatch, batch):
    calls = []
    original = fingerprint.fingerprint
    monkeypatch.setattr(fingerprint, "fingerprint", lambda model: calls.append(1) or original(model))
    evaluated(robust, dataset, batch_size=batch, findings="none")
    assert len(calls) == 2 + 3  # before, after the clean images, after each of three attacks
