"""The run config, composed of every room's options, and the recipes that ship with the package.

A recipe is a complete YAML file in `recipes/`; a user's own file has the same keys, or says by `base` from what it
differs (`recipe_files.py`). Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, field_validator, model_validator

from robust_nas.attacks import Attack, ThreatModel, attacks_in, inherit
from robust_nas.choices import changed, merged
from robust_nas.compression import Compression
from robust_nas.config import (
    Count,
    CountOrZero,
    NonNegative,
    Options,
    absolute_if_file,
    apply_overrides,
    check,
    existing_file,
    print_number,
    read_yaml,
    text_field,
    to_yaml,
    to_yaml_dict,
)
from robust_nas.data.options import DataOptions
from robust_nas.descriptions import commented
from robust_nas.errors import ArchitectureError, ConfigError
from robust_nas.evaluation.options import EvaluationOptions
from robust_nas.figures import FIGURES, Figure
from robust_nas.logger import LOGGERS, Logger
from robust_nas.overrides import override_value
from robust_nas.registry import methods_in
from robust_nas.run_folder import RECIPE
from robust_nas.search import Strategy, SupernetOptions, strategy_field, with_strategy
from robust_nas.spaces import Size
from robust_nas.training import Loss, Training
from robust_nas.training.losses import with_present_names
from robust_nas.user_code import allow_code, code_in, own_config
from robust_nas.workflows.network_size import NetworkSize
from robust_nas.workflows.places import model_in
from robust_nas.workflows.recipe_files import BASED, read_recipe, take_away
from robust_nas.workflows.recipe_files import FOLDER as FOLDER
from robust_nas.workflows.recipe_files import code_folders as code_folders
from robust_nas.workflows.recipe_files import recipe_file as recipe_file
from robust_nas.workflows.recipe_files import recipe_names as recipe_names
from robust_nas.workflows.space_choice import SpaceChoice as SpaceChoice

MOST_APART = 2.0  # factor between the eps of an attack and of the evaluation, beyond which a warning asks
_WHERE_SET: Any = Field(
    default=None, exclude_if=lambda value: value is None
)  # older records have no such key


class JobConfig(Options):
    """What every job has: a name, a seed, a device, and the images."""

    schema_version: Literal[1] = 1  # of the file's format
    # of the run, and of its folder
    name: Annotated[
        str,
        text_field(
            r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
            "letters, digits, '.', '_' and '-' are taken, a letter or digit first",
            max_length=100,
        ),
    ]
    seed: Annotated[CountOrZero, Field(le=2**32 - 1)] = 0  # of every random choice
    # auto, cpu, cuda or cuda:N
    device: Annotated[
        str, text_field(r"^(auto|cpu|cuda(:[0-9]{1,2})?)$", "auto, cpu, cuda and cuda:N are taken")
    ] = "auto"
    # CPU threads; auto: as many as there are cores
    threads: Literal["auto"] | Annotated[Count, Field(le=1024)] = "auto"
    checkpoint_seconds: NonNegative = 60.0  # seconds between checkpoints
    data: DataOptions  # images, and how they are split
    figures: tuple[Annotated[Figure, FIGURES.field()], ...] = ()  # in addition to the usual ones

    def with_(self, *overrides: str, **keys: Any) -> Self:
        """Return a changed copy, checked like a file: keys, of which mappings are merged, then `a.b=c` overrides.

            config.with_("training.loss.name=trades", seed=3, evaluation={"images": 500})

        Another method keeps the options that fit, and attacks follow the threat model. Raises `ConfigError`.
        """
        kind, tree = type(self), _tree_of(self)
        given = {key: to_yaml_dict(each) if isinstance(each, Options) else each for key, each in keys.items()}
        take_away(tree.get("evaluation"), given.get("evaluation"))
        with own_config(Path.cwd()):
            tree = changed(kind, merged(kind, tree, given), one_list(overrides))
            return check(kind, tree, f"{kind.__name__}.with_", overrides=overrides)


class LoggedConfig(JobConfig):
    """A job that records while it searches or trains."""

    # what gets the numbers of every step or epoch while it works
    loggers: tuple[Annotated[Logger, LOGGERS.field()], ...] = Field(
        default=(), exclude_if=lambda own: not own
    )


class EvaluationConfig(JobConfig):
    """Everything that decides an evaluation but the model."""

    evaluation: EvaluationOptions  # protocol of the evaluation

    @staticmethod
    def of(config: RunConfig | CompressionConfig | EvaluationConfig) -> EvaluationConfig:
        """Return the part of a run config that an evaluation depends on."""
        return EvaluationConfig(**{key: getattr(config, key) for key in EvaluationConfig.model_fields})


class CompressionConfig(LoggedConfig):
    """Everything that decides a compression but the model; `training` is the recipe of what is trained again."""

    training: Training  # recipe of what is trained again
    evaluation: EvaluationOptions  # protocol of the evaluation
    compression: Compression  # steps of the compression

    @staticmethod
    def of(config: RunConfig) -> CompressionConfig:
        """The part of a run config that a compression depends on. Raises `ConfigError` where it has none."""
        if config.compression is None:
            raise ConfigError(f"{config.name}: compression is null; a section compression is needed")
        return CompressionConfig(**{key: getattr(config, key) for key in CompressionConfig.model_fields})


class RunConfig(LoggedConfig):
    """Everything that decides a run: one YAML file.

    `threat_model` is inherited by every attack of the sections, which may override it; without it, that of the
    evaluation is.
    """

    threat_model: ThreatModel | None = None  # what every attack may do; None: the evaluation's
    space: SpaceChoice = Field(default_factory=SpaceChoice)  # search space
    supernet: SupernetOptions = SupernetOptions()  # how the supernet computes
    search: Annotated[Strategy, strategy_field()]  # strategy
    network: NetworkSize = NetworkSize()  # size of the final network
    training: Training  # recipe of the final network
    evaluation: EvaluationOptions  # protocol of the evaluation
    compression: Compression | None = None  # None: the network stays as it was trained
    # architecture that is trained next to the one found, and compressed in its place
    reference: str | None = _WHERE_SET
    workers: Annotated[int, Field(ge=1, le=2)] = 1  # processes of a run; 2: one of them makes the reference
    # statistics over the ranks of torchrun, or of each; one rank: no matter
    batch_norm: Literal["synchronised", "local"] = "synchronised"
    # section of robust-nas compare
    compare: dict[str, Any] = Field(default={}, exclude_if=lambda keys: not keys)

    @classmethod
    def short_forms(cls) -> Mapping[str, Any]:
        """Return the type of `base`."""
        return BASED

    @field_validator("reference")
    @classmethod
    def _is_absolute(cls, name: str | None) -> str | None:
        """Return the path of a file as an absolute one."""
        return None if name is None else absolute_if_file(name)

    @model_validator(mode="wrap")
    @classmethod
    def _inherit_threat_model(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(values, Mapping):
            return handler(values)
        threat_model, evaluation = values.get("threat_model"), values.get("evaluation")
        if isinstance(evaluation, Mapping):
            if threat_model is None:
                threat_model = evaluation.get("threat_model")
            elif "threat_model" not in evaluation:
                values = {**values, "evaluation": {"threat_model": threat_model, **evaluation}}
        with inherit(threat_model):
            return handler(values)

    @model_validator(mode="after")
    def _sizes_are_possible(self) -> Self:
        space = self.space.load()
        for section, chosen, own in (
            ("search", self.search, space.search),
            ("network", self.network, space.network),
        ):
            cells, channels = chosen.cells or own.cells, chosen.channels or own.channels
            try:
                kinds = {place.kind for place in space.places(Size(cells=cells, channels=channels))}
            except ArchitectureError as error:
                raise ValueError(f"{section}.{error}") from None
            absent = set(space.kinds) - kinds
            if absent and section == "search":
                raise ValueError(
                    f"search.cells: got {cells}, which leaves no {', '.join(sorted(absent))} cell to search; "
                    "more cells are needed"
                )
        return self

    @model_validator(mode="after")
    def _the_supernet_is_used(self) -> Self:
        if self.supernet != SupernetOptions() and not self.search.own_supernet:
            raise ValueError(
                f"supernet.execution: got {self.supernet.execution!r}; "
                f"strategy {self.search.label} trains no supernet of ours: leave it out"
            )
        return self


def load_config(
    recipe: str | Path, overrides: Sequence[str] = (), *, strategy: str | None = None
) -> RunConfig:
    """The run config of a shipped recipe, a YAML file, or the folder of a run, with `a.b=c` overrides applied.

    A file with a `base` says what differs from it; a file or an override that names another method keeps the options
    that fit (`choices.py`). A `strategy` (such as `random` or `nni:darts`) takes the place of the recipe's before the
    overrides do.

    Raises `ConfigError` that names the key, the value, where it was written, and what is allowed.
    """
    path = recipe_file(recipe)
    with own_config(*code_folders(recipe)):  # what is still relative comes from the command line
        tree, source = read_recipe(RunConfig, path)
        if path.name == RECIPE:
            tree = {key: with_present_names(value) for key, value in tree.items()}
            _leave_out_threat_model(tree.get("evaluation"))
        if strategy is not None:
            section = tree.get("search")
            tree["search"] = with_strategy(section if isinstance(section, dict) else {}, strategy)
        return check(RunConfig, changed(RunConfig, tree, one_list(overrides)), source, overrides=overrides)


def doubts(config: JobConfig) -> list[str]:
    """Return what is allowed but probably not meant: an attack whose eps or norm is far from the evaluation's.

    That is an eps of more than twice, or less than half, the threat model's, or another norm. With it, what a training
    loss warns of.
    """
    threat: ThreatModel = dict(config)["evaluation"].threat_model
    found = []
    for section, value in config:
        for place, attack in attacks_in(value, section):
            if attack.norm != threat.norm:
                own, other, same = f"in {attack.norm} ", f" in {threat.norm}", f"norm={threat.norm}"
            elif attack.eps is None or threat.eps / MOST_APART <= attack.eps <= threat.eps * MOST_APART:
                continue
            else:
                own, other, same = "", "", f"eps={print_number(threat.eps)}"
            eps = "any eps" if attack.eps is None else f"eps {print_number(attack.eps)}"
            against = f"the evaluation{other} with {print_number(threat.eps)}"
            found.append(
                f"{place} attacks {own}with {eps}, {against}; set {place}.{same} unless that is meant"
            )
        losses = methods_in(value, section, Loss)
        found += [f"{place}: {loss.label}: {loss.warning}" for place, loss in losses if loss.warning]
    return found


def kept_eps(config: JobConfig, before: JobConfig) -> list[str]:
    """Return the attacks whose own eps is that of `before`, where the threat model's is another.

    As `place (eps)`; those that `doubts` names are left out.
    """
    old, new = (dict(each)["evaluation"].threat_model.eps for each in (before, config))
    known = {place: attack.eps for section, value in before for place, attack in attacks_in(value, section)}
    return [
        f"{place} ({print_number(attack.eps)})"
        for section, value in config
        for place, attack in attacks_in(value, section)
        if old != new and attack.eps is not None and attack.eps == known.get(place)
        if new / MOST_APART <= attack.eps <= new * MOST_APART
    ]


def one_list(overrides: Sequence[str]) -> list[str]:
    """Return the overrides; one that sets the suite or the list of attacks takes the other of the two away."""
    given = {text.partition("=")[0].strip(): override_value(text) for text in overrides}
    suite, attacks = "evaluation.suite", "evaluation.attacks"
    pairs = ((suite, attacks), (attacks, suite))
    away = [other for key, other in pairs if given.get(key) is not None and other not in given]
    return [*(f"{key}=null" for key in away), *overrides]


def printed(config: JobConfig) -> str:
    """Return the YAML of a config with a comment at every key that says what it means.

    Norm and eps are written once, and an attack that inherits them has none of its own.

    So that `threat_model.eps=...` on what was printed means every attack.
    """
    return commented(to_yaml(_tree_of(config)), config)


def _tree_of(config: JobConfig) -> dict[str, Any]:
    """Return the tree of a config in which norm and eps are written once."""
    tree = to_yaml_dict(config)
    evaluation = getattr(config, "evaluation", None)
    own = evaluation.threat_model if evaluation else None
    outer = getattr(config, "threat_model", None)
    for section, value in config:
        _leave_out_inherited(value, tree.get(section), own if section == "evaluation" else outer or own)
    if outer is not None and outer == own:
        del tree["evaluation"]["threat_model"]
    return tree


def _leave_out_inherited(value: object, tree: Any, threat_model: ThreatModel | None) -> None:
    """Remove norm and eps of every attack that has those of the threat model; `tree` is the value as a dict."""
    if isinstance(value, Options) and isinstance(tree, dict):
        if (
            isinstance(value, Attack)
            and threat_model
            and (value.norm, value.eps) == (threat_model.norm, threat_model.eps)
        ):
            del tree["norm"], tree["eps"]
        for key, inner in value:
            _leave_out_inherited(inner, tree.get(key), threat_model)
    elif isinstance(value, tuple | list) and isinstance(tree, list):
        for inner, part in zip(value, tree, strict=True):
            _leave_out_inherited(inner, part, threat_model)


def model_config(folder: Path, overrides: Sequence[str] = ()) -> EvaluationConfig:
    """Data and evaluation that a model folder was trained with, with overrides applied. Raises `ConfigError`."""
    path, tree = stored_config(folder, EvaluationConfig)
    _leave_out_threat_model(tree.get("evaluation"))
    _leave_out_options(tree.get("data"), overrides)
    with trusting(overrides):
        tree = changed(EvaluationConfig, tree, one_list(overrides))
        return check(EvaluationConfig, tree, str(path), overrides=overrides)


def _leave_out_options(data: Any, overrides: Sequence[str]) -> None:
    """Remove the options of the stored dataset where overrides name another one, whose reader has others."""
    named = [text.partition("=")[2].strip() for text in overrides if text.startswith("data.name=")]
    if named and isinstance(data, dict) and data.get("name") != named[-1]:
        data.pop("options", None)


def _leave_out_threat_model(evaluation: Any) -> None:
    """Remove norm and eps of the attacks of a stored evaluation, which are its threat model's, so that this decides."""
    with contextlib.suppress(
        AttributeError, KeyError, TypeError
    ):  # `check` says what is wrong with another tree
        for step in evaluation["attacks"] or ():
            if all(step["attack"][key] == evaluation["threat_model"][key] for key in ("norm", "eps")):
                del step["attack"]["norm"], step["attack"]["eps"]


@contextmanager
def trusting(overrides: Sequence[str], *names: str) -> Iterator[None]:
    """Let code run inside that the user's own overrides, and these names, name; what a folder names stays refused."""
    files = [spec.rpartition(":")[0] for spec in code_in([*map(override_value, overrides), *names])]
    with allow_code([file for file in files if existing_file(file)]):
        yield


def stored_config(folder: Path, kind: type[JobConfig]) -> tuple[Path | None, dict[str, Any]]:
    """Return the file, and the keys of `kind` in it, of the config that a model was made with.

    `folder` is a model folder, or a run folder with one in `model/`. The file is `recipe.yaml`, or `config.yaml` in
    older folders.
    """
    folder = model_in(folder, weights=False)
    path = existing_file(folder / RECIPE) or existing_file(folder / "config.yaml")
    if folder.is_file():
        raise ConfigError(
            f"{folder}: is a file; a model folder is needed, or a module of your own with its weights "
            "(--module net.py:build --weights FILE.safetensors)"
        )
    if path is None and not existing_file(folder / "model.safetensors"):
        why = "" if folder.exists() else "; it does not exist"
        raise ConfigError(f"{folder}: is no model folder{why}")
    tree = read_yaml(path) if path else None
    tree = tree if path is None or path.name == RECIPE else (tree or {}).get("config")
    if not isinstance(tree, dict):
        raise ConfigError(f"{folder}: holds no config of a training; name a --recipe")
    return path, {key: with_present_names(tree[key]) for key in kind.model_fields if key in tree}


def module_config(name: str, overrides: Sequence[str]) -> EvaluationConfig:
    """Data and evaluation of any torch module, from overrides alone. Raises `ConfigError`."""
    tree = apply_overrides({"name": name, "data": {}, "evaluation": {}}, one_list(overrides))
    threat = tree["evaluation"].get("threat_model") if isinstance(tree["evaluation"], dict) else {}
    if threat is None or (isinstance(threat, dict) and "eps" not in threat):
        raise ConfigError(
            "evaluate --module: --eps is missing, the largest change of a pixel on the 0..1 scale, "
            "such as --eps 8/255 for colour images"
        )
    with own_config(Path.cwd()):
        return check(EvaluationConfig, tree, "evaluate --module", overrides=overrides)
