"""DSARA's two-stage search (Ou et al., arXiv 2212.14049; form recovered from the official ARNAS code).

One step, on a batch (x, y) of the weights' half and (v, t) of the alphas' half:

    x' = attack(w, alpha; x, y)              v' = attack(w, alpha; v, t)
    stage 1:  g  = d/dalpha L(w, alpha; v', t)
    stage 2:  u1 = d/dalpha L(w, alpha; v, t),   u2 = lambda d/dalpha L(w, alpha; v', t)
              (with `normalise` each gradient is first divided by its norm or its loss: `min_norm.py`)
              g  = gamma* u1 + (1 - gamma*) u2         (min-norm over all alphas at once; or u1 + u2)
    alpha <- Adam(alpha, g)
    w     <- SGD(w, d/dw L(w, alpha; x', y))           (adversarial in both stages)

Second order replaces w in the alpha gradients by the unrolled w' (`one_shot/second_order.py`).

With several ranks the min-norm point is that of one rank with the whole batch, because losses and gradients are summed
over the ranks as soon as they are taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from robust_nas.config import CountOrZero, Positive
from robust_nas.lazy import torch
from robust_nas.search.one_shot.batch import Batch
from robust_nas.search.one_shot.second_order import UnrolledStrategy
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


class DSARA(UnrolledStrategy):
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
    # divisor of both gradients before min-norm: their lengths, or their losses. Not as published.
    normalise: Literal["none", "unit", "loss"] = Field(default="none", exclude_if=lambda by: by == "none")

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        if self.stage1_epochs > self.epochs:
            raise ValueError(
                f"stage1_epochs is {self.stage1_epochs}, more than the {self.epochs} epochs; "
                f"set it to {self.epochs} or less"
            )
        return self

    @model_validator(mode="after")
    def _there_is_a_min_norm_step_to_normalise_for(self) -> Self:
        if self.normalise != "none" and self.combine == "sum":
            raise ValueError(
                f"normalise is {self.normalise!r}, but combine is 'sum', without a min-norm step; allowed with it: none"
            )
        return self

    def stage(self, epoch: int) -> int:
        """Return 1 before the natural loss takes part, then 2."""
        return 1 if epoch < self.stage1_epochs else 2

    def note(self, record: Record) -> str:
        """Return the stage and the losses of the last record, for progress."""
        if record["loss_adversarial"] is None:  # the weights alone were trained
            return super().note(record)
        natural = "" if record["loss_natural"] is None else f" natural {record['loss_natural']:.2f}"
        alphas = f"adversarial {record['loss_adversarial']:.2f}{natural}"
        return f"stage {record['stage']}, loss {record['loss_weights']:.2f}, alphas: {alphas}"

    def alpha_gradient(self, search: OneShotSearch, alphas_batch: Batch, weights_batch: Batch) -> DSARAStep:
        """Return the gradient that the alphas descend in the present stage.

        `weights_batch` is used by the second order alone.
        """
        from robust_nas.search.min_norm import min_norm, normalised

        images = (
            [alphas_batch.adversarial]
            if search.stage == 1
            else [alphas_batch.natural, alphas_batch.adversarial]
        )
        found = self.alpha_gradients(search, images, alphas_batch, weights_batch)
        loss_adversarial, adversarial = found[-1]
        if search.stage == 1:
            return DSARAStep(adversarial, None, adversarial, None, loss_adversarial, None)
        loss_natural, u1 = found[0]
        u2 = self.adversarial_weight * adversarial
        if self.combine == "sum":
            return DSARAStep(u1 + u2, u1, u2, loss_natural, loss_adversarial, None)
        gamma, gradient = min_norm(
            normalised(u1, loss_natural, self.normalise),
            self.adversarial_weight * normalised(adversarial, loss_adversarial, self.normalise),
        )
        return DSARAStep(gradient, u1, u2, loss_natural, loss_adversarial, gamma)
