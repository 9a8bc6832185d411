"""The best candidate of each example: a misclassified one before a correctly classified one, then by loss."""

from __future__ import annotations

import torch
from torch import Tensor


class Best:
    """Keeps, per example, the best of the images offered; `images` of the first offer until there are more.

    A candidate whose loss is NaN is never preferred, and does not count as misclassified.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels
        self.loss: Tensor | None = None  # [B]
        self.wrong: Tensor | None = None  # [B]

    def offer(self, x: Tensor, logits: Tensor, loss: Tensor) -> None:
        """Images `[B, C, H, W]` with the model's logits `[B, K]` and the loss `[B]` that ranks them."""
        valid = ~loss.isnan()
        wrong = (logits.argmax(1) != self.labels) & valid
        loss = loss.masked_fill(~valid, -torch.inf)
        if self.loss is None or self.wrong is None:
            self.images, self.loss, self.wrong = x, loss, wrong
            return
        better = (wrong & ~self.wrong) | ((wrong == self.wrong) & (loss > self.loss))
        self.images = torch.where(better.view(-1, 1, 1, 1), x, self.images)
        self.loss = torch.where(better, loss, self.loss)
        self.wrong = self.wrong | wrong
