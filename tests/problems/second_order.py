"""Programs with second-order cones."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from tests.problems.case import Built, Rows, normal, uniform

_ROWS = Rows("SOC")
CASES = _ROWS.cases


@_ROWS.row("ECOS")
def soc_ball() -> Built:
    """A linear objective on a ball."""
    c, centre, radius = cp.Parameter(3), cp.Parameter(3), cp.Parameter(pos=True)
    x = cp.Variable(3)
    return cp.Problem(cp.Minimize(c @ x), [cp.norm(x - centre) <= radius]), [c, centre, radius], [x]


@_ROWS.row("ECOS", rho=uniform(0.2, 0.6))
def soc_robust_least_squares() -> Built:
    """A sum of two norms, not squared."""
    A, b, rho = cp.Parameter((5, 2)), cp.Parameter(5), cp.Parameter(nonneg=True, name="rho")
    x = cp.Variable(2)
    return cp.Problem(cp.Minimize(cp.norm(A @ x - b) + rho * cp.norm(x))), [A, b, rho], [x]


@_ROWS.row("ECOS", anchors=normal(1.0, [[0, 2], [2, 0], [-2, 0], [0, -2]]), weights=uniform(0.9, 1.1))
def soc_fermat_weber() -> Built:
    """The point with the smallest weighted sum of distances; second-order cones by rows."""
    anchors, weights = cp.Parameter((4, 2), name="anchors"), cp.Parameter(4, nonneg=True, name="weights")
    x, differences = cp.Variable((1, 2)), cp.Variable((4, 2))
    objective = weights @ cp.norm(differences, axis=1)
    problem = cp.Problem(cp.Minimize(objective), [differences == np.ones((4, 1)) @ x - anchors])
    return problem, [anchors, weights], [x]


@_ROWS.row(a=normal(1.0, [0.1, 0.1, 3.0, 0.0, 1.0]), lam=uniform(2.0, 2.5))
def soc_group_lasso() -> Built:
    """Groups of two sizes, the first of which is zero at the solution: its dual is inside the cone."""
    a, lam = cp.Parameter(5, name="a"), cp.Parameter(nonneg=True, name="lam")
    x = cp.Variable(5)
    objective = cp.sum_squares(x - a) + lam * (3 * cp.norm(x[:2]) + 0.3 * cp.norm(x[2:]))
    return cp.Problem(cp.Minimize(objective)), [a, lam], [x]


@_ROWS.row(a=normal(1.0, 1.5), slack=uniform(8, 9))
def soc_sizes() -> Built:
    """Cones of sizes 2, 3 and 5, the last of which is slack: its dual is zero."""
    a, tops, slack = cp.Parameter(5, name="a"), cp.Parameter(2, pos=True), cp.Parameter(name="slack")
    x = cp.Variable(5)
    constraints = [cp.SOC(tops[0], x[:1]), cp.SOC(tops[1] + x[4], x[1:3]), cp.SOC(slack, x[:4])]
    return cp.Problem(cp.Minimize(cp.sum_squares(x - a)), constraints), [a, tops, slack], [x]


@_ROWS.row("ECOS", c=normal(1.0, -2), B=normal(0.3, np.eye(4, 3)), limit=uniform(0, 0.2))
def soc_quadratic_constraint() -> Built:
    """A quadratic constraint becomes a rotated cone; several outputs."""
    c, B, limit = cp.Parameter(3, name="c"), cp.Parameter((4, 3), name="B"), cp.Parameter(name="limit")
    x, t = cp.Variable(3), cp.Variable()
    constraints = [cp.sum_squares(B @ x) <= t, t + cp.sum(x) <= limit]
    return cp.Problem(cp.Minimize(c @ x + 0.5 * t), constraints), [c, B, limit], [x, t]


@_ROWS.row("ECOS", mu=normal(0.1), kappa=uniform(0.5, 1.0), L=normal(0.3, np.eye(4)))
def soc_portfolio() -> Built:
    """Mean and standard deviation, maximised on the simplex."""
    mu, L = cp.Parameter(4, name="mu"), cp.Parameter((4, 4), name="L")
    kappa = cp.Parameter(pos=True, name="kappa")
    x, risk = cp.Variable(4, nonneg=True), cp.Variable()
    problem = cp.Problem(cp.Maximize(mu @ x - kappa * risk), [cp.sum(x) == 1, cp.norm(L @ x) <= risk])
    return problem, [mu, L, kappa], [risk, x]


@_ROWS.row("ECOS")
def soc_harmonic() -> Built:
    """A concave atom of positive variables that second-order cones represent exactly."""
    price, budget = cp.Parameter(3, pos=True), cp.Parameter(pos=True)
    x = cp.Variable(3)
    return cp.Problem(cp.Maximize(cp.harmonic_mean(x)), [price @ x <= budget]), [price, budget], [x]


@_ROWS.row("ECOS")
def soc_geometric_mean() -> Built:
    """CVXPY's default geometric mean: a tower of second-order cones."""
    price, budget = cp.Parameter(3, pos=True), cp.Parameter(pos=True)
    x = cp.Variable(3)
    mean = cp.geo_mean(x, np.array([1, 2, 1]), approx=True)
    return cp.Problem(cp.Maximize(mean), [price @ x <= budget]), [price, budget], [x]
