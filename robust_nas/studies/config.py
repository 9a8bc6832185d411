"""The config of a study: one YAML file with the recipe, data and protocol of every trial, and what varies.

A file may hold `sizes`, changes by name (`full`, `small`, `ci`), of which one is chosen; the shipped presets do.
Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    SerializationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from robust_nas.attacks import Attack, ThreatModel, attack_field, inherit
from robust_nas.choices import changed
from robust_nas.config import (
    AbsolutePath,
    Count,
    CountOrZero,
    Fraction01,
    Options,
    Positive,
    check,
    existing_file,
    merge,
    read_yaml,
    suggestion,
)
from robust_nas.config_paths import seen_from_file
from robust_nas.errors import CodeRefusedError, ConfigError, StudyError
from robust_nas.evaluation.options import EvaluationOptions
from robust_nas.spaces import AnyArchitecture, load_architecture
from robust_nas.studies.design import DESIGNS, Design
from robust_nas.studies.rules import RULES, Rule
from robust_nas.training import Training
from robust_nas.user_code import folders_of, own_config
from robust_nas.workflows.config import JobConfig, one_list

PRESETS = Path(__file__).resolve().parent / "presets"

Response = Literal["clean", "robust", "stable"]
Seed = Annotated[CountOrZero, Field(le=2**32 - 1)]
BoundedAttack = Annotated[
    Attack,
    attack_field(lambda attack: attack.bounded, "it does not keep to the threat model's eps", default="pgd"),
]
FROM_CONFIG: Any = {}  # a default that is read like a config's own keys, under its threat model
SWITCHED = {
    "lip_max": "lip_max_steps",
    "average_sensitivity": "sensitivity_draws",
}  # measures that may be off


class Metrics(Options):
    """What is measured of a trained network in addition to the accuracies of the suite.

    The attack makes the adversarial image x' of every evaluated image, for stability and the Lipschitz figures; its
    norm and eps are the threat model's.
    """

    attack: BoundedAttack = FROM_CONFIG  # of the figures on gradients and Lipschitz constants
    images: Count = 256  # for the Lipschitz figures, the sensitivity and the robust gap, at most
    lip_max_steps: CountOrZero = 0  # of the ascent on the ratio itself; 0: not measured
    sensitivity_draws: CountOrZero = 0  # directions an image for the average sensitivity; 0: not measured

    @property
    def measures(self) -> tuple[str, ...]:
        """Return the names of the measures that every trial has, one number each."""
        always = ("stability", "lip_adv", "lip_adv_median", "lip_adv_p95", "train_robust", "robust_gap")
        return (*always, *(name for name, switch in SWITCHED.items() if getattr(self, switch)))


def _short(rule: Rule, info: SerializationInfo) -> str | dict[str, Any]:
    """Return the name of a rule without options, else all of its keys."""
    plain = len(type(rule).model_fields) == 1
    return rule.name if plain else rule.model_dump(mode=info.mode, context=info.context)


class Analysis(Options):
    """How the study is judged: the response, the rules that are declared before it runs, and the error rates."""

    response: Response = "robust"  # outcome that is judged
    # that are tested, declared before the study runs
    rules: tuple[Annotated[Rule, RULES.field(), PlainSerializer(_short)], ...] = ()
    confidence: Annotated[Fraction01, Field(gt=0.5)] = 0.95  # level of the intervals
    equivalence_margin: Positive = 0.01  # a share: differences below it count as none
    draws: Annotated[Count, Field(ge=200, le=100_000)] = 2000  # of every bootstrap

    @field_validator("rules")
    @classmethod
    def _once_each(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        if len(set(rules)) < len(rules):
            raise ValueError("a rule is named twice")
        return rules


def read_architecture(value: object) -> object:
    """Return the architecture that a name means; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return load_architecture(value)
    except CodeRefusedError:
        raise
    except ConfigError as error:
        raise PydanticCustomError("method", "{text}", {"text": str(error)}) from None


class Guard(Options):
    """What a study may cost before it refuses to start."""

    max_training_macs: Positive = 1e16  # MACs of all trainings
    max_hours: Positive = 24.0  # hours of all trainings, estimated


class Inherited(Options):
    """Scores of the study's cell architectures by the weights of an adversarially trained supernet."""

    search: AbsolutePath  # the run folder of a finished search
    attack: BoundedAttack = FROM_CONFIG  # on the images that score
    images: Count = 256  # of the validation split, at most


Sizes = Annotated[dict[str, dict[str, Any]], Field(description="changes by the names of sizes")]


class StudyConfig(JobConfig):
    """Everything that decides a study.

    `threat_model` is a short form for that of the evaluation, which every attack of the sections inherits.
    """

    # short form of the evaluation's
    threat_model: ThreatModel | None = Field(default=None, exclude=True)
    # that was chosen from `sizes`; None: the file has none
    size: Literal["full", "small", "ci"] | None = None
    # reference architecture, which the designs change
    base: Annotated[AnyArchitecture, BeforeValidator(read_architecture)]
    # designs of the configurations
    space: tuple[Annotated[Design, DESIGNS.field()], ...] = Field(min_length=1)
    seeds: tuple[Seed, ...] = Field(min_length=1)  # in YAML one number n means 0..n-1
    training: Training  # recipe of every network
    evaluation: EvaluationOptions  # protocol of every network
    metrics: Metrics = FROM_CONFIG  # more that is measured of a network
    analysis: Analysis = Analysis()  # how the study is judged
    guard: Guard = Guard()  # cost at which the study refuses to start
    inherited: Inherited | None = None  # scores by the weights of a supernet; None: none
    keep_models: bool = True  # whether every trial keeps its model

    @classmethod
    def short_forms(cls) -> Mapping[str, Any]:
        """Return the types of a number of seeds, and of the changes of a size."""
        return {"seeds": Count | tuple[Seed, ...], "sizes": Sizes}

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, tree: Any) -> Any:
        """Read a number as the seeds."""
        if not isinstance(tree, Mapping):
            return tree
        tree = dict(tree)
        seeds = tree.get("seeds", 3)
        if isinstance(seeds, int) and not isinstance(seeds, bool):
            if not 1 <= seeds <= 1000:
                raise ValueError(f"seeds: got {seeds}; a number from 1 to 1000, or a list of seeds")
            tree["seeds"] = list(range(seeds))
        return tree

    @model_validator(mode="wrap")
    @classmethod
    def _one_threat_model(cls, tree: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Give every attack in the config norm and eps of the threat model, where it has none itself."""
        if not isinstance(tree, Mapping):
            return handler(tree)
        threat_model, evaluation = tree.get("threat_model"), tree.get("evaluation")
        if isinstance(evaluation, Mapping) and threat_model is not None:
            tree = {**tree, "evaluation": {"threat_model": threat_model, **evaluation}}
        elif isinstance(evaluation, Mapping):
            threat_model = evaluation.get("threat_model")
        with inherit(threat_model or getattr(evaluation, "threat_model", None)):
            return handler(tree)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: got {list(self.seeds)}; a seed is named twice")
        threat = self.evaluation.threat_model
        for key in ("norm", "eps"):
            got, limit = getattr(self.metrics.attack, key), getattr(threat, key)
            if got != limit:
                raise ValueError(f"metrics.attack.{key}: got {got!r}; the threat model has {limit!r}")
        if self.evaluation.deployed.samples is not None or self.evaluation.deployed.abstains:
            raise ValueError("evaluation.deployed: a study compares networks that answer by their logits")
        self._refuse_unmeasured()
        if self.inherited is not None and not self.base.has_cells:
            raise ValueError(
                f"inherited: {self.base.name} is {self.base.called}; weights are inherited by cell networks"
            )
        return self

    def _refuse_unmeasured(self) -> None:
        """Raise `ValueError` for a rule that needs a measure which is not taken."""
        known = self.metrics.measures
        for rule in self.analysis.rules:
            for key in rule.metrics:
                if key not in known:
                    remedy = (
                        f"set metrics.{SWITCHED[key]}, such as 16" if key in SWITCHED else "use another rule"
                    )
                    raise ValueError(
                        f"analysis.rules: {rule.label} needs {key}, which is not measured; {remedy}; "
                        f"measured: {', '.join(known)}"
                    )


def preset_names() -> list[str]:
    """Return the names of the shipped studies, sorted."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_study(study: str | Path, overrides: Sequence[str] = (), *, size: str | None = None) -> StudyConfig:
    """Return the config of a shipped study or a YAML file, at one of its sizes, with `a.b=c` overrides applied.

    `file.py:Class` in it is code of the user's own and runs; its path is seen from the config's folder.
    Raises `ConfigError` that names the key, the value, where it was written, and what is allowed.
    """
    text = str(study)
    path = PRESETS / f"{text}.yaml" if text in preset_names() else existing_file(text)
    if path is None:
        raise StudyError(
            f"{text!r} is neither a study nor a file; "
            f"studies: {', '.join(preset_names())}{suggestion(text, preset_names())}"
        )
    shipped = path.parent == PRESETS
    source = text if shipped else str(path)
    file = None if shipped else path
    tree = seen_from_file(_sized(read_yaml(path), size, source), file)
    with own_config(*reversed(folders_of(file))):  # what is still relative comes from the command line
        return check(
            StudyConfig, changed(StudyConfig, tree, one_list(overrides)), source, overrides=overrides
        )


def _sized(tree: dict[str, Any], size: str | None, source: str) -> dict[str, Any]:
    """Return the tree with the changes of the chosen size, under a name that says it."""
    sizes = tree.pop("sizes", None)
    if sizes is None:
        if size is not None:
            raise StudyError(f"{source}: has no sizes; leave --size {size} out")
        return tree
    if not isinstance(sizes, dict) or not all(isinstance(changes, dict) for changes in sizes.values()):
        raise ConfigError(f"{source}: sizes: a mapping from a size to its changes is needed")
    sizes = {str(name): changes for name, changes in sizes.items()}
    if size not in sizes:
        raise StudyError(f"{source}: size: got {size}; choose one with --size: {', '.join(map(str, sizes))}")
    changed = merge(tree, sizes[size])
    name = {"name": f"{changed['name']}-{size}"} if "name" in changed else {}
    return {**changed, **name, "size": size}
