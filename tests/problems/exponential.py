"""Programs with exponential cones."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from tests.problems.case import Built, Rows, normal, uniform

_ROWS = Rows("EXP")
CASES = _ROWS.cases


@_ROWS.row("ECOS", "EXPONENTIAL")
def exp_softmax() -> Built:
    """Entropy on the simplex."""
    a = cp.Parameter(4)
    x = cp.Variable(4)
    return cp.Problem(cp.Maximize(a @ x + cp.sum(cp.entr(x))), [cp.sum(x) == 1]), [a], [x]


@_ROWS.row("ECOS", "EXPONENTIAL", k=uniform(1.2, 1.8))
def exp_top_k() -> Built:
    """Binary entropy on the capped simplex, with the number of chosen entries as a parameter."""
    a, k = cp.Parameter(4), cp.Parameter(name="k")
    x = cp.Variable(4)
    objective = a @ x + cp.sum(cp.entr(x)) + cp.sum(cp.entr(1 - x))
    return cp.Problem(cp.Maximize(objective), [cp.sum(x) == k]), [a, k], [x]


@_ROWS.row("EXPONENTIAL")
def exp_logistic_regression() -> Built:
    """The data are parameters."""
    points, ridge = cp.Parameter((5, 2)), cp.Parameter(pos=True)
    w = cp.Variable(2)
    signs = np.array([1, -1, 1, 1, -1])
    loss = cp.sum(cp.logistic(-cp.multiply(signs, points @ w)))
    return cp.Problem(cp.Minimize(loss + ridge * cp.sum_squares(w))), [points, ridge], [w]


@_ROWS.row("ECOS", "EXPONENTIAL", A=normal(0.3, [[1, 0], [-1, 0], [0, 1], [0, -1], [1, 1]]))
def exp_log_sum_exp() -> Built:
    """Affine pieces whose slopes surround zero."""
    A, b = cp.Parameter((5, 2), name="A"), cp.Parameter(5)
    x = cp.Variable(2)
    return cp.Problem(cp.Minimize(cp.log_sum_exp(A @ x + b))), [A, b], [x]


@_ROWS.row("ECOS", "EXPONENTIAL", mean=uniform(1.4, 2.2))
def exp_divergence() -> Built:
    """The distribution nearest to another one, at a given mean."""
    prior, mean = cp.Parameter(4, pos=True), cp.Parameter(name="mean")
    x = cp.Variable(4)
    constraints = [cp.sum(x) == 1, np.arange(4) @ x == mean]
    return (
        cp.Problem(cp.Minimize(cp.sum(cp.kl_div(x, np.ones(4))) + cp.sum(cp.multiply(prior, x))), constraints),
        [
            prior,
            mean,
        ],
        [x],
    )


@_ROWS.row("ECOS", "EXPONENTIAL", b=uniform(0.5, 1.5))
def exp_analytic_centre() -> Built:
    """Logarithmic barriers of a polytope."""
    A, b = cp.Parameter((3, 2)), cp.Parameter(3, name="b")
    x = cp.Variable(2)
    objective = cp.sum(cp.log(b - A @ x)) + cp.sum(cp.log(2 - x)) + cp.sum(cp.log(2 + x))
    return cp.Problem(cp.Maximize(objective)), [A, b], [x]


@_ROWS.row("ECOS", "EXPONENTIAL", budget=uniform(1, 2))
def exp_water_filling() -> Built:
    """Logarithms on a simplex, some entries zero."""
    noise, budget = cp.Parameter(4, pos=True, name="noise"), cp.Parameter(pos=True, name="budget")
    x = cp.Variable(4, nonneg=True)
    return cp.Problem(cp.Maximize(cp.sum(cp.log(noise + x))), [cp.sum(x) <= budget]), [noise, budget], [x]


@_ROWS.row("ECOS", "EXPONENTIAL", slack=uniform(5, 6))
def exp_inactive() -> Built:
    """An exponential constraint that does not bind, beside one that does."""
    c, slack = cp.Parameter(2, neg=True), cp.Parameter(name="slack")
    x = cp.Variable(2)
    constraints = [cp.sum(cp.exp(x)) <= 2, cp.exp(x[0] + x[1]) <= slack]
    return cp.Problem(cp.Minimize(c @ x), constraints), [c, slack], [x]


@_ROWS.row()
def exp_covariance() -> Built:
    """Maximum likelihood for an inverse covariance: a log-determinant mixes exponential and semidefinite cones."""
    S, lam = cp.Parameter((2, 2), PSD=True), cp.Parameter(pos=True)
    X = cp.Variable((2, 2), symmetric=True)
    objective = cp.log_det(X) - cp.trace(S @ X) - 0.1 * lam * cp.sum_squares(X)
    return cp.Problem(cp.Maximize(objective)), [S, lam], [X]


@_ROWS.row("ECOS", "EXPONENTIAL", gp=True)
def exp_geometric_box() -> Built:
    """A geometric program: the box of largest volume with bounded walls, floor and proportions."""
    wall, floor, ratio = (cp.Parameter(pos=True, name=name) for name in ("wall", "floor", "ratio"))
    h, w, d = (cp.Variable(pos=True) for _ in range(3))
    constraints = [2 * (h * w + h * d) <= 10 * wall, w * d <= floor, h <= 4 * ratio * w]
    return cp.Problem(cp.Maximize(h * w * d), constraints), [wall, floor, ratio], [h, w, d]


@_ROWS.row("ECOS", "EXPONENTIAL", gp=True, power=uniform(0.5, 0.9), weights=uniform(0.5, 1.5))
def exp_geometric_exponent() -> Built:
    """A geometric program with a parameter as exponent, and vectors."""
    power, weights = cp.Parameter(name="power"), cp.Parameter(3, pos=True, name="weights")
    x = cp.Variable(3, pos=True)
    objective = cp.sum(cp.multiply(weights, x)) + x[0] ** power / (x[1] * x[2])
    return cp.Problem(cp.Minimize(objective), [x[0] * x[1] >= 0.5]), [power, weights], [x]
