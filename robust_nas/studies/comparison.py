"""The config of a comparison of training methods: a study whose configurations differ in their method alone.

A recipe gives data, network size, optimiser, epochs and evaluation; its section `compare` may hold methods of one's own
and the keys of `Comparison`. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from robust_nas.attacks import inherit
from robust_nas.config import Options, check, to_dict
from robust_nas.errors import ConfigError
from robust_nas.spaces import AnyArchitecture, Architecture, load_architecture
from robust_nas.studies.config import Guard, StudyConfig, read_architecture
from robust_nas.studies.design.methods import MethodsDesign, NamedMethod
from robust_nas.training import Training
from robust_nas.training.method import TrainingMethod, keys_of
from robust_nas.user_code import own_config
from robust_nas.workflows.config import RunConfig, code_folders, load_config
from robust_nas.workflows.context import refuse_cell_options

REFERENCE = "pgd-at"
EQUAL_EPOCHS, EQUAL_PASSES = "equal-epochs", "equal-passes"  # arms, a table each
ATTACK = {"name": "pgd", "steps": 20}  # whose accuracy is shown next to the suite's


def _method(value: object) -> object:
    """Read a short name as the keys that it means."""
    return keys_of(value) if isinstance(value, str) else value


Methods = dict[
    Annotated[str, Field(min_length=1, max_length=100)], Annotated[TrainingMethod, BeforeValidator(_method)]
]


class Comparison(Options):
    """The section `compare` of a recipe.

    `reference` is what differences are to, and joins the methods where it is not among them. `equal_passes` asks for a
    second table, of all methods or of those listed, with epochs scaled so that all take the reference's forward and
    backward passes. `metrics` and `analysis` are those of a study.
    """

    methods: Methods = Field(default={})  # training methods by a name of one's own
    reference: str = REFERENCE  # method that the others are compared with
    # second table at the passes of the reference: of all methods, or of these
    equal_passes: bool | tuple[str, ...] = False
    # network that is trained; None: the recipe's
    architecture: Annotated[AnyArchitecture, BeforeValidator(read_architecture)] | None = None
    seeds: Any = 3  # a number, or a list: the study checks them
    metrics: dict[str, Any] = Field(default={})  # as in a study
    analysis: dict[str, Any] = Field(default={})  # as in a study
    guard: Guard = Guard()  # cost at which the comparison refuses to start
    keep_models: bool = True  # whether every trial keeps its model

    @field_validator("equal_passes")
    @classmethod
    def _once_each(cls, names: bool | tuple[str, ...]) -> bool | tuple[str, ...]:
        if not isinstance(names, bool):
            _refuse_doubled(names)
        return names


def load_comparison(
    recipe: str | Path,
    losses: Sequence[str] = (),
    overrides: Sequence[str] = (),
    *,
    architecture: str | Path | Architecture | None = None,
    seeds: int | Sequence[int] | None = None,
    equal_passes: bool = False,
) -> StudyConfig:
    """Return the study that compares training methods by a recipe, to be run by `run_study`.

    Args:
        recipe: as for `load_config`; of a run's folder the network that was found is trained.
        losses: methods by name: those of `compare.methods`, then the short names (`training/method.py`). Without any,
            all of `compare.methods`.
        overrides: `a.b=c` of the recipe, `compare.methods.mine.loss.beta=3` too.
        architecture: a network, its name or file, instead of `compare.architecture`.
        seeds: how many, or which, instead of `compare.seeds`.
        equal_passes: whether the second table is asked for, of all methods.

    Raises:
        ConfigError: a method that nobody has or that does not fit the network, a name given twice, no seed, no network.
    """
    config = load_config(recipe, overrides)
    with inherit(config.threat_model or config.evaluation.threat_model):
        with own_config(*code_folders(recipe)):
            options = check(Comparison, config.compare, f"{config.name}: compare")
        methods = _chosen(options, losses, config)
        network = config.network.made_of(_network(architecture, options, recipe))
        trainings = {name: _training(config, name, method, network) for name, method in methods.items()}
        designs = [_design(EQUAL_EPOCHS, methods)]
        wanted = equal_passes or options.equal_passes
        if wanted:
            names = list(methods) if isinstance(wanted, bool) else wanted
            scaled = _scaled(trainings, options.reference, names)
            for name, epochs in scaled.items():
                _training(config, name, methods[name], network, epochs)
            designs.append(_design(EQUAL_PASSES, methods, scaled))
        tree = {
            "name": f"{config.name}-compare",
            **{key: getattr(config, key) for key in ("seed", "device", "threads", "checkpoint_seconds")},
            **{key: getattr(config, key) for key in ("data", "figures", "evaluation")},
            "base": network,
            "space": designs,
            "seeds": options.seeds if seeds is None else seeds,
            "training": trainings[options.reference],
            "metrics": {"attack": ATTACK, **options.metrics},
            "analysis": options.analysis,
            "guard": options.guard,
            "keep_models": options.keep_models,
        }
        return check(StudyConfig, tree, f"{config.name}: compare")


def _chosen(options: Comparison, names: Sequence[str], config: RunConfig) -> dict[str, TrainingMethod]:
    """Return the methods by name, the reference first; their hooks follow those of the recipe."""
    _refuse_doubled(names)
    wanted = list(names) or list(options.methods)
    if not wanted:
        raise ConfigError(
            "name methods to compare, such as --losses pgd-at,trades, or list them in compare.methods"
        )
    found = {}
    for name in dict.fromkeys([options.reference, *wanted]):
        method = options.methods.get(name)
        if method is None:
            with own_config(Path.cwd()):
                method = check(TrainingMethod, keys_of(name), f"method {name}")
        found[name] = method.model_copy(update={"hooks": (*config.training.hooks, *method.hooks)})
    return found


def _refuse_doubled(names: Iterable[str]) -> None:
    names = list(names)
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ConfigError(f"methods: {', '.join(twice)} named twice; name each once")


def _network(
    given: str | Path | Architecture | None, options: Comparison, recipe: str | Path
) -> Architecture:
    if isinstance(given, Architecture):
        return given
    if given is not None:
        return load_architecture(given)
    if options.architecture is not None:
        return options.architecture
    if Path(recipe).is_dir():
        return load_architecture(recipe)
    raise ConfigError("name the network to train, such as --architecture wrn-10-1, or compare.architecture")


def _training(
    config: RunConfig, name: str, method: TrainingMethod, network: Architecture, epochs: int | None = None
) -> Training:
    """Return the recipe with a method. Raises `ConfigError` where method, recipe and network do not fit together."""
    changes = {} if epochs is None else {"epochs": epochs}
    training = check(
        Training, {**to_dict(config.training), **to_dict(method), **changes}, f"method {name}: training"
    )
    try:
        refuse_cell_options(training, network)
    except ConfigError as error:
        raise ConfigError(f"method {name}: {error}") from None
    return training


def _scaled(trainings: Mapping[str, Training], reference: str, names: Sequence[str]) -> dict[str, int]:
    """Return the epochs by which the reference and these methods take its passes: rounded, at least 1."""
    unknown = [name for name in names if name not in trainings]
    if unknown:
        raise ConfigError(
            f"compare.equal_passes: got {', '.join(unknown)}; methods of this comparison: {', '.join(trainings)}"
        )
    base = trainings[reference]
    wanted = base.epochs * base.passes
    return {
        name: max(1, round(wanted / training.passes))
        for name, training in trainings.items()
        if name in names or name == reference
    }


def _design(
    arm: str, methods: Mapping[str, TrainingMethod], epochs: Mapping[str, int] | None = None
) -> MethodsDesign:
    """Return the design of one table: all methods at the recipe's epochs, or those with epochs of their own."""
    return MethodsDesign(
        arm=arm,
        methods=tuple(
            NamedMethod(label=name, epochs=None if epochs is None else epochs[name], **dict(method))
            for name, method in methods.items()
            if epochs is None or name in epochs
        ),
    )
