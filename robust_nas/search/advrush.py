"""AdvRush-style search (Mok, Na, Choe, Choi, Yoon, ICCV 2021): alphas that also descend the curvature of the loss.

Epochs of the loss alone come first (stage 1), for weights and alphas; then (stage 2) the alphas descend

    L_alpha = L(w, alpha; v') + gamma / B sum_b || grad_x L(v_b + h z_b) - grad_x L(v_b) ||^2
    z_b     = sign(grad_x L(v_b)) / || sign(grad_x L(v_b)) ||

the curvature term of CURE (Moosavi-Dezfooli et al., CVPR 2019) on natural images v_b of the alphas' half, with
h rising from epoch to epoch up to `h`. z is held constant. The weights step is that of all one-shot strategies.

The form is read in the official code (first order, the warm-up, gamma, h up to 1.5); `docs/methods/advrush.md` says
what differs. Each image's gradient is its own, because the term is taken with the running statistics of the batch
norms: the network that attacks see, and several ranks take what one takes. B batch, C channels, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator

from robust_nas.config import Count, CountOrZero, Positive
from robust_nas.lazy import torch
from robust_nas.search.one_shot.batch import AlphaStep, Batch, flatten
from robust_nas.search.one_shot.strategy import OneShotStrategy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.search.one_shot.steps import OneShotSearch


class AdvRush(OneShotStrategy):
    """AdvRush-style search; with `images: natural` and `weights.loss: {name: natural}` no loss is adversarial."""

    columns: ClassVar[tuple[str, ...]] = (
        "loss_weights",
        "loss_natural",
        "loss_adversarial",
        "curvature",
        "norm_natural",
        "norm_adversarial",
        "norm_curvature",
    )
    reported: ClassVar[tuple[str, ...]] = ("loss_adversarial", "curvature")

    name: Literal["advrush"] = "advrush"
    epochs: Count = 60  # passes over the data
    stage1_epochs: CountOrZero = 50  # of the loss alone
    images: Literal["adversarial", "natural"] = "adversarial"  # whose loss the alphas descend
    curvature_weight: Positive = 0.01  # gamma, weight of the curvature term
    h: Positive = 1.5  # of the last epoch: L2 length of the step in pixels 0..1
    precision: Literal["float32"] = "float32"  # fixed: the term is differentiated twice

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        if self.stage1_epochs > self.epochs:
            raise ValueError(
                f"stage1_epochs is {self.stage1_epochs}, more than the {self.epochs} epochs; "
                f"set it to {self.epochs} or less"
            )
        return self

    @property
    def attacks_weights_half(self) -> bool:
        """Return whether no loss of the weights does it."""
        return self.weights.loss is None

    def stage(self, epoch: int) -> int:
        """Return 1 before the curvature takes part, then 2."""
        return 1 if epoch < self.stage1_epochs else 2

    def step_of(self, epoch: int) -> float:
        """Return the length h of an epoch of stage 2: equal steps, `h` in the last epoch."""
        return self.h * (epoch + 1 - self.stage1_epochs) / (self.epochs - self.stage1_epochs)

    def alpha_gradient(self, search: OneShotSearch, alphas_batch: Batch, weights_batch: Batch) -> AlphaStep:
        """Return the gradient of the loss, in stage 2 with that of the curvature."""
        natural = self.images == "natural"
        chosen = alphas_batch.natural if natural else alphas_batch.adversarial
        loss, gradient = search.alpha_loss(chosen, alphas_batch)
        measured = {f"loss_{self.images}": loss, f"norm_{self.images}": gradient.norm()}
        if natural:  # the loss by which searches are compared; it moves nothing
            measured["loss_adversarial"] = adversarial_loss(search, alphas_batch)
        if search.stage == 2:
            term, of_term = curvature(search, alphas_batch, self.step_of(search.epoch))
            of_term = self.curvature_weight * of_term
            measured |= {"curvature": term, "norm_curvature": of_term.norm()}
            gradient = gradient + of_term
        return AlphaStep(gradient, measured)


def adversarial_loss(search: OneShotSearch, batch: Batch) -> Tensor:
    """Return the cross-entropy on the attacked images with the statistics of the batch."""
    from robust_nas.attacks import attack_mode
    from robust_nas.training.loss import cross_entropy

    with torch.no_grad(), attack_mode(search.supernet, "batch"):
        loss = batch.share * cross_entropy(search.supernet(batch.adversarial), batch.labels)
        return search.ranks.all_reduce_sum([loss])[0]


def curvature(search: OneShotSearch, batch: Batch, h: float) -> tuple[Tensor, Tensor]:
    """Return the curvature term of a batch's natural images, without gamma, and its flat gradient for the alphas."""
    from robust_nas.attacks import attack_mode
    from robust_nas.search.one_shot.steps import requiring_grad

    alphas = list(search.alphas.values())
    with attack_mode(search.supernet), requiring_grad(alphas):
        before = input_gradient(search.supernet, batch.natural, batch.labels)
        sign = before.detach().sign()
        length = sign.flatten(1).norm(dim=1).clamp_min(1).view(-1, 1, 1, 1)  # 0 where there is no gradient
        after = input_gradient(search.supernet, batch.natural + h * sign / length, batch.labels)
        term = batch.share * (after - before).flatten(1).square().sum(1).mean()
        term, *gradient = search.ranks.all_reduce_sum([term.detach(), *torch.autograd.grad(term, alphas)])
    return term, flatten(gradient)


def input_gradient(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient `[B, C, H, W]` of each image's cross-entropy; it can be differentiated again."""
    from robust_nas.training.loss import cross_entropy

    x = images.detach().requires_grad_()
    loss = len(labels) * cross_entropy(network(x), labels)
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    return gradient
