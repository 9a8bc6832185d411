"""The config of a defence that is put around a model, from the model's folder; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from robust_nas.config import Count, apply_overrides, check, suggestion
from robust_nas.defences import DEFENCES, Defence
from robust_nas.errors import ConfigError, UnknownMethodError
from robust_nas.evaluation.inference_rule import InferenceRule
from robust_nas.user_code import own_config
from robust_nas.workflows.config import EvaluationConfig, JobConfig, stored_config, trusting


class DefenceConfig(JobConfig):
    """Everything that decides a defended model but the model."""

    method: Annotated[Defence, DEFENCES.field()]  # defence and its options
    # validation images at most, for calibration and accuracies; None: all
    images: Count | None = Field(default=None, exclude_if=lambda images: images is None)


def defence_config(folder: Path | str, method: str, overrides: Sequence[str] = ()) -> DefenceConfig:
    """Return how a model is defended: the data and seed of its folder, and a defence by name, or as `file.py:Class`.

    An override is an option of the defence (`sigma=1`, or `method.sigma=1`) unless the config has a key of this name.
    Raises `ConfigError`.
    """
    with own_config(Path.cwd()):
        try:
            method = str(DEFENCES.get(method).model_fields["name"].default)
        except UnknownMethodError:
            known = f"{', '.join(DEFENCES.names())}, or file.py:Class of your own"
            raise ConfigError(
                f"--with: got {method[:200]!r}; allowed: {known}{suggestion(method, DEFENCES.names())}"
            ) from None
    path, stored = stored_config(Path(folder), EvaluationConfig)
    tree = {key: value for key, value in stored.items() if key in JobConfig.model_fields and key != "figures"}
    changes = [_of_method(text) for text in overrides]
    changed = apply_overrides({**tree, "method": {"name": method}}, changes)
    with trusting(changes, method):
        return check(DefenceConfig, changed, str(path), overrides=changes)


def _of_method(override: str) -> str:
    key = override.partition("=")[0].strip().partition(".")[0]
    return override if key in DefenceConfig.model_fields else f"method.{override.lstrip()}"


def split_warnings(folder: Path, config: DefenceConfig) -> list[dict[str, str]]:
    """Return a warning where the validation split is not that of the training, which has then seen images of it."""
    _, stored = stored_config(folder, EvaluationConfig)
    trained = check(
        JobConfig, {key: stored[key] for key in stored if key in JobConfig.model_fields}, str(folder)
    )
    now, then = ((each.seed, each.data.validation, each.data.limit) for each in (config, trained))
    if now == then:
        return []
    made = "of seed {}, share {:g} and limit {}"
    return [
        {
            "text": f"the validation split is {made.format(*now)}, the training's {made.format(*then)}: the network "
            "was trained on images of it",
            "advice": "leave seed, data.validation and data.limit as they were",
        }
    ]


def refuse_rule(folder: Path) -> None:
    """Raise `ConfigError` for a model whose recipe says that it is random, or rejects images, by itself."""
    _, stored = stored_config(folder, EvaluationConfig)
    evaluation = stored.get("evaluation")
    deployed = (evaluation.get("deployed") if isinstance(evaluation, dict) else None) or {}
    rule = check(InferenceRule, deployed, str(folder))
    if rule.samples is not None or rule.abstains:
        raise ConfigError(
            f"{folder}: its recipe declares evaluation.deployed samples {rule.samples}, abstains {rule.abstains}; "
            "a defence is put around a network that answers in one pass and rejects nothing"
        )
