"""One draw of a random model as a plain network: every forward pass takes the draws of one seed."""

from __future__ import annotations

from torch import Tensor, nn

from robust_nas.attacks import Predictor
from robust_nas.attacks.engine import seeded_globally


class FrozenDraw(nn.Module):
    """A random module whose forward passes draw the same, from torch's global generators seeded inside."""

    def __init__(self, module: nn.Module, seed: int) -> None:
        super().__init__()
        self.module, self.seed = module, seed

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the frozen draw for images `[B, C, H, W]`."""
        with seeded_globally(self.seed, x.device):
            logits: Tensor = self.module(x)
        return logits


def frozen(predictor: Predictor, seed: int) -> Predictor:
    """Return one pass of a random predictor with the draws of the seed, as a deterministic one."""
    return Predictor(FrozenDraw(predictor.module, seed), abstains=predictor.abstains)
