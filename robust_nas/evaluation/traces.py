"""The losses of an attack's iterates: whether it had converged, and which successes it passed by.

Of an attack with several runs (restarts, or target classes) the loss of the first one is kept: its first start, or its
likeliest target. Success counts in any run: a run that fails says nothing of the others, which broke what it left.
T candidates in a run, B examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.attacks import Attack, AttackResult

QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class TraceRecord:
    """The traces of one attack over the examples that it got."""

    attack: Attack
    indices: Tensor  # [B] into the order of the evaluation
    loss: Tensor  # [T, B] of the first run
    wrong: Tensor  # [T, B] bool, at this step of any run; of the first run where `runs` is None
    ever_wrong: Tensor  # [B] bool, at any step of any run
    runs: int | None  # None where a batch is of a journal that an earlier version wrote

    @staticmethod
    def joined(attack: Attack, indices: Tensor, parts: list[dict[str, Any]]) -> TraceRecord:
        """Return one record of several batches."""
        loss, wrong = (torch.cat([part[key] for part in parts], dim=1) for key in ("loss", "wrong"))
        ever_wrong = torch.cat([part["ever_wrong"] for part in parts])
        known = all("runs" in part for part in parts)
        runs = int(parts[0]["runs"]) if known else None
        return TraceRecord(attack, indices, loss, wrong, ever_wrong, runs)


def traced(result: AttackResult) -> dict[str, Any] | None:
    """Return the part of a result that is kept; None for an attack without a trace."""
    if result.loss is None or result.wrong is None:
        return None
    return {
        "loss": result.loss[0].contiguous(),
        "wrong": result.wrong.any(0),
        "ever_wrong": result.wrong.any(0).any(0),
        "runs": len(result.wrong),
    }


def curve(record: TraceRecord) -> list[dict[str, float]]:
    """Return per step mean, 10th and 90th percentile of the loss, and the share right in all runs up to there."""
    loss = record.loss.nan_to_num(nan=0.0, posinf=1e4, neginf=-1e4)
    low, _, high = torch.quantile(loss, torch.tensor(QUANTILES), dim=1)
    right = 1 - record.wrong.int().cummax(0).values.float().mean(1)
    return [
        {"step": step, "mean": mean, "low": a, "high": b, "still_right": share}
        for step, (mean, a, b, share) in enumerate(
            zip(loss.mean(1).tolist(), low.tolist(), high.tolist(), right.tolist(), strict=True)
        )
    ]


def late_gain(loss: Tensor, share: float = 0.1) -> Tensor:
    """Return per example the share of the best loss's gain that came in the last `share` of the steps, `[B]`.

    NaN where the loss never rose.
    """
    best = loss.cummax(0).values
    late = max(1, round(share * (len(loss) - 1)))
    gain = best[-1] - best[0]
    return torch.where(gain > 0, (best[-1] - best[-1 - late]) / gain, torch.nan)
