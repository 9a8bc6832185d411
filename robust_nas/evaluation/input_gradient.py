"""The gradient of a loss for the pixels, as the model itself gives it: not folded, not cleaned of NaN.

B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.cost import Cost
    from robust_nas.evaluation.state import EvaluationState

Loss = Callable[["Tensor", "Tensor"], "Tensor"]  # logits [B, K] and labels [B] to [B]


def deciding_logits(
    state: EvaluationState, x: Tensor, y: Tensor, cost: Cost, passes: int | None = None
) -> Tensor:
    """Return the logits `[B, K]` that decide for images `[B, C, H, W]`; a rejection counts as the label `y` `[B]`.

    `passes` is how many are averaged; None: as many as an attack of a check takes.
    """
    from robust_nas.attacks.predictor import averaged, merged

    passes = passes or state.eot
    logits = averaged(state.predictor.module, x, passes).float()
    cost.passes += len(x) * passes
    return merged(logits, y) if state.predictor.abstains else logits


def input_gradient(
    state: EvaluationState,
    x: Tensor,
    y: Tensor,
    losses: tuple[Loss, ...],
    cost: Cost,
    *,
    passes: int | None = None,
) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return logits `[B, K]`, and for each loss its values `[B]` and the gradient of their sum `[B, C, H, W]`.

    The gradient is zero where the model gives none. `passes` as in `deciding_logits`.
    """
    from robust_nas.attacks import attack_mode

    with attack_mode(state.predictor), torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = deciding_logits(state, x, y, cost, passes)
        values = tuple(loss(logits, y) for loss in losses)
        gradients = []
        for value in values:
            gradient = None
            if value.requires_grad:
                (gradient,) = torch.autograd.grad(value.sum(), x, allow_unused=True, retain_graph=True)
                cost.passes += len(x) * (passes or state.eot)
            gradients.append(torch.zeros_like(x) if gradient is None else gradient)
    return logits.detach(), tuple(value.detach() for value in values), tuple(gradients)
