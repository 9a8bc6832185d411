"""What the record of an evaluation holds of a defence, next to the worst case over all attacks.

    name, options, values   of the defence; `values` were calibrated on validation images
    images, passes, seconds of the comparison; certificates have their own
    false_alarms            of a detector: {rejected, images, rate, interval}, clean test images, all of the evaluation
    rows                    undefended, unaware, adaptive and, of a defence that certifies, certified, in this order:
                            {kind, attack, clean, robust}, scores; on the same first images, each attack alone
        undefended          the attack on the network without the defence, judged there
        unaware             the same images, judged on the defended model
        adaptive            the attack on the defended model; on a detector, the joint one
        certified           clean: the certified class is the label; robust: and the radius covers eps, or null
    roc                     of a detector: {score of clean images against those of each attack}, `detection.py`
    certified               {norm, radius, images, seconds, points}, `certified.py`

A rejected image counts as right. The robust accuracy of the evaluation is the worst case over all of its attacks and,
of a deterministic defence, over both of these; it is not among the rows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

from robust_nas.config import to_dict
from robust_nas.evaluation import certified
from robust_nas.evaluation.attack_rows import score
from robust_nas.evaluation.defended import defended_in
from robust_nas.evaluation.detection import roc
from robust_nas.evaluation.posterior_mean import row

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.side_by_side import SideBySide
    from robust_nas.evaluation.state import EvaluationState


def defence_record(state: EvaluationState, rejected: Tensor, found: SideBySide) -> dict[str, Any]:
    """Return the section `defence`; `rejected` `[N]` are the clean images that a detector rejects."""
    defended = defended_in(state.predictor)
    defence = cast(Any, None if defended is None else defended.defence)
    values = {} if defended is None else defended.values
    rows = [
        row("undefended", found.inner.label, found.twin_clean, found.twin_right),
        row("unaware", found.unaware.label, found.clean, found.unaware_right),
        row("adaptive", found.adaptive.label, found.clean, found.adaptive_right),
    ]
    certificates = _certificates(state, found)
    if certificates is not None:
        rows.append(certificates.pop("row"))
    return {
        "name": defence.label,
        "options": to_dict(defence),
        "values": dict(values),
        "images": len(found.clean),
        "passes": found.passes,
        "seconds": found.seconds,
        "false_alarms": _false_alarms(rejected) if state.predictor.abstains else None,
        "rows": rows,
        "roc": _roc(found, values),
        "certified": certificates,
    }


def _false_alarms(rejected: Tensor) -> dict[str, Any]:
    found = score(rejected)
    return {
        "rejected": found.correct,
        "images": found.images,
        "rate": found.accuracy,
        "interval": list(found.interval),
    }


def _roc(found: SideBySide, values: dict[str, float]) -> dict[str, Any] | None:
    """Return the curves that have an image; None without any, and for a defence without a score."""
    scores = found.scores
    if scores is None:
        return None
    threshold = values.get("threshold", math.nan)
    curves = {
        "unaware": roc(scores.of_clean, scores.of_unaware[scores.fooled_unaware], threshold),
        "adaptive": roc(scores.of_clean, scores.of_adaptive[scores.fooled_adaptive], threshold),
    }
    return {key: curve for key, curve in curves.items() if curve is not None} or None


def _certificates(state: EvaluationState, found: SideBySide) -> dict[str, Any] | None:
    """Return the section `certified`, with the row of the table as `row`."""
    if (own := found.certified) is None:
        return None
    threat = state.threat_model
    radius = certified.needed_radius(threat.norm, threat.eps, own.norm, math.prod(state.shape))
    robust = None if radius is None else certified.certified_right(own.right, own.radii, radius)
    return {
        "row": row("certified", None, own.right, robust),
        **certified.to_dict(own.right, own.radii, own.norm, radius, own.seconds),
    }
