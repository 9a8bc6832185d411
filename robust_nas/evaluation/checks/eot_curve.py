"""The passes per gradient of a random model are enough (Athalye et al., 2018): more of them do not lower accuracy.

PGD-10 with 1, E/4, E and 4E passes, E = `deployed.eot`. PASS up to one image, FAIL above 10 points.

Of a Bayesian network a second finding, on the same images: PGD-10 on the network of its mean weights, judged there.

    b(e), c(e)  images right under the attack with e passes on the random network alone, on the mean network alone; of
                those that both get right as they are
    ahead       b(e) > c(e), p < 0.05 by McNemar's exact test
    fell        the random network lost more images from e to 4E passes than it won, p < 0.05 by the same test

A network that is ahead of its mean with e passes, not with 4E, and fell, owes the lead to noise in the gradient: FAIL
at e = E, with which the robust accuracy is measured, WARN below. WARN, too, where it is ahead with 4E passes and fell
from E: the lead has not settled. The tests and their level are our choice.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from robust_nas.attacks import PGD
from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost, Selection
from robust_nas.evaluation.thresholds import EOT_FALL, LEAST_IMAGES, WEAKER

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.attacks import Predictor
    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding, Status

MEAN = "ahead of its posterior mean at every EOT, or at none"


class EOTCurve(SanityCheck):
    """Accuracy under PGD-10 does not fall with more passes per gradient than the rule declares."""

    title: ClassVar[str] = "EOT sample curve"
    allowed: ClassVar[str] = "no further fall"
    selection: ClassVar[Selection] = "right"
    name: Literal["eot-curve"] = "eot-curve"

    def applies(self, state: EvaluationState) -> bool:
        """Return whether the model was declared random."""
        return state.predictor.random

    def _attacks(self, state: EvaluationState) -> dict[int, PGD]:
        declared = state.rule.eot
        counts = sorted({1, max(1, declared // 4), declared, 4 * declared})
        return {count: PGD(**state.limits, steps=10, eot=count) for count in counts}

    def cost(self, state: EvaluationState) -> int:
        """Return the passes of all points of the curve."""
        from robust_nas.attacks.twin import has_posterior_mean

        attacks = self._attacks(state)
        passes = sum(attack.passes.total * attack.eot + state.judging_passes for attack in attacks.values())
        # The mean network: the image as it is, its attack, and the judgement.
        return passes + (attacks[1].passes.total + 2 if has_posterior_mean(state.predictor.module) else 0)

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return by how much accuracy falls beyond the declared passes, and what the lead over the mean network is."""
        right = {
            count: state.attempt(attack, indices, cost, f"{self.title} {count}").right
            for count, attack in self._attacks(state).items()
        }
        points = [_point("random", count, each) for count, each in right.items()]
        accuracies = {count: float(each.float().mean()) for count, each in right.items()}
        fall = accuracies[state.rule.eot] - accuracies[max(accuracies)]
        listed = ", ".join(f"{count}: {100 * value:.1f} %" for count, value in accuracies.items())
        status: Status = "PASS" if fall <= 1 / len(indices) else "FAIL" if fall > EOT_FALL else "WARN"
        text = f"accuracy under PGD-10 by passes per gradient: {listed}"
        text += "" if status == "PASS" else "; raise deployed.eot"
        found = [self.finding(status, text, fall, len(indices))]
        mean = _mean_network(state)
        if mean is not None:
            clean, robust = self._of_mean(state, mean, indices, cost)
            points.append(_point("posterior mean", None, robust))
            found.append(self._lead(right, clean, robust, state.rule.eot))
        return [replace(found[0], curve=tuple(points), over="eot"), *found[1:]]

    def _of_mean(
        self, state: EvaluationState, mean: Predictor, indices: Tensor, cost: Cost
    ) -> tuple[Tensor, Tensor]:
        """Return `[n]`, what the mean network gets right as it is, and under its own attack too."""
        from robust_nas.evaluation.accuracy import judge
        from robust_nas.lazy import torch

        parts = []
        for part in torch.split(indices, state.batch_size):
            x, y = state.batch(part)
            parts.append(judge(mean, x, y).right.cpu())
            cost.passes += len(x)
        clean = torch.cat(parts)
        attack = self._attacks(state)[1]
        return clean, clean & state.attempt(attack, indices, cost, f"{self.title} mean", on=mean).right

    def _lead(self, right: dict[int, Tensor], clean: Tensor, mean: Tensor, declared: int) -> Finding:
        """Return whether a lead of the random network over its mean is gone with the most passes per gradient."""
        from robust_nas.evaluation.posterior_mean import paired

        if int(clean.sum()) < LEAST_IMAGES:
            text = f"{int(clean.sum())} images that the posterior mean gets right; at least {LEAST_IMAGES} are needed"
            return replace(self.finding("NOT RUN", text, images=int(clean.sum())), name=MEAN)
        end = max(right)
        against = {count: paired(each[clean], mean[clean]) for count, each in right.items()}
        ahead = [count for count, found in against.items() if _leads(found)]
        fell = [count for count in ahead if _leads(paired(right[count][clean], right[end][clean]))]
        masked = [] if end in ahead else fell
        unsettled = end in ahead and declared in fell
        status: Status = "FAIL" if declared in masked else "WARN" if masked or unsettled else "PASS"
        images = int(clean.sum())
        shares = {count: 100 * float(each[clean].float().mean()) for count, each in right.items()}
        of_mean = 100 * float(mean[clean].float().mean())
        listed = ", ".join(
            f"{count}: {share:.1f} % (p = {against[count]['p']:.2g})" for count, share in shares.items()
        )
        text = f"PGD-10 leaves {of_mean:.1f} % of the posterior mean, of the random network by passes per gradient "
        text += f"{listed}, on {images} images that both get right"
        if masked:
            text += (
                f": it beats its mean only under weak EOT ({', '.join(map(str, masked))}), where noise masks the "
                "gradient; do not claim the lead"
            )
        elif unsettled:
            text += ": the lead still shrinks with more passes; raise deployed.eot"
        lead = (shares[declared] - of_mean) / 100
        finding = self.finding(status, text, lead, images, allowed="no lead that more passes take away")
        return replace(finding, name=MEAN)


def _mean_network(state: EvaluationState) -> Predictor | None:
    """Return the network of the mean weights of a Bayesian network, with its deterministic rule; or None."""
    from robust_nas.attacks import Predictor
    from robust_nas.attacks.twin import posterior_mean_of

    mean = posterior_mean_of(state.predictor.module)
    return None if mean is None else Predictor(mean, abstains=state.predictor.abstains)


def _leads(found: dict[str, Any]) -> bool:
    """Return whether the first of two is right more often than the second, by the test."""
    return bool(found["only_random"] > found["only_mean"] and found["p"] < WEAKER)


def _point(model: str, eot: int | None, right: Tensor) -> dict[str, Any]:
    """Return a point of the curve, with Wilson's interval of its accuracy."""
    from robust_nas.statistics.proportions import wilson

    count, images = int(right.sum()), len(right)
    low, high = wilson(count, images)
    return {
        "model": model,
        "eot": eot,
        "accuracy": count / images,
        "low": low,
        "high": high,
        "images": images,
        "attack": "pgd-10",
    }
