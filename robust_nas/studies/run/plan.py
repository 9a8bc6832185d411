"""Plan a study: every configuration with both budgets, every trial, what they cost, and what they can show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from robust_nas.config import apply_overrides, check, expand_path, to_dict
from robust_nas.errors import StudyError
from robust_nas.spaces import Architecture, Part, count, has_cells, parts
from robust_nas.spaces.naming import canonical_name
from robust_nas.spaces.rules import RuleCheck, depth_share, rule_checks, wd_ratio
from robust_nas.studies.config import StudyConfig
from robust_nas.studies.cost import Rates, training_macs, training_passes
from robust_nas.studies.design import Configuration, unite
from robust_nas.studies.design.changes import at
from robust_nas.studies.design.design import RECIPE
from robust_nas.studies.design.union import joined
from robust_nas.studies.rules import Evidence, verdicts
from robust_nas.studies.run.trial import Trial
from robust_nas.training import Training
from robust_nas.workflows.context import refuse_cell_options

if TYPE_CHECKING:
    from robust_nas.workflows.context import JobContext

CLOSE = 0.05  # budgets that differ by less count as the same
DECOUPLED = 1.2  # a ratio of MACs at the same parameters that is worth a warning
REMEDY = "raise it, or ask for fewer configurations, seeds or epochs"
METHOD = "method"  # the factor that names the training method
CORRELATION = 0.9  # of two networks' answers on an image, assumed
ASSUMED_SDS = (0.0015, 0.005, 0.01, 0.02)  # the first: typical of published CIFAR-10 results, 10,000 images


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One configuration: its network and recipe, its cost, and the cost of each part."""

    name: str
    arm: str
    method: str  # of training, where a design varies it; else empty
    architecture: Architecture
    training: Training
    recipe: tuple[str, ...]
    params: int
    macs: int
    parts: tuple[Part, ...]
    checks: tuple[RuleCheck, ...]
    factors: dict[str, float | str]
    trials: tuple[Trial, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All trials that will run; the first configuration is the reference."""

    config: StudyConfig
    points: tuple[Planned, ...]
    train_images: int
    test_images: int
    warnings: tuple[str, ...]
    names: Mapping[str, str] = field(
        default_factory=dict
    )  # of trials that a study's folder names otherwise, by id

    def name(self, trial: Trial) -> str:
        """Return what a trial is called in the study's folder: its id, or the one it got from an earlier version."""
        return self.names.get(trial.id, trial.id)

    @property
    def reference(self) -> Planned:
        """Return the base, to which budgets and contrasts are relative."""
        return self.points[0]

    @property
    def trials(self) -> list[tuple[Planned, Trial]]:
        """Return every trial with its configuration: seed by seed, the dearest first; a stopped study is balanced."""
        rows = [(point, trial) for point in self.points for trial in point.trials]
        order = {seed: place for place, seed in enumerate(self.config.seeds)}
        return sorted(rows, key=lambda row: (order[row[1].seed], -row[0].macs))

    def training_macs(self, point: Planned) -> int:
        """Return the multiply-adds of the training of one trial of a configuration."""
        return training_macs(point.macs, point.training, self.train_images)

    def training_passes(self, point: Planned) -> int:
        """Return the forward-pass equivalents of the training of one trial, over all of its images and epochs."""
        return training_passes(point.training, self.train_images)

    @property
    def total_macs(self) -> int:
        """Return the multiply-adds of all trainings."""
        return sum(self.training_macs(point) * len(point.trials) for point in self.points)

    def seconds(self, rates: Rates, point: Planned) -> float:
        """Return the estimated time of one trial of a configuration on one worker."""
        return rates.seconds(
            point.macs, point.training, self.config.evaluation, self.train_images, self.test_images
        )

    def total_seconds(self, rates: Rates) -> float:
        """Return the estimated time of all trials on one worker."""
        return sum(self.seconds(rates, point) * len(point.trials) for point in self.points)

    def refuse_above_guard(self, seconds: float | None = None) -> None:
        """Raise `StudyError` where the study costs more than its guard allows; `seconds` on the workers there are."""
        guard = self.config.guard
        if self.total_macs > guard.max_training_macs:
            raise StudyError(
                f"guard.max_training_macs: {len(self.trials)} trials need {self.total_macs:.3g} MACs of training, "
                f"the guard allows {guard.max_training_macs:.3g}; {REMEDY}"
            )
        if seconds is not None and seconds > 3600 * guard.max_hours:
            raise StudyError(
                f"guard.max_hours: {len(self.trials)} trials need about {seconds / 3600:.3g} hours here, "
                f"the guard allows {guard.max_hours:g}; {REMEDY}"
            )


def plan_on(config: StudyConfig, context: JobContext) -> Plan:
    """Return the plan of a study on a dataset; nothing is written.

    Raises `StudyError` and `ArchitectureError` for what cannot be planned.
    """
    from robust_nas.workflows.config import EvaluationConfig, doubts
    from robust_nas.workflows.context import refuse_attacks

    dataset = context.dataset
    setting = {key: getattr(config, key) for key in EvaluationConfig.model_fields if key != "evaluation"}
    refuse_attacks(EvaluationConfig(**setting, evaluation=config.evaluation), dataset)
    config.metrics.attack.refuse_undefined(dataset.classes, dataset.shape)
    config.metrics.attack.refuse_new_models()
    where = dataset.shape, dataset.classes
    designed = [made for design in config.space for made in design.configurations(config.base, *where)]
    union = unite([Configuration(config.base), *designed])
    points = _united([_planned(config, configuration, *where) for configuration in union])
    tested = min(config.evaluation.images or len(dataset.test), len(dataset.test))
    _rehearse(config, points)
    if config.inherited is not None:
        from robust_nas.studies.run.inherited import refuse_unscorable

        scored = [point.architecture for point in points if has_cells(point.architecture)]
        refuse_unscorable(
            expand_path(config.inherited.search), scored, config.inherited.images, dataset.classes
        )
    return Plan(
        config=config,
        points=points,
        train_images=len(context.images),
        test_images=tested,
        warnings=(*doubts(config), *_warnings(points)),
    )


def _united(points: Sequence[Planned]) -> tuple[Planned, ...]:
    """Return the configurations, each once: an override of the recipe that changes nothing makes no other one.

    Every configuration gets its value of each key of the recipe that one of them changes as a factor.
    """
    keys = dict.fromkeys(key for point in points for key in point.factors if key.startswith(RECIPE))
    union: dict[str, Planned] = {}
    for point in points:
        known = union.get(point.trials[0].id)
        if known is not None:
            union[point.trials[0].id] = _same_training(known, point)
            continue
        tree = {"training": to_dict(point.training)}
        values = {key: at(tree, key, point.name) for key in keys}
        recipe = {
            key: value if isinstance(value, int | float) else str(value) for key, value in values.items()
        }
        union[point.trials[0].id] = replace(point, factors={**point.factors, **recipe})
    return tuple(union.values())


def _same_training(known: Planned, other: Planned) -> Planned:
    """Return one configuration for two that are the same; the name of a method has precedence.

    Raises `StudyError` for two methods: they would be compared with themselves.
    """
    arm = joined(known.arm, other.arm)
    if known.method and other.method and known.method != other.method:
        raise StudyError(
            f"methods {known.method!r} and {other.method!r} are the same training; leave one of them out"
        )
    if known.method or not other.method:
        return replace(known, arm=arm)
    factors = {**known.factors, **other.factors}
    return replace(known, arm=arm, method=other.method, name=other.name, factors=factors)


def _planned(config: StudyConfig, made: Configuration, shape: tuple[int, int, int], classes: int) -> Planned:
    architecture = made.architecture
    tree = apply_overrides(
        {"training": to_dict(config.training)}, [f"training.{change}" for change in made.recipe]
    )
    training = check(Training, tree["training"], f"space: training of {architecture.name}", StudyError)
    refuse_cell_options(training, architecture)
    if architecture.inference_samples is not None:
        raise StudyError(
            f"space: {architecture.name} is random ({architecture.inference_samples} draws an answer); a study "
            "measures answers of one pass; train and evaluate it by itself, then compare it by robust-nas runs compare"
        )
    cost = count(architecture, shape, classes)
    pieces = tuple(parts(architecture, shape, classes))
    name = made.name or "+".join((canonical_name(architecture), *made.recipe))
    factors = _factors(architecture, () if made.method else made.recipe, pieces, cost.params, cost.macs)
    common = {
        "architecture": architecture,
        "training": training,
        "data": config.data,
        "evaluation": config.evaluation,
        "steps": config.evaluation.steps,
        "metrics": config.metrics,
        "split_seed": config.seed,
    }
    return Planned(
        name=name,
        arm=made.arm,
        method=made.method,
        architecture=architecture,
        training=training,
        recipe=made.recipe,
        params=cost.params,
        macs=cost.macs,
        parts=pieces,
        checks=tuple(rule_checks(architecture)),
        factors={**factors, METHOD: made.method} if made.method else factors,
        trials=tuple(Trial(**common, seed=seed) for seed in config.seeds),
    )


def _factors(
    architecture: Architecture, recipe: Sequence[str], pieces: Sequence[Part], params: int, macs: int
) -> dict[str, float | str]:
    """Return the factors that the analysis may explain the response with."""
    factors: dict[str, float | str] = {"params": params, "macs": macs}
    stages = [part for part in pieces if part.name.startswith("stage")]
    if len(stages) > 1:
        last = stages[-1].cost
        factors |= {
            "last_stage_params_share": last.params / params,
            "last_stage_macs_share": last.macs / macs,
        }
    rules = {"r_d": depth_share(architecture), "wd_ratio": wd_ratio(architecture)}
    factors |= architecture.factors()
    factors |= {name: value for name, value in rules.items() if value is not None}
    for change in recipe:
        key, _, value = change.partition("=")
        factors[f"training.{key}"] = _number(value)
    return factors


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _rehearse(config: StudyConfig, points: Sequence[Planned]) -> None:
    """Judge the declared rules on made-up outcomes, so that what they lack is known before anything is trained.

    Raises `StudyError` where a rule cannot apply to the planned configurations.
    """
    from robust_nas.statistics import Measurements

    draws = np.random.default_rng(0)
    shape = (len(config.seeds), 16)
    outcomes = {key: draws.random(shape) < 0.5 for key in ("clean", "robust", "stable")}
    made_up = [
        Measurements(
            name=point.name,
            arm=point.arm,
            factors=point.factors,
            seeds=config.seeds,
            outcomes=outcomes,
            measures={key: (1.0,) * len(config.seeds) for key in config.metrics.measures},
        )
        for point in points
    ]
    options = config.analysis
    verdicts(
        options.rules, Evidence(points=made_up, reference=points[0].name, key=options.response, draws=200)
    )


def _warnings(points: Sequence[Planned]) -> list[str]:
    """Return where one budget matches the reference's and the other does not: the trap of 'equal size'.

    Likewise methods of other epochs whose learning rate does not follow them, and what passes do not count.
    """
    reference = points[0]
    found = [
        f"{point.name}: the schedule {point.training.schedule.label} does not follow the number of epochs, "
        f"{point.training.epochs} here and {reference.training.epochs} for {reference.name}"
        for point in points
        if point.method
        and point.training.epochs != reference.training.epochs
        and not point.training.schedule.needs_end
    ]
    found += [
        f"{point.name}: passes and time leave out {point.training.loss.uncounted}: it takes longer than planned"
        for point in points
        if point.training.loss.uncounted
    ]
    for point in points[1:]:
        params, macs = point.params / reference.params, point.macs / reference.macs
        for same, other, held, free in (
            (params, macs, "parameters", "MACs"),
            (macs, params, "MACs", "parameters"),
        ):
            if abs(same - 1) <= CLOSE and not 1 / DECOUPLED <= other <= DECOUPLED:
                found.append(
                    f"{point.name} has the {held} of {reference.name} ({same:.2f} times) "
                    f"but {other:.2f} times its {free}"
                )
    return found


def _smallest_effects(plan: Plan) -> list[dict[str, float]] | None:
    """Return the difference of two configurations that the study finds with 80 % power, for likely seed SDs; shares.

    At 50 % accuracy, with answers per image that correlate by `CORRELATION` between networks: assumptions.
    """
    from robust_nas.statistics import smallest_effect

    seeds, configurations = len(plan.config.seeds), len(plan.points)
    if seeds < 2 or configurations < 2:
        return None
    find = partial(
        smallest_effect, images=plan.test_images, configurations=configurations, correlation=CORRELATION
    )
    return [{"sd": sd, "effect": find(sd, seeds)} for sd in ASSUMED_SDS]


def plan_tree(plan: Plan, rates: Rates | None, workers: int) -> dict[str, Any]:
    """Return the plan as plain values, for `--json` and the run's record."""
    reference = plan.reference
    return {
        "name": plan.config.name,
        "reference": reference.name,
        "seeds": list(plan.config.seeds),
        "train_images": plan.train_images,
        "test_images": plan.test_images,
        "points": [
            {
                "name": point.name,
                "arm": point.arm,
                "params": point.params,
                "macs": point.macs,
                "params_ratio": point.params / reference.params,
                "macs_ratio": point.macs / reference.macs,
                "factors": point.factors,
                "stages": [
                    {"name": part.name, "params": part.cost.params, "macs": part.cost.macs}
                    for part in point.parts
                ],
                "rules": [check._asdict() for check in point.checks],
                "epochs": point.training.epochs,
                "passes": point.training.passes,
                "training_passes": plan.training_passes(point),
                "training_macs": plan.training_macs(point),
                "seconds": plan.seconds(rates, point) if rates else None,
                "trials": [plan.name(trial) for trial in point.trials],
            }
            for point in plan.points
        ],
        "trials": len(plan.trials),
        "training_macs": plan.total_macs,
        "seconds": plan.total_seconds(rates) / workers if rates else None,
        "workers": workers,
        "guard": to_dict(plan.config.guard),
        "smallest_effects": _smallest_effects(plan),
        "warnings": list(plan.warnings),
    }
