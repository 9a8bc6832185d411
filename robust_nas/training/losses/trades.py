"""TRADES: L = CE(f(x), y) + beta KL(p(x) || p(x')), x' = argmax over the ball of that KL (Zhang et al., 2019).

The KL is summed over classes and averaged over the batch. Clean and adversarial images go through the network one
after the other, each with its own batch statistics, as in the official code. Where no attack is named it is PGD on that
KL, 10 steps of eps / 4; the official code has 10 steps of 0.007 at eps 0.031.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from robust_nas.attacks import Attack, training_attack_field
from robust_nas.config import NonNegative
from robust_nas.lazy import F
from robust_nas.training.loss import STEP_PASSES, Loss, LossValue, attack_passes, cross_entropy, to_float32

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


class TRADES(Loss):
    """Clean cross-entropy plus beta times KL to the adversarial prediction (Zhang et al., 2019)."""

    name: Literal["trades"] = "trades"
    # on the training images
    attack: Annotated[Attack, training_attack_field(default="pgd", presets={"loss": "kl"})] = Field(
        default={}, validate_default=True
    )
    beta: NonNegative = 6.0  # weight of the KL term

    @model_validator(mode="after")
    def _attack_maximises_kl(self) -> Self:
        if self.attack.objective != "kl":
            raise ValueError(f"attack.loss is {self.attack.objective!r}; TRADES needs 'kl'")
        return self

    @property
    def passes(self) -> int:
        """Return 2K + 7 for an attack of K steps: its clean prediction (1), and a training step on both images (6)."""
        return attack_passes(self.attack) + 1 + 2 * STEP_PASSES

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator) -> LossValue:
        """Return the loss on images `[B, C, H, W]`, with the adversarial logits."""
        attacked = self.attack.craft(model, images, labels, generator)
        clean, adversarial = model(images), model(attacked)
        log_p, log_q = (to_float32(logits).log_softmax(1) for logits in (clean, adversarial))
        divergence = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        return LossValue(cross_entropy(clean, labels) + self.beta * divergence, adversarial)
