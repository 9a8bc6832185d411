"""Inputs that fool a model: one file an attack. `ATTACKS` knows them by name; each is its options, and is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from robust_nas.attacks.attack import Attack, BoundedAttack, Guide, MinimalAttack, Passes
from robust_nas.attacks.norms import Norm
from robust_nas.attacks.threat_model import ThreatModel, inherit, inherited
from robust_nas.registry import MethodField, Registry

if TYPE_CHECKING:
    from robust_nas.attacks.apgd import APGD
    from robust_nas.attacks.attacked_model import AttackedModel, attack_mode
    from robust_nas.attacks.autoattack import AutoAttack
    from robust_nas.attacks.carlini_wagner import CarliniWagner
    from robust_nas.attacks.deepfool import DeepFool
    from robust_nas.attacks.engine import AttackResult
    from robust_nas.attacks.fgsm import FGSM
    from robust_nas.attacks.fgsm_rs import FGSMRS
    from robust_nas.attacks.gradient import GradientAttack
    from robust_nas.attacks.n_fgsm import NFGSM
    from robust_nas.attacks.noise import Noise
    from robust_nas.attacks.pgd import PGD
    from robust_nas.attacks.predictor import Predictor
    from robust_nas.attacks.square import Square
    from robust_nas.attacks.transfer import Transfer, transfer_attack

ATTACKS = Registry(
    "attack",
    Attack,
    "robust_nas.attacks",
    {
        "fgsm": "fgsm:FGSM",
        "fgsm-rs": "fgsm_rs:FGSMRS",
        "n-fgsm": "n_fgsm:NFGSM",
        "pgd": "pgd:PGD",
        "apgd": "apgd:APGD",
        "carlini-wagner": "carlini_wagner:CarliniWagner",
        "deepfool": "deepfool:DeepFool",
        "square": "square:Square",
        "noise": "noise:Noise",
        "transfer": "transfer:Transfer",
        "autoattack": "autoattack:AutoAttack",
    },
    group="robust_nas.attacks",
)


def attack_field(
    allows: Callable[[type[Attack]], bool] | None = None,
    needs: str = "",
    *,
    default: str | None = None,
    presets: Mapping[str, Any] | None = None,
) -> MethodField:
    """Return what makes a field of options hold an attack (`Registry.field`).

    Norm and eps (and surrogates, where the attack takes some) come from the config's threat model where the attack's
    own keys do not say; `presets` are weaker.
    """
    return ATTACKS.field(allows, needs, default=default, presets=lambda: {**(presets or {}), **inherited()})


def training_attack_field(
    *, default: str | None = None, presets: Mapping[str, Any] | None = None
) -> MethodField:
    """Return the same for an attack inside a training step or a search: fit for it, and the last iterate is taken."""
    return attack_field(
        lambda attack: attack.for_training,
        "it is not fit for training",
        default=default,
        presets={"keep": "last", **(presets or {})},
    )


_HOMES = {
    "APGD": "apgd",
    "AttackResult": "engine",
    "AttackedModel": "attacked_model",
    "AutoAttack": "autoattack",
    "CarliniWagner": "carlini_wagner",
    "DeepFool": "deepfool",
    "FGSM": "fgsm",
    "FGSMRS": "fgsm_rs",
    "GradientAttack": "gradient",
    "NFGSM": "n_fgsm",
    "Noise": "noise",
    "PGD": "pgd",
    "Predictor": "predictor",
    "Square": "square",
    "Transfer": "transfer",
    "attack_mode": "attacked_model",
    "transfer_attack": "transfer",
}

__all__ = [
    "APGD",
    "ATTACKS",
    "FGSM",
    "FGSMRS",
    "NFGSM",
    "PGD",
    "Attack",
    "AttackResult",
    "AttackedModel",
    "AutoAttack",
    "BoundedAttack",
    "CarliniWagner",
    "DeepFool",
    "GradientAttack",
    "Guide",
    "MinimalAttack",
    "Noise",
    "Norm",
    "Passes",
    "Predictor",
    "Square",
    "ThreatModel",
    "Transfer",
    "attack_field",
    "attack_mode",
    "inherit",
    "inherited",
    "training_attack_field",
    "transfer_attack",
]


def __getattr__(name: str) -> Any:
    """Resolves the rest on first use: a method's file is imported when it is named."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
