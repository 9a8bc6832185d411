"""Extend an evaluation: more images, more attacks, other findings; what was done is kept.

The images are a prefix of one seeded order, so that more images continue those that were taken. An attack that the
evaluation has keeps its place and its share; new ones follow, on what the earlier ones left right. The findings and the
verdict are made again over all images and attacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robust_nas.errors import RunExistsError
from robust_nas.evaluation.options import EvaluationOptions, Step

Protocol = tuple[EvaluationOptions, tuple[Step, ...]]  # and the attacks as the suite's file had them
MAY_CHANGE = ("images", "suite", "attacks", "findings", "checks")


def extended(wanted: Protocol, before: Protocol, folder: Path) -> Protocol | None:
    """Return the protocol of `before` and `wanted` together; None: another evaluation.

    Raise `RunExistsError` where fewer images, or another share for an attack, are wanted.
    """
    (more, steps), (options, done) = wanted, before
    fixed = [key for key in EvaluationOptions.model_fields if key not in MAY_CHANGE]
    if any(getattr(more, key) != getattr(options, key) for key in fixed):
        return None
    if more.images is not None and (options.images is None or more.images < options.images):
        took = "all images" if options.images is None else f"{options.images} images"
        raise RunExistsError(
            f"{folder}: evaluation.images: got {more.images}; it took {took}, and an evaluation can be extended, "
            "not cut: ask for as many or more, or choose another folder with --out"
        )
    merged = merge_steps(done, steps, folder)
    if merged == done:  # named as it was
        return more.model_copy(update={"suite": options.suite, "attacks": options.attacks}), done
    if merged != steps:
        more = more.model_copy(update={"suite": None, "attacks": merged})
    return more, merged


def merge_steps(before: Sequence[Step], more: Sequence[Step], folder: Path) -> tuple[Step, ...]:
    """Return the attacks of `before`, then those of `more` that it lacks. Raise `RunExistsError` for another share."""
    shares = {_attack(step): step.images for step in before}
    for step in more:
        share = shares.get(_attack(step), step.images)
        if share != step.images:
            raise RunExistsError(
                f"{folder}: attack {step.attack.label!r}: got a share of {step.images} images, it had {share}; "
                "the share of an attack stays as it was: choose another folder with --out"
            )
    return (*before, *(step for step in more if _attack(step) not in shares))


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
