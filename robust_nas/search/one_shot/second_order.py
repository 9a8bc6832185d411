"""Alpha gradients of second order, through one unrolled weight step (Liu et al., 2019, eq. 7-8).

    w' = w - eta (mu b + d/dw L(w, alpha; x', y) + wd w)            b: SGD's momentum buffer
    d/dalpha L(w', alpha) - eta [d/dalpha L(w + r v) - d/dalpha L(w - r v)] / (2 r),   v = d/dw' L_val,  r = r0 / ||v||

The second term, which goes through w', is taken by finite differences. With several ranks the unrolled step and the
difference are those of one rank with the whole batch, because gradients are summed over the ranks as soon as they are
taken. First order is w' = w without the second term.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from robust_nas.config import Positive
from robust_nas.lazy import torch
from robust_nas.search.one_shot.batch import Batch, flatten
from robust_nas.search.one_shot.strategy import OneShotStrategy

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.search.one_shot.steps import OneShotSearch


class UnrolledStrategy(OneShotStrategy):
    """Base of the strategies whose alpha gradients are of first or second order."""

    order: Literal[1, 2] = 1  # 2: gradient through one unrolled weight step
    finite_difference: Positive = 0.01  # r0 of the second order, step r0 / ||v||

    @model_validator(mode="after")
    def _unrolled_step_is_the_weights_step(self) -> Self:
        if self.order == 2 and self.weights.loss is not None:
            raise ValueError(
                f"order is 2, whose unrolled step is on attacked images by the cross-entropy, but weights.loss is "
                f"{self.weights.loss.label!r}; allowed with it: order 1"
            )
        return self

    @property
    def attacks_weights_half(self) -> bool:
        """Return whether no loss of the weights does it: the first order reads them in the weight step alone."""
        return self.weights.loss is None

    def alpha_gradients(
        self, search: OneShotSearch, images: list[Tensor], alphas_batch: Batch, weights_batch: Batch
    ) -> list[tuple[Tensor, Tensor]]:
        """Return loss and flat alpha gradient for each of `images`, which have the labels of `alphas_batch`.

        `weights_batch` is used by the second order alone.
        """
        if self.order == 1:
            return [search.alpha_loss(x, alphas_batch) for x in images]
        return self._second_order(search, images, alphas_batch, weights_batch)

    def _second_order(
        self, search: OneShotSearch, images: list[Tensor], alphas_batch: Batch, batch: Batch
    ) -> list[tuple[Tensor, Tensor]]:
        """Return the same at the unrolled weights; w' is computed once."""
        from robust_nas.attacks import attack_mode

        weights, alphas = search.weights, list(search.alphas.values())
        learning_rate = search.weight_optimiser.param_groups[0]["lr"]

        def move(direction: list[Tensor], scale: float | Tensor) -> None:
            with torch.no_grad():
                for weight, start, change in zip(weights, original, direction, strict=True):
                    weight.copy_(start + scale * change)

        def alphas_at(direction: list[Tensor], scale: Tensor) -> Tensor:
            move(direction, scale)
            return flatten(search.loss_gradient(batch.adversarial, batch, alphas)[1])

        result = []
        with attack_mode(search.supernet, "batch"):
            _, gradients = search.loss_gradient(batch.adversarial, batch, weights)
            original = [weight.detach().clone() for weight in weights]
            step = self._sgd_direction(search, gradients)
            try:
                for x in images:
                    move(step, -learning_rate)
                    loss, both = search.loss_gradient(x, alphas_batch, [*alphas, *weights])
                    direct, v = flatten(both[: len(alphas)]), both[len(alphas) :]
                    norm = flatten(v).norm()
                    r = self.finite_difference / norm.clamp_min(torch.finfo(norm.dtype).tiny)
                    mixed = (alphas_at(v, r) - alphas_at(v, -r)) / (2 * r)
                    result.append((loss, direct - learning_rate * mixed))
            finally:
                with torch.no_grad():
                    for weight, start in zip(weights, original, strict=True):
                        weight.copy_(start)
        return result

    def _sgd_direction(self, search: OneShotSearch, gradients: list[Tensor]) -> list[Tensor]:
        """Return SGD's next step, mu b + gradient + wd w, but for the learning rate and clipping."""
        direction = []
        for weight, gradient in zip(search.weights, gradients, strict=True):
            buffer = search.weight_optimiser.state.get(weight, {}).get("momentum_buffer")
            moved = gradient + self.weights.weight_decay * weight.detach()
            direction.append(moved if buffer is None else moved + self.weights.momentum * buffer)
        return direction
