"""Transfer: an attack made on other models and tried on this one (Papernot et al., 2016).

    x_s = attack(surrogate_s, x, y)    for each surrogate in turn, all draws from one generator
    x'  = of x and all x_s, per example the one of the highest margin on the victim, misclassified ones first

It needs no gradient of the victim, so a victim that falls to it and not to a gradient attack hides its gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from robust_nas.attacks.attack import ATTACKS, Attack, BoundedAttack, Guide, Passes
from robust_nas.attacks.best_iterate import BestIterate
from robust_nas.attacks.checks import check_logits
from robust_nas.attacks.losses import margin
from robust_nas.attacks.norms import Norm
from robust_nas.attacks.threat_model import refuse_other_limits, with_limits
from robust_nas.config import AbsolutePath, expand_path
from robust_nas.errors import AttackError
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from robust_nas.attacks.attacked_model import AttackedModel


class Transfer(BoundedAttack):
    """An attack made on other models, each in turn, and tried on this one (Papernot et al., 2016).

    `surrogates` are model folders; `attack` runs on them with this norm and eps.
    """

    access: ClassVar[Literal["gradient", "score", "decision"]] = "score"
    guided_by: ClassVar[Guide] = "surrogates"
    norms: ClassVar[tuple[Norm, ...]] = (
        "linf",
        "l2",
        "l1",
    )  # as far as the attack on the surrogates knows them
    name: Literal["transfer"] = "transfer"
    surrogates: tuple[AbsolutePath, ...] = Field(min_length=1)  # model folders on which the attack is made
    # that is made on each of them
    attack: Annotated[
        Attack,
        ATTACKS.field(
            lambda attack: attack.bounded and (attack.access == "gradient" or attack.for_training),
            "a bounded attack by gradients or by a generator is needed",
        ),
    ]

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, values: object) -> object:
        """Gives the inner attack, as plain keys, the norm and eps of the outer one; PGD-50 by default (L1: APGD)."""
        if not isinstance(values, Mapping):
            return values
        usual = {"name": "apgd" if values.get("norm") == "l1" else "pgd", "steps": 50, "loss": "margin"}
        return {**values, "attack": with_limits(values.get("attack", usual), values)}

    @model_validator(mode="after")
    def _one_threat_model(self) -> Self:
        refuse_other_limits(self.attack, self, "the transfer")
        if self.attack.compile != "never":
            raise ValueError(
                f"attack has compile {self.attack.compile!r}; surrogates are read again for every batch, "
                "and would be compiled as often: allowed here: never"
            )
        return self

    @property
    def label(self) -> str:
        """The attack and on how many models it was made: `transfer-pgd-50`."""
        return f"transfer-{self.attack.label}"

    @property
    def passes(self) -> Passes:
        """Return those of the attack on every surrogate, one on the victim for each, and the image itself."""
        made, count = self.attack.passes, len(self.surrogates)
        return Passes(count * (made.forward + 1) + 1, count * made.backward)

    def model_folders(self) -> tuple[str, ...]:
        """Return the surrogates."""
        return self.surrogates

    def perturb(self, model: AttackedModel) -> Tensor:
        """Return the most harmful of the surrogates' adversarial images and of the image itself, `[B, C, H, W]`."""
        named = [(f"surrogate {folder}", _loaded(folder, model.images)) for folder in self.surrogates]
        return _tried(self.attack, named, model)


def transfer_attack(
    attack: Attack,
    surrogates: Sequence[nn.Module],
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: Generator | None = None,
) -> Tensor:
    """Adversarial images `[B, C, H, W]` for `model`, made by `attack` on each of the surrogates, on its device.

    Everything else as in `Attack.__call__`; raises `AttackError` for a surrogate that these images or labels do not
    fit, before anything is attacked.
    """
    from robust_nas.attacks.engine import run

    if not surrogates:
        raise AttackError("no surrogates; a transfer attack needs at least one other model")
    named = [(f"surrogate {number}", surrogate) for number, surrogate in enumerate(surrogates, 1)]
    tried = partial(_tried, attack, named)
    victim = attack.model_copy(update={"compile": "never"})  # of which no gradient is taken
    return run(victim, tried, model, images, labels, generator).images


def _loaded(folder: str, images: Tensor) -> nn.Module:
    """The network of a model folder, on the images' device and in their type."""
    from robust_nas.nets import read_model  # here, because the attacks themselves need no networks

    model = read_model(expand_path(folder), images.device)
    shape = model.description.input_shape
    if shape != tuple(images.shape[1:]):
        raise AttackError(f"surrogate {folder} takes {_by(shape)} images, these are {_by(images.shape[1:])}")
    return model.network.to(images.dtype)


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _tried(attack: Attack, surrogates: Sequence[tuple[str, nn.Module]], target: AttackedModel) -> Tensor:
    images, labels = target.images, target.labels
    for name, surrogate in surrogates:
        _refuse_misfit(attack, name, surrogate, target)
    best = BestIterate(images, labels)
    logits = target.logits(images)
    best.update(images, logits, margin(logits, labels))
    for _, surrogate in surrogates:
        made = attack.run(surrogate, images, labels, target.generator)
        target.forwards += made.forwards
        target.backwards += made.backwards
        logits = target.logits(made.images)
        best.update(made.images, logits, margin(logits, labels))
    return best.images


def _refuse_misfit(attack: Attack, name: str, surrogate: nn.Module, target: AttackedModel) -> None:
    """Raises `AttackError` for a surrogate on which the attack cannot be made, found out with one image."""
    from robust_nas.attacks.attacked_model import attack_mode
    from robust_nas.attacks.engine import seeded_globally

    one = target.images[:1]
    try:
        # A random surrogate draws from the global generators, which stay as they are.
        with torch.no_grad(), attack_mode(surrogate), seeded_globally(0, one.device):
            logits = check_logits(surrogate(one.clone()), one, target.last_label)
    except AttackError as error:
        raise AttackError(f"{name}: {error}") from None
    except (
        Exception
    ) as error:  # whatever a foreign module raises at a shape, type or device that it does not know
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise AttackError(f"{name} does not take {_by(one.shape[1:])} images: {reason}") from error
    if logits.shape[1] < attack.least_classes:
        raise AttackError(
            f"{name}: {attack.label} needs at least {attack.least_classes} classes, it has {logits.shape[1]}"
        )
