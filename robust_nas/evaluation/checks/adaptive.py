"""The adaptive attack alone is at least as strong as the one that does not know the defence (Carlini et al., 2019).

The unaware attack is made on the network without the defence; of a Bayesian network, on the one of its mean weights.

    b   images that the adaptive attack alone broke        c   images that the unaware one alone broke
    p   of McNemar's exact test, b against c               n   images that are right as they are

FAIL where c > b and p < 0.05: the gradient of the defence leads the attack astray, and the robust accuracy with it.
WARN where c leads b by over 2 points of n and more than one image. Nothing is pooled: each attack has its own start.
WARN, too, where the two broke over 2 points of n and more than one image that the list left right (of a deterministic
rule), and where no attack weighs the rejection of a detector (L1 has none).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost
from robust_nas.evaluation.thresholds import BROKEN_BY_THE_WEAK, WEAKER

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding, Status


class AdaptiveAttack(SanityCheck):
    """Of the same images the attack on the model breaks as many as the one on its twin."""

    title: ClassVar[str] = "adaptive at least as strong as unaware"
    allowed: ClassVar[str] = "no lead of the unaware attack"
    free: ClassVar[bool] = True  # it reads what the comparison measured (`evaluation/comparison.py`)
    name: Literal["adaptive"] = "adaptive"

    def applies(self, state: EvaluationState) -> bool:
        """Return whether the model has a twin, so that both were compared."""
        return state.side_by_side is not None

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return by how many images the unaware attack leads."""
        from robust_nas.evaluation.defended import defended_in
        from robust_nas.statistics.proportions import discordant

        found = state.side_by_side
        if found is None or not found.clean.any():
            return [self.finding("PASS", "nothing to compare: no image is right as it is")]
        broken, other = found.clean & ~found.adaptive_right, found.clean & ~found.unaware_right
        ours, theirs = int((broken & ~other).sum()), int((other & ~broken).sum())
        count, lead = int(found.clean.sum()), theirs - ours
        p = discordant(ours, theirs)
        status: Status = "PASS"
        if lead > 0 and p < WEAKER:
            status = "FAIL"
        elif lead > 1 and lead / count > BROKEN_BY_THE_WEAK:
            status = "WARN"
        text = (
            f"{found.adaptive.label} alone broke {int(broken.sum())} of {count} images, {found.unaware.label} alone "
            f"{int(other.sum())}; {ours} fell to the first only, {theirs} to the second only"
        )
        if lead > 0:
            text += f" (McNemar's exact test: p = {p:.2g})"
        if status != "PASS":
            text += (
                ": the attack on the defended model is misled, such as by a gradient that the defence hides"
                if defended_in(state.predictor) is not None
                else ": the attack on the random network is misled by its noise; one made on the posterior mean is not"
            )
        missed = int(((broken | other) & found.left).sum())
        if missed > 1 and missed / count > BROKEN_BY_THE_WEAK and not state.predictor.random:
            status = "WARN" if status == "PASS" else status
            text += f"; the attacks of the list left {missed} of them right: list stronger ones, such as apgd"
        if state.predictor.abstains and not found.adaptive.weighs_rejection:
            status = "WARN" if status == "PASS" else status
            text += f"; no attack weighs the rejection in {state.threat_model.norm}: a detector may mislead them all"
        return [self.finding(status, text, lead, count)]
