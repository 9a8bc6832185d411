"""Extend an evaluation: more images, more attacks, other findings; what was done is kept.

The images are a prefix of one seeded order, so that more images continue those that were taken. An attack that the
evaluation has keeps its place and its share; new ones follow, on what the earlier ones left right. The findings and the
verdict are made again over all images and attacks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robust_nas.errors import RunExistsError
from robust_nas.evaluation.options import EvaluationOptions, Step
from robust_nas.records import read_environment

Protocol = tuple[EvaluationOptions, tuple[Step, ...]]  # and the attacks as the suite's file had them
FINDINGS = ("none", "budget", "full")  # each has those before it
MAY_CHANGE = ("images", "suite", "attacks", "findings", "checks")


def extended(wanted: Protocol, before: Protocol, folder: Path) -> Protocol | None:
    """Return the protocol of `before` and `wanted` together; None: another evaluation.

    Raise `RunExistsError` where fewer images, or another share for an attack, are wanted.
    """
    (more, steps), (options, done) = wanted, before
    fixed = [key for key in EvaluationOptions.model_fields if key not in MAY_CHANGE]
    if any(getattr(more, key) != getattr(options, key) for key in fixed):
        return None
    available = read_environment(folder).get("images", {}).get("test", math.inf)
    wants, took = (min(each.images or available, available) for each in (more, options))
    if wants < took:
        raise RunExistsError(
            f"{folder}: evaluation.images: got {more.images}; it took {'all' if took == math.inf else took} images, "
            "and an evaluation can be extended, not cut: ask for as many or more, or choose another folder with --out"
        )
    if wants == took:  # which all images, and more than there are, come to
        more = more.model_copy(update={"images": options.images})
    merged = merge_steps(done, steps, folder)
    if merged == done:  # named as it was
        return more.model_copy(update={"suite": options.suite, "attacks": options.attacks}), done
    if merged != steps:
        more = more.model_copy(update={"suite": None, "attacks": merged})
    return more, merged


def protocol_of(options: EvaluationOptions, steps: tuple[Step, ...]) -> EvaluationOptions:
    """Return the options with these attacks, whatever the suite's file holds now."""
    if options.steps == steps:
        return options
    return options.model_copy(update={"suite": None, "attacks": steps})


def answered(asked: Protocol, now: Protocol, folder: Path) -> Protocol | None:
    """Return the protocol of a folder that was asked for `asked` before it was extended; None: it was replaced since.

    It is `now`, with the findings of `asked` where these are more.
    """
    (had, _), (options, steps) = asked, now
    try:
        grown = extended(now, asked, folder)
    except RunExistsError:
        return None
    if grown is None or grown[1] != steps:
        return None
    fewer = FINDINGS.index(options.findings) < FINDINGS.index(had.findings)
    if fewer or any(check not in options.checks for check in had.checks):
        options = options.model_copy(update={"findings": had.findings, "checks": had.checks})
    return options, steps


def merge_steps(before: Sequence[Step], more: Sequence[Step], folder: Path) -> tuple[Step, ...]:
    """Return the attacks of `before`, then those of `more` that it lacks; one that is named twice is run twice.

    Raise `RunExistsError` for an attack with another share.
    """
    shares: dict[str, list[int | None]] = {}
    for step in before:
        shares.setdefault(_attack(step), []).append(step.images)
    added = []
    for step in more:
        left = shares.get(_attack(step), [])
        if step.images in left:
            left.remove(step.images)
        elif left:
            raise RunExistsError(
                f"{folder}: attack {step.attack.label!r}: got a share of {step.images} images, it had {left[0]}; "
                "the share of an attack stays as it was: choose another folder with --out"
            )
        else:
            added.append(step)
    return (*before, *added)


def _attack(step: Step) -> str:
    return repr(step.model_copy(update={"images": None}))


def earlier_images(earlier: Sequence[Mapping[str, Any]], available: int) -> list[int]:
    """Return how many images were taken before each extension; `earlier` are the jobs as they were."""
    return [job["evaluation"]["images"] or available for job in earlier]


def history(earlier: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the record of the extensions, oldest first: what was asked for before; nothing where there are none."""
    asked = [
        {
            "images": job["evaluation"]["images"],
            "attacks": len(job["steps"]),
            "findings": job["evaluation"]["findings"],
        }
        for job in earlier
    ]
    return {"extended": asked} if asked else {}
