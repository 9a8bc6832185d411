"""The threat model and the list of attacks, as option values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from robust_nas.attacks.options import FGSM, PGD, Norm
from robust_nas.config import Count, NonNegative, Options, Positive

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

OfficialAttack = Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"]
STANDARD: tuple[OfficialAttack, ...] = ("apgd-ce", "apgd-t", "fab-t", "square")


class ThreatModel(Options):
    """What the attacker may do: perturb every image by at most eps in the norm, inside the 0..1 box."""

    norm: Norm = "linf"
    eps: NonNegative


class AutoAttack(Options):
    """AutoAttack (Croce and Hein, 2020) through the authors' own package, or a list of its attacks.

    Listed attacks run with the settings that they have in the standard suite.
    """

    name: Literal["autoattack"] = "autoattack"
    eps: Positive
    norm: Norm = "linf"
    attacks: tuple[OfficialAttack, ...] | None = Field(default=None, min_length=1)  # None: the standard suite

    @property
    def label(self) -> str:
        """A short name for tables and progress bars: the attacks that run."""
        return "autoattack" if self.attacks is None else "+".join(self.attacks)

    def parts(self) -> tuple[AutoAttack, ...]:
        """One value per attack of the suite, in order."""
        return tuple(self.model_copy(update={"attacks": (name,)}) for name in self.attacks or STANDARD)

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator | None = None
    ) -> Tensor:
        """Adversarial images `[B, C, H, W]` float32; the image itself where no attack of the list succeeded.

        Raises `AttackError` for inputs that cannot be attacked.
        """
        from robust_nas.evaluation.autoattack import run_autoattack, seed_from

        return run_autoattack(self, model, images, labels, seed=seed_from(generator)).images


class Step(Options):
    """One attack of the list and how many of the evaluated images it gets (None: all of them)."""

    attack: Annotated[FGSM | PGD | AutoAttack, Field(discriminator="name")]
    images: Count | None = None


class EvaluationOptions(Options):
    """The protocol: clean accuracy, then each attack; norm and eps come from the threat model."""

    threat_model: ThreatModel
    attacks: tuple[Step, ...] = Field(min_length=1)
    images: Count | None = None  # evaluate on at most so many test images (None: all)
    batch_size: Count = 256

    @model_validator(mode="before")
    @classmethod
    def _inherit_threat_model(cls, values: Any) -> Any:
        """Gives every attack written as plain keys the norm and eps of the threat model."""
        if not isinstance(values, Mapping):
            return values
        threat, steps = values.get("threat_model"), values.get("attacks")
        if isinstance(threat, ThreatModel):
            threat = {"norm": threat.norm, "eps": threat.eps}
        if not isinstance(threat, Mapping) or not isinstance(steps, list | tuple):
            return values
        limits = {key: threat[key] for key in ("norm", "eps") if key in threat}
        filled = []
        for step in steps:
            attack = step.get("attack") if isinstance(step, Mapping) else None
            filled.append({**step, "attack": {**limits, **attack}} if isinstance(attack, Mapping) else step)
        return {**values, "attacks": filled}

    @model_validator(mode="after")
    def _keep_to_threat_model(self) -> Self:
        """Refuses an attack of another norm or eps: its figures would answer another question."""
        for step in self.attacks:
            for key in ("norm", "eps"):
                got, limit = getattr(step.attack, key), getattr(self.threat_model, key)
                if got != limit:
                    raise ValueError(
                        f"attack {step.attack.label!r} has {key} {got!r}, the threat model {limit!r}; "
                        "an attack of an evaluation uses the threat model's"
                    )
        return self
