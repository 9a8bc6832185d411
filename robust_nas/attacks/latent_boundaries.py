"""Boundaries between classes in the latent space of a network: a linear SVM for each pair, and where one is crossed.

    score_st(z) = n . (A(z) * z) + b       n of unit length, above 0 on the side of t;  A: layers/ladder.py
    z(eps)      = z + eps A(z) * n
    eps*        = min {eps >= 0: score_st(z(eps)) >= target}

Without attention the score is affine in eps: eps* = max(target - score_st(z), 0) / ||n||^2. With attention it is not:
eps* is then bracketed on a geometric grid and halved. The SVM is scikit-learn's LinearSVC (squared hinge, primal), for
which latents are centred at the mean of the pair and divided by one number; the published one is a hinge loss by SGD,
whose w is not of unit length, so that its eps is in units of ||w||.

B batch, N latents, K classes, P = K (K - 1) / 2 pairs, d numbers of a latent.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

from robust_nas.errors import DataError
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.layers.ladder import Attention

GRID, REACH = (
    33,
    16.0,
)  # steps of eps that are tried with attention, between 1/REACH and REACH times the linear estimate
HALVINGS = 50


class Side(NamedTuple):
    """The boundary of every example toward its target class."""

    normal: Tensor  # [B, d], of unit length where it was fitted
    offset: Tensor  # [B]
    unit: Tensor  # [B], the distance from the boundary to where the SVM's own margin of 1 is


class Boundaries(NamedTuple):
    """Unit normals of all pairs s < t, in the order of `torch.triu_indices`, positive toward t."""

    normals: Tensor  # [P, d]
    offsets: Tensor  # [P]
    units: Tensor  # [P]
    classes: int
    attention: Attention = "none"

    def like(self, z: Tensor) -> Boundaries:
        """Return the boundaries in the type and on the device of latents."""
        normals, offsets, units = (each.to(z) for each in self[:3])
        return Boundaries(normals, offsets, units, self.classes, self.attention)

    def toward(self, source: Tensor, target: Tensor) -> Side:
        """Return the boundaries from classes `[B]` to other classes `[B]`."""
        low, high = torch.minimum(source, target), torch.maximum(source, target)
        pair = low * (2 * self.classes - low - 1) // 2 + high - low - 1
        sign = torch.where(source < target, 1.0, -1.0).to(self.normals.dtype)
        return Side(sign[:, None] * self.normals[pair], sign * self.offsets[pair], self.units[pair])

    def weights(self, z: Tensor) -> Tensor:
        """Return A(z) `[B, d]`."""
        from robust_nas.layers.ladder import attention

        return attention(z, self.attention)

    def score(self, z: Tensor, side: Side) -> Tensor:
        """Return the scores `[B]` of latents `[B, d]`, above 0 on the side of the target."""
        return (side.normal * self.weights(z) * z).sum(1) + side.offset

    def moved(self, z: Tensor, side: Side, eps: Tensor) -> Tensor:
        """Return z(eps) `[B, d]` for eps `[B]`."""
        return z + eps[:, None] * self.weights(z) * side.normal

    def crossing(self, z: Tensor, side: Side, target: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """Return eps* `[B]` and whether the target score is reached `[B]`; where not, the largest eps tried."""
        missing = (target - self.score(z, side)).clamp_min(0)
        slope = side.normal * self.weights(z)
        estimate = missing / slope.square().sum(1)  # exact without attention
        if self.attention == "none":
            return estimate, torch.ones_like(missing, dtype=torch.bool)

        def reached(eps: Tensor) -> Tensor:
            return self.score(self.moved(z, side, eps), side) >= target

        met = missing == 0
        low, high = torch.zeros_like(estimate), torch.zeros_like(estimate)
        for factor in torch.logspace(-1, 1, GRID, base=REACH, dtype=torch.float64).tolist():
            eps = factor * estimate
            found = reached(eps)
            low = torch.where(met, low, high)
            high = torch.where(met, high, eps)
            met = met | found
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            found = reached(middle)
            low, high = torch.where(found, low, middle), torch.where(found, middle, high)
        return torch.where(missing == 0, 0.0, high), met

    def nearest(self, z: Tensor, source: Tensor, count: int) -> Tensor:
        """Return for latents `[B, d]` of classes `[B]` the classes `[B, count]` whose boundaries are nearest."""
        steps = range(1, self.classes)  # one after the other: all normals of a batch would not fit the memory
        targets = torch.stack([(source + step) % self.classes for step in steps], dim=1)
        eps = [self.crossing(z, self.toward(source, target))[0] for target in targets.unbind(1)]
        order = torch.stack(eps, dim=1).argsort(dim=1, stable=True)[:, :count]
        return targets.gather(1, order)


class Fitted(NamedTuple):
    """Boundaries, the share of latents on the right side of them, and the number of SVMs that did not converge."""

    boundaries: Boundaries
    accuracy: float
    unconverged: int


def refuse_missing_classes(labels: Tensor, classes: int, what: str) -> None:
    """Raise `DataError` for fewer than two classes, a label beyond them, or a class without images."""
    if classes < 2:
        raise DataError(f"{what}: a boundary is between two classes, got {classes}")
    counts = torch.bincount(labels, minlength=classes)
    if len(counts) > classes:
        raise DataError(f"{what}: got label {len(counts) - 1}; there are {classes} classes, counted from 0")
    missing = (counts == 0).nonzero().squeeze(1).tolist()
    if missing:
        shown = ", ".join(map(str, missing[:20])) + ("" if len(missing) <= 20 else ", ...")
        raise DataError(
            f"{what}: no images of class {shown} among {len(labels)}; a boundary needs images of both of its classes"
        )


def fit_boundaries(
    latents: Tensor, labels: Tensor, classes: int, *, per_class: int, c: float, attention: Attention
) -> Fitted:
    """Return a linear SVM for each pair of classes, from the first `per_class` latents `[N, d]` of each.

    `c` weighs the errors against the width of the margin. Raises `DataError` where a class has no latents, or
    where some are not finite.
    """
    from robust_nas.layers.ladder import attention as attention_of

    refuse_missing_classes(labels, classes, "latent boundaries")
    if not latents.isfinite().all():
        raise DataError(
            "latent boundaries: some latents are not finite, so that none can be fitted: the network has diverged"
        )
    seen = attention_of(latents, attention) * latents
    parts = [seen[labels == number][:per_class].double().cpu() for number in range(classes)]
    scale = float(torch.cat(parts).std(correction=0)) or 1.0
    fitted, right, unconverged = [], [], 0
    for source in range(classes):  # scikit-learn takes one problem at a time
        for target in range(source + 1, classes):
            weight, offset, share, failed = _svm(parts[source], parts[target], scale, c)
            length = weight.norm()
            if not length > 0:
                raise DataError(
                    f"latent boundaries: classes {source} and {target} have the same latents; no boundary is between "
                    "them: choose another layer"
                )
            fitted.append((weight / length, offset / length, 1 / length))
            right.append(share)
            unconverged += failed
    normals, offsets, units = (torch.stack(each).to(latents) for each in zip(*fitted, strict=True))
    boundaries = Boundaries(normals, offsets, units, classes, attention)
    return Fitted(boundaries, sum(right) / len(right), unconverged)


def _svm(source: Tensor, target: Tensor, scale: float, c: float) -> tuple[Tensor, Tensor, float, bool]:
    """Return weight `[d]` and offset of latents as they are, the share that is right, and whether it did not converge.

    Classes of different numbers of latents count alike.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    x = torch.cat([source, target])
    y = torch.cat([torch.zeros(len(source)), torch.ones(len(target))]).long().numpy()
    centre = (source.mean(0) + target.mean(0)) / 2  # liblinear shrinks the offset too: it is near 0 there
    svm = LinearSVC(C=c, dual=False, tol=1e-4, class_weight="balanced", random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        svm.fit(((x - centre) / scale).numpy(), y)
    failed = any(issubclass(each.category, ConvergenceWarning) for each in caught)
    weight = torch.from_numpy(svm.coef_[0]).double() / scale
    offset = float(svm.intercept_[0]) - weight @ centre
    right = ((x @ weight + offset > 0).long().numpy() == y).mean()
    return weight, offset, float(right), failed
