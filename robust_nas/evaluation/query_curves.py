"""Distance and success against queries, of the attacks that see answers alone: the trace of their progress.

    distance(q)   the median over images of the distance of the nearest adversarial example within the first q queries
    success(q)    the share of images that have one within eps by then

An image without an adversarial example is infinitely far; one that is misclassified as it is has distance 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robust_nas.attacks.query_log import QueryTrace
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.attacks import AttackResult

POINTS = 60  # of a curve, at most, evenly spread over the logarithm of the queries


def within(distance: Tensor, eps: float) -> Tensor:
    """Return which distances `[N]` are at most eps, up to the rounding that a ball allows."""
    from robust_nas.attacks.checks import TOLERANCE

    return distance <= eps + TOLERANCE * max(1.0, eps)


def query_record(result: AttackResult) -> dict[str, Any] | None:
    """Return the part of a result that a journal keeps; None for an attack that counts no queries."""
    if result.queries is None or result.query_trace is None:
        return None
    return {"asked": result.queries.cpu(), **result.query_trace._asdict()}


def query_summary(parts: Sequence[dict[str, Any] | None], eps: float) -> dict[str, Any]:
    """Return queries of an attack over all batches, and its curve; empty where a batch has no record of them.

    `total`, `median` and `most` are queries; `curve` is that of `query_curve`.
    """
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):  # such as a journal that an earlier version began
        return {}
    asked = torch.cat([part["asked"] for part in known])
    first, traces = 0, []
    for part in known:
        traces.append(QueryTrace(part["image"] + first, part["queries"], part["distance"]))
        first += len(part["asked"])
    return {
        "total": int(asked.sum()),
        "median": float(asked.double().quantile(0.5)),
        "most": int(asked.max()),
        "curve": query_curve(asked, QueryTrace.joined(traces), eps),
    }


def query_curve(asked: Tensor, trace: QueryTrace, eps: float | None = None) -> list[dict[str, float | None]]:
    """Return points of `queries`, `distance` (None: infinite) and, with eps, `success`, from the first query on.

    `asked` `[B]` are the queries of each image; `trace` names its rows.
    """
    most = max(int(asked.max()), 1) if len(asked) else 1
    steps = min(POINTS, most)
    grid = sorted({round(math.exp(math.log(most) * i / max(steps - 1, 1))) for i in range(steps)} | {1, most})
    best = torch.full((len(asked),), torch.inf)
    order = trace.queries.argsort(stable=True)
    queries = trace.queries[order]
    points: list[dict[str, float | None]] = []
    done = 0
    for query in grid:
        upto = int(torch.searchsorted(queries, query, right=True))
        new = order[done:upto]
        best = best.scatter_reduce(0, trace.image[new], trace.distance[new], "amin")
        done = upto
        # The upper of two middle ones, so that an infinite one is seen.
        middle = float(best.sort().values[len(best) // 2])
        point: dict[str, float | None] = {
            "queries": query,
            "distance": middle if math.isfinite(middle) else None,
        }
        if eps is not None:
            point["success"] = float(within(best, eps).float().mean())
        points.append(point)
    return points
