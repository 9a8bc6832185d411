"""A training method as comparisons know it: a loss, a step and hooks; and the short names of methods.

trades          a loss, with its published options
free-at         a training step, on its usual loss: natural training, or pgd-at for steps of particles
n-fgsm          an attack that is fit for training, inside PGD-AT
trades+awp+swa  any of these with hooks
"""

from __future__ import annotations

from typing import Annotated, Any

from robust_nas.attacks import ATTACKS, Attack, inherited
from robust_nas.config import Options, suggestion
from robust_nas.errors import ConfigError
from robust_nas.training.hook import HookOptions
from robust_nas.training.hooks import HOOKS
from robust_nas.training.loss import Loss
from robust_nas.training.losses import LOSSES
from robust_nas.training.step import StepOptions
from robust_nas.training.steps import STEPS
from robust_nas.training.steps.standard import Standard
from robust_nas.user_code import is_code


class TrainingMethod(Options):
    """A loss, a step and hooks; everything else is the recipe's. Attacks inherit norm and eps of the threat model."""

    loss: Annotated[Loss, LOSSES.field()]  # of every step
    step: Annotated[StepOptions, STEPS.field(presets=inherited)] = Standard()  # how a batch becomes gradients
    hooks: tuple[Annotated[HookOptions, HOOKS.field()], ...] = ()  # in the order in which they are called


def keys_of(name: str) -> dict[str, Any]:
    """Return the keys of a `TrainingMethod` that a short name means.

    A name of two registries is the loss, then the step. Raises `ConfigError` for a name that nobody has.
    """
    first, *hooks = (part.strip() for part in name.split("+"))
    keys: dict[str, Any]
    if is_code(first) or first in LOSSES.names():
        keys = {"loss": first}
    elif first in _steps():
        keys = {"loss": STEPS.get(first).usual_loss, "step": first}
    elif first in _attacks():
        keys = {"loss": {"name": "pgd-at", "attack": first}}
    else:
        raise ConfigError(
            f"got method {name[:200]!r}; allowed: a loss ({', '.join(LOSSES.names())}), "
            f"a step ({', '.join(_steps())}), an attack for PGD-AT ({', '.join(_attacks())}), "
            f"each with hooks after + ({', '.join(HOOKS.names())}), "
            f"or a name of compare.methods{suggestion(first, [*LOSSES.names(), *_steps(), *_attacks()])}"
        )
    return {**keys, "hooks": hooks}


def _steps() -> list[str]:
    return [name for name in STEPS.names() if STEPS.get(name) is not Standard]


def _attacks() -> list[str]:
    """Return the attacks of PGD-AT that a name alone means: one that reads a folder needs its key `generator` too."""
    known = ((name, ATTACKS.get(name)) for name in ATTACKS.names())
    return [name for name, attack in known if attack.for_training and not _needs_more(attack)]


def _needs_more(attack: type[Attack]) -> bool:
    """Return whether an attack has keys without a default that no threat model gives."""
    needed = {key for key, field in attack.model_fields.items() if field.is_required()}
    return bool(needed - {"norm", "eps"})
