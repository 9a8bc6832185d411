"""The gradient predicts how the margin changes: without that, no gradient attack can be believed.

From a point p, with d_j random of length r, and m the margin of the label over the best other class:

    real_j = m(p + d_j) - m(p)      predicted_j = <grad m(p), d_j>
    c      = correlation of real and predicted over j, 0 where one of them does not vary; per image and point

    s      = (m(p + d*) - m(p)) / (<grad m(p), d*> b),  d* = -r sign(grad m(p)), b the slope of real on predicted;
             for Linf alone, from the image and in the ball: c is an L2 measure, and still 0.85 where a small gradient
             has the wrong sign on a quarter of the pixels, which takes half of its way (s) from the step of an attack

    p   the image; a random point of the ball; the point that a short attack on the margin reaches
    r   in the threat model's norm; eps / 8 (close), where a differentiable model is close to its tangent; eps (far),
        where the attack works

PASS where the mean over the images is at least 0.8 close and 0.4 far, from every point, and c is at least 0.5 close on
90 % of the images, and s at 0.75, and the median of s is at least 0.9; FAIL below 0.5, 0.2, 75 % and 0.8. An image
counts by its worst point. Our choice, by simulation (`scripts/simulate_findings.py`). Pintor et
al. 2022 look at the gradient alone. B images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from robust_nas.attacks import APGD, PGD, Norm
from robust_nas.attacks.losses import margin
from robust_nas.attacks.norms import noise_in_ball, on_sphere, project
from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost, Selection
from robust_nas.evaluation.input_gradient import deciding_logits, input_gradient
from robust_nas.evaluation.seeds import generator_of
from robust_nas.evaluation.thresholds import MISLED, MISLED_FEW, PREDICTED, RESOLVED_CHANGE, SHORT_STEP
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding, Status

CLOSE, CLOSE_DRAWS = 1 / 8, 16
FAR, FAR_DRAWS = 1.0, 8
STEPS = 10  # of the short attack
END = (
    "the end of an attack"  # where the margin is lowest within the ball, and flat in the direction of a step
)


class Agreement(NamedTuple):
    """The correlation of real and predicted change from one point, per image; NaN where float32 resolves neither."""

    point: str
    close: Tensor  # [B]
    far: Tensor  # [B]
    step: Tensor  # [B] s; NaN where it is not taken


class PredictedChange(SanityCheck):
    """The margin changes as its gradient says, around the survivors and where attacks on them end."""

    title: ClassVar[str] = "gradients predict the margin"
    allowed: ClassVar[str] = "at least 0.8 close, 0.4 at eps"
    selection: ClassVar[Selection] = "survivors"
    most: ClassVar[int] = 32
    share: ClassVar[float] = 0.4
    name: Literal["predicted-change"] = "predicted-change"

    def applies(self, state: EvaluationState) -> bool:
        """Return whether the model is deterministic: a random one moves by itself, which the EOT curve looks at."""
        return not state.predictor.random and state.threat_model.eps > 0

    def cost(self, state: EvaluationState) -> int:
        """Return the passes of the short attack and of three points."""
        return _attack(state).passes.total + 3 * (3 + CLOSE_DRAWS + FAR_DRAWS)

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return the lowest mean correlation of the three points."""
        found = agreements(
            state, indices, cost, generator_of(state.device, state.seed, "finding", self.title)
        )
        return [self.judge(found, len(indices))]

    def judge(self, found: list[Agreement], images: int) -> Finding:
        """Return what the correlations say."""
        close, far = (
            min((_mean(getattr(each, key)), each.point) for each in found) for key in ("close", "far")
        )
        each = torch.stack([agreement.close for agreement in found])  # [3, B]
        seen = ~each.isnan().all(0)
        if not seen.any():
            text = "float32 does not resolve the margin's change within the ball"
            return self.finding("WARN", text, images=images)
        steps = torch.stack([agreement.step for agreement in found])
        wrong = (_worst(each) < MISLED["close"]) | (_worst(steps) < SHORT_STEP)
        misled = int(wrong[seen].sum())
        step = min(float(agreement.step.nanmedian().nan_to_num(1.0)) for agreement in found)
        values = {"close": close[0], "far": far[0], "step": step}
        if misled > MISLED_FEW:
            values["images"] = 1 - misled / int(seen.sum())
        status: Status = "PASS"
        if any(value < MISLED[key] for key, value in values.items()):
            status = "FAIL"
        elif any(value < PREDICTED[key] for key, value in values.items()):
            status = "WARN"
        does = "changes" if status == "PASS" else "does not change"
        text = (
            f"the margin {does} as its gradient predicts: correlation {close[0]:.2f} close to {close[1]}, "
            f"{far[0]:.2f} at eps from {far[1]}; an attack's step goes {step:.2f} of its way; not on {misled} of "
            f"{images} images"
        )
        if status != "PASS":
            text += ": the gradient does not describe this model; an attack that follows it is blind"
        return self.finding(status, text, close[0], images)


def agreements(state: EvaluationState, indices: Tensor, cost: Cost, generator: Generator) -> list[Agreement]:
    """Return the correlations from every kind of point, on the images at `indices`."""
    parts: dict[str, list[Agreement]] = {}
    for part in torch.split(indices, state.batch_size):
        x, y = state.batch(part)
        for point, at in _points(state, x, y, cost, generator):
            parts.setdefault(point, []).append(_agreement(state, point, at, x, y, cost, generator))
    return [
        Agreement(point, *(torch.cat(each).cpu() for each in list(zip(*found, strict=True))[1:]))
        for point, found in parts.items()
    ]


def _points(
    state: EvaluationState, x: Tensor, y: Tensor, cost: Cost, generator: Generator
) -> list[tuple[str, Tensor]]:
    threat = state.threat_model
    inside = project(x + noise_in_ball(x, threat.eps, threat.norm, generator), x, threat.eps, threat.norm)
    result = _attack(state).run(state.predictor, x, y, generator)
    cost.passes += result.forwards + result.backwards
    return [("the images", x), ("random points of the ball", inside), (END, result.images)]


def _attack(state: EvaluationState) -> PGD | APGD:
    if state.threat_model.norm not in PGD.norms:
        return APGD(**state.limits, steps=STEPS, loss="margin", fold=False)
    return PGD(**state.limits, steps=STEPS, loss="margin", random_start=False, fold=False)


def changes(
    state: EvaluationState,
    at: Tensor,
    y: Tensor,
    radius: float,
    draws: int,
    gradient: Tensor,
    before: Tensor,
    cost: Cost,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Return real and predicted changes of the margin `[draws, B]` for random steps of length `radius` from `at`."""
    from robust_nas.attacks import attack_mode

    norm: Norm = state.threat_model.norm
    real, predicted = [], []
    with torch.no_grad(), attack_mode(state.predictor):
        for _ in range(draws):
            step = on_sphere(at, radius, "l1" if norm == "l1" else "l2", generator)
            if norm == "linf":
                step = radius * step.sign()
            there = (at + step).clamp(0, 1)
            real.append(-margin(deciding_logits(state, there, y, cost), y) - before)
            predicted.append((gradient * (there - at)).flatten(1).double().sum(1))
    return torch.stack(real).double(), torch.stack(predicted)


def _agreement(
    state: EvaluationState, point: str, at: Tensor, x: Tensor, y: Tensor, cost: Cost, generator: Generator
) -> Agreement:
    from robust_nas.attacks import attack_mode

    logits, (value,), (gradient,) = input_gradient(state, at, y, (margin,), cost)
    gradient = -gradient.nan_to_num(0.0, 0.0, 0.0)
    finite = logits.masked_fill(~logits.isfinite(), 0.0)
    rounding = RESOLVED_CHANGE * finite.gather(1, y.unsqueeze(1)).squeeze(1).abs().double()
    eps = state.threat_model.eps
    found, steps = [], []
    for radius, draws in ((CLOSE * eps, CLOSE_DRAWS), (FAR * eps, FAR_DRAWS)):
        real, predicted = changes(state, at, y, radius, draws, gradient, -value, cost, generator)
        found.append(correlation(real, predicted, rounding))
        steps.append(_slope(real, predicted))
    step = torch.full_like(found[0], torch.nan)
    if state.threat_model.norm == "linf" and point != END:
        there = (at - CLOSE * eps * gradient.sign()).clamp(0, 1)
        with torch.no_grad(), attack_mode(state.predictor):
            change = -margin(deciding_logits(state, there, y, cost), y) + value
        expected = (gradient * (there - at)).flatten(1).double().sum(1) * steps[0]
        step = (change.double() / expected).nan_to_num(0.0, 0.0, 0.0).masked_fill(found[0].isnan(), torch.nan)
    return Agreement(point, found[0], found[1], step)


def _slope(real: Tensor, predicted: Tensor) -> Tensor:
    """Return the slope of real on predicted changes `[draws, B]` per image `[B]`."""
    real, predicted = (each - each.mean(0) for each in (real, predicted))
    return (real * predicted).sum(0) / predicted.square().sum(0)


def _worst(each: Tensor) -> Tensor:
    """Return the lowest of the points' values `[points, B]` that are resolved, per image `[B]`."""
    return each.nan_to_num(nan=torch.inf).amin(0)


def correlation(real: Tensor, predicted: Tensor, rounding: Tensor) -> Tensor:
    """Return the correlation over the draws `[draws, B]` per image `[B]`.

    0 where one of the two does not vary or is not finite; NaN where both vary by less than `rounding` `[B]`.
    """
    real, predicted = (each - each.mean(0) for each in (real, predicted))
    sizes = real.square().mean(0).sqrt(), predicted.square().mean(0).sqrt()
    found = (real * predicted).mean(0) / (sizes[0] * sizes[1])
    found = found.nan_to_num(0.0, 0.0, 0.0)
    return found.masked_fill((sizes[0] <= rounding) & (sizes[1] <= rounding), torch.nan)


def _mean(values: Tensor) -> float:
    """Return the mean over the images that are resolved; 1 where none is."""
    return float(values.nanmean().nan_to_num(1.0))
