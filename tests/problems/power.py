"""Programs with power cones, and one with every cone."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from tests.problems.case import Built, Rows, normal, uniform

_ROWS = Rows("POWER")
CASES = _ROWS.cases


@_ROWS.row()
def power_cones() -> Built:
    """Three-dimensional power cones with two exponents."""
    price, budget, weights = cp.Parameter(2, pos=True), cp.Parameter(pos=True), cp.Parameter(2, pos=True)
    x, z = cp.Variable(2), cp.Variable(2)
    cones = cp.PowCone3D(cp.hstack([x[0], x[1]]), cp.hstack([x[1], 1.0]), z, np.array([0.3, 0.7]))
    return cp.Problem(cp.Maximize(weights @ z), [price @ x <= budget, cones]), [price, budget, weights], [x, z]


@_ROWS.row(a=normal(0.3, [1, 1, -3]), slack=uniform(-1.5, -1.2))
def power_inactive() -> Built:
    """A power cone that does not bind, beside one that binds with a negative last entry."""
    a, slack = cp.Parameter(3, name="a"), cp.Parameter(name="slack")
    x = cp.Variable(3)
    tight, loose = cp.PowCone3D(x[0], x[1], x[2], 0.4), cp.PowCone3D(x[0] + 3, x[1] + 3, slack, 0.5)
    return cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [tight, loose]), [a, slack], [x]


@_ROWS.row(A=normal(0.3, [[1, 0], [0, 1], [1, 1], [1, -1]]), b=normal(0.2, [3, -2, -1, 2]))
def power_three_halves() -> Built:
    """Powers of 1.5 of residuals."""
    A, b = cp.Parameter((4, 2), name="A"), cp.Parameter(4, name="b")
    x = cp.Variable(2)
    objective = cp.sum(cp.power(cp.abs(A @ x - b), 1.5, approx=False)) + cp.sum_squares(x)
    return cp.Problem(cp.Minimize(objective)), [A, b], [x]


@_ROWS.row(c=uniform(-1.5, -1.0))
def power_cubes() -> Built:
    """Third powers of positive variables."""
    c, weights = cp.Parameter(3, name="c"), cp.Parameter(3, pos=True)
    x = cp.Variable(3)
    objective = cp.sum(cp.multiply(weights, cp.power(x, 3, approx=False))) + c @ x
    return cp.Problem(cp.Minimize(objective), [cp.sum(x) <= 1.5]), [c, weights], [x]


@_ROWS.row()
def power_root() -> Built:
    """Concave powers, as of Cobb and Douglas."""
    price, gain = cp.Parameter(2, pos=True), cp.Parameter(2, pos=True)
    x = cp.Variable(2)
    utility = cp.multiply(gain, cp.power(x, 0.4, approx=False))
    return cp.Problem(cp.Maximize(cp.sum(utility) - price @ x)), [price, gain], [x]


@_ROWS.row(c=normal(1.0, 1.0))
def power_norm() -> Built:
    """A ball of the 3-norm."""
    c, radius = cp.Parameter(3, name="c"), cp.Parameter(pos=True)
    x = cp.Variable(3)
    return cp.Problem(cp.Maximize(c @ x), [cp.pnorm(x, 3, approx=False) <= radius]), [c, radius], [x]


@_ROWS.row()
def power_geometric_mean() -> Built:
    """A weighted geometric mean of four variables: a power cone of many dimensions."""
    price, budget = cp.Parameter(4, pos=True), cp.Parameter(pos=True)
    x = cp.Variable(4)
    mean = cp.geo_mean(x, np.array([1.0, 2.5, 1.5, 3.0]), approx=False)
    return cp.Problem(cp.Maximize(mean), [price @ x <= budget]), [price, budget], [x]


@_ROWS.row(a=uniform(0.5, 1.5))
def power_many() -> Built:
    """Two power cones of three entries each, side by side."""
    a, weights = cp.Parameter((3, 2), name="a"), cp.Parameter(2, pos=True)
    W, z = cp.Variable((3, 2)), cp.Variable(2)
    alpha = np.array([[0.2, 0.5], [0.5, 0.2], [0.3, 0.3]])
    objective = cp.sum_squares(W - a) - weights @ z
    return cp.Problem(cp.Minimize(objective), [cp.PowConeND(W, z, alpha)]), [a, weights], [W, z]


@_ROWS.row(a=normal(0.5, 1.0))
def every_cone() -> Built:
    """All cones in one program, with an equality and a bound; the rows of each must be told apart."""
    a, S, radius = cp.Parameter(5, name="a"), cp.Parameter((2, 2), symmetric=True), cp.Parameter(pos=True)
    x, X = cp.Variable(5), cp.Variable((2, 2), symmetric=True)
    constraints = [
        cp.sum(x) == radius,
        x[0] <= 0.4,
        cp.norm(x[:3]) <= radius,
        X >> 0,
        cp.exp(x[1]) <= X[0, 0] + 0.5,
        cp.PowCone3D(X[1, 1], x[3] + 1, x[4], 0.3),
    ]
    return cp.Problem(cp.Minimize(cp.sum_squares(x - a) + cp.sum_squares(X - S)), constraints), [a, S, radius], [x, X]
