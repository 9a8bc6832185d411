"""DSARA's two-stage search (Ou et al., arXiv 2212.14049; form recovered from the official ARNAS code).

One step, on a batch (x, y) of the weights' half and (v, t) of the alphas' half:

    x' = attack(w, alpha; x, y)              v' = attack(w, alpha; v, t)
    stage 1:  g  = d/dalpha L(w, alpha; v', t)
    stage 2:  u1 = d/dalpha L(w, alpha; v, t),   u2 = lambda d/dalpha L(w, alpha; v', t)
              g  = gamma* u1 + (1 - gamma*) u2         (min-norm over all alphas at once; or u1 + u2)
    alpha <- Adam(alpha, g)
    w     <- SGD(w, d/dw L(w, alpha; x', y))           (adversarial in both stages)

Second order replaces w in the alpha gradients by the unrolled w' = w - eta (mu b + d/dw L(w; x', y) + wd w), with SGD's
momentum buffer b, and adds the term through w' by finite differences (Liu et al., 2019, eq. 7-8):

    d/dalpha L(w', alpha) - eta [d/dalpha L(w + r v) - d/dalpha L(w - r v)] / (2 r),   v = d/dw' L_val,  r = r0 / ||v||

With several ranks the min-norm point, the unrolled step and the finite difference are those of one rank with the whole
batch, because losses and gradients are summed over the ranks as soon as they are taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Self

from pydantic import model_validator

from robust_nas.config import CountOrZero, Positive
from robust_nas.lazy import torch
from robust_nas.search.one_shot.batch import Batch, flatten
from robust_nas.search.one_shot.strategy import OneShotStrategy
from robust_nas.search.strategy import Record

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.search.one_shot.steps import OneShotSearch


class DSARAStep(NamedTuple):
    """What an alpha step saw: flat gradients, losses and gamma; None where stage 1 has none."""

    gradient: Tensor
    natural: Tensor | None
    adversarial: Tensor
    loss_natural: Tensor | None
    loss_adversarial: Tensor
    gamma: Tensor | None

    @property
    def measured(self) -> Mapping[str, Tensor]:
        """Return losses, gamma, the norms of both gradients, and their cosine."""
        natural, adversarial = self.natural, self.adversarial
        found = {
            "loss_natural": self.loss_natural,
            "loss_adversarial": self.loss_adversarial,
            "gamma": self.gamma,
            "norm_natural": None if natural is None else natural.norm(),
            "norm_adversarial": adversarial.norm(),
            "cosine": None if natural is None else torch.cosine_similarity(natural, adversarial, dim=0),
        }
        return {column: value for column, value in found.items() if value is not None}


class DSARA(OneShotStrategy):
    """DSARA's two-stage search.

    Defaults are those of the official ARNAS code, but for the two stages, lambda (there 0.1), the order (there 2)
    and batch norm during the attack (there in training mode): `docs/methods/dsara.md`.
    """

    columns: ClassVar[tuple[str, ...]] = (
        "loss_weights",
        "loss_natural",
        "loss_adversarial",
        "gamma",
        "norm_natural",
        "norm_adversarial",
        "cosine",
    )

    name: Literal["dsara"] = "dsara"
    stage1_epochs: CountOrZero = 21  # adversarial loss alone before it; inferred from the official code
    combine: Literal["min-norm", "sum"] = "min-norm"  # of the two gradients in stage 2
    adversarial_weight: Positive = 1.0  # lambda, on the adversarial gradient of stage 2
    order: Literal[1, 2] = 1  # 2: gradient through one unrolled weight step
    finite_difference: Positive = 0.01  # r of the second order, step r / ||v||

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        if self.stage1_epochs > self.epochs:
            raise ValueError(f"stage1_epochs is {self.stage1_epochs}, more than the {self.epochs} epochs")
        return self

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

    def stage(self, epoch: int) -> int:
        """Return 1 before the natural loss takes part, then 2."""
        return 1 if epoch < self.stage1_epochs else 2

    def note(self, record: Record) -> str:
        """Return the stage and the losses of the last record, for progress."""
        natural = "" if record["loss_natural"] is None else f" natural {record['loss_natural']:.2f}"
        alphas = f"adversarial {record['loss_adversarial']:.2f}{natural}"
        return f"stage {record['stage']}, loss {record['loss_weights']:.2f}, alphas: {alphas}"

    def alpha_gradient(self, search: OneShotSearch, alphas_batch: Batch, weights_batch: Batch) -> DSARAStep:
        """Return the gradient that the alphas descend in the present stage.

        `weights_batch` is used by the second order alone.
        """
        from robust_nas.search.min_norm import min_norm

        images = (
            [alphas_batch.adversarial]
            if search.stage == 1
            else [alphas_batch.natural, alphas_batch.adversarial]
        )
        if self.order == 1:
            found = [search.alpha_loss(x, alphas_batch) for x in images]
        else:
            found = self._second_order(search, images, alphas_batch, weights_batch)
        loss_adversarial, u2 = found[-1]
        if search.stage == 1:
            return DSARAStep(u2, None, u2, None, loss_adversarial, None)
        loss_natural, u1 = found[0]
        u2 = self.adversarial_weight * u2
        if self.combine == "sum":
            return DSARAStep(u1 + u2, u1, u2, loss_natural, loss_adversarial, None)
        gamma, gradient = min_norm(u1, u2)
        return DSARAStep(gradient, u1, u2, loss_natural, loss_adversarial, gamma)

    def _second_order(
        self, search: OneShotSearch, images: list[Tensor], alphas_batch: Batch, batch: Batch
    ) -> list[tuple[Tensor, Tensor]]:
        """Return loss and flat alpha gradient at the unrolled weights for each of `images`; w' is computed once."""
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
