"""MART: misclassified examples weigh more (Wang et al., ICLR 2020).

    L = BCE(p', y) + beta mean_b KL(p_b || p'_b) (1 - p_b[y_b]),    p = p(x), p' = p(x'), x' = argmax of CE in the ball
    BCE(p', y) = mean_b -log p'_b[y_b] - log(1.0001 - max_{k != y_b} p'_b[k])

The constant and beta = 5 are those of the official code. It finds the likeliest wrong class by sorting, so that equal
probabilities leave the choice to the sort; here it is the largest of the others, and equal ones share the gradient. The
code's further small constants (1e-12 inside logarithms) are not needed with log-softmax. As published, the attack sees
the model in eval mode, and clean and attacked images go through the network one after the other, each with its own
batch statistics. The official code starts the attack at x + 0.001 N(0, 1); here the attack's own start is used.
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

ABOVE_ONE = 1.0001  # keeps the logarithm of the margin term finite, as in the official code


class MART(Loss):
    """Boosted cross-entropy plus beta times KL, weighted by how unsure the clean prediction is (Wang et al., 2020)."""

    name: Literal["mart"] = "mart"
    # on the training images
    attack: Annotated[Attack, training_attack_field(default="pgd")] = Field(default={}, validate_default=True)
    beta: NonNegative = 5.0  # weight of the KL term

    @model_validator(mode="after")
    def _attack_maximises_cross_entropy(self) -> Self:
        if self.attack.objective != "ce":
            raise ValueError(f"attack.loss is {self.attack.objective!r}; MART needs 'ce'")
        return self

    @property
    def passes(self) -> int:
        """Return 2K + 6 for an attack of K steps: a training step on both images."""
        return attack_passes(self.attack) + 2 * STEP_PASSES

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator) -> LossValue:
        """Return the loss on images `[B, C, H, W]`, with the adversarial logits."""
        attacked = self.attack.craft(model, images, labels, generator)
        clean, adversarial = model(images), model(attacked)
        log_p, log_q = (to_float32(logits).log_softmax(1) for logits in (clean, adversarial))
        boosted = cross_entropy(adversarial, labels) + margin_term(log_q.exp(), labels).mean()
        divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
        own = labels.unsqueeze(1)
        unsure = 1 - log_p.exp().gather(1, own).squeeze(1)
        return LossValue(boosted + self.beta * (divergence * unsure).mean(), adversarial)


def margin_term(p: Tensor, labels: Tensor) -> Tensor:
    """Return -log(1.0001 - max_{k != y} p_k) `[B]` of probabilities `[B, K]`."""
    others = p.scatter(1, labels.unsqueeze(1), -1.0)
    return -(ABOVE_ONE - others.amax(1)).log()
