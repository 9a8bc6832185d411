"""The worst case of a linear classifier: against linear programs, attacks, and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from sklearn.linear_model import LogisticRegression
from torch import nn

from robust_nas.attacks import APGD, FGSM
from robust_nas.statistics.linear_worst_case import fit_logistic, margins, worst_margins

NORMS = ("linf", "l2", "l1")


def problem(seed=0, count=12, size=9):
    draws = np.random.default_rng(seed)
    x = draws.uniform(size=(count, size))
    w = draws.normal(size=size) * (draws.uniform(size=size) > 0.2)
    return w, 0.3, x, draws.choice([-1.0, 1.0], size=count)


@pytest.mark.parametrize("eps", [0.05, 0.4, 3.0])
def test_linf_and_l1_are_the_optimum_of_a_linear_program(eps):
    w, b, x, y = problem()
    for row in range(4):
        slope = y[row] * w
        bounds = [(-v, 1 - v) for v in x[row]]
        boxed = [(max(low, -eps), min(high, eps)) for low, high in bounds]
        found = {"linf": linprog(slope, bounds=boxed).fun}
        # d = u - v, u, v >= 0, sum u + v <= eps
        sides = [(0, high) for _, high in bounds] + [(0, -low) for low, _ in bounds]
        found["l1"] = linprog(
            np.concatenate([slope, -slope]), A_ub=np.ones((1, 2 * len(w))), b_ub=[eps], bounds=sides
        ).fun
        for norm, fall in found.items():
            ours = worst_margins(w, b, x[row : row + 1], y[row : row + 1], eps=eps, norm=norm)
            assert ours[0] == pytest.approx(margins(w, b, x, y)[row] + fall, abs=1e-9)


@pytest.mark.parametrize("eps", [0.1, 0.7, 3.0])
def test_l2_is_what_a_general_solver_finds(eps):
    w, b, x, y = problem(size=5)
    ours = worst_margins(w, b, x, y, eps=eps, norm="l2")
    for row in range(4):
        slope = y[row] * w
        found = minimize(
            lambda d, slope=slope: slope @ d,
            np.full(5, 1e-3),
            jac=lambda d, slope=slope: slope,
            bounds=[(-v, 1 - v) for v in x[row]],
            constraints={"type": "ineq", "fun": lambda d: eps**2 - d @ d, "jac": lambda d: -2 * d},
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )
        assert ours[row] == pytest.approx(margins(w, b, x, y)[row] + found.fun, abs=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_without_the_box_it_is_the_dual_norm_and_the_box_only_helps(norm):
    w, b, x, y = problem()
    free = worst_margins(w, b, x, y, eps=0.2, norm=norm, box=False)
    dual = {"linf": np.abs(w).sum(), "l2": np.sqrt(w @ w), "l1": np.abs(w).max()}[norm]
    np.testing.assert_allclose(free, margins(w, b, x, y) - 0.2 * dual)
    middle = np.full_like(x, 0.5)  # whose room is .5 on either side
    np.testing.assert_allclose(
        worst_margins(w, b, middle, y, eps=0.2, norm=norm),
        worst_margins(w, b, middle, y, eps=0.2, norm=norm, box=False),
    )
    assert (worst_margins(w, b, x, y, eps=0.2, norm=norm) >= free - 1e-12).all()
    np.testing.assert_allclose(worst_margins(w, b, x, y, eps=0.0, norm=norm), margins(w, b, x, y))


@pytest.mark.parametrize(("norm", "attack"), [("linf", FGSM), ("l2", APGD), ("l1", APGD)])
def test_an_attack_reaches_it_and_never_passes_it(norm, attack):
    w, b, x, y = problem(count=40, size=16)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor(np.stack([-w / 2, w / 2])))
        network[1].bias.copy_(torch.tensor([-b / 2, b / 2]))
    images = torch.tensor(x).view(-1, 1, 4, 4)
    labels = torch.tensor((y > 0).astype(np.int64))
    eps = {"linf": 0.1, "l2": 0.3, "l1": 0.8}[norm]
    more = {} if attack is FGSM else {"steps": 100, "restarts": 2}
    reached = attack(eps=eps, norm=norm, **more)(network, images, labels).flatten(1).numpy()
    exact = worst_margins(w, b, x, y, eps=eps, norm=norm)
    assert (margins(w, b, reached, y) >= exact - 1e-9).all()
    np.testing.assert_allclose(margins(w, b, reached, y), exact, atol=1e-9 if norm == "linf" else 0.06)


def test_at_eps_0_it_is_scikit_learns_logistic_regression():
    w, b, x, y = problem(count=80)
    y = np.where(margins(w, b, x, np.ones(80)) + np.random.default_rng(1).normal(size=80) > 0, 1.0, -1.0)
    ours = fit_logistic(x, y, ridge=0.05)
    theirs = LogisticRegression(C=1 / (0.05 * 80), tol=1e-10, max_iter=1000).fit(x, y)
    np.testing.assert_allclose(ours.weights, theirs.coef_[0], atol=1e-5)
    assert ours.bias == pytest.approx(theirs.intercept_[0], abs=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_its_objective_is_the_worst_loss_and_no_weights_nearby_have_a_smaller_one(norm):
    w, b, x, y = problem(count=60)
    y = np.where(margins(w, b, x, np.ones(60)) > 0, 1.0, -1.0)

    def worst_loss(weights, bias):
        worst = worst_margins(weights, bias, x, y, eps=0.1, norm=norm, box=False)
        return np.logaddexp(0, -worst).mean() + 0.005 * weights @ weights

    found = fit_logistic(x, y, eps=0.1, norm=norm, ridge=0.01)
    assert found.objective == pytest.approx(worst_loss(found.weights, found.bias), abs=1e-6)
    draws = np.random.default_rng(2)
    for size in (1e-3, 1e-2, 0.1):
        for _ in range(20):
            step = size * draws.normal(size=10)
            assert worst_loss(found.weights + step[:9], found.bias + step[9]) > found.objective - 1e-7


def test_against_linf_it_leaves_weights_at_zero_as_the_lasso_does():
    w, b, x, y = problem(count=60, size=20)
    y = np.where(margins(w, b, x, np.ones(60)) > 0, 1.0, -1.0)
    zeros = [(np.abs(fit_logistic(x, y, eps=eps).weights) < 1e-6).sum() for eps in (0, 0.02, 0.1, 0.5)]
    assert zeros == sorted(zeros)
    assert zeros[0] == 0
    assert zeros[-1] == 20  # more than the classes are apart: the best answer is the same for all


def test_mistakes_are_refused():
    w, b, x, y = problem()
    with pytest.raises(ValueError, match="labels are -1"):
        worst_margins(w, b, x, (y > 0).astype(float), eps=0.1)
    with pytest.raises(ValueError, match="it has to lie in"):
        worst_margins(w, b, x + 1, y, eps=0.1)
    with pytest.raises(ValueError, match="eps is -1"):
        fit_logistic(x, y, eps=-1)
    with pytest.raises(ValueError, match="ridge is 0"):
        fit_logistic(x, y, ridge=0)
