"""Smaller and faster networks from a trained one: one file a compressor. `COMPRESSORS` knows them by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from robust_nas.compression.compressor import COMPRESSORS, Compressor, Different
from robust_nas.compression.context import Candidate, CompressionContext, OriginalModel
from robust_nas.compression.section import Compression

if TYPE_CHECKING:
    from robust_nas.compression.cstar import CSTAR
    from robust_nas.compression.gdws import GDWS

_HOMES = {"CSTAR": "cstar", "GDWS": "gdws"}

__all__ = [
    "COMPRESSORS",
    "CSTAR",
    "GDWS",
    "Candidate",
    "Compression",
    "CompressionContext",
    "Compressor",
    "Different",
    "OriginalModel",
]


def __getattr__(name: str) -> Any:
    """Import a compressor when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
