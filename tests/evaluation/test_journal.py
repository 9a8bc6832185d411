"""An evaluation that is cut off after any part, and goes on to the result that it would have had."""

import copy

import pytest
from evaluation_bad_networks import Counting, Noisy
from evaluation_networks import EPS, timeless

from robust_nas.evaluation import EvaluationOptions, Journal, follow_protocol
from robust_nas.record_log import RecordLog


class KilledError(Exception):
    """Stands for `kill -9`."""


PLAN = EvaluationOptions.model_validate(
    {
        "threat_model": {"eps": EPS},
        "attacks": [
            {"attack": {"name": "pgd", "steps": 4}},
            {"attack": {"name": "apgd", "steps": 8}, "images": 10},
            {"attack": {"name": "autoattack", "attacks": ["apgd-ce"]}, "images": 8},
        ],
        "images": 14,
        "batch_size": 6,
        "findings": "budget",
    }
)


def whole(model, dataset, plan):
    """The uninterrupted evaluation, and the names of its parts."""
    journal = Journal()
    found = follow_protocol(copy.deepcopy(model), dataset.test, plan, seed=3, journal=journal)
    return found, list(journal.records)


def cut_after(k, model, dataset, plan, tmp_path):
    """The evaluation that dies when it has saved k parts, and a second process, which finds them in the file."""
    path = tmp_path / f"records{k}.pt"
    log, saved = RecordLog(path, "test", ["hash"]), []

    def save(name, record):
        log.append(name, record)
        saved.append(name)
        if len(saved) == k:
            raise KilledError

    with pytest.raises(KilledError):
        follow_protocol(copy.deepcopy(model), dataset.test, plan, seed=3, journal=Journal(save=save))
    records = RecordLog(path, "test", ["hash"]).records
    assert list(records) == saved
    made = []
    journal = Journal(records, lambda name, record: made.append(len(journal.records)))
    found = follow_protocol(copy.deepcopy(model), dataset.test, plan, seed=3, journal=journal)
    return found, made


def same(one, other):
    assert timeless(one.to_dict()) == timeless(other.to_dict())
    assert len(one.examples) == len(other.examples)
    for a, b in zip(one.examples, other.examples, strict=True):
        assert (a["adversarial"] == b["adversarial"]).all()
        assert {k: v for k, v in a.items() if k not in ("clean", "adversarial")} == {
            k: v for k, v in b.items() if k not in ("clean", "adversarial")
        }


def killed_every(step, model, dataset, plan, path, parts):
    """The evaluation in processes that each die when they have saved `step` parts, but for the last one."""
    for done in range(0, len(parts), step):
        log = RecordLog(path, "test", ["hash"])
        assert list(log.records) == parts[:done]  # nothing is done twice, nothing is lost
        saved = []

        def save(name, record, log=log, saved=saved):
            log.append(name, record)
            saved.append(name)
            if len(saved) == step:
                raise KilledError

        journal = Journal(log.records, save)
        if done + step <= len(parts):
            with pytest.raises(KilledError):
                follow_protocol(copy.deepcopy(model), dataset.test, plan, seed=3, journal=journal)
    journal = Journal(RecordLog(path, "test", ["hash"]).records)
    return follow_protocol(copy.deepcopy(model), dataset.test, plan, seed=3, journal=journal)


@pytest.mark.parametrize("step", [1, 3])
def test_killed_after_any_part_it_ends_in_the_same_result(robust, dataset, tmp_path, step):
    uninterrupted, parts = whole(robust, dataset, PLAN)
    assert parts[0] == "clean"
    assert "attack 0 pgd-4 batch 2" in parts
    assert "finding 2 active test" in parts
    assert len(parts) > 12
    same(killed_every(step, robust, dataset, PLAN, tmp_path / "records.pt", parts), uninterrupted)


def test_killed_once_it_does_the_rest_alone(robust, dataset, tmp_path):
    uninterrupted, parts = whole(robust, dataset, PLAN)
    for k in (1, len(parts) // 2, len(parts)):
        resumed, made = cut_after(k, robust, dataset, PLAN, tmp_path)
        same(resumed, uninterrupted)
        assert made == list(range(k + 1, len(parts) + 1))  # nothing is done twice


SHORT = PLAN.model_copy(update={"attacks": PLAN.attacks[:2], "images": 12, "findings": "budget"})


@pytest.mark.parametrize("declared", [True, False])
def test_a_random_model_does_so_too_declared_or_not(robust, dataset, tmp_path, declared):
    deployed = PLAN.deployed.model_copy(update={"samples": 2, "eot": 2} if declared else {})
    plan = SHORT.model_copy(update={"deployed": deployed})
    uninterrupted, parts = whole(Noisy(robust), dataset, plan)
    for k in range(1, len(parts) + 1, 2):
        resumed, _ = cut_after(k, Noisy(robust), dataset, plan, tmp_path)
        same(resumed, uninterrupted)


def test_that_the_model_changed_is_remembered(robust, dataset, tmp_path):
    _, parts = whole(Counting(robust), dataset, SHORT)
    for k in range(1, len(parts) + 1):
        resumed, _ = cut_after(k, Counting(robust), dataset, SHORT, tmp_path)
        untouched = next(f for f in resumed.findings if f.name == "model untouched")
        assert untouched.status == "FAIL"


def test_a_record_is_made_once():
    seen = []
    journal = Journal(save=lambda name, record: seen.append({name: record}))
    assert journal.once("a", lambda: {"value": 1}) == {"value": 1}
    assert journal.once("a", lambda: pytest.fail("made again")) == {"value": 1}
    assert seen == [{"a": {"value": 1}}]
