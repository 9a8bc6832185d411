"""What a sampled search may ask to be measured of its candidates, in addition to what its evaluator returns.

Both columns are measured by what the workflow hands in: a search neither runs networks for time nor compresses them.
Each is measured of a candidate once, and only where an objective or a constraint names it.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from robust_nas.config import AbsolutePath, Options
from robust_nas.search.tables import (
    LATENCY as LATENCY,  # milliseconds of the network at its final size, batch 1
)

COMPRESSED_ROBUST = "compressed_robust"  # robust accuracy (0..1) after compression to a share of the MACs
MEASURED = (LATENCY, COMPRESSED_ROBUST)


class LatencyOptions(Options):
    """Where `latency_ms` comes from: a runtime here, or a table of latencies of NAS-Bench-201 and a device of it."""

    runtime: Literal["torch", "onnxruntime"] = "torch"  # that is timed here
    table: AbsolutePath | None = None  # file of measured latencies, instead of timing
    device: str | None = Field(default=None, min_length=1)  # column of the table

    @model_validator(mode="after")
    def _table_with_a_device(self) -> Self:
        if (self.table is None) != (self.device is None):
            raise ValueError("table (a file) and device (its column) are needed together")
        return self
