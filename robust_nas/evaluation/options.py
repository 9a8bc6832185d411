"""The threat model and the list of attacks, as option values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from robust_nas.attacks.options import FGSM, PGD, Norm
from robust_nas.config import Count, NonNegative, Options, parse_number


class ThreatModel(Options):
    """What the attacker may do: perturb every image by at most eps in the norm, inside the 0..1 box."""

    norm: Norm = "linf"
    eps: NonNegative


class AutoAttack(Options):
    """AutoAttack (Croce and Hein, 2020) through the authors' own package, or a list of its attacks."""

    name: Literal["autoattack"] = "autoattack"
    eps: NonNegative
    norm: Norm = "linf"
    attacks: tuple[Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"], ...] | None = Field(
        default=None, min_length=1
    )  # None: the standard suite


class Step(Options):
    """One attack of the list and how many of the evaluated images it gets (None: all of them)."""

    attack: Annotated[FGSM | PGD | AutoAttack, Field(discriminator="name")]
    images: Count | None = None


class EvaluationOptions(Options):
    """The protocol: clean accuracy, then each attack; norm and eps come from the threat model."""

    threat_model: ThreatModel
    attacks: tuple[Step, ...] = Field(min_length=1)
    images: Count | None = None  # evaluate on so many test images (None: all)
    batch_size: Count = 256

    @model_validator(mode="before")
    @classmethod
    def _inherit_threat_model(cls, values: Any) -> Any:
        """Gives every attack the threat model's norm and eps, and refuses an attack with others."""
        threat = values.get("threat_model") if isinstance(values, Mapping) else None
        steps = values.get("attacks") if isinstance(values, Mapping) else None
        if not isinstance(threat, Mapping) or not isinstance(steps, list | tuple):
            return values
        limits = {"norm": threat.get("norm", "linf"), "eps": threat.get("eps")}
        filled = []
        for step in steps:
            attack = step.get("attack") if isinstance(step, Mapping) else None
            if not isinstance(attack, Mapping):
                filled.append(step)
                continue
            for key, limit in limits.items():
                if key in attack and parse_number_or_text(attack[key]) != parse_number_or_text(limit):
                    raise ValueError(
                        f"attack {attack.get('name')!r} has {key} {attack[key]!r}, the threat model {limit!r}; "
                        "an attack of an evaluation uses the threat model's"
                    )
            filled.append({**step, "attack": {**limits, **attack}})
        return {**values, "attacks": filled}


def parse_number_or_text(value: object) -> object:
    """The number that a value stands for, or the value itself where it stands for none."""
    try:
        return parse_number(value)
    except ValueError:
        return value
