"""A model as the question whether each image is of one class: the problem of an attack that leads there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robust_nas.attacks.predictor import averaged


class OneClass(nn.Module):
    """Logits `[n, 2]`: the largest of the other classes, and that of the chosen class of each image.

    `classes` `[N]` are the chosen ones; a forward pass takes all N images, or the first few of them.
    """

    def __init__(self, model: nn.Module, classes: Tensor, passes: int = 1) -> None:
        super().__init__()
        self.model = model
        self.classes = classes
        self.passes = passes

    def forward(self, x: Tensor) -> Tensor:
        """Return logits for images `[n, C, H, W]`."""
        logits = averaged(self.model, x, self.passes).float()
        chosen = self.classes[: len(x)].unsqueeze(1)
        others = logits.scatter(1, chosen, -torch.inf).amax(1)
        return torch.stack([others, logits.gather(1, chosen).squeeze(1)], 1)
