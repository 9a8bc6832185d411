"""The threat model, the list of attacks, the inference rule and the sanity checks, as option values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, PrivateAttr, field_validator, model_validator

from robust_nas.attacks import Attack, ThreatModel, attack_field, inherit, inherited
from robust_nas.attacks.attack import Compile
from robust_nas.config import (
    AbsolutePath,
    Count,
    Options,
    absolute_if_file,
    check,
    existing_file,
    read_yaml,
    suggestion,
)
from robust_nas.config_paths import seen_from_file
from robust_nas.errors import CodeRefusedError, ConfigError
from robust_nas.evaluation.checks import CHECKS, SanityCheck, refuse_shared_titles
from robust_nas.evaluation.inference_rule import InferenceRule

SUITES = Path(__file__).resolve().parent / "suites"


class Step(Options):
    """One attack of the list, how many of the evaluated images it gets (None: all), and for how many classes it is."""

    # with its options
    attack: Annotated[
        Attack, attack_field(lambda attack: attack.bounded, "an evaluation needs attacks that keep to eps")
    ]
    images: Count | None = None  # evaluated images that it gets; None: all
    min_classes: Count | None = None  # fewest classes of a model, else left out
    max_classes: Count | None = None  # most classes of a model, else left out

    def suits(self, classes: int) -> bool:
        """Return whether it is meant for a model of `classes` classes."""
        return (self.min_classes or 0) <= classes and (
            self.max_classes is None or classes <= self.max_classes
        )


class EvaluationOptions(Options):
    """The protocol: clean accuracy, then each attack; norm and eps come from the threat model.

    The attacks are those of a suite (a shipped name, or a YAML file with a list `attacks`) or a list of one's own.
    """

    threat_model: ThreatModel  # what every attack may do
    suite: str | None = None  # name of a shipped suite, or a YAML file; None: cascade, where there is no list
    # of one's own in their order, instead of a suite
    attacks: tuple[Step, ...] | None = Field(default=None, min_length=1)
    surrogates: tuple[AbsolutePath, ...] = ()  # model folders to transfer attacks from
    images: Count | None = None  # the largest number of test images (None: all)
    batch_size: Count = 256  # images of a pass
    findings: Literal["budget", "full", "none"] = "budget"  # budget: no more passes than the attacks took
    # more sanity checks, or other options of the standard ones. An empty list is not written down, so that an
    # evaluation is known by the same record as before there was one.
    checks: tuple[Annotated[SanityCheck, CHECKS.field()], ...] = Field(
        default=(), exclude_if=lambda checks: not checks
    )
    deployed: InferenceRule = InferenceRule()  # rule by which outputs become an answer
    # of every attack that has something to compile and says `never` itself (`attacks/compiling.py`). Not written down
    # where it is `never`, so that older records still tell the same evaluation.
    compile: Compile = Field(default="never", exclude_if=lambda compile: compile == "never")
    _suite: tuple[Step, ...] = PrivateAttr(default=())  # read once, while its code may run

    @field_validator("suite")
    @classmethod
    def _is_absolute(cls, suite: str | None) -> str | None:
        """Return a suite of one's own as its absolute path: a config means the same attacks wherever it is read."""
        return suite if suite is None or suite in suite_names() else absolute_if_file(suite)

    @model_validator(mode="wrap")
    @classmethod
    def _give_threat_model(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Give every attack written as plain keys the norm and eps of the threat model, and the surrogates."""
        if not isinstance(values, Mapping):
            return handler(values)
        values = dict(values)
        if values.get("attacks") is None and values.get("suite") is None:
            values["suite"] = "cascade"
        outer = {key: inherited()[key] for key in ("norm", "eps") if key in inherited()}
        if "eps" in outer:
            values.setdefault("threat_model", outer)
        with inherit(values.get("threat_model"), values.get("surrogates")):
            return handler(values)

    @model_validator(mode="after")
    def _keep_to_threat_model(self) -> Self:
        """Refuse an attack of another norm or eps: its figures would answer another question."""
        if self.suite is not None and self.attacks is not None:
            raise ValueError(
                f"suite is {self.suite!r} and attacks is a list; set one of them to null, both say what runs: "
                "evaluation.attacks=null keeps the suite, evaluation.suite=null keeps the list"
            )
        if (
            self.attacks is None and not self._suite
        ):  # not again, where a checked value is put into another config
            try:
                self._suite = load_suite(str(self.suite), self.threat_model, self.surrogates)
            except CodeRefusedError:
                raise
            except ConfigError as error:
                raise ValueError(str(error)) from None
        for step in self.steps:
            for key in ("norm", "eps"):
                got, limit = getattr(step.attack, key), getattr(self.threat_model, key)
                if got != limit:
                    raise ValueError(
                        f"attack {step.attack.label!r} has {key} {got!r}, the threat model {limit!r}; "
                        "an attack of an evaluation uses the threat model's"
                    )
        refuse_shared_titles(self.checks)
        return self

    @property
    def steps(self) -> tuple[Step, ...]:
        """Return the attacks with their shares, those of the suite where one is named; EOT as the rule asks for."""
        steps = self._suite if self.attacks is None else self.attacks
        if self.compile != "never":
            steps = tuple(
                step.model_copy(update={"attack": step.attack.compiled(self.compile)}) for step in steps
            )
        if self.deployed.samples is None:
            return steps
        eot = self.deployed.eot
        return tuple(step.model_copy(update={"attack": step.attack.for_random_model(eot)}) for step in steps)


class Suite(Options):
    """What a suite's file holds."""

    attacks: tuple[Step, ...] = Field(min_length=1)  # in their order


def suite_names() -> list[str]:
    """Return the names of the shipped suites, sorted."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def load_suite(
    name_or_path: str, threat_model: ThreatModel, surrogates: tuple[str, ...] = ()
) -> tuple[Step, ...]:
    """Return the attacks of a shipped suite or of a YAML file, under a threat model. Raises `ConfigError`."""
    path = SUITES / f"{name_or_path}.yaml" if name_or_path in suite_names() else existing_file(name_or_path)
    if path is None:
        raise ConfigError(
            f"{name_or_path!r} is neither a suite nor a file; "
            f"suites: {', '.join(suite_names())}{suggestion(str(name_or_path), suite_names())}"
        )
    shipped = path.parent == SUITES
    source = f"suite {name_or_path}" if shipped else str(path)
    tree = seen_from_file(read_yaml(path), None if shipped else path)
    with inherit(threat_model, surrogates):
        return check(Suite, tree, source).attacks
