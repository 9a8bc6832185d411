"""The config of a study: one YAML file with the recipe, data and protocol of every trial, and what varies.

A file may hold `sizes`, changes by name (`full`, `small`, `ci`), of which one is chosen; the shipped presets do.
Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from robust_nas.attacks import PGD, ThreatModel
from robust_nas.config import (
    Count,
    CountOrZero,
    Fraction01,
    Options,
    Positive,
    apply_overrides,
    check,
    existing_file,
    merge,
    read_yaml,
)
from robust_nas.errors import ConfigError, StudyError
from robust_nas.evaluation.options import EvaluationOptions
from robust_nas.spaces import AnyArchitecture, load_architecture
from robust_nas.studies.generators import Generator
from robust_nas.training import Training
from robust_nas.workflows.config import Setting

PRESETS = Path(__file__).resolve().parent / "presets"

RuleName = Literal[
    "last_stage", "more_params", "iso_optimum", "huang_ratio", "robustscaling", "wd_ratio", "zhu_init"
]
Response = Literal["clean", "robust", "stable"]
Seed = Annotated[CountOrZero, Field(le=2**32 - 1)]


class Metrics(Options):
    """What is measured of a trained network beside the accuracies of the suite.

    The attack gives the adversarial image x' of every evaluated image, for stability and the Lipschitz figures; its
    norm and eps are the threat model's.
    """

    attack: PGD
    images: Count = 256  # for the Lipschitz figures, the sensitivity and the robust gap, at most
    lip_max_steps: CountOrZero = 0  # of the ascent on the ratio itself; 0: not measured
    sensitivity_draws: CountOrZero = 0  # directions an image for the average sensitivity; 0: not measured


class Analysis(Options):
    """How the study is judged: the response, the rules that are declared before it runs, and the error rates."""

    response: Response = "robust"
    rules: tuple[RuleName, ...] = ()
    confidence: Annotated[Fraction01, Field(gt=0.5)] = 0.95
    equivalence_margin: Positive = 0.01  # a share: differences below it count as none
    draws: Annotated[Count, Field(ge=200, le=100_000)] = 2000  # of every bootstrap

    @field_validator("rules")
    @classmethod
    def _once_each(cls, rules: tuple[RuleName, ...]) -> tuple[RuleName, ...]:
        if len(set(rules)) < len(rules):
            raise ValueError("a rule is named twice")
        return rules


class Guard(Options):
    """What a study may cost before it refuses to start."""

    max_training_macs: Positive = 1e16
    max_hours: Positive = 24.0


class Inherited(Options):
    """Scores of the study's cell architectures by the weights of an adversarially trained supernet."""

    search: Annotated[str, Field(min_length=1)]  # the run folder of a finished search
    attack: PGD
    images: Count = 256  # of the validation split, at most


class StudyConfig(Setting):
    """Everything that decides a study."""

    size: Literal["full", "small", "ci"] | None = None
    base: AnyArchitecture  # the reference, and what the generators change
    space: tuple[Generator, ...] = Field(min_length=1)
    seeds: tuple[Seed, ...] = Field(min_length=1)  # in YAML one number n means 0..n-1
    training: Training
    evaluation: EvaluationOptions
    metrics: Metrics
    analysis: Analysis = Analysis()
    guard: Guard = Guard()
    inherited: Inherited | None = None
    keep_models: bool = True  # of every trial, in its folder

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, tree: Any) -> Any:
        """A name for the base, a number for the seeds, attacks under the threat model."""
        if not isinstance(tree, Mapping):
            return tree
        tree = dict(tree)
        if isinstance(tree.get("base"), str):
            tree["base"] = load_architecture(tree["base"])
        seeds = tree.get("seeds", 3)
        if isinstance(seeds, int) and not isinstance(seeds, bool):
            if not 1 <= seeds <= 1000:
                raise ValueError(f"seeds: got {seeds}; a number from 1 to 1000, or a list of seeds")
            tree["seeds"] = list(range(seeds))
        limits = _limits(tree.get("evaluation"))
        metrics = tree.get("metrics", {})
        if isinstance(metrics, Mapping):
            tree["metrics"] = {**metrics, "attack": _under(limits, metrics.get("attack", {}))}
        inherited = tree.get("inherited")
        if isinstance(inherited, Mapping):
            tree["inherited"] = {**inherited, "attack": _under(limits, inherited.get("attack", {}))}
        return tree

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
        if "zhu_init" in self.analysis.rules and not self.metrics.sensitivity_draws:
            raise ValueError(
                "analysis.rules: zhu_init needs the average sensitivity, which is not measured; "
                "set metrics.sensitivity_draws, such as 16"
            )
        if self.inherited is not None and self.base.type != "cell":
            raise ValueError(
                f"inherited: {self.base.name} is a {self.base.type} network; weights are inherited by cell networks"
            )
        return self


def _limits(evaluation: Any) -> dict[str, Any]:
    threat = evaluation.get("threat_model") if isinstance(evaluation, Mapping) else None
    if isinstance(evaluation, EvaluationOptions):
        threat = evaluation.threat_model
    if isinstance(threat, ThreatModel):
        return {"norm": threat.norm, "eps": threat.eps}
    return (
        {key: threat[key] for key in ("norm", "eps") if key in threat} if isinstance(threat, Mapping) else {}
    )


def _under(limits: dict[str, Any], attack: Any) -> Any:
    return {**limits, **attack} if isinstance(attack, Mapping) else attack


def preset_names() -> list[str]:
    """Names of the shipped studies, sorted."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_study(study: str | Path, overrides: Sequence[str] = (), *, size: str | None = None) -> StudyConfig:
    """The config of a shipped study or a YAML file, at one of its sizes, with `a.b=c` overrides applied.

    Raises `ConfigError` that names the key, the value, where it was written, and what is allowed.
    """
    text = str(study)
    path = PRESETS / f"{text}.yaml" if text in preset_names() else existing_file(text)
    if path is None:
        raise StudyError(f"{text!r} is neither a study nor a file; studies: {', '.join(preset_names())}")
    source = text if path.parent == PRESETS else str(path)
    tree = _sized(read_yaml(path), size, source)
    return check(StudyConfig, apply_overrides(tree, overrides), source, overrides=overrides)


def _sized(tree: dict[str, Any], size: str | None, source: str) -> dict[str, Any]:
    """The tree with the changes of the chosen size, under a name that says it."""
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
