"""The joint attack on a detector: a wrong class and an accepted image at once (Carlini and Wagner, 2017).

    J(x') = l(z_1..K(x'), y) - lambda max(0, r(x'))        r = z_{K+1} - max_k z_k, above 0 where x' is rejected
    x_{t+1} by the rule of APGD on J, from a random point of the sphere; lambda = 0 in the first round, then

    weight                        in the second round
    10 lambda, or sqrt(lambda h)  where a round found a wrong class, but rejected: lambda is a lower bound
    lambda / 10, or sqrt(l lambda)  where it found none: lambda is an upper bound
                                  l and h: the largest lower and the smallest upper bound of the example so far

The first round is an attack on the class alone. It pays where confident adversarial images are accepted, as by feature
squeezing, and makes sure that the joint attack knows what an unaware one does. Of all candidates of all rounds the best
is kept by the joint event: wrong **and** accepted before all others, then by l where a rejection counts as the label.

It reads the last logit and knows no defence; a predictor that rejects nothing is attacked by l in every round.
Sources: the loss with a weight for the detector, Carlini and Wagner 2017 (arXiv 1705.07263), who search the weight by
bisection as in their attack of the same year; the rule, Croce and Hein 2020. The schedule is our choice. The gradients
of both terms may be at odds: Bryniarski et al. (2021) project one off the other, which this attack does not do.
B batch, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from robust_nas.attacks.apgd import Adaptive
from robust_nas.attacks.attack import BoundedAttack, Passes
from robust_nas.attacks.best_iterate import BestIterate, misclassified
from robust_nas.attacks.losses import bound
from robust_nas.attacks.norms import on_sphere, project
from robust_nas.config import Count, Positive
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.attacks.attacked_model import AttackedModel

FACTOR = 10.0  # of lambda, while it has one bound alone
RHO = 0.75  # of APGD


class Joint(BoundedAttack):
    """APGD on a loss of the class and of the rejection, whose weight is searched for each image.

    `rounds` of `steps` each; `weight` is the first lambda above 0, in units of the logit "rejected".
    """

    iterative: ClassVar[bool] = True
    weighs_rejection: ClassVar[bool] = True
    name: Literal["joint"] = "joint"
    bn: Literal["eval"] = "eval"
    precision: Literal["float32"] = "float32"
    steps: Count = 40  # of a round
    rounds: Count = 5  # weights that are tried for each image
    loss: Literal["ce", "margin"] = "margin"  # of the class
    weight: Positive = 1.0  # first lambda above 0, in units of the logit "rejected"

    @property
    def label(self) -> str:
        """Return name, rounds and steps: `joint-5x40`."""
        return f"{self.name}-{self.rounds}x{self.steps}" + ("-ce" if self.loss == "ce" else "")

    @property
    def parameter_free(self) -> bool:
        """Return that the steps choose their sizes themselves."""
        return True

    @property
    def objective(self) -> str:
        """Return the loss of the class."""
        return self.loss

    @property
    def effort(self) -> str:
        """Return steps and rounds."""
        return f"{self.steps} steps in {self.rounds} rounds"

    def doubled(self) -> Self:
        """Return the attack with twice the steps in twice the rounds."""
        return self.model_copy(update={"steps": 2 * self.steps, "rounds": 2 * self.rounds})

    def shortened(self, steps: int) -> Self:
        """Return one round of at most `steps` steps on the cross-entropy."""
        return self.model_copy(update={"steps": min(self.steps, steps), "rounds": 1, "loss": "ce"})

    def settings(self, classes: int) -> dict[str, Any]:
        """Return the first step size."""
        return {"step_size": 2 * self.eps}

    @property
    def passes(self) -> Passes:
        """Return those of all rounds, with the last iterate of each, and the image itself."""
        return Passes(self.rounds * (self.steps + 1) + 1, self.rounds * self.steps)

    def perturb(self, model: AttackedModel) -> Tensor:
        """Return the best candidate by the joint event, `[B, C, H, W]`."""
        seen = model.with_rejection()
        clean = model.logits(model.images)
        best = BestIterate(model.images, model.labels)
        best.update(model.images, clean, bound(self.loss, model.labels, clean=None, targets=None)(clean))
        weights = _Weights(clean[:, 0], self.weight)
        for _ in range(self.rounds):
            weights.update(self._round(seen, best, weights.now))
            if not len(best.unbroken()):
                break
        model.forwards += seen.forwards
        model.backwards += seen.backwards
        return model.no_worse(best.images, clean)

    def _round(self, model: AttackedModel, best: BestIterate, weight: Tensor) -> Tensor:
        """Return which examples `[B]` had a candidate of a wrong class, accepted or not."""
        from robust_nas.attacks.predictor import merged  # torch classes: not for who reads options

        images, labels = model.images, model.labels
        rejects = model.rejects
        of_class = bound(self.loss, labels, clean=None, targets=None)

        def joint(logits: Tensor) -> Tensor:
            if not rejects:
                return of_class(logits)
            excess = logits[:, -1] - logits[:, :-1].amax(1)
            return of_class(logits[:, :-1]) - weight * excess.clamp(min=0)

        def offer(x: Tensor, logits: Tensor, values: Tensor) -> Tensor:
            event = merged(logits, labels) if rejects else logits
            wrong = best.update(x, event, of_class(event))
            if model.trace:
                model.trace.add(values, wrong)
            return misclassified(logits[:, :-1] if rejects else logits, labels)

        rule = Adaptive(images, self.eps, self.norm, self.steps, RHO)
        start = images + on_sphere(images, self.eps, self.norm, model.generator)
        x = project(start, images, self.eps, self.norm)
        found = torch.zeros_like(labels, dtype=torch.bool)
        if model.trace:
            model.trace.begin()
        for _ in range(self.steps):
            logits, values, gradient = model.gradient(x, joint)
            found |= offer(x, logits, values)
            x = rule(x, gradient, values)
        logits = model.candidate_logits(x)
        return found | offer(x, logits, joint(logits))


class _Weights:
    """Lambda of each example, with its bounds; 0 at first, `first` after that."""

    def __init__(self, like: Tensor, first: float) -> None:
        self.now = torch.zeros_like(like)
        self.first = first
        self.low: Tensor | None = None
        self.high: Tensor | None = None

    def update(self, found: Tensor) -> None:
        """Set the weights of the next round; `found` says of which examples this one had a wrong class."""
        if self.low is None or self.high is None:
            self.low, self.high = torch.zeros_like(self.now), torch.full_like(self.now, torch.inf)
            self.now = torch.full_like(self.now, self.first)
            return
        self.low = torch.where(found, torch.maximum(self.low, self.now), self.low)
        self.high = torch.where(found, self.high, torch.minimum(self.high, self.now))
        middle = (self.low * self.high).sqrt()
        one = torch.where(found, FACTOR * self.now, self.now / FACTOR)
        self.now = torch.where((self.low > 0) & self.high.isfinite(), middle, one)
