"""An evaluation whose attacks are compiled: by one key, known by it, and killed and resumed to the same bits."""

import copy

import pytest
import torch
from small_cascade import SMALL, evaluated
from torch._dynamo.utils import counters

from robust_nas.attacks import ThreatModel, compiling
from robust_nas.config import check, to_dict
from robust_nas.errors import ConfigError
from robust_nas.evaluation import EvaluationOptions, Journal, follow_protocol
from robust_nas.evaluation.attack_rows import input_gradients, planned

THREAT = ThreatModel(eps=0.1)


@pytest.fixture
def eager(monkeypatch):
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")  # no compiler, and the same bits
    yield
    torch._dynamo.reset()


def timeless(found):
    tree = found.to_dict()
    return {
        **tree,
        "seconds": 0,
        "findings_seconds": 0,
        "attacks": [{**a, "seconds": 0} for a in tree["attacks"]],
    }


def test_one_key_gives_it_to_every_attack_that_has_something_to_compile():
    listed = [{"attack": {"name": name}} for name in ("fgsm", "pgd", "square", "autoattack")]
    listed.append({"attack": {"name": "pgd", "compile": "always"}})
    options = check(EvaluationOptions, {"threat_model": THREAT, "attacks": listed, "compile": "auto"}, "test")
    assert [step.attack.compile for step in options.steps] == ["never", "auto", "never", "never", "always"]
    cascade = EvaluationOptions(threat_model=THREAT, compile="always")
    assert {step.attack.compile for step in cascade.steps} == {"always"}
    with pytest.raises(ConfigError, match="compile"):
        EvaluationOptions(threat_model=THREAT, compile="yes")


def test_an_evaluation_without_the_key_is_written_down_as_before():
    plain = to_dict(EvaluationOptions(threat_model=THREAT))
    assert "compile" not in plain
    other = EvaluationOptions(threat_model=THREAT, compile="auto")
    assert check(EvaluationOptions, to_dict(other), "test") == other != EvaluationOptions(threat_model=THREAT)


def test_what_lies_ahead_follows_from_the_options_and_the_number_of_images():
    listed = ({"name": "pgd", "steps": 10}, {"name": "apgd", "restarts": 2}, {"name": "square"})
    steps = EvaluationOptions.model_validate(
        {"threat_model": THREAT, "attacks": [{"attack": attack} for attack in listed], "compile": "auto"}
    ).steps
    shares = planned([steps[0], steps[1].model_copy(update={"images": 100}), steps[2]], 1000, 10)
    assert input_gradients(shares, 256) == 10 * 4 + 200 * 1
    assert input_gradients(planned(steps, 50, 10), 256) == 10 + 200


@pytest.mark.usefixtures("eager")
def test_a_compiled_cascade_is_the_cascade_by_one_compilation(robust, dataset, monkeypatch):
    robust = copy.deepcopy(robust)  # without the compilations of other tests
    plain = evaluated(robust, dataset, findings="none", batch_size=24)
    auto = evaluated(robust, dataset, findings="none", batch_size=24, compile="auto")
    ahead = (10 + 20 + 2 * 20) * 2  # steps and targets, two batches
    waits = f"folded, not compiled: {ahead} input gradients lie ahead, 3,000 are needed"
    assert {row.model_form for row in auto.rows} == {waits}
    monkeypatch.setattr(compiling, "LEAST_GRADIENTS", ahead)
    found = evaluated(robust, dataset, findings="none", batch_size=24, compile="auto")
    small = "folded, not compiled: fewer than 16 images"
    assert found.rows[0].model_form == "folded, compiled"
    assert {form for row in found.rows for form in row.model_form.split("; ")} <= {"folded, compiled", small}
    assert counters["stats"]["unique_graphs"] == 1
    for row, expected in zip(found.rows, plain.rows, strict=True):
        assert (row.broken_indices, row.forwards) == (expected.broken_indices, expected.forwards)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("kept", [1, 3, 5])
def test_killed_and_resumed_it_gives_the_same_bits(robust, dataset, monkeypatch, kept):
    monkeypatch.setattr(compiling, "LEAST_GRADIENTS", 100)
    options = EvaluationOptions.model_validate(
        {
            "threat_model": {"eps": 0.1},
            "attacks": [{"attack": attack} for attack in SMALL],
            "images": 48,
            "batch_size": 24,
            "compile": "auto",
        }
    )
    records = {}
    whole = follow_protocol(copy.deepcopy(robust), dataset.test, options, journal=Journal(records))
    torch._dynamo.reset()  # as in a new process
    first = dict(list(records.items())[:kept])
    again = follow_protocol(copy.deepcopy(robust), dataset.test, options, journal=Journal(dict(first)))
    assert timeless(again) == timeless(whole)
