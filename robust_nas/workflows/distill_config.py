"""The config of a distillation, from a recipe or a file of its own; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import ModelWrapValidatorHandler, model_validator

from robust_nas.attacks import ThreatModel, inherit
from robust_nas.choices import changed
from robust_nas.config import check
from robust_nas.distillation import DISTILLERS, Distiller
from robust_nas.errors import ConfigError, UnknownMethodError
from robust_nas.user_code import own_config
from robust_nas.workflows.config import EvaluationConfig, LoggedConfig, code_folders, one_list, recipe_file
from robust_nas.workflows.recipe_files import BASED, read_recipe

USUAL = "adv-kip"


class DistillConfig(EvaluationConfig, LoggedConfig):
    """Everything that decides a learned set; `evaluation` is that of its kernel regression."""

    threat_model: ThreatModel  # of attacks while the set is learned and validated
    method: Annotated[Distiller, DISTILLERS.field()]  # distiller and its options

    @classmethod
    def short_forms(cls) -> Mapping[str, Any]:
        """Return the type of `base`."""
        return BASED

    @model_validator(mode="wrap")
    @classmethod
    def _one_threat_model(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Give the evaluation the threat model where it has none of its own, and the other way round."""
        if not isinstance(values, Mapping):
            return handler(values)
        threat_model, evaluation = values.get("threat_model"), values.get("evaluation", {})
        if isinstance(evaluation, Mapping):
            if threat_model is None and "threat_model" in evaluation:
                values = {**values, "threat_model": evaluation["threat_model"]}
            elif threat_model is not None and "threat_model" not in evaluation:
                values = {**values, "evaluation": {"threat_model": threat_model, **evaluation}}
        with inherit(values.get("threat_model")):
            return handler(values)


def distill_config(
    recipe: Path | str, method: str | None = None, overrides: Sequence[str] = ()
) -> DistillConfig:
    """Return how a set is learned: data, threat model and evaluation of a recipe, and a method by name.

    `recipe` is a shipped name, a YAML file, or the folder of a run; a file that has the key `method` is the whole
    config, as `--print-config` prints it. Another `method` is then refused. Raises `ConfigError`.
    """
    path = recipe_file(recipe)
    with own_config(*code_folders(recipe)):
        tree, source = read_recipe(DistillConfig, path)
        if "method" not in tree:
            own = {key: value for key, value in tree.items() if key in DistillConfig.model_fields}
            own.pop("figures", None)  # of the recipe's own jobs
            evaluation = own.get("evaluation")
            if isinstance(evaluation, Mapping) and "threat_model" in evaluation:
                own.setdefault(
                    "threat_model", evaluation["threat_model"]
                )  # so that one key of it can be overridden
            tree = {**own, "method": {"name": _known(method or USUAL)}}
        elif method is not None:
            tree = {**tree, "method": _same(method, tree["method"], path)}
        tree = changed(DistillConfig, tree, one_list(overrides))
        return check(DistillConfig, tree, source, overrides=overrides)


def _known(method: str) -> str:
    try:
        return str(DISTILLERS.get(method).model_fields["name"].default)
    except UnknownMethodError:
        known = f"{', '.join(DISTILLERS.names())}, or file.py:Class of your own"
        raise ConfigError(f"--method: got {method[:200]!r}; allowed: {known}") from None


def _same(method: str, section: Any, path: Path) -> Any:
    """Return the section `method` of a file. Raise `ConfigError` where another method is asked for."""
    own = section.get("name") if isinstance(section, Mapping) else section
    if _known(method) != own:
        raise ConfigError(
            f"--method: got {method[:200]!r}, but {path} has method {str(own)[:200]!r}; leave one out"
        )
    return section
