"""Quadratic programs."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from tests.problems.case import Built, Rows, normal, uniform

_ROWS = Rows("QP")
CASES = _ROWS.cases


@_ROWS.row("DAQP", h=uniform(0.2, 1.0), b=normal(0.3))
def qp_all_data() -> Built:
    """OptNet's layer: every matrix and vector is a parameter."""
    Q, p = cp.Parameter((5, 5), PSD=True), cp.Parameter(5)
    A, b, G, h = cp.Parameter((2, 5)), cp.Parameter(2, name="b"), cp.Parameter((4, 5)), cp.Parameter(4, name="h")
    x = cp.Variable(5)
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, Q) + p @ x), [A @ x == b, G @ x <= h])
    return problem, [Q, p, A, b, G, h], [x]


@_ROWS.row("DAQP", "DIRECT")
def qp_equalities() -> Built:
    """Only equalities."""
    Q, A, b = cp.Parameter((4, 4), PSD=True), cp.Parameter((2, 4)), cp.Parameter(2)
    x = cp.Variable(4)
    return cp.Problem(cp.Minimize(cp.quad_form(x, Q) + cp.sum(x)), [A @ x == b]), [Q, A, b], [x]


@_ROWS.row("DAQP", "DIRECT")
def qp_unconstrained() -> Built:
    """No constraints at all."""
    Q, q = cp.Parameter((3, 3), PSD=True), cp.Parameter(3)
    x = cp.Variable(3)
    return cp.Problem(cp.Minimize(cp.quad_form(x, Q) + q @ x)), [Q, q], [x]


@_ROWS.row("DAQP", "DIRECT")
def qp_maximise() -> Built:
    """A concave objective, by a matrix that is negative semidefinite."""
    N, q = cp.Parameter((3, 3), NSD=True), cp.Parameter(3)
    x = cp.Variable(3)
    return cp.Problem(cp.Maximize(cp.quad_form(x, N) + q @ x), [cp.sum(x) == 1]), [N, q], [x]


@_ROWS.row("DAQP", "PIVOTING", a=normal(1.0, [2, -2, 0, 1, -1]))
def qp_box() -> Built:
    """A box whose ends are parameters, on either side of zero."""
    a, low, high = cp.Parameter(5, name="a"), cp.Parameter(5, neg=True), cp.Parameter(5, pos=True)
    x = cp.Variable(5)
    return cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [low <= x, x <= high]), [a, low, high], [x]


@_ROWS.row("DAQP", "DIRECT")
def qp_least_squares() -> Built:
    """The data matrix is a parameter; canonicalisation names the residual."""
    A, b = cp.Parameter((6, 3)), cp.Parameter(6)
    x = cp.Variable(3)
    return cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b))), [A, b], [x]


@_ROWS.row("DAQP", "DIRECT")
def qp_matrix_least_squares() -> Built:
    """A matrix variable with several right-hand sides, and a ridge."""
    A, B, ridge = cp.Parameter((4, 2)), cp.Parameter((4, 3)), cp.Parameter(pos=True)
    X = cp.Variable((2, 3))
    return cp.Problem(cp.Minimize(cp.sum_squares(A @ X - B) + ridge * cp.sum_squares(X))), [A, B, ridge], [X]


@_ROWS.row(lam=uniform(1, 2))
def qp_lasso() -> Built:
    """A scalar weight on the l1 norm."""
    A, b, lam = cp.Parameter((6, 4)), cp.Parameter(6), cp.Parameter(nonneg=True, name="lam")
    x = cp.Variable(4)
    return cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + lam * cp.norm1(x))), [A, b, lam], [x]


@_ROWS.row()
def qp_elastic_net() -> Built:
    """A weight per feature."""
    weights, ridge, b = cp.Parameter(3, nonneg=True), cp.Parameter(nonneg=True), cp.Parameter(5)
    A = np.random.default_rng(0).normal(size=(5, 3))
    x = cp.Variable(3)
    penalty = cp.sum(cp.multiply(weights, cp.abs(x))) + ridge * cp.sum_squares(x)
    return cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + penalty)), [weights, ridge, b], [x]


@_ROWS.row(b=normal(2.0))
def qp_huber() -> Built:
    """Some residuals beyond the threshold."""
    A, b = cp.Parameter((6, 2)), cp.Parameter(6, name="b")
    x = cp.Variable(2)
    return cp.Problem(cp.Minimize(cp.sum(cp.huber(A @ x - b, 0.5)))), [A, b], [x]


@_ROWS.row(margin=uniform(0.5, 1.5))
def qp_hinge() -> Built:
    """A support vector machine with an offset."""
    points, margin, ridge = cp.Parameter((6, 2)), cp.Parameter(6, name="margin"), cp.Parameter(pos=True)
    w, offset = cp.Variable(2), cp.Variable()
    signs = np.array([1, 1, 1, -1, -1, -1])
    loss = cp.sum(cp.pos(margin - cp.multiply(signs, points @ w + offset)))
    problem = cp.Problem(cp.Minimize(loss + ridge * cp.sum_squares(w) + 0.1 * cp.square(offset)))
    return problem, [points, margin, ridge], [w, offset]


@_ROWS.row("DAQP", "PIVOTING")
def qp_simplex() -> Built:
    """The projection on the simplex."""
    a = cp.Parameter(6)
    x = cp.Variable(6, nonneg=True)
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - a)), [cp.sum(x) == 1]), [a], [x]


@_ROWS.row(signal=normal(0.5, [0, 0, 0, 3, 3, 3, 1, 1]), D=normal(0.1, 0.7 * np.diff(np.eye(8), axis=0)))
def qp_total_variation() -> Built:
    """A sparse difference operator whose entries are parameters."""
    indices = (np.repeat(np.arange(7), 2), np.stack([np.arange(7), np.arange(1, 8)], axis=1).ravel())
    signal, D = cp.Parameter(8, name="signal"), cp.Parameter((7, 8), sparsity=indices, name="D")
    x = cp.Variable(8)
    return cp.Problem(cp.Minimize(cp.sum_squares(x - signal) + cp.norm1(D @ x))), [signal, D], [x]


@_ROWS.row(start=normal(2.0), A=normal(0.2, np.eye(2)), B=normal(0.2, [[0.0], [0.7]]))
def qp_control() -> Built:
    """Model predictive control over three steps with bounded inputs; states and inputs are outputs."""
    start, A, B = cp.Parameter(2, name="start"), cp.Parameter((2, 2), name="A"), cp.Parameter((2, 1), name="B")
    weights = cp.Parameter(2, nonneg=True)
    x, u = cp.Variable((4, 2)), cp.Variable((3, 1))
    cost = cp.sum(cp.square(x) @ weights) + 0.1 * cp.sum_squares(u)
    steps = [x[k + 1] == A @ x[k] + B @ u[k] for k in range(3)]
    return cp.Problem(cp.Minimize(cost), [x[0] == start, cp.abs(u) <= 0.5, *steps]), [start, A, B, weights], [x, u]


@_ROWS.row("DAQP", "LEAST_DISTANCE", "PIVOTING", a=normal(), b=normal())
def qp_cancelling() -> Built:
    """A parameter that cancels out: its gradient is zero."""
    a, b = cp.Parameter(3, name="a"), cp.Parameter(3, name="b")
    x = cp.Variable(3)
    objective = cp.sum_squares(x - a) + b @ x - cp.sum(cp.multiply(b, x))
    return cp.Problem(cp.Minimize(objective), [x + b <= 0.5 + b]), [a, b], [x]


@_ROWS.row(tracked=normal(1.0, [3, 0, 0]), limit=uniform(0.4, 0.8))
def qp_tracking() -> Built:
    """A parametric matrix around a parametric point, through a variable that names the difference."""
    P, tracked = cp.Parameter((3, 3), PSD=True), cp.Parameter(3, name="tracked")
    limit = cp.Parameter(pos=True, name="limit")
    x, error = cp.Variable(3), cp.Variable(3)
    objective = cp.quad_form(error, P) + cp.sum_squares(x)
    constraints = [error == x - tracked, cp.norm1(x) <= limit]
    return cp.Problem(cp.Minimize(objective), constraints), [P, tracked, limit], [x, error]
