"""What a defence or a random network means for other jobs: its inference rule, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robust_nas.errors import ConfigError
from robust_nas.workflows.config import EvaluationConfig, RunConfig

if TYPE_CHECKING:
    from torch import nn

    from robust_nas.defences import Defence
    from robust_nas.nets import Model


def defence_of(model: Model) -> Defence | None:
    """Return the defence around a model, or None."""
    stored = model.description.defence
    return None if stored is None else stored.method


def random_passes(model: Model) -> int | None:
    """Return the random passes whose mean softmax is an answer of the undefended network; None: it is deterministic."""
    from robust_nas.attacks.predictor import own_samples

    return own_samples(model.undefended.network)


def with_own_rule(config: EvaluationConfig, network: nn.Module, source: object) -> EvaluationConfig:
    """Return the config with the rule of a network's defence, or its own; that of a network without one as it is.

    Raises `ConfigError` where `evaluation.deployed` says something else.
    """
    from robust_nas.attacks.predictor import own_samples
    from robust_nas.defences import Defended
    from robust_nas.evaluation.start import with_rule

    if isinstance(network, Defended):
        has = f"has the defence {network.defence.label}"
    elif own_samples(network) is not None:
        has = f"is a {type(network).__name__}, which is random"
    else:
        return config
    try:
        _, options = with_rule(network, config.evaluation)
    except ConfigError as error:
        raise ConfigError(f"evaluation.{error} ({source} {has})") from None
    return config.model_copy(update={"evaluation": options})


def refuse_rule_of(model: Model, what: str) -> None:
    """Raise `ConfigError` for a model that is random, or abstains, where one pass is taken for the answer."""
    if (passes := random_passes(model)) is not None:
        raise ConfigError(
            f"{model.folder or model.name}: answers by the mean of {passes} random passes, and {what} takes one pass "
            "for the answer; take a deterministic model, such as a single network or an ensemble without draws"
        )
    defence = defence_of(model)
    if defence is None or (defence.inference_samples is None and not defence.abstains):
        return
    why = "rejects images" if defence.abstains else "answers by the mean of several random passes"
    raise ConfigError(
        f"{model.folder or model.name}: its defence {defence.label} {why}, and {what} takes one pass for the answer; "
        "take the undefended model"
    )


def read_undefended(folder: Path) -> Model:
    """Return the model of a folder.

    Raise `ConfigError` for one with a defence, which is of this very network, and for a random network.
    """
    from robust_nas.nets import read_model

    model = read_model(folder)
    defence = defence_of(model)
    if defence is not None:
        raise ConfigError(
            f"{folder}: has the defence {defence.label}, which was made for its network as it is; "
            "compress the undefended model, then defend it"
        )
    refuse_rule_of(model, "a compression")
    return model


def refuse_random_network(config: RunConfig) -> None:
    """Raise `ConfigError` for a random network (`network.posterior`, `network.draws`) and jobs that need another."""
    own, declared = config.network.inference_samples, config.evaluation.deployed.samples
    if own is None:
        return
    what = (
        f"network.posterior is {config.network.posterior!r}"
        if config.network.posterior
        else f"network.draws is {own}"
    )
    if config.compression is not None:
        raise ConfigError(
            f"compression: {what}, and a random network is not compressed; set compression=null"
        )
    if declared not in (None, own):
        raise ConfigError(f"evaluation.deployed.samples: got {declared}; {what}: an answer takes {own} draws")
