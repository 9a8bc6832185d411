"""Carlini and Wagner's L2 attack (2017): the smallest perturbation, by Adam in a space that has no box.

    minimise over w   ||x' - x||_2^2 + c max(z_y - max_{j != y} z_j + kappa, 0)        x' = (tanh(w) + 1) / 2

from w = atanh(2 x - 1), again for each weight c. c is searched per example: ten times larger until an adversarial
example appears, then halfway between the largest that failed and the smallest that did not. The nearest x' of all
steps whose margin is above kappa is kept; an image that is misclassified is kept as it is.

Every tenth of the steps, an example whose objective did not fall by 0.01 % takes no more of them (the authors' rule,
here per example, so that a result does not depend on the batch). With eps, what lies in the ball is kept; where
nothing does, the projection of the nearest adversarial example and of the one of the highest margin are tried.

B batch, N examples that still take steps, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks.attack import MinimalAttack, Passes
from robust_nas.attacks.best_iterate import BestIterate
from robust_nas.attacks.losses import margin
from robust_nas.attacks.minimal import distance, nearest, within_eps
from robust_nas.attacks.norms import Norm
from robust_nas.config import Count, NonNegative, Positive
from robust_nas.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.attacks.attacked_model import AttackedModel


INSIDE = 1 - 1e-6  # pixels are drawn in by that factor: atanh(1) is infinite
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam's
CHECKS, PROGRESS = 10, 0.9999  # times that the objective is looked at, and what it must fall to
LARGEST = 1e10  # weight c, as in the authors' code
LARGEST_GRADIENT = 1e18  # its square is finite in float32; an infinite one would end all steps of its pixel


class CarliniWagner(MinimalAttack):
    """The smallest L2 perturbation by Adam in tanh space, with a binary search for its weight (2017)."""

    norms: ClassVar[tuple[Norm, ...]] = ("l2",)
    name: Literal["carlini-wagner"] = "carlini-wagner"
    norm: Literal["l2"] = "l2"
    steps: Count = 1000  # of Adam for each weight; fewer where the loss stops falling
    search_steps: Count = 9  # weights tried
    learning_rate: Positive = 0.01  # of Adam
    weight: Positive = 0.01  # c, where the binary search starts
    confidence: NonNegative = 0.0  # kappa, margin of logits that an example must have

    @property
    def label(self) -> str:
        """A short name for tables and progress bars."""
        return "cw-l2"

    @property
    def passes(self) -> Passes:
        """Return the steps of every weight, with the image itself and two projections."""
        return Passes(self.search_steps * self.steps + 3, self.search_steps * self.steps)

    def perturb(self, model: AttackedModel) -> Tensor:
        """Return the nearest adversarial examples found, `[B, C, H, W]`; the image itself where none was."""
        images, labels = model.images, model.labels
        clean = model.logits(images)
        closest = nearest(model, clean)
        strongest = BestIterate(images, labels)
        strongest.update(images, clean, margin(clean, labels))
        rows = closest.unbroken()
        low = images.new_zeros(len(images))
        high = torch.full_like(low, math.inf)
        c = torch.full_like(low, self.weight)
        for _ in range(self.search_steps):
            if len(rows) == 0:
                break
            found = _descend(self, model, rows, c, closest, strongest)
            high, low = torch.where(found, c, high), torch.where(found, low, c)
            c = torch.where(high.isinf(), (10 * c).clamp_max(LARGEST), (low + high) / 2)
        if self.eps is None:
            return closest.images
        return within_eps(self, model, clean, closest.images, strongest.images)


def _descend(
    options: CarliniWagner,
    target: AttackedModel,
    rows: Tensor,
    c: Tensor,
    closest: BestIterate,
    strongest: BestIterate,
) -> Tensor:
    """Adam's steps for one weight `[B]` per example; whether they found an adversarial example, `[B]`."""
    found = torch.zeros_like(c, dtype=torch.bool)
    before = torch.full_like(c, math.inf)  # the objective at the last check
    adam = _Adam(target.images[rows], options.learning_rate)
    for step in range(options.steps):
        images, labels = target.images[rows], target.labels[rows]
        x = adam.x()
        hinge = partial(_hinge, labels=labels, c=c[rows], confidence=options.confidence)
        logits, fooled, gradient = target.gradient(x, hinge, labels)
        size = distance(x, images, "l2")
        logits = target.verified_logits(x, logits, labels, among=closest.improved_by(-size, rows))
        wrong = closest.update(x, _raised(logits, labels, options.confidence), -size, rows)
        found[rows] = found[rows] | wrong
        if options.eps is not None:
            # Its projection may be finite again: of no margin, it is the last of the misclassified ones.
            strongest.update(x, logits, margin(logits, labels).nan_to_num(nan=-math.inf), rows)
        adam.step(2 * (x - images) - gradient)
        if step % math.ceil(options.steps / CHECKS) == 0:
            objective = size.square() - fooled
            falling = objective <= PROGRESS * before[rows]  # not, where it is NaN
            before[rows] = objective
            rows = rows[falling]
            adam.keep(falling)
            if len(rows) == 0:
                break
    return found


def _raised(logits: Tensor, labels: Tensor, confidence: float) -> Tensor:
    """Logits with kappa added to the label's: another class must be ahead of it by more than kappa."""
    return logits + confidence * F.one_hot(labels, logits.shape[1])


def _hinge(logits: Tensor, labels: Tensor, c: Tensor, confidence: float) -> Tensor:
    """The second term of the objective `[N]`, negated: to be raised, to 0 at most."""
    return c * margin(_raised(logits, labels, confidence), labels).clamp_max(0)


class _Adam:
    """Adam on w, for a set of examples that shrinks."""

    def __init__(self, images: Tensor, learning_rate: float) -> None:
        self.w = ((2 * images - 1) * INSIDE).atanh()
        self.rate, self.steps = learning_rate, 0
        self.first, self.second = torch.zeros_like(self.w), torch.zeros_like(self.w)

    def x(self) -> Tensor:
        """Return the images of w, `[N, C, H, W]`."""
        return (self.w.tanh() + 1) / 2

    def step(self, gradient: Tensor) -> None:
        """One step against the gradient by the images; where it is not a number, it is 0."""
        gradient = (gradient * (1 - self.w.tanh().square()) / 2).nan_to_num(0.0, 0.0, 0.0)
        gradient = gradient.clamp(-LARGEST_GRADIENT, LARGEST_GRADIENT)
        self.steps += 1
        self.first = BETA1 * self.first + (1 - BETA1) * gradient
        self.second = BETA2 * self.second + (1 - BETA2) * gradient.square()
        first, second = self.first / (1 - BETA1**self.steps), self.second / (1 - BETA2**self.steps)
        self.w = self.w - self.rate * first / (second.sqrt() + EPSILON)

    def keep(self, going: Tensor) -> None:
        """Forgets the other examples."""
        self.w, self.first, self.second = self.w[going], self.first[going], self.second[going]
