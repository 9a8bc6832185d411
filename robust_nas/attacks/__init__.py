"""Inputs that fool a model: one file per attack family; the option values are callable."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from robust_nas.attacks.options import (
    APGD,
    FGSM,
    FGSMRS,
    NFGSM,
    PGD,
    AnyAttack,
    Attack,
    CarliniWagner,
    DeepFool,
    Noise,
    Square,
    Transfer,
)

if TYPE_CHECKING:
    from robust_nas.attacks.mode import attack_mode
    from robust_nas.attacks.predictor import Predictor
    from robust_nas.attacks.target import AttackResult
    from robust_nas.attacks.transfer import transfer_attack

__all__ = [
    "APGD",
    "FGSM",
    "FGSMRS",
    "NFGSM",
    "PGD",
    "AnyAttack",
    "Attack",
    "AttackResult",
    "CarliniWagner",
    "DeepFool",
    "Noise",
    "Predictor",
    "Square",
    "Transfer",
    "attack_mode",
    "transfer_attack",
]

_HOMES = {
    "AttackResult": "target",
    "Predictor": "predictor",
    "attack_mode": "mode",
    "transfer_attack": "transfer",
}


def __getattr__(name: str) -> Any:
    """Resolves what needs torch on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
