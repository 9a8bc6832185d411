"""A training whose inner attack is compiled: the same weights by one compilation, also of a killed one."""

import pytest
import torch
from torch._dynamo.utils import counters
from training_cases import Stopped, options, residual, run_training, same, stop_at

from robust_nas.attacks import PGD, compiling
from robust_nas.training import PGDAT
from robust_nas.training.loop import input_gradients


@pytest.fixture
def eager(monkeypatch):
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")  # no compiler, and the same bits
    monkeypatch.setattr(compiling, "LEAST_BATCH", 8)
    yield
    torch._dynamo.reset()


def recipe(choice, **changes):
    return options(loss=PGDAT(attack=PGD(eps=0.1, steps=3, keep="last", compile=choice)), **changes)


def test_what_lies_ahead_is_counted_over_all_epochs():
    validated = PGD(eps=0.1, steps=5, compile="auto")
    assert input_gradients(recipe("never", epochs=4), 10, 300) == 0
    assert input_gradients(recipe("auto", epochs=4), 10, 300) == 4 * 10 * 3
    values = recipe("auto", epochs=4, validation_attack=validated, validate_every=2)
    assert input_gradients(values, 10, 300) == 4 * 10 * 3 + 3 * 2 * 5  # epochs 0, 2 and the last


@pytest.mark.usefixtures("eager")
def test_new_weights_need_no_new_compilation_and_a_killed_training_ends_in_the_same_bits(
    tmp_path, monkeypatch
):
    plain, _, _ = run_training(tmp_path / "plain", recipe("never"), net=residual())
    seen = []
    monkeypatch.setattr(compiling, "LEAST_GRADIENTS", 2 * 3 * 3)
    original = compiling.compiled_copy

    def watched(*args):
        seen.append(original(*args))
        return seen[-1]

    monkeypatch.setattr("robust_nas.attacks.engine.compiled_copy", watched)
    net = residual()
    found, _, _ = run_training(tmp_path / "whole", recipe("auto"), net=net)
    assert counters["stats"]["unique_graphs"] == 1
    compiled = [each for each, _ in seen if each is not None]
    assert len(compiled) == 6  # every step; not the validation, whose attack does not ask for it
    assert len(set(map(id, compiled))) == 1
    assert same(found.state, plain.state)
    with pytest.raises(Stopped):
        run_training(tmp_path / "cut", recipe("auto"), progress=stop_at(4), net=residual())
    torch._dynamo.reset()
    again, _, _ = run_training(tmp_path / "cut", recipe("auto"), mode="resume", net=residual())
    assert same(again.state, found.state)
