"""FreeAT: one backward pass moves the weights and the perturbation (Shafahi et al., NeurIPS 2019).

    every batch is used m times:     g_w, g_d = d/dw, d/dd L(f_w(clip(x + d, 0, 1)), y)
                                     w <- optimiser(w, g_w),     d <- clip(d + eps sign(g_d), -eps, eps)

d goes on from replay to replay and from batch to batch (row b goes on with d_b of the batch before), from 0 on.
With m = 1 it is FGSM whose perturbation is of the batch before: the first step is natural training.
An epoch uses every image m times and takes m times the optimiser's steps; published settings divide the epochs by m.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import model_validator

from robust_nas.attacks.threat_model import refuse_beyond_images
from robust_nas.config import Count, Positive
from robust_nas.lazy import torch
from robust_nas.training.context import Batch, TrainingContext
from robust_nas.training.hook import TrainingHook
from robust_nas.training.loss import Loss
from robust_nas.training.step import Measured, StepOptions, TrainingStep

if TYPE_CHECKING:
    from torch import Tensor


class FreeAT(StepOptions):
    """Replays of every batch that move weights and perturbation together (Shafahi et al., 2019).

    The step makes the perturbation; the loss is one of the images as they are, such as `natural`. eps and norm are
    those of the threat model where the step does not say.
    """

    needs_end: ClassVar[bool] = False
    moves_images: ClassVar[bool] = True

    name: Literal["free-at"] = "free-at"
    replays: Count = 8  # m, passes of a batch
    eps: Positive  # largest perturbation on the 0..1 scale
    norm: Literal["linf"] = "linf"  # in which eps bounds the perturbation

    @model_validator(mode="after")
    def _within_the_box(self) -> Self:
        refuse_beyond_images(self.norm, self.eps)
        return self

    @property
    def batch_uses(self) -> int:
        """Return m."""
        return self.replays

    def refuse(self, loss: Loss) -> None:
        """Raise `ValueError` for a loss that attacks the images itself."""
        if loss.inner_attack is not None:
            raise ValueError(
                f"step 'free-at' makes the perturbation itself, but loss {loss.label!r} attacks the images too; "
                "it needs a loss without an inner attack, such as natural"
            )

    def start(self, training: TrainingContext, hooks: Sequence[TrainingHook]) -> TrainingStep:
        """Return the step at the begin of a training."""
        return FreeStep(self, training, hooks)

    def passes(self, loss: Loss) -> float:
        """Return m times the passes of the loss: the gradient of the images comes with that of the weights."""
        return self.replays * loss.passes


class FreeStep(TrainingStep):
    """The step in its running form."""

    def __init__(self, options: FreeAT, training: TrainingContext, hooks: Sequence[TrainingHook]) -> None:
        super().__init__(training, hooks)
        self.options, self.replays = options, options.replays
        self.delta: Tensor | None = None  # of this rank's rows, [B, C, H, W]

    def attacked(self, batch: Batch) -> Batch:
        """Return the batch with the present perturbation."""
        return batch if self.delta is None else batch._replace(images=_perturbed(batch, self.delta.detach()))

    def gradients(self, batch: Batch) -> Measured:
        """Leave the gradients at the perturbed images, and move the perturbation by that of the images."""
        eps = self.options.eps
        delta = (torch.zeros_like(batch.images) if self.delta is None else self.delta).requires_grad_()
        value = self.training.value(_perturbed(batch, delta), batch.labels)
        loss = self.backward(value.loss, batch)
        if delta.grad is not None:
            self.delta = (delta.detach() + eps * delta.grad.sign()).clamp_(-eps, eps)
        return Measured(loss, (value.logits.argmax(1) == batch.labels).sum())

    def state(self) -> dict[str, Any]:
        """Return the perturbation of the whole batch; every rank has its rows."""
        if self.delta is None:
            return {}
        training = self.training
        whole = self.delta.new_zeros(training.batch_size, *self.delta.shape[1:])
        whole[training.ranks.rows(training.batch_size)] = self.delta.detach()
        return {"delta": training.ranks.all_reduce_sum([whole])[0]}

    def restore(self, state: dict[str, Any]) -> None:
        """Put this rank's rows back."""
        if "delta" in state:
            whole = state["delta"]
            own = whole[self.training.ranks.rows(len(whole))].to(self.training.generator.device)
            self.delta = own.contiguous(memory_format=torch.channels_last)


def _perturbed(batch: Batch, delta: Tensor) -> Tensor:
    return (batch.images + delta).clamp(0, 1)
