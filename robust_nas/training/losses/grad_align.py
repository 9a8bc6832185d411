"""GradAlign: single-step training whose input gradients agree within the ball (Andriushchenko and Flammarion, 2020).

    L = CE(f(x'), y) + lam mean_b (1 - cos(g_b(x), g_b(x + u))),   g_b(x) = grad_x CE(f(x_b), y_b),  u uniform in ball

x' is FGSM's, and lam 0.2 at eps 8/255 of CIFAR-10, as published. As in the official code g(x) is a constant, and
g(x + u) is differentiated for the weights, in float32. Examples without a gradient count as aligned.
Ours: g is taken in eval mode, as the inner attack sees the network: batch statistics move once a step, examples are not
coupled, and several processes need no second derivative of their shared batch norm. x + u is clipped to the box.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from robust_nas.attacks import Attack, training_attack_field
from robust_nas.attacks.norms import noise_in_ball
from robust_nas.config import NonNegative
from robust_nas.lazy import F, torch
from robust_nas.training.loss import STEP_PASSES, Loss, LossValue, attack_passes, cross_entropy, to_float32
from robust_nas.training.modes import in_eval_mode

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

GRADIENT_PASSES = 2  # forward, and the gradient of the images
TWICE_PASSES = 3 * GRADIENT_PASSES  # the same, and both gradients of each of the two passes


class GradAlign(Loss):
    """Cross-entropy on single-step adversarial images, and the alignment of gradients (Andriushchenko et al., 2020)."""

    twice_differentiated: ClassVar[bool] = True

    name: Literal["grad-align"] = "grad-align"
    # on the training images
    attack: Annotated[Attack, training_attack_field(default="fgsm")] = Field(
        default={}, validate_default=True
    )
    weight: NonNegative = 0.2  # lambda, weight of the alignment

    @property
    def passes(self) -> int:
        """Return 2K + 11 for an attack of K steps; 2K + 3 without the penalty."""
        penalty = GRADIENT_PASSES + TWICE_PASSES if self.weight else 0
        return attack_passes(self.attack) + STEP_PASSES + penalty

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator) -> LossValue:
        """Return the loss on images `[B, C, H, W]`, with the adversarial logits."""
        logits = model(self.attack.craft(model, images, labels, generator))
        loss = cross_entropy(logits, labels)
        if self.weight == 0:
            return LossValue(loss, logits)
        noisy = self.noisy(images, generator)
        with in_eval_mode(model):
            with torch.no_grad():
                fixed = input_gradient(model, images, labels)
            penalty = misalignment(fixed, input_gradient(model, noisy, labels))
        return LossValue(loss + self.weight * penalty, logits)

    def noisy(self, images: Tensor, generator: Generator) -> Tensor:
        """Return x + u `[B, C, H, W]` in the box; u is drawn for the whole batch, so that ranks agree."""
        from robust_nas.attacks.batch_generator import whole_batch

        batch, rows = whole_batch(images, generator)
        return (images + noise_in_ball(batch, self.attack.radius, self.attack.norm, generator)[rows]).clamp(
            0, 1
        )


def input_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the gradients of each image's cross-entropy `[B, C, H, W]`, to be differentiated unless in `no_grad`."""
    differentiated = torch.is_grad_enabled()
    # A later pass of the step moves the running statistics, which the derivative would miss.
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        logits = torch.func.functional_call(model, buffers, (x,))
        loss = F.cross_entropy(to_float32(logits), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x, create_graph=differentiated)
    return gradient


def misalignment(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean over the batch of 1 - cos of gradients `[B, C, H, W]`; 0 for an example without one.

    A gradient counts as none where it is so small that its square underflows; the derivative of such a direction would
    overflow. Others are scaled first: a confident network has gradients of 1e-15 (in float32 the square is 0).
    """
    one, other = one.flatten(1), other.flatten(1)
    least = torch.finfo(one.dtype).tiny ** 0.5
    sizes = [g.detach().abs().amax(1, keepdim=True) for g in (one, other)]
    known = (sizes[0] > least) & (sizes[1] > least)
    # Without a gradient the length has no derivative: such rows are replaced before, not after.
    one, other = (
        torch.where(known, g, 1.0) / torch.where(known, size, 1.0)
        for g, size in zip((one, other), sizes, strict=True)
    )
    return (1 - F.cosine_similarity(one, other, eps=0.0)).mul(known.squeeze(1)).mean()
