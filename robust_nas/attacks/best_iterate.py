"""The best candidate of each example: a misclassified one before a correctly classified one, then by loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def misclassified(logits: Tensor, labels: Tensor) -> Tensor:
    """Return which answers `[B]` are wrong, with those of logits that are not finite, as the evaluation judges."""
    return (logits.argmax(1) != labels) | ~logits.isfinite().all(1)


class BestIterate:
    """Keeps, per example, the best of the images offered; `images` of the first offer until there are more.

    Where the loss is NaN, a candidate with logits that are not finite is the best of the misclassified ones, so that
    the evaluation sees it; one with finite logits is the last of its kind.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels
        self.loss: Tensor | None = None  # [B]
        self.wrong: Tensor | None = None  # [B]

    def update(self, x: Tensor, logits: Tensor, loss: Tensor, rows: Tensor | None = None) -> Tensor:
        """Whether each is misclassified, `[B]`: images with the model's logits `[B, K]` and the loss that ranks them.

        `rows` are the indices of the examples that they belong to, where they are not the whole batch; the first
        offer is.
        """
        labels = self.labels if rows is None else self.labels[rows]
        wrong = misclassified(logits, labels)
        unranked = torch.where(logits.isfinite().all(1), -torch.inf, torch.inf).to(loss.dtype)
        loss = torch.where(loss.isnan(), unranked, loss)
        if self.loss is None or self.wrong is None:
            self.images, self.loss, self.wrong = x, loss, wrong
            return wrong
        known_wrong, known_loss = (t if rows is None else t[rows] for t in (self.wrong, self.loss))
        better = (wrong & ~known_wrong) | ((wrong == known_wrong) & (loss > known_loss))
        if rows is not None:
            # Not in place: `images` may be the caller's tensor.
            where, x = (rows[better],), x[better]
            self.images = self.images.index_put(where, x)
            self.loss = self.loss.index_put(where, loss[better])
            self.wrong = self.wrong.index_put(where, wrong[better])
            return wrong
        self.images = torch.where(better.view(-1, 1, 1, 1), x, self.images)
        self.loss = torch.where(better, loss, self.loss)
        self.wrong = self.wrong | wrong
        return wrong

    def unbroken(self) -> Tensor:
        """The indices of the examples that no candidate is misclassified of yet; all of them before any offer."""
        if self.wrong is None:
            return torch.arange(len(self.labels), device=self.labels.device)
        return (~self.wrong).nonzero().squeeze(1)

    def improved_by(self, loss: Tensor, rows: Tensor) -> Tensor:
        """Whether misclassified candidates of that loss `[N]` would be preferred, for the examples of these indices."""
        if self.loss is None or self.wrong is None:
            return torch.ones_like(loss, dtype=torch.bool)
        return ~self.wrong[rows] | (loss > self.loss[rows])
