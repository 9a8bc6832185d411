"""Run the sanity checks of an evaluation in their order, and pay for their passes.

Free checks read the rows and traces of the attacks. The others make passes of their own on the first images that they
want; with `findings: budget` they share as many passes as the attacks took, in the order of the registry: what one does
not take goes to the next, and one that would get fewer than `LEAST_IMAGES` images is NOT RUN, a gap for the verdict.
So is one that fails, with the reason; the journal does not keep it, and an evaluation that is continued runs it again.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from robust_nas.attacks.engine import seeded_globally
from robust_nas.evaluation.checks import Cost, SanityCheck
from robust_nas.evaluation.journal import Journal
from robust_nas.evaluation.seeds import seed_of
from robust_nas.evaluation.state import EvaluationState
from robust_nas.evaluation.thresholds import LEAST_IMAGES
from robust_nas.evaluation.verdict import FINDINGS_VERSION, Finding
from robust_nas.user_code import line_of


@dataclass
class Collected:
    """The findings, the curves that some of them drew, and what they cost."""

    findings: list[Finding] = field(default_factory=list)
    eps_curve: list[dict[str, Any]] = field(default_factory=list)
    eot_curve: list[dict[str, Any]] = field(default_factory=list)
    passes: int = 0
    seconds: float = 0.0


def run_checks(
    checks: Sequence[SanityCheck],
    state: EvaluationState,
    journal: Journal,
    report: Callable[[float], None],
    *,
    budget: float = math.inf,
) -> Collected:
    """Return the findings of all checks that apply, after the attacks; `budget` bounds their passes."""
    applying = [check for check in checks if check.applies(state)]
    collected = Collected()
    for check in applying:
        if check.free:
            collected.findings += _free(check, state)
    paid = [check for check in applying if not check.free]
    for number, check in enumerate(paid):
        try:
            record = _paid(check, state, journal, budget - collected.passes)
        except _CheckFailedError as failed:
            record = _record([failed.finding])
        collected.findings += [Finding(**finding) for finding in record["findings"]]
        collected.eps_curve += record["curve"]
        collected.eot_curve += record.get("eot_curve", [])  # not in journals of earlier versions
        collected.passes += record["passes"]
        collected.seconds += record["seconds"]
        report((number + 1) / len(paid))
    return collected


class _CheckFailedError(Exception):
    """A check raised something: why it was not run, as its finding. What a journal raises is no such error."""

    def __init__(self, check: SanityCheck, error: Exception) -> None:
        place = line_of(error)
        first = (str(error).splitlines() or [""])[0][:200]
        text = f"the check failed: {type(error).__name__}: {first}" + (f" ({place})" if place else "")
        super().__init__(text)
        self.finding = check.finding("NOT RUN", text)


@contextlib.contextmanager
def _guarded(check: SanityCheck) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a foreign module or a check of the user's own raises
        raise _CheckFailedError(check, error) from error


def _free(check: SanityCheck, state: EvaluationState) -> list[Finding]:
    try:
        with _guarded(check):
            return check.run(state, state.select("all"), Cost())
    except _CheckFailedError as failed:
        return [failed.finding]


def _paid(check: SanityCheck, state: EvaluationState, journal: Journal, left: float) -> dict[str, Any]:
    """Return the record of a check that makes passes: its own, or why there is none."""
    images = state.select(check.selection)[: check.most]
    if not len(images):
        return _record([check.finding("PASS", "nothing to test: no image is left for it")])
    with _guarded(check):
        undefined = check.undefined(state)
        cost = 0 if undefined else max(check.cost(state), 1)
    if undefined is not None:
        return _record([check.finding("NOT RUN", undefined)])
    count = int(min(len(images), left * check.share // cost))
    if count < min(LEAST_IMAGES, len(images)):
        needed = math.ceil(min(LEAST_IMAGES, len(images)) * cost / check.share)
        text = (
            f"it would take {needed:,} passes, and {max(int(left), 0):,} are left of the attacks' own number; "
            "evaluate more images, use a stronger suite, or set evaluation.findings=full"
        )
        return _record([check.finding("NOT RUN", text)])
    # One of earlier findings, or before an extension, is made again.
    name = f"finding {FINDINGS_VERSION} {check.title}{journal.extension}"
    return journal.once(name, lambda: _run(check, images[:count], state))


def _run(check: SanityCheck, images: torch.Tensor, state: EvaluationState) -> dict[str, Any]:
    began = time.perf_counter()
    cost = Cost()
    with (
        torch.inference_mode(mode=False),
        seeded_globally(seed_of(state.seed, "finding", check.title), state.device),
        _guarded(check),
    ):
        found = check.run(state, images, cost)
    return _record(found, cost.passes, time.perf_counter() - began)


def _record(found: Sequence[Finding], passes: int = 0, seconds: float = 0.0) -> dict[str, Any]:
    curves: dict[str, list[dict[str, Any]]] = {"eps": [], "eot": []}
    for finding in found:
        curves[finding.over] += finding.curve
    return {
        "findings": [finding.to_dict() for finding in found],
        "curve": curves["eps"],
        **({"eot_curve": curves["eot"]} if curves["eot"] else {}),
        "passes": passes,
        "seconds": seconds,
    }
