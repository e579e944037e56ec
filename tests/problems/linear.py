"""Linear programs, with a vertex as their unique solution."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from tests.problems.case import Built, Rows, normal, uniform

_ROWS = Rows("LP")
CASES = _ROWS.cases


@_ROWS.row("ECOS")
def lp_vertex() -> Built:
    """Costs, matrix and right-hand side are parameters, all positive: the solution is finite."""
    c, A, b = cp.Parameter(3, pos=True, name="c"), cp.Parameter((4, 3), pos=True, name="A"), cp.Parameter(4, pos=True)
    x = cp.Variable(3, nonneg=True)
    return cp.Problem(cp.Minimize(c @ x), [A @ x >= b]), [c, A, b], [x]


@_ROWS.row("ECOS")
def lp_maximise() -> Built:
    """Maximised, with bounds that are attributes and bounds that are constraints."""
    r, A, u = cp.Parameter(4, name="r"), cp.Parameter((2, 4), pos=True, name="A"), cp.Parameter(4, pos=True, name="u")
    x = cp.Variable(4, bounds=[-0.3, None])
    return cp.Problem(cp.Maximize(r @ x), [A @ x <= 1, x <= u]), [r, A, u], [x]


@_ROWS.row("ECOS", supply=uniform(1, 2), demand=uniform(0.3, 0.9))
def lp_transport() -> Built:
    """A matrix variable; the last column takes what remains, so that the equalities are independent."""
    cost, supply, demand = cp.Parameter((2, 3)), cp.Parameter(2, name="supply"), cp.Parameter(2, name="demand")
    flow = cp.Variable((2, 3))
    constraints = [flow >= 0, cp.sum(flow, axis=1) == supply, cp.sum(flow[:, :2], axis=0) == demand]
    return cp.Problem(cp.Minimize(cp.sum(cp.multiply(cost, flow))), constraints), [cost, supply, demand], [flow]


@_ROWS.row("ECOS")
def lp_chebyshev() -> Built:
    """The best approximation in the maximum norm; the error is an output too."""
    A, b = cp.Parameter((5, 2)), cp.Parameter(5)
    x, t = cp.Variable(2), cp.Variable()
    return cp.Problem(cp.Minimize(t), [cp.norm_inf(A @ x - b) <= t]), [A, b], [x, t]


@_ROWS.row("ECOS")
def lp_absolute_deviations() -> Built:
    """The best approximation in the l1 norm interpolates as many points as there are unknowns."""
    A, b = cp.Parameter((5, 2)), cp.Parameter(5)
    x = cp.Variable(2)
    return cp.Problem(cp.Minimize(cp.norm1(A @ x - b)), []), [A, b], [x]


@_ROWS.row("ECOS", A=normal(0.3, [[1, 0], [-1, 0], [0, 1], [0, -1]]))
def lp_largest_piece() -> Built:
    """The minimum of the largest of four affine pieces whose slopes surround zero."""
    A, b = cp.Parameter((4, 2), name="A"), cp.Parameter(4)
    x = cp.Variable(2)
    return cp.Problem(cp.Minimize(cp.max(A @ x + b))), [A, b], [x]


@_ROWS.row("DIRECT", A=normal(0.3, np.eye(3)))
def lp_square_equalities() -> Built:
    """No objective and no inequality: as many equations as unknowns."""
    A, b = cp.Parameter((3, 3), name="A"), cp.Parameter(3)
    x = cp.Variable(3)
    return cp.Problem(cp.Minimize(0), [A @ x == b]), [A, b], [x]
