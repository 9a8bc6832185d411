"""The gradient that an attack follows on a random model is above its noise: signal to noise over draws.

    g_d      the input gradient of the margin in one pass, draw d of D = 16
    m, v     mean of g_d, and sum over the pixels of their sample variance
    s        sqrt(max(0, |m|^2 - v / D) / v)       of one pass: |E g| / std g, without the noise that is left in m
    s sqrt(E)                                      of the mean over E = `deployed.eot` passes

The value is r = s sqrt(E), the median over at most 16 images; the text has s. The cosine of an averaged gradient with
the mean gradient is about r / sqrt(1 + r^2). WARN below r = 1, where more than half of its power is noise; never FAIL,
because the steps of an attack average too: whether accuracy falls is for the EOT sample curve to say. The estimate and
the threshold are our choice.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost, Selection
from robust_nas.evaluation.thresholds import SIGNAL_TO_NOISE
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding, Status

DRAWS = 16


class GradientNoise(SanityCheck):
    """The mean of as many gradients as the attacks take is at least as large as its noise."""

    title: ClassVar[str] = "gradient above its noise"
    allowed: ClassVar[str] = "at least 1 in the mean of the passes"
    selection: ClassVar[Selection] = "right"
    most: ClassVar[int] = 16
    name: Literal["gradient-noise"] = "gradient-noise"

    def applies(self, state: EvaluationState) -> bool:
        """Return whether the model was declared random."""
        return state.predictor.random

    def cost(self, state: EvaluationState) -> int:
        """Return the passes of all draws."""
        return 2 * DRAWS

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return the median signal-to-noise ratio."""
        from robust_nas.attacks.losses import margin
        from robust_nas.evaluation.input_gradient import input_gradient

        x, y = state.batch(indices)
        gradients = torch.stack(
            [input_gradient(state, x, y, (margin,), cost, passes=1)[2][0] for _ in range(DRAWS)]
        )
        ratios = signal_to_noise(gradients)
        single = float(ratios[~ratios.isnan()].median()) if not ratios.isnan().all() else None
        if single is None:
            text = "no image has a gradient in any draw"
            return [self.finding("WARN", text, None, len(x))]
        if single == math.inf:
            return [self.finding("PASS", f"{DRAWS} draws gave the same gradient", None, len(x))]
        passes = state.rule.eot
        ratio = single * math.sqrt(passes)
        status: Status = "PASS" if ratio >= SIGNAL_TO_NOISE else "WARN"
        text = f"|mean| / std of the gradient over draws: {single:.2g} in one pass, {ratio:.2g} in the mean of {passes}"
        if status == "WARN":
            needed = math.ceil((SIGNAL_TO_NOISE / single) ** 2) if single else None
            text += ": the attacks follow noise; "
            text += f"raise deployed.eot to {needed:,}" if needed else "no mean is seen at all"
        return [self.finding(status, text, ratio, len(x))]


def signal_to_noise(gradients: Tensor) -> Tensor:
    """Return |mean| / std over the D draws of gradients `[D, B, ...]`, `[B]`: infinite without noise, NaN of zeros."""
    flat = gradients.flatten(2).double()
    noise = flat.var(0).sum(1)
    signal = (flat.mean(0).square().sum(1) - noise / len(flat)).clamp_min(0)
    return (signal / noise).sqrt()
