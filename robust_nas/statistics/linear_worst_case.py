"""The worst case of a linear classifier in closed form, and logistic regression that is trained against it, by scipy.

Margin of an example: m = y (w x + b), y in {-1, +1}; the answer is right where m > 0. Against perturbations of norm p
at most eps, with the dual norm 1/p + 1/q = 1,

    min  y (w (x + d) + b)  =  m - eps ||w||_q          p = inf: q = 1;  p = 2: q = 2;  p = 1: q = inf
    |d|_p <= eps

(Hoelder; it is reached). Where x + d has to stay in the box 0..1, a coordinate can move by at most its room
r_j = x_j or 1 - x_j in the harmful direction -y sign(w_j), and the fall of the margin is the largest sum |w_j| d_j:

    p = inf   d_j = min(eps, r_j)
    p = 1     the largest |w_j| first, each up to r_j, until eps is spent
    p = 2     d_j = min(r_j, |w_j| / lam), lam such that ||d||_2 = eps, or all of r_j where that is less

Adversarial training without the box is penalised regression: as the loss falls in the margin, the largest loss is that
of the smallest margin,

    min_{w, b}  1/n sum_i log(1 + exp(-m_i + eps ||w||_q)) + ridge / 2 ||w||_2^2

which is convex. Source: Goodfellow, Shlens and Szegedy (2015), section 5, for p = inf; the rest is the same argument.
Shapes: x `[N, D]`, y `[N]`, w `[D]`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Norm = Literal["linf", "l2", "l1"]
DUAL: dict[Norm, float] = {"linf": 1, "l2": 2, "l1": np.inf}  # the order q of the dual norm


class LogisticFit(NamedTuple):
    """Weights `[D]` and bias of a logistic regression, and the value of the function that they minimise."""

    weights: Floats
    bias: float
    objective: float


def margins(weights: Floats, bias: float, x: Floats, y: Floats) -> Floats:
    """Return the margins y (w x + b) `[N]`."""
    found: Floats = y * (x @ weights + bias)
    return found


def worst_margins(
    weights: Floats, bias: float, x: Floats, y: Floats, *, eps: float, norm: Norm = "linf", box: bool = True
) -> Floats:
    """Return the smallest margins `[N]` within eps, with `box` of points that stay in 0..1; exact.

    Raises `ValueError` for labels other than -1 and +1, a negative eps, or with `box` points outside 0..1.
    """
    _check(x, y, eps)
    clean = margins(weights, bias, x, y)
    if not box:
        return clean - eps * float(np.linalg.norm(weights, ord=DUAL[norm]))
    if x.size and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(f"x reaches from {x.min():g} to {x.max():g}; with the box it has to lie in 0..1")
    room = np.where(y[:, None] * weights > 0, x, 1 - x)
    fall: Floats = (np.abs(weights) * _moves(np.abs(weights), room, eps, norm)).sum(1)
    return clean - fall


def _moves(sizes: Floats, room: Floats, eps: float, norm: Norm) -> Floats:
    """Return how far each coordinate goes `[N, D]`, at most `room`; `sizes` `[D]` are the absolute weights."""
    if norm == "linf":
        return np.minimum(room, eps)
    room = np.where(sizes > 0, room, 0.0)
    order = np.argsort(-sizes, kind="stable")
    if norm == "l1":
        ahead = np.cumsum(room[:, order], axis=1) - room[:, order]
        moves = np.empty_like(room)
        moves[:, order] = np.clip(eps - ahead, 0, room[:, order])
        return moves
    # d_j(scale) = min(r_j, |w_j| scale) grows with the scale: those with the smallest r_j / |w_j| are full first.
    moves = room.copy()
    for row in np.flatnonzero((room**2).sum(1) > eps**2):
        moves[row] = np.minimum(room[row], sizes * _scale(sizes, room[row], eps))
    return moves


def _scale(sizes: Floats, room: Floats, eps: float) -> float:
    """Return the scale at which `min(room, sizes * scale)` has length eps; `room` is longer than that."""
    moving = sizes > 0
    sizes, room = sizes[moving], room[moving]
    order = np.argsort(room / sizes)
    sizes, room = sizes[order], room[order]
    full = np.concatenate([[0.0], np.cumsum(room**2)])  # of the first k coordinates, which are full
    rest = np.concatenate([np.cumsum((sizes**2)[::-1])[::-1], [0.0]])
    lengths = full[:-1] + rest[:-1] * (room / sizes) ** 2  # squared, where coordinate k becomes full
    k = int(np.searchsorted(lengths, eps**2))
    return float(np.sqrt(max(eps**2 - full[k], 0.0) / rest[k]))


def fit_logistic(
    x: Floats, y: Floats, *, eps: float = 0.0, norm: Literal["linf", "l2"] = "linf", ridge: float = 1e-4
) -> LogisticFit:
    """Return the logistic regression that minimises the worst loss within eps, without the box; eps 0: the usual one.

    Raises `ValueError` for labels other than -1 and +1, a negative eps or ridge, and where the optimiser fails.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    _check(x, y, eps)
    if not ridge > 0:
        raise ValueError(
            f"ridge is {ridge}; it has to be positive, or separable classes have no finite weights"
        )
    count, size = x.shape
    split = (
        norm == "linf" and eps > 0
    )  # w = u - v with u, v >= 0, whose sum is ||w||_1 at the optimum: smooth

    def objective(z: Floats) -> tuple[float, Floats]:
        w = z[:size] - z[size:-1] if split else z[:-1]
        length = float(z[:-1].sum()) if split else float(np.linalg.norm(w))
        worst = margins(w, z[-1], x, y) - eps * length
        share = expit(-worst) / count  # minus the derivative of each loss
        own = -(share * y) @ x + ridge * w
        total = eps * share.sum()
        if split:
            gradient = np.concatenate([own + total, -own + total, [-(share * y).sum()]])
        else:
            gradient = np.concatenate([own + (total * w / length if length else 0), [-(share * y).sum()]])
        return float(np.logaddexp(0, -worst).mean() + ridge / 2 * w @ w), gradient

    start = np.zeros((2 * size if split else size) + 1)
    bounds = [(0.0, None)] * (2 * size) + [(None, None)] if split else None
    limits = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-13, "gtol": 1e-9}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=limits)
    if not found.success:
        raise ValueError(f"no minimum was found: {found.message}")
    w = found.x[:size] - found.x[size:-1] if split else found.x[:-1]
    return LogisticFit(w, float(found.x[-1]), float(found.fun))


def _check(x: Floats, y: Floats, eps: float) -> None:
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise ValueError(f"x is {x.shape} and y {y.shape}; [N, D] and [N] are needed")
    if not np.isin(y, (-1, 1)).all():
        raise ValueError(f"y holds {np.unique(y)[:5].tolist()}; labels are -1 and +1")
    if not eps >= 0:
        raise ValueError(f"eps is {eps}; it has to be 0 or more")
