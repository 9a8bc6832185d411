"""The config of the training of an attack, from a model folder or a file; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from robust_nas.attacks import ThreatModel
from robust_nas.choices import changed
from robust_nas.config import Count, Options, check, suggestion
from robust_nas.config_paths import YAML
from robust_nas.errors import ConfigError
from robust_nas.training.ai_gan import AIGANTraining
from robust_nas.user_code import own_config
from robust_nas.workflows.config import EvaluationConfig, JobConfig, LoggedConfig, stored_config, trusting
from robust_nas.workflows.recipe_files import BASED, read_recipe

METHODS: tuple[str, ...] = (AIGANTraining.model_fields["name"].default,)


class AttackReport(Options):
    """What is measured of a trained attack, next to targeted PGD of the same eps."""

    images: Count = 200  # at most as many test images, each with every target class
    pgd_steps: Count = 10  # steps of the PGD that it is compared with
    batch_size: Count = 64  # images of a timed pass
    rounds: Count = 5  # timed repetitions


class AttackTrainingConfig(LoggedConfig):
    """Everything that decides the training of an attack but its victim."""

    threat_model: ThreatModel  # what the attack may do
    method: AIGANTraining = AIGANTraining()  # how the generator is trained
    report: AttackReport = AttackReport()  # what is measured of the attack

    @classmethod
    def short_forms(cls) -> Mapping[str, Any]:
        """Return the type of `base`."""
        return BASED

    @model_validator(mode="after")
    def _can_be_learned(self) -> Self:
        if self.threat_model.norm not in ("linf", "l2"):
            raise ValueError(
                f"threat_model.norm is {self.threat_model.norm!r}; allowed for {self.method.label}: linf, l2"
            )
        if self.threat_model.eps == 0:
            raise ValueError(
                "threat_model.eps is 0, which leaves nothing to learn; a number above 0 is needed"
            )
        return self


def attack_config(
    source: Path | str, method: str = METHODS[0], overrides: Sequence[str] = ()
) -> AttackTrainingConfig:
    """Return how an attack is trained: data and threat model of a model folder, or all of a YAML file.

    Raises `ConfigError`.
    """
    if method not in METHODS:
        raise ConfigError(
            f"--method: got {method[:200]!r}; allowed: {', '.join(METHODS)}{suggestion(method, METHODS)}"
        )
    own = Path(source).suffix in YAML
    if own:
        tree, where = read_recipe(AttackTrainingConfig, Path(source))
    else:
        path, tree = _of_model(Path(source), method)
        where = str(path)
    with own_config(Path.cwd()) if own else trusting(overrides):
        tree = changed(AttackTrainingConfig, tree, overrides)
        return check(AttackTrainingConfig, tree, where, overrides=overrides)


def _of_model(folder: Path, method: str) -> tuple[Path | None, dict[str, Any]]:
    """Return the file of the config that a model was trained by, and its keys for the training of an attack."""
    path, stored = stored_config(folder, EvaluationConfig)
    tree = {key: value for key, value in stored.items() if key in JobConfig.model_fields and key != "figures"}
    evaluation = stored.get("evaluation")
    threat_model = evaluation.get("threat_model") if isinstance(evaluation, dict) else None
    given = {} if threat_model is None else {"threat_model": threat_model}
    return path, {**tree, **given, "method": {"name": method}}
