"""Programs with semidefinite cones of order 2 to 5."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from tests.problems.case import Built, Rows, definite, normal, symmetric, uniform

_ROWS = Rows("PSD")
CASES = _ROWS.cases


@_ROWS.row()
def psd_linear_matrix_inequality() -> Built:
    """Order 2; the matrices of the inequality are parameters."""
    F, G, H = (cp.Parameter((2, 2), symmetric=True) for _ in range(3))
    a = cp.Parameter(2)
    x = cp.Variable(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [F + x[0] * G + x[1] * H + 2 * np.eye(2) >> 0])
    return problem, [F, G, H, a], [x]


@_ROWS.row(C=symmetric(3.0))
def psd_nearest_correlation() -> Built:
    """Order 3; the projection of a symmetric matrix on the correlation matrices."""
    C = cp.Parameter((3, 3), symmetric=True, name="C")
    X = cp.Variable((3, 3), PSD=True)
    return cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [cp.diag(X) == 1]), [C], [X]


@_ROWS.row()
def psd_largest_eigenvalue() -> Built:
    """Order 4; the largest eigenvalue of a matrix that is affine in x."""
    A, B, C = (cp.Parameter((4, 4), symmetric=True) for _ in range(3))
    x = cp.Variable(2)
    objective = cp.lambda_max(A + x[0] * B + x[1] * C) + cp.sum_squares(x)
    return cp.Problem(cp.Minimize(objective)), [A, B, C], [x]


@_ROWS.row(right=uniform(1, 2))
def psd_trace() -> Built:
    """Order 5; the standard form, with a positive definite cost and three equations."""
    C, right = cp.Parameter((5, 5), PSD=True), cp.Parameter(3, name="right")
    X = cp.Variable((5, 5), symmetric=True)
    root = np.random.default_rng(3).normal(size=(3, 5, 5))
    equations = [cp.trace((F + F.T + 3 * np.eye(5)) @ X) == right[k] for k, F in enumerate(root)]
    return cp.Problem(cp.Minimize(cp.trace(C @ X)), [X >> 0, *equations]), [C, right], [X]


@_ROWS.row(A=symmetric(2.0))
def psd_projection() -> Built:
    """Order 4; through an attribute, from a parameter without one."""
    A = cp.Parameter((4, 4), name="A")
    X = cp.Variable((4, 4), PSD=True)
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(X - A))), [A], [X]


@_ROWS.row(A=symmetric(2.0))
def psd_negative() -> Built:
    """Order 3; a negative semidefinite variable, maximised."""
    A = cp.Parameter((3, 3), symmetric=True, name="A")
    X = cp.Variable((3, 3), NSD=True)
    return cp.Problem(cp.Maximize(-cp.sum_squares(X - A)), [X[0, 1] >= -0.1]), [A], [X]


@_ROWS.row(A=normal(1.0))
def psd_nuclear_norm() -> Built:
    """Order 5; the proximal map of the nuclear norm, some singular values to zero."""
    A, lam = cp.Parameter((3, 2), name="A"), cp.Parameter(pos=True)
    X = cp.Variable((3, 2))
    return cp.Problem(cp.Minimize(cp.sum_squares(X - A) + lam * cp.normNuc(X))), [A, lam], [X]


@_ROWS.row()
def psd_spectral_norm() -> Built:
    """Order 5; the largest singular value of a residual, with a ridge."""
    A, b = cp.Parameter((2, 3)), cp.Parameter(3)
    x = cp.Variable((2, 1))
    residual = A + x @ cp.reshape(b, (1, 3), order="C")
    return cp.Problem(cp.Minimize(cp.sigma_max(residual) + 0.5 * cp.sum_squares(x))), [A, b], [x]


@_ROWS.row(P=definite(1.0, 1.0))
def psd_two_cones() -> Built:
    """Orders 2 and 3 with a norm between them: the rows of all cones must be told apart."""
    A, P, radius = (
        cp.Parameter((3, 3), symmetric=True),
        cp.Parameter((2, 2), PSD=True, name="P"),
        cp.Parameter(pos=True),
    )
    X, Y = cp.Variable((3, 3), PSD=True), cp.Variable((2, 2), symmetric=True)
    objective = cp.sum_squares(X - A) + cp.trace(P @ Y)
    constraints = [Y - X[:2, :2] >> 0, cp.norm(Y - np.eye(2), "fro") <= 0.5 * radius, Y[0, 1] >= 0.1]
    return cp.Problem(cp.Minimize(objective), constraints), [A, P, radius], [Y, X]
