"""Inputs that fool a model: one file per attack family; the option values are callable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robust_nas.attacks.options import FGSM, FGSMRS, NFGSM, PGD, Attack

if TYPE_CHECKING:
    from robust_nas.attacks.mode import attack_mode

__all__ = ["FGSM", "FGSMRS", "NFGSM", "PGD", "Attack", "attack_mode"]


def __getattr__(name: str) -> Any:
    """Resolves what needs torch on first use."""
    if name == "attack_mode":
        from robust_nas.attacks.mode import attack_mode

        return attack_mode
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
