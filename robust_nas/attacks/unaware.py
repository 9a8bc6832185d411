"""Unaware: an attack made on the network without its defence, and tried on the network with it.

    x'' = attack(f, x, y)                 f: the twin of a model g (`twin.py`): the undefended network of a defended
                                          model, the network of the mean weights of a Bayesian one
    x'  = of x and x'', per example the one of the higher margin on g, a misclassified one first

It is the evaluation that many defences were published with, and a baseline, never the claim: an attacker who knows the
defence attacks g itself (Carlini and Wagner, 2017; Athalye et al., 2018; the checklist of Carlini et al., 2019).
Where it breaks what the attacks on g do not break, those are too weak.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import model_validator

from robust_nas.attacks.attack import ATTACKS, Attack, BoundedAttack, Guide, Passes
from robust_nas.attacks.best_iterate import BestIterate
from robust_nas.attacks.losses import margin
from robust_nas.attacks.norms import Norm
from robust_nas.attacks.threat_model import refuse_other_limits, with_limits
from robust_nas.errors import AttackError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.attacks.attacked_model import AttackedModel


class Unaware(BoundedAttack):
    """An attack that does not know the defence: made on the undefended network, judged on the defended model.

    Of a Bayesian network it does not know the randomness: it is made on the network of the mean weights. `attack` is
    APGD where none is named, with this norm and eps. `undefended` says what a model without a twin is: an error, or
    attacked itself.
    """

    access: ClassVar[Literal["gradient", "score", "decision"]] = "score"  # of the defended model
    guided_by: ClassVar[Guide] = "surrogates"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")  # as far as the inner attack knows them
    name: Literal["unaware"] = "unaware"
    # that is made on the undefended network
    attack: Annotated[
        Attack,
        ATTACKS.field(
            lambda attack: attack.bounded and attack.access == "gradient",
            "a bounded attack by gradients is needed",
            default="apgd",
        ),
    ]
    # a model without a defence: an error, or attacked itself
    undefended: Literal["refuse", "attack"] = "refuse"

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, values: object) -> object:
        """Give the inner attack, as plain keys or a name, the norm and eps of the outer one."""
        if not isinstance(values, Mapping):
            return values
        inner = values.get("attack", "apgd")
        inner = {"name": inner} if isinstance(inner, str) else inner
        return {**values, "attack": with_limits(inner, values)}

    @model_validator(mode="after")
    def _one_threat_model(self) -> Self:
        refuse_other_limits(self.attack, self, "the unaware attack")
        return self

    @property
    def label(self) -> str:
        """Return the name of the inner attack too: `unaware-apgd-ce`."""
        return f"unaware-{self.attack.label}"

    @property
    def on_twin(self) -> Attack:
        """Return the inner attack."""
        return self.attack

    @property
    def passes(self) -> Passes:
        """Return those on the twin, and two of the defended model: the image itself, and the result."""
        made = self.attack.passes
        return Passes(made.forward + 2, made.backward)

    @property
    def least_classes(self) -> int:
        """Return the number of classes below which the inner attack is not defined."""
        return self.attack.least_classes

    @property
    def least_side(self) -> int:
        """Return the side of images below which the inner attack is not defined."""
        return self.attack.least_side

    def settings(self, classes: int) -> dict[str, object]:
        """Return the hyper-parameters that the inner option value does not show."""
        return self.attack.settings(classes)

    def refuse_model(self, model: nn.Module) -> None:
        """Raise `AttackError` for a model without a twin, unless it is to be attacked itself."""
        from robust_nas.attacks.twin import has_twin

        if self.undefended == "refuse" and not has_twin(model):
            raise AttackError(
                f"{self.label}: the model has no defence ({type(model).__name__}), so that there is no undefended "
                f"twin to attack; list {self.attack.label} itself, or set undefended: attack"
            )

    def refuse_new_models(self) -> None:
        """Raise `AttackError` unless the model itself may be attacked: what jobs make has no defence."""
        if self.undefended == "refuse":
            raise AttackError(
                f"{self.label}: this job attacks networks that it has yet to make, and they have no defence; list "
                f"{self.attack.label} itself, or set undefended: attack"
            )

    def _twin(self, model: nn.Module) -> nn.Module:
        """Return the twin of a model, or the model itself."""
        from robust_nas.attacks.twin import twin_of

        self.refuse_model(model)
        twin = twin_of(model)
        return model if twin is None else twin

    def perturb(self, model: AttackedModel) -> Tensor:
        """Return the twin's adversarial images where they harm the defended model more, else the images."""
        twin = self._twin(model.predictor.module)
        best = BestIterate(model.images, model.labels)
        made = self.attack.run(twin, model.images, model.labels, model.generator)
        model.forwards += made.forwards
        model.backwards += made.backwards
        for x in (model.images, made.images):
            logits = model.logits(x)
            best.update(x, logits, margin(logits, model.labels))
        return best.images
