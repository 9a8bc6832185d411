"""Sanity checks of an evaluation, one file each. `CHECKS` knows them by name, in the order in which they are paid for.

Sources: Carlini et al. 2019 (the checklist), AutoAttack's own checks (Croce and Hein 2020), the indicators of attack
failure (Pintor et al. 2022), active tests (Zimmermann et al. 2022). Thresholds are our choice where no source is named.
"""

from __future__ import annotations

from collections.abc import Sequence

from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost
from robust_nas.registry import Registry

CHECKS = Registry(
    "check",
    SanityCheck,
    "robust_nas.evaluation.checks",
    {
        "logits": "logits:Logits",
        "finite-logits": "finite_logits:FiniteLogits",
        "perturbation": "perturbation:Perturbation",
        "untouched-model": "untouched_model:UntouchedModel",
        "parameter-free": "parameter_free:ParameterFree",
        "above-chance": "above_chance:AboveChance",
        "loss-plateau": "loss_plateau:LossPlateau",
        "silent-success": "silent_success:SilentSuccess",
        "attack-warnings": "attack_warnings:AttackWarnings",
        "listed-queries": "listed_queries:ListedQueries",
        "listed-decisions": "listed_decisions:ListedDecisions",
        "adaptive": "adaptive:AdaptiveAttack",
        "false-alarms": "false_alarms:FalseAlarms",
        "deterministic": "deterministic:Deterministic",
        "other-images": "other_images:OtherImages",
        "zero-gradients": "zero_gradients:ZeroGradients",
        "predicted-change": "predicted_change:PredictedChange",
        "fgsm": "fgsm:SingleStep",
        "noise": "noise:RandomNoise",
        "active-test": "active_test:ActiveTest",
        "more-effort": "more_effort:MoreEffort",
        "eps-curve": "eps_curve:EpsCurve",
        "chosen-class": "chosen_class:ChosenClass",
        "transfer": "transfer:TransferredAttack",
        "square": "square:SquareQueries",
        "decision-based": "decision_based:DecisionBased",
        "gradient-noise": "gradient_noise:GradientNoise",
        "frozen-draw": "frozen_draw:FrozenDraw",
        "eot-curve": "eot_curve:EOTCurve",
    },
    group="robust_nas.checks",
)


def with_standard(extra: Sequence[SanityCheck]) -> list[SanityCheck]:
    """Return the standard checks in their order, then those of `extra` that do not take the place of one of them."""
    placed = {check.name: check for check in extra if check.name in CHECKS.built_in}
    standard = [placed.get(name) or CHECKS.make(name) for name in CHECKS.built_in]
    return [*standard, *(check for check in extra if check.name not in placed)]


def refuse_shared_titles(extra: Sequence[SanityCheck]) -> None:
    """Raise `ValueError` for a check without a title, or where two would take the same draws by theirs."""
    if not extra:
        return
    names = [check.name for check in extra]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"checks: {twice[:200]!r} is listed twice")
    taken: dict[str, str] = {}
    for check in with_standard(extra):
        if not check.title:
            raise ValueError(f"checks: {check.name[:200]!r} has no title")
        if check.free:
            continue  # it takes no draws
        other = taken.setdefault(check.title, check.name)
        if other != check.name:
            raise ValueError(
                f"checks: {check.name[:200]!r} and {other[:200]!r} have the title {check.title!r}; "
                "each check needs its own"
            )


__all__ = ["CHECKS", "Cost", "SanityCheck", "refuse_shared_titles", "with_standard"]
