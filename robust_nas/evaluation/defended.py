"""The attacks that every evaluation of a defended model has: an unaware one, and a joint one on a detector.

    unaware    the strongest iterative attack of the list on the undefended network, judged on the defended model
    adaptive   every attack that is made on the defended model itself

An attack that is listed is not added. What is added comes first, so that a list that is extended keeps its places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from robust_nas.attacks import APGD, Attack, Joint, Predictor, Unaware
from robust_nas.defences import Defended

if TYPE_CHECKING:
    from robust_nas.evaluation.options import EvaluationOptions, Step

Kind = Literal["adaptive", "unaware"]


def defended_in(predictor: Predictor) -> Defended | None:
    """Return the module with a defence, or None."""
    return predictor.module if isinstance(predictor.module, Defended) else None


def kind_of(attack: Attack, predictor: Predictor) -> Kind | None:
    """Return whether an attack is made on the defended model or elsewhere; None for a model without a defence."""
    if defended_in(predictor) is None:
        return None
    return "unaware" if attack.guided_by == "surrogates" else "adaptive"


def strongest(attacks: Iterable[Attack]) -> Attack | None:
    """Return the last iterative attack without targets that sees classes alone, or None."""
    found = [attack for attack in attacks if attack.iterative and not attack.targeted]
    return next((attack for attack in reversed(found) if not attack.weighs_rejection), None)


def with_baselines(steps: Sequence[Step], predictor: Predictor, options: EvaluationOptions) -> Sequence[Step]:
    """Return the attacks of the list, after those that a defended model gets in any case."""
    if defended_in(predictor) is None or not steps:
        return steps
    limits: Mapping[str, Any] = {"norm": options.threat_model.norm, "eps": options.threat_model.eps}
    single = strongest(step.attack for step in steps)
    shares = [step.images for step in steps if step.attack is single] or [steps[-1].images]
    added: list[Attack] = []
    if not any(step.attack.on_twin for step in steps):
        made = APGD(**limits) if single is None else single.model_copy(update={"eot": 1})
        added.append(Unaware(**limits, attack=made))
    heeded = any(step.attack.weighs_rejection for step in steps)
    if predictor.abstains and not heeded and limits["norm"] in Joint.norms:
        added.append(Joint(**limits))
    if predictor.random:
        added = [attack.for_random_model(options.deployed.eot) for attack in added]
    like = steps[-1].model_copy(update={"images": shares[-1], "min_classes": None, "max_classes": None})
    return [*(like.model_copy(update={"attack": attack}) for attack in added), *steps]
