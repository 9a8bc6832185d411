"""The attacks that every evaluation of a model with a twin has: an unaware one, and a joint one on a detector.

The twin of a defended model is its undefended network, of a Bayesian network the one of its mean weights
(`attacks/twin.py`).

    unaware    the strongest iterative attack of the list on the twin, judged on the model
    adaptive   every attack that is made on the model itself

Neither is added where one of the list makes at least as many passes. What is added comes last, on what the list left
right, so that attacks of the list keep their places and their records where it is extended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from robust_nas.attacks import APGD, Attack, Joint, Predictor, Unaware
from robust_nas.attacks.twin import has_twin
from robust_nas.defences import Defended

if TYPE_CHECKING:
    from robust_nas.evaluation.options import EvaluationOptions, Step

Kind = Literal["adaptive", "unaware"]


def defended_in(predictor: Predictor) -> Defended | None:
    """Return the module with a defence, or None."""
    return predictor.module if isinstance(predictor.module, Defended) else None


def kind_of(attack: Attack, predictor: Predictor) -> Kind | None:
    """Return "adaptive" where the model itself leads, else "unaware"; None for a model without a twin."""
    if not has_twin(predictor.module):
        return None
    return "adaptive" if attack.guided_by in ("gradient", "queries") else "unaware"


def strongest(attacks: Iterable[Attack]) -> Attack | None:
    """Return the last iterative attack by gradients, without targets, that sees classes alone, or None."""
    found = [
        attack
        for attack in attacks
        if attack.iterative and not attack.targeted and attack.access == "gradient"
    ]
    return next((attack for attack in reversed(found) if not attack.weighs_rejection), None)


def inner_attack(attacks: Iterable[Attack], limits: Mapping[str, Any]) -> Attack:
    """Return what is made on the twin: the strongest of the list, or a listed longer one."""
    attacks = tuple(attacks)
    single = strongest(attacks)
    usual = APGD(**limits) if single is None else single.model_copy(update={"eot": 1})
    listed = [attack.on_twin for attack in attacks if attack.on_twin]
    return max([*listed, usual], key=lambda attack: attack.passes.total)


def joint_attack(attacks: Iterable[Attack], limits: Mapping[str, Any]) -> Attack | None:
    """Return what weighs the rejection of a detector: the usual one, or a listed longer one; None: not in this norm."""
    listed = [attack for attack in attacks if attack.weighs_rejection]
    usual = [Joint(**limits)] if limits["norm"] in Joint.norms else []
    return max([*listed, *usual], key=lambda attack: attack.passes.total, default=None)


def with_baselines(steps: Sequence[Step], predictor: Predictor, options: EvaluationOptions) -> Sequence[Step]:
    """Return the attacks of the list, before those that a model with a twin gets in any case."""
    if not has_twin(predictor.module) or not steps:
        return steps
    limits: Mapping[str, Any] = {"norm": options.threat_model.norm, "eps": options.threat_model.eps}
    attacks = [step.attack for step in steps]
    single = strongest(attacks)
    shares = [step.images for step in steps if step.attack is single] or [steps[-1].images]
    added: list[Attack] = []
    inner = inner_attack(attacks, limits)
    if not any(attack.on_twin == inner for attack in attacks):
        added.append(Unaware(**limits, attack=inner))
    joint = joint_attack(attacks, limits) if predictor.abstains else None
    if joint is not None and joint not in attacks:
        added.append(joint)
    if predictor.random:
        added = [attack.for_random_model(options.deployed.eot) for attack in added]
    like = steps[-1].model_copy(update={"images": shares[-1], "min_classes": None, "max_classes": None})
    return [*steps, *(like.model_copy(update={"attack": attack}) for attack in added)]
