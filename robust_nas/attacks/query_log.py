"""What an attack asked of the model, image by image: its queries, and how near it had come at each of them.

A query is one forward pass of one image through the attacked model, so that an answer averaged over `eot` passes is
`eot` queries. An answer of the folded copy that the model itself gives again is the same query. B batch, M records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class QueryTrace(NamedTuple):
    """One record for each adversarial example that was nearer to its image than all before it, on the CPU."""

    image: Tensor  # [M] int64, the row of the batch
    queries: Tensor  # [M] int64, of that image up to here, this one included
    distance: Tensor  # [M] float32, of the adversarial example from its image; 0 where that is misclassified

    @staticmethod
    def joined(parts: list[QueryTrace]) -> QueryTrace:
        """Return the records of several parts as one."""
        if not parts:
            return QueryTrace(
                *(torch.empty(0, dtype=kind) for kind in (torch.int64, torch.int64, torch.float32))
            )
        return QueryTrace(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


class QueryLog:
    """The queries of each image of a batch, and, where a trace is asked for, every approach to it."""

    def __init__(self, labels: Tensor, passes: int, *, traced: bool) -> None:
        self.used = torch.zeros_like(labels)  # [B] int64
        self.passes = passes  # of one answer
        self._traced = traced
        self._parts: list[QueryTrace] = []

    def count(self, rows: Tensor | None = None, answers: int | Tensor = 1) -> None:
        """Count `answers` for each image of these indices, each named once; None: of the batch."""
        if rows is None:
            self.used += answers * self.passes
        else:
            self.used[rows] += answers * self.passes

    def nearer(self, rows: Tensor, distance: Tensor, queries: Tensor | None = None) -> None:
        """Record an adversarial example for each of these images; `queries` `[N]`: None for all counted so far."""
        if self._traced and len(rows):
            queries = self.used[rows] if queries is None else queries
            self._parts.append(QueryTrace(rows.cpu(), queries.cpu(), distance.detach().float().cpu()))

    def trace(self) -> QueryTrace | None:
        """Return all records in their order; None where none was asked for."""
        return QueryTrace.joined(self._parts) if self._traced else None
