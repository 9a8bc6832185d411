"""The trace of an attack with several runs: the loss of its first run, success in any of them."""

import pytest
import torch
from evaluation_networks import EPS

from robust_nas.attacks import APGD, ThreatModel
from robust_nas.attacks.engine import AttackResult
from robust_nas.evaluation import evaluate
from robust_nas.evaluation.traces import TraceRecord, curve, traced

RUNS, STEPS, IMAGES = 3, 4, 5


def result(wrong: torch.Tensor) -> AttackResult:
    """Return the result of an attack whose candidates were misclassified as said, `[runs, steps + 1, B]`."""
    images = torch.zeros(wrong.shape[2], 1, 2, 2)
    loss = torch.arange(float(wrong.numel())).view(wrong.shape)
    return AttackResult(images=images, model_form="as it is", forwards=1, backwards=1, loss=loss, wrong=wrong)


def joined(*parts: dict[str, torch.Tensor]) -> TraceRecord:
    indices = torch.arange(sum(part["loss"].shape[1] for part in parts))
    return TraceRecord.joined(APGD(eps=EPS), indices, list(parts))


def test_an_image_that_only_a_later_run_breaks_falls_at_the_step_of_that_run() -> None:
    wrong = torch.zeros(RUNS, STEPS + 1, IMAGES, dtype=torch.bool)
    wrong[2, 3, 0] = True  # one step of the last run
    wrong[0, 1, 1] = True
    part = traced(result(wrong))
    assert part is not None
    record = joined(part)
    assert [row["still_right"] for row in curve(record)] == pytest.approx([1.0, 0.8, 0.8, 0.6, 0.6])
    assert torch.equal(record.loss, result(wrong).loss[0])  # type: ignore[index]
    assert record.runs == RUNS


def test_the_parts_of_an_earlier_versions_journal_have_the_first_run() -> None:
    wrong = torch.zeros(RUNS, STEPS + 1, IMAGES, dtype=torch.bool)
    part = traced(result(wrong))
    assert part is not None
    earlier = {key: value for key, value in part.items() if key != "runs"}
    assert joined(earlier, part).runs is None


def test_what_a_targeted_attack_broke_is_where_its_curve_ends(undefended, dataset) -> None:
    attack = APGD(loss="dlr-targeted", steps=3, targets=5, eps=0.03)
    found = evaluate(
        undefended, dataset.test, ThreatModel(norm="linf", eps=0.03), [attack], images=60, findings="none"
    )
    (row,) = found.rows
    assert row.runs == 5
    assert 0 < row.broken < row.attacked
    assert row.trace[-1]["still_right"] * row.attacked == pytest.approx(row.attacked - row.broken)
