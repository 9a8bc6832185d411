"""PGD adversarial training: L = CE(f(x'), y), x' = argmax over the ball of CE (Madry et al., 2018).

The maximiser is approximated by any attack that is fit for training: PGD, FGSM-RS, N-FGSM; where none is named by PGD
of 10 steps of eps / 4, which at eps 8/255 is 2/255 as usual. Clean images are not trained on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from robust_nas.attacks import Attack, training_attack_field
from robust_nas.training.loss import STEP_PASSES, Loss, LossValue, attack_passes, cross_entropy

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


class PGDAT(Loss):
    """Cross-entropy on adversarial images alone (Madry et al., 2018)."""

    plain: ClassVar[bool] = True

    name: Literal["pgd-at"] = "pgd-at"
    # on the training images
    attack: Annotated[Attack, training_attack_field(default="pgd")] = Field(default={}, validate_default=True)

    @property
    def passes(self) -> int:
        """Return 2K + 3 for an attack of K steps."""
        return attack_passes(self.attack) + STEP_PASSES

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator) -> LossValue:
        """Return the cross-entropy on the attacked images `[B, C, H, W]`."""
        logits = model(self.attack.craft(model, images, labels, generator))
        return LossValue(cross_entropy(logits, labels), logits)
