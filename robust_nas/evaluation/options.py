"""The threat model, the list of attacks, the deployed rule and the findings, as option values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from robust_nas.attacks import (
    APGD,
    FGSM,
    PGD,
    Attack,
    CarliniWagner,
    DeepFool,
    Noise,
    Norm,
    Square,
    ThreatModel,
    Transfer,
)
from robust_nas.config import Count, Options, Positive, check, existing_file, read_yaml
from robust_nas.errors import ConfigError

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

OfficialAttack = Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"]
STANDARD: tuple[OfficialAttack, ...] = ("apgd-ce", "apgd-t", "fab-t", "square")
RANDOMISED: tuple[OfficialAttack, ...] = ("apgd-ce", "apgd-dlr")
SUITES = Path(__file__).resolve().parent / "suites"


class AutoAttack(Options):
    """AutoAttack (Croce and Hein, 2020) through the authors' own package, or a list of its attacks.

    Listed attacks run with the settings that they have in the standard suite; `version: rand` is the suite for
    randomised models, with 20 forward passes per gradient.
    """

    name: Literal["autoattack"] = "autoattack"
    eps: Positive
    norm: Norm = "linf"
    version: Literal["standard", "rand"] = "standard"
    attacks: tuple[OfficialAttack, ...] | None = Field(default=None, min_length=1)  # None: the whole suite

    @property
    def names(self) -> tuple[OfficialAttack, ...]:
        """The attacks that run, in order."""
        return self.attacks or (STANDARD if self.version == "standard" else RANDOMISED)

    @property
    def label(self) -> str:
        """A short name for tables and progress bars: the attacks that run."""
        if self.attacks is None:
            return "autoattack" if self.version == "standard" else "autoattack-rand"
        return "+".join(self.attacks)

    def parts(self) -> tuple[AutoAttack, ...]:
        """One value per attack of the suite, in order."""
        return tuple(self.model_copy(update={"attacks": (name,)}) for name in self.names)

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator | None = None
    ) -> Tensor:
        """Adversarial images `[B, C, H, W]` float32; the image itself where no attack of the list succeeded.

        Raises `AttackError` for inputs that cannot be attacked.
        """
        from robust_nas.evaluation.autoattack import run_autoattack, seed_from

        return run_autoattack(self, model, images, labels, seed=seed_from(generator)).images


OwnAttack = FGSM | PGD | APGD | CarliniWagner | DeepFool | Square | Noise | Transfer


class Step(Options):
    """One attack of the list, how many of the evaluated images it gets (None: all), and for how many classes it is."""

    attack: Annotated[OwnAttack | AutoAttack, Field(discriminator="name")]
    images: Count | None = None
    min_classes: Count | None = None  # left out for a model of fewer classes
    max_classes: Count | None = None  # or of more

    def suits(self, classes: int) -> bool:
        """Whether it is meant for a model of so many classes."""
        return (self.min_classes or 0) <= classes and (
            self.max_classes is None or classes <= self.max_classes
        )


class Deployed(Options):
    """The rule by which the model's outputs become an answer, declared by whoever deploys it.

    `samples` declares a random model: its answer is the mean softmax over so many forward passes. It is attacked with
    `eot` passes per gradient and judged on `draws` fresh answers, by their majority. With `abstains` the model's last
    logit means "rejected", and the attack wins with a wrong and accepted input alone.
    """

    samples: Count | None = None
    eot: Count = 16
    draws: Count = 5
    abstains: bool = False


class EvaluationOptions(Options):
    """The protocol: clean accuracy, then each attack; norm and eps come from the threat model.

    The attacks are those of a suite (a shipped name, or a YAML file with a list `attacks`) or a list of one's own.
    """

    threat_model: ThreatModel
    suite: str | None = None  # None: cascade, where there is no list
    attacks: tuple[Step, ...] | None = Field(default=None, min_length=1)
    surrogates: tuple[Annotated[str, Field(min_length=1)], ...] = ()  # model folders to transfer attacks from
    images: Count | None = None  # evaluate on at most so many test images (None: all)
    batch_size: Count = 256
    findings: Literal["budget", "full", "none"] = "budget"  # budget: no more passes than the attacks took
    deployed: Deployed = Deployed()

    @model_validator(mode="before")
    @classmethod
    def _inherit_threat_model(cls, values: Any) -> Any:
        """Gives every attack written as plain keys the norm and eps of the threat model, and the surrogates."""
        if not isinstance(values, Mapping):
            return values
        values = dict(values)
        if values.get("attacks") is None and values.get("suite") is None:
            values["suite"] = "cascade"
        steps = values.get("attacks")
        if isinstance(steps, list | tuple):
            values["attacks"] = _filled(steps, values.get("threat_model"), values.get("surrogates"))
        return values

    @model_validator(mode="after")
    def _keep_to_threat_model(self) -> Self:
        """Refuses an attack of another norm or eps: its figures would answer another question."""
        if self.suite is not None and self.attacks is not None:
            raise ValueError(
                f"suite is {self.suite!r} and attacks is a list; set one of them to null, both say what runs"
            )
        for step in self.steps:
            for key in ("norm", "eps"):
                got, limit = getattr(step.attack, key), getattr(self.threat_model, key)
                if got != limit:
                    raise ValueError(
                        f"attack {step.attack.label!r} has {key} {got!r}, the threat model {limit!r}; "
                        "an attack of an evaluation uses the threat model's"
                    )
        return self

    @property
    def steps(self) -> tuple[Step, ...]:
        """The attacks with their shares, those of the suite where one is named; EOT as the deployed rule asks for."""
        steps = self.attacks
        if steps is None:
            steps = load_suite(str(self.suite), self.threat_model, self.surrogates)
        if self.deployed.samples is None:
            return steps
        return tuple(
            step.model_copy(update={"attack": step.attack.model_copy(update={"eot": self.deployed.eot})})
            if isinstance(step.attack, Attack) and step.attack.eot == 1
            else step
            for step in steps
        )


class _Suite(Options):
    """What a suite's file holds."""

    attacks: tuple[Step, ...] = Field(min_length=1)


def suite_names() -> list[str]:
    """Names of the shipped suites, sorted."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def load_suite(
    name_or_path: str, threat_model: ThreatModel, surrogates: tuple[str, ...] = ()
) -> tuple[Step, ...]:
    """The attacks of a shipped suite or of a YAML file, under a threat model. Raises `ConfigError`."""
    path = SUITES / f"{name_or_path}.yaml" if name_or_path in suite_names() else existing_file(name_or_path)
    if path is None:
        raise ValueError(
            f"{name_or_path!r} is neither a suite nor a file; suites: {', '.join(suite_names())}"
        )
    tree = read_yaml(path)
    if isinstance(tree.get("attacks"), list):
        tree = {**tree, "attacks": _filled(tree["attacks"], threat_model, surrogates)}
    source = f"suite {name_or_path}" if path.parent == SUITES else str(path)
    try:
        return check(_Suite, tree, source).attacks
    except ConfigError as error:
        raise ValueError(str(error)) from None


def _filled(steps: Any, threat_model: Any, surrogates: Any) -> list[Any]:
    """The steps with what every attack takes from the threat model, where its keys are written plainly."""
    if isinstance(threat_model, ThreatModel):
        threat_model = {"norm": threat_model.norm, "eps": threat_model.eps}
    limits = {}
    if isinstance(threat_model, Mapping):
        limits = {key: threat_model[key] for key in ("norm", "eps") if key in threat_model}
    filled = []
    for step in steps:
        attack = step.get("attack") if isinstance(step, Mapping) else None
        if isinstance(attack, Mapping):
            given = {"surrogates": surrogates} if attack.get("name") == "transfer" and surrogates else {}
            step = {**step, "attack": {**limits, **given, **attack}}
        filled.append(step)
    return filled
