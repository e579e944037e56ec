"""Every kind of parameter and of variable, in quadratic programs."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from tests.problems.case import Built, Rows, normal, uniform

_ROWS = Rows("QP")
CASES = _ROWS.cases


@_ROWS.row("DAQP", "LEAST_DISTANCE", "PIVOTING")
def scalar() -> Built:
    """One variable, one parameter: no axes but those of the batch."""
    a = cp.Parameter()
    x = cp.Variable()
    return cp.Problem(cp.Minimize(cp.square(x - a) + x), [x >= a - 0.2]), [a], [x]


@_ROWS.row("DAQP", "PIVOTING", tensor=normal(2.0))
def three_axes() -> Built:
    """Parameters and variables of three axes, which a mix-up of row and column order would scramble."""
    tensor, low = cp.Parameter((2, 3, 2), name="tensor"), cp.Parameter((2, 3, 2), neg=True)
    x = cp.Variable((2, 3, 2))
    return cp.Problem(cp.Minimize(cp.sum_squares(x - tensor)), [cp.sum(x, axis=2) <= 1, x >= low]), [tensor, low], [x]


@_ROWS.row("DAQP", "LEAST_DISTANCE", "PIVOTING")
def rectangle() -> Built:
    """Matrices with more columns than rows."""
    A, B = cp.Parameter((2, 3), name="A"), cp.Parameter((2, 4), name="B")
    X = cp.Variable((3, 4))
    return cp.Problem(cp.Minimize(cp.sum_squares(X)), [A @ X == B, X[0] <= 0.8]), [A, B], [X]


@_ROWS.row(a=normal(0.5))
def signs() -> Built:
    """A parameter of each sign scales what only that sign allows."""
    up, down = cp.Parameter(pos=True), cp.Parameter(neg=True)
    above, below = cp.Parameter(3, nonneg=True), cp.Parameter(3, nonpos=True)
    a = cp.Parameter(3, name="a")
    x = cp.Variable(3)
    objective = up * cp.sum_squares(x) + a @ x - down * cp.pos(cp.sum(x) + 1)
    problem = cp.Problem(cp.Minimize(objective), [x <= above, x >= below])
    return problem, [up, down, above, below, a], [x]


@_ROWS.row("DAQP", "DIRECT")
def symmetric_parameter() -> Built:
    """Only the symmetric part of its gradient has a meaning."""
    S, b = cp.Parameter((3, 3), symmetric=True), cp.Parameter(3)
    x = cp.Variable(3)
    return cp.Problem(cp.Minimize(cp.sum_squares(S @ x - b) + cp.sum_squares(x))), [S, b], [x]


@_ROWS.row("DIRECT")
def definite_parameters() -> Built:
    """Semidefinite parameters outside of quadratic forms."""
    P, N, b = cp.Parameter((3, 3), PSD=True), cp.Parameter((3, 3), NSD=True), cp.Parameter(3)
    x, z = cp.Variable(3), cp.Variable(3)
    return cp.Problem(cp.Minimize(cp.sum_squares(P @ x - b) + cp.sum_squares(N @ z - x))), [P, N, b], [x, z]


@_ROWS.row("DAQP", "DIRECT", D=uniform(0.5, 1.5))
def diagonal_parameter() -> Built:
    """A diagonal matrix; entries off the diagonal do not exist."""
    D, b = cp.Parameter((3, 3), diag=True, name="D"), cp.Parameter(3)
    x = cp.Variable(3)
    return cp.Problem(cp.Minimize(cp.sum_squares(D @ x - b) + 0.1 * cp.sum_squares(cp.diff(x)))), [D, b], [x]


@_ROWS.row("DAQP", "LEAST_DISTANCE", "PIVOTING", A=uniform(0.5, 1.5))
def sparse_parameter() -> Built:
    """A sparse matrix, in the constraints."""
    A, b = cp.Parameter((3, 4), sparsity=([2, 0, 1, 0, 2], [0, 1, 3, 2, 3]), name="A"), cp.Parameter(3, nonneg=True)
    a = np.array([1.0, 2.0, 1.5, 0.5])
    x = cp.Variable(4)
    return cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [A @ x <= b]), [A, b], [x]


@_ROWS.row("DAQP", a=normal(1.5), b=normal(1.5))
def bounds() -> Built:
    """Bounds as attributes, some of them infinite, and signs as attributes."""
    a, b = cp.Parameter(4, name="a"), cp.Parameter(4, name="b")
    x = cp.Variable(4, bounds=[np.array([-1.0, -np.inf, 0.0, -0.5]), np.array([1.0, 0.2, np.inf, 0.7])])
    y = cp.Variable(4, nonpos=True)
    objective = cp.sum_squares(x - a) + cp.sum_squares(y - b) + 0.5 * cp.sum_squares(x - y)
    return cp.Problem(cp.Minimize(objective)), [a, b], [y, x]


@_ROWS.row("DAQP", "PIVOTING", "DIRECT")
def symmetric_variable() -> Built:
    """The nearest symmetric matrix, with a trace."""
    A, trace = cp.Parameter((3, 3)), cp.Parameter()
    X = cp.Variable((3, 3), symmetric=True)
    return cp.Problem(cp.Minimize(cp.sum_squares(X - A)), [cp.trace(X) == trace]), [A, trace], [X]


@_ROWS.row("DAQP", "LEAST_DISTANCE", "PIVOTING")
def diagonal_variable() -> Built:
    """The best diagonal scaling."""
    A, B = cp.Parameter((3, 4)), cp.Parameter((3, 4))
    D = cp.Variable((3, 3), diag=True)
    return cp.Problem(cp.Minimize(cp.sum_squares(D @ A - B)), [cp.trace(D) >= 1]), [A, B], [D]


@_ROWS.row("DAQP", "LEAST_DISTANCE")
def many_outputs() -> Built:
    """Outputs of every shape, in another order than they occur, and one variable that is none."""
    a, b, c = cp.Parameter((2, 2)), cp.Parameter(2), cp.Parameter()
    X, y, z = cp.Variable((2, 2)), cp.Variable(2), cp.Variable()
    hidden = cp.Variable(2)
    objective = cp.sum_squares(X - a) + cp.sum_squares(y - b) + cp.square(z - c) + cp.sum_squares(hidden - y)
    return cp.Problem(cp.Minimize(objective), [cp.sum(X) + z <= 0.3, X[0] >= hidden]), [c, a, b], [z, X, y]
