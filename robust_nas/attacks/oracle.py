"""Attacks that see answers alone: each answer is counted, paid from its image's budget, and kept where it is of use.

    answer   f(x): the logits (score-based attacks) or whether they are misclassified (decision-based ones)
    budget   `queries` answers for each image, the image itself included; its end cuts an estimate or a search short
    result   the nearest misclassified image of all that were asked for

An image that is misclassified takes one query. With eps, an image takes no more queries once an adversarial example
lies in its ball; where none does in the end, the image itself comes back. The model itself answers, never its folded
copy: a forward pass gains little by folding, and an answer next to the boundary would have to be asked for twice.

A search ends so near the boundary that the answer depends on rounding, which is another one in another batch. So the
last query of each image, from a budget of three on, asks for a point farther away by 0.01 % and 0.00001 (our choice, as
DeepFool's overshoot); where that is misclassified, it is the result.

B batch, N images that still take queries, k questions of each, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from pydantic import Field

from robust_nas.attacks.attack import MinimalAttack, Passes
from robust_nas.attacks.best_iterate import misclassified
from robust_nas.attacks.minimal import distance
from robust_nas.attacks.norms import Norm
from robust_nas.config import Count
from robust_nas.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.attacks.attacked_model import AttackedModel

OVER, OVER_AT_LEAST = (
    1e-4,
    1e-5,
)  # of the distance, and in its unit: how far the last question goes beyond what is found
LEAST = 3  # answers, from which on the last one is spent on it
PIECE = 512  # images in a forward pass, where more are asked for at once
NOT_FOUND = "no misclassified starting point was found for some images, which come back as they are"


class QueryAttack(MinimalAttack):
    """An attack that asks for answers alone, at most `queries` of them for each image.

    A subclass improves on what an `Oracle` has found, until no image takes any more queries.
    """

    access: ClassVar[Literal["gradient", "score", "decision"]] = "decision"
    fold: Literal[False] = Field(default=False, exclude=True, repr=False)
    precision: Literal["float32"] = Field(default="float32", exclude=True, repr=False)
    queries: Count = 5000  # answers of an image, each of `eot` forward passes

    @property
    def label(self) -> str:
        """Name and queries: `hop-skip-jump-5000`."""
        return f"{super().label}-{self.queries}"

    @property
    def passes(self) -> Passes:
        """Return one forward pass a query."""
        return Passes(self.queries, 0)

    def perturb(self, model: AttackedModel) -> Tensor:
        """Return the nearest adversarial examples found, `[B, C, H, W]`; the image itself where there was none."""
        oracle = Oracle(self, model)
        self.improve(oracle)
        return oracle.result()

    def improve(self, oracle: Oracle) -> None:
        """Ask until no image takes any more queries: the algorithm."""
        raise NotImplementedError(f"{type(self).__name__} has no algorithm")


class Answers(NamedTuple):
    """What the model says to k questions of N images; a question beyond the budget has no answer."""

    logits: Tensor  # [N, k, K], NaN without an answer
    wrong: Tensor  # [N, k] whether misclassified; False without an answer
    asked: Tensor  # [N, k] whether there is an answer


class Oracle:
    """A model that is asked, the budget of each image, and the nearest adversarial example found so far."""

    def __init__(self, options: QueryAttack, model: AttackedModel) -> None:
        self.model, self.norm, self.generator = model, options.norm, model.generator
        self.images, self.labels = model.images, model.labels
        self.enough = options.eps or 0.0  # distance within which an image takes no more queries
        self.eps = options.eps
        self.log = model.query_log()
        self.last = options.queries >= LEAST  # whether an answer is kept for the last question
        self.left = torch.full_like(self.labels, options.queries - 1 - self.last)  # [B] answers
        self.clean = model.logits(self.images)  # [B, K]
        self.log.count()
        wrong = misclassified(self.clean, self.labels)
        self.found = self.images
        self.distance = self.images.new_zeros(len(wrong)).masked_fill(~wrong, torch.inf)  # [B]
        self.log.nearer(wrong.nonzero().squeeze(1), self.distance[wrong])

    @property
    def size(self) -> int:
        """Return the number of values in an image, d."""
        return self.images[0].numel()

    def going(self, rows: Tensor) -> Tensor:
        """Return which of these images `[N]` still take queries."""
        return (self.left[rows] > 0) & (self.distance[rows] > self.enough)

    def rows(self) -> Tensor:
        """Return the indices of the images that still take queries."""
        everything = torch.arange(len(self.images), device=self.images.device)
        return everything[self.going(everything)]

    def ask(self, x: Tensor, rows: Tensor, most: Tensor | None = None) -> Answers:
        """Return answers to `x` `[N, k, C, H, W]`: of the first ones of each image, as many as it still may ask for.

        `rows` `[N]` names each image once; `most` `[N]` is a smaller limit. What is misclassified is kept if nearer.
        """
        count, k = x.shape[:2]
        allowed = torch.where(self.going(rows), self.left[rows], 0)
        if most is not None:
            allowed = torch.minimum(allowed, most)
        asked = torch.arange(k, device=rows.device) < allowed.unsqueeze(1)
        wrong = torch.zeros_like(asked)
        logits = self.clean.new_full((count, k, self.clean.shape[1]), torch.nan)
        if not asked.any():
            return Answers(logits, wrong, asked)
        owners = (rows.unsqueeze(1) if k == 1 else rows.unsqueeze(1).expand(count, k))[asked]
        questions, labels = x[asked], self.labels[owners]
        said = torch.cat(
            [
                self.model.logits(*part)
                for part in zip(torch.split(questions, PIECE), torch.split(labels, PIECE), strict=True)
            ]
        )
        logits[asked], wrong[asked] = said, misclassified(said, labels)
        before, paid = self.log.used[rows], asked.sum(1)
        self.left[rows] -= paid
        self.log.count(rows, paid)
        if wrong.any():
            size = self.distance.new_full(asked.shape, torch.inf)
            size[asked] = distance(questions, self.images[owners], self.norm)
            self._keep(x, size.masked_fill(~wrong, torch.inf), rows, before)
        return Answers(logits, wrong, asked)

    def wrong(self, x: Tensor, rows: Tensor) -> Tensor:
        """Return whether `x` `[N, C, H, W]` is misclassified, `[N]`; False also beyond the budget."""
        return self.ask(x.unsqueeze(1), rows).wrong[:, 0]

    def _keep(self, x: Tensor, size: Tensor, rows: Tensor, before: Tensor) -> None:
        """Keep the nearest of `x` `[N, k, C, H, W]` where it is nearer than what was found; `size` is `[N, k]`.

        The size of what is not misclassified is infinite; `before` `[N]` are the queries before these.
        """
        nearest, which = size.min(1)
        better = nearest < self.distance[rows]
        if not better.any():
            return
        which, nearest, kept = which[better], nearest[better], rows[better]
        # Not in place: `found` starts as the images themselves.
        self.found = self.found.index_put((kept,), x[better, which])
        self.distance = self.distance.index_put((kept,), nearest)
        self.log.nearer(kept, nearest, before[better] + (which + 1) * self.log.passes)

    def start(self, starts: int) -> Tensor:
        """Return the indices of the images for which a random image is misclassified, `found` then, within `starts`.

        Noise in 0..1 of one value a pixel, then a square of 2, 4, .. pixels, up to the whole image, and again; every
        second round has black and white alone. The models' answer to fine noise is often one class: hence coarse
        noise, which is our choice. Images without any are flagged.
        """
        rows = self.rows()
        looked = rows
        for number in range(starts):
            rows = rows[self.distance[rows].isinf() & self.going(rows)]
            if len(rows) == 0:
                break
            self.wrong(self._noise(len(rows), number), rows)
        if self.distance[looked].isinf().any():
            self.model.flags.append(NOT_FOUND)
        found = looked[self.distance[looked].isfinite()]
        return found[self.going(found)]

    def _noise(self, count: int, number: int) -> Tensor:
        _, channels, height, width = self.images.shape
        scales = max(height, width).bit_length()  # the last one has one value
        square = 2 ** (number % scales)
        coarse = (count, channels, -(-height // square), -(-width // square))
        noise = torch.rand(
            coarse, dtype=self.images.dtype, device=self.images.device, generator=self.generator
        )
        if (number // scales) % 2:
            noise = noise.round()
        return F.interpolate(noise, scale_factor=square)[..., :height, :width]

    def approach(self, x: Tensor, rows: Tensor, tolerance: float) -> Tensor:
        """Return the misclassified points `[N, C, H, W]` nearest to the images on the ways from them to `x`.

        By halving until `tolerance` of the way is left: on the straight line in L2, on the projections of `x` onto
        smaller and smaller balls in Linf. `x` is misclassified.
        """
        images = self.images[rows]
        reach = distance(x, images, self.norm)
        low, high = torch.zeros_like(reach), torch.ones_like(reach)
        while True:
            middle = (low + high) / 2
            unsettled = (high - low > tolerance) & (low < middle) & (middle < high)
            where = (unsettled & self.going(rows)).nonzero().squeeze(1)
            if len(where) == 0:
                break
            at = blend(images[where], x[where], middle[where], reach[where], self.norm)
            wrong = self.wrong(at, rows[where])
            high[where] = torch.where(wrong, middle[where], high[where])
            low[where] = torch.where(wrong, low[where], middle[where])
        moved = (high < 1).view(-1, 1, 1, 1)
        return torch.where(moved, blend(images, x, high, reach, self.norm), x)

    def pieces(self, rows: Tensor, count: int) -> Iterator[tuple[int, int]]:
        """Yield first and number of questions, so that `count` of each image come in passes of bounded memory."""
        step = max(1, PIECE // max(len(rows), 1))
        for first in range(0, count, step):
            yield first, min(step, count - first)

    def normal(self, rows: Tensor, count: int) -> Tensor:
        """Return draws from the normal distribution, `[N, count, C, H, W]`."""
        like = self.images
        shape = (len(rows), count, *like.shape[1:])
        return torch.randn(shape, dtype=like.dtype, device=like.device, generator=self.generator)

    def result(self) -> Tensor:
        """Return the nearest adversarial examples `[B, C, H, W]`; the image where none is, or none in the ball."""
        limit = torch.inf if self.eps is None else self.eps
        inside = (self.distance <= limit).view(-1, 1, 1, 1)
        return torch.where(inside, self._beyond(limit) if self.last else self.found, self.images)

    def _beyond(self, limit: float) -> Tensor:
        """Return what was found `[B, C, H, W]`, moved a little farther away where that is misclassified too."""
        inside = self.distance.isfinite() & (self.distance <= limit)
        rows = (inside & (self.distance > 0)).nonzero().squeeze(1)
        if len(rows) == 0:
            return self.found
        images, found, size = self.images[rows], self.found[rows], self.distance[rows]
        factor = torch.minimum(limit / size, 1 + OVER + OVER_AT_LEAST / size).view(-1, 1, 1, 1)
        x = (images + factor * (found - images)).clamp(0, 1)
        self.log.count(rows)
        wrong = misclassified(self.model.logits(x, self.labels[rows]), self.labels[rows])
        return self.found.index_put((rows[wrong],), x[wrong])


def blend(images: Tensor, x: Tensor, share: Tensor, reach: Tensor, norm: Norm) -> Tensor:
    """Return points `[N, C, H, W]` at that share `[N]` of the way from images to `x`, which are `reach` `[N]` away."""
    share, reach = share.view(-1, 1, 1, 1), reach.view(-1, 1, 1, 1)
    if norm == "linf":
        return x.clamp(images - share * reach, images + share * reach)
    return images + share * (x - images)
