"""CVXPY problems of every kind, each with values for its parameters: the rows that canonicalisation is tested on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy
import numpy as np

# CVXPY's annotations do not know the operators of its expressions.
cp: Any = cvxpy

Values = dict[Any, np.ndarray]
Built = tuple[cvxpy.Problem, Values]

N = 3
TARGET = np.array([0.3, -1.2, 0.8])


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Independent normal numbers, the same in every call."""
    return np.random.default_rng((seed, *shape)).normal(size=shape)


def positive_definite(n: int) -> np.ndarray:
    """A well-conditioned positive definite matrix."""
    root = normal(n, n)
    return root @ root.T + np.eye(n)


def symmetric(n: int) -> np.ndarray:
    """A symmetric matrix, indefinite in general."""
    root = normal(n, n)
    return root + root.T


def _projection(expression: Any, target: np.ndarray | None = None) -> Any:
    """A strictly convex objective, so that the solution is unique."""
    shape = expression.shape
    return cp.Minimize(cp.sum_squares(expression - (np.resize(TARGET, shape) if target is None else target)))


def parameter(value: np.ndarray, **attributes: object) -> Callable[[], Built]:
    """Projects on a box around a parameter of some kind: it enters b, and through a product A."""

    def build() -> Built:
        p = cp.Parameter(value.shape, name="p", **attributes)
        x = cp.Variable(value.shape, name="x")
        # x = p is feasible.
        constraints = [x <= p + 0.5, x >= 2 * p - value - 0.7, cp.sum(cp.multiply(p, x)) <= np.sum(value**2)]
        return cp.Problem(_projection(x), constraints), {p: value}

    return build


def variable(shape: tuple[int, ...], **attributes: object) -> Callable[[], Built]:
    """Projects on what the attributes of a variable allow."""

    def build() -> Built:
        x = cp.Variable(shape, name="x", **attributes)
        p = cp.Parameter(name="p")
        target = p * np.resize(TARGET, shape) if shape else p
        return cp.Problem(cp.Minimize(cp.sum_squares(x - target)), [cp.sum(x) <= 2]), {p: np.array(1.7)}

    return build


def quadratic_program() -> Built:
    """A QP whose data are all parameters."""
    P, q = cp.Parameter((N, N), PSD=True, name="P"), cp.Parameter(N, name="q")
    A, b = cp.Parameter((1, N), name="A"), cp.Parameter(1, name="b")
    G, h = cp.Parameter((4, N), name="G"), cp.Parameter(4, name="h")
    x = cp.Variable(N, name="x")
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, P) + q @ x + 3.0), [A @ x == b, G @ x <= h])
    values = (positive_definite(N), normal(N), normal(1, N), normal(1), normal(4, N), np.abs(normal(4)) + 1)
    return problem, dict(zip((P, q, A, b, G, h), values, strict=True))


def parametric_quad_forms() -> Built:
    """quad_form of two parameters in one objective, scaled by constants and through stacked terms; maximised."""
    P, N_ = cp.Parameter((N, N), PSD=True, name="P"), cp.Parameter((2, 2), NSD=True, name="N")
    x = cp.Variable(N, name="x")
    terms = cp.sum(cp.hstack([-2 * cp.quad_form(x, P + np.eye(N)) / 3, cp.quad_form(x[:2], N_), cp.sum(x)]))
    return cp.Problem(cp.Maximize(terms), [x >= -1]), {P: positive_definite(N), N_: -positive_definite(2)}


def least_squares() -> Built:
    """An unconstrained problem with a parameter that scales a term."""
    A, b, gamma = cp.Parameter((5, N), name="A"), cp.Parameter(5, name="b"), cp.Parameter(nonneg=True, name="gamma")
    x = cp.Variable(N, name="x")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + gamma * cp.sum_squares(x)))
    return problem, {A: normal(5, N), b: normal(5), gamma: np.array(0.4)}


def linear_program() -> Built:
    """A maximised LP over the simplex, with a matrix variable and no parameter."""
    X = cp.Variable((2, 3), nonneg=True, name="X")
    return cp.Problem(cp.Maximize(cp.sum(cp.multiply(np.arange(6.0).reshape(2, 3) ** 2, X))), [cp.sum(X) == 1]), {}


def cancelled() -> Built:
    """A parameter that cancels out of the data, beside one that does not; a constant objective term."""
    p, r = cp.Parameter(N, name="p"), cp.Parameter(name="r")
    x = cp.Variable(N, name="x")
    return cp.Problem(_projection(x + p - p), [x - p + p <= 1, cp.sum(x) == r]), {p: normal(N), r: np.array(0.2)}


def parametric_bounds() -> Built:
    """Bounds of a variable that are parameters."""
    lower, upper = cp.Parameter(N, name="lower"), cp.Parameter(N, name="upper")
    x = cp.Variable(N, bounds=[lower, upper], name="x")
    return cp.Problem(_projection(x), [cp.sum(x) == 0]), {lower: -np.full(N, 0.7), upper: np.full(N, 0.6)}


def second_order() -> Built:
    """Second-order cones by their constraint (several at once, along both axes) and by norms."""
    x, t = cp.Variable((2, 3), name="x"), cp.Variable(3, name="t")
    p, s = cp.Parameter(2, nonneg=True, name="p"), cp.Parameter(pos=True, name="s")
    cones = [cp.SOC(t, x), cp.SOC(p, x, axis=1), cp.norm(x[0] - 1, 2) <= s]
    return cp.Problem(cp.Minimize(cp.sum(t) - 2 * cp.sum(x[1])), cones), {p: np.array([1.0, 2.0]), s: np.array(1.5)}


def semidefinite() -> Built:
    """Semidefinite constraints of two orders, with a symmetric parameter, beside exponential cones."""
    S, T = cp.Parameter((3, 3), symmetric=True, name="S"), cp.Parameter((2, 2), PSD=True, name="T")
    X, Y = cp.Variable((3, 3), symmetric=True, name="X"), cp.Variable((2, 2), PSD=True, name="Y")
    z = cp.Variable(2, name="z")
    constraints = [X >> S, Y << T, cp.exp(z) <= cp.diag(Y), X[0, 1] == 0.3]
    objective = cp.Minimize(cp.sum_squares(X - 0.1) + cp.sum_squares(Y - np.eye(2)) - cp.sum(z))
    return cp.Problem(objective, constraints), {S: symmetric(3), T: positive_definite(2)}


def exponential() -> Built:
    """Exponential cones by their constraint and by entropies."""
    x, y, z = (cp.Variable(3, name=name) for name in "xyz")
    p = cp.Parameter(3, name="p")
    w = cp.Variable(3, name="w")
    q = cp.Parameter(3, name="q")
    objective = cp.Minimize(cp.sum(z) + cp.sum_squares(x - p) - cp.sum(cp.entr(w)) + q @ w)
    return cp.Problem(objective, [cp.ExpCone(x, y, z), y >= 1, cp.sum(w) == 1]), {p: normal(3), q: normal(3, seed=1)}


def power() -> Built:
    """Power cones of three dimensions with several exponents."""
    x, y, z = (cp.Variable(2, name=name) for name in "xyz")
    p = cp.Parameter(2, pos=True, name="p")
    objective = cp.Maximize(cp.sum(z) - cp.sum_squares(x - p) - cp.sum_squares(y))
    return cp.Problem(objective, [cp.PowCone3D(x, y, z, np.array([0.3, 0.6]))]), {p: np.array([1.0, 2.0])}


def power_many() -> Built:
    """A power cone of more dimensions, which is split."""
    W, z = cp.Variable(4, name="W"), cp.Variable(name="z")
    p = cp.Parameter(4, pos=True, name="p")
    objective = cp.Maximize(z - cp.sum_squares(W - p))
    return cp.Problem(objective, [cp.PowConeND(W, z, np.array([0.1, 0.2, 0.3, 0.4]))]), {
        p: np.array([1.0, 2.0, 0.5, 1.5])
    }


def matrix_constraints() -> Built:
    """Equalities and inequalities of matrices and of three-dimensional arrays, in both directions."""
    X, Y = cp.Variable((2, 3), name="X"), cp.Variable((2, 2, 2), name="Y")
    M, K = cp.Parameter((2, 3), name="M"), cp.Parameter((2, 2, 2), name="K")
    constraints = [X <= M, X[0] == M[0] - 1, Y >= K, Y[0] <= 4, cp.sum(X) == -8]
    return cp.Problem(cp.Minimize(cp.sum_squares(X) + cp.sum_squares(Y)), constraints), {
        M: normal(2, 3),
        K: normal(2, 2, 2),
    }


def infinite_bounds() -> Built:
    """Constant bounds of which some are infinite."""
    x, y = cp.Variable(N, name="x"), cp.Variable(2, bounds=[0, None], name="y")
    p = cp.Parameter(N, name="p")
    upper = np.array([np.inf, 0.1, 0.2])
    constraints = [x <= upper, x >= -np.inf, cp.sum(x) + cp.sum(y) <= 1]
    return cp.Problem(cp.Minimize(cp.sum_squares(x - p) + cp.sum_squares(y - 1)), constraints), {
        p: np.array([0.5, 0.4, -1.0])
    }


def geometric() -> Built:
    """A geometric program with a parameter as coefficient, one as exponent, and one as both."""
    x, y = cp.Variable(pos=True, name="x"), cp.Variable(2, pos=True, name="y")
    c, a, both = cp.Parameter(2, pos=True, name="c"), cp.Parameter(name="a"), cp.Parameter(pos=True, name="both")
    a.value = both.value = 1.0  # CVXPY asks for some value of an exponent when it is used
    constraints = [cp.multiply(c, y) <= x, both * x**a * y[0] ** both >= 1, y >= 0.1]
    objective = cp.Minimize(x / y[0] + y[1] * x + 1 / y[1])
    return cp.Problem(objective, constraints), {c: np.array([1.3, 0.7]), a: np.array(-0.5), both: np.array(1.8)}


def hidden() -> Built:
    """Functions that CVXPY reduces by themselves, of variables in whose place it puts others."""
    x, s, p = cp.Variable(nonneg=True, name="x"), cp.Variable(nonneg=True, name="s"), cp.Parameter(2, name="p")
    X, w = cp.Variable((2, 2), PSD=True, name="X"), cp.Variable(3)
    support = cp.transforms.suppfunc(w, [cp.norm(w) <= 1, w >= -0.2])
    curves = cp.perspective(cp.square(x) - x, s) + cp.perspective(cp.lambda_max(X) - cp.log_det(X), s)
    objective = cp.Minimize(curves + cp.square(s - p[0]) + support(p[1] * np.ones(3) + cp.hstack([X[0], x])))
    return cp.Problem(objective, [s >= 0.5]), {p: np.array([1.2, -0.4])}


KINDS = {
    "scalar": parameter(np.array(1.2)),
    "vector": parameter(normal(N)),
    "matrix": parameter(normal(2, 3)),
    "three_dimensional": parameter(normal(2, 3, 2)),
    "nonneg": parameter(np.abs(normal(N)), nonneg=True),
    "nonpos": parameter(-np.abs(normal(N)), nonpos=True),
    "pos": parameter(np.abs(normal(N)), pos=True),
    "neg": parameter(-np.abs(normal(N)), neg=True),
    "symmetric": parameter(symmetric(N), symmetric=True),
    "PSD": parameter(positive_definite(N), PSD=True),
    "NSD": parameter(-positive_definite(N), NSD=True),
    "diag": parameter(np.diag(normal(N)), diag=True),
    "sparse": parameter(np.array([[0.0, 1.5, 0.0], [-0.4, 0.0, 0.0]]), sparsity=([0, 1], [1, 0])),
    "bounds": parameter(np.full(N, 0.5), bounds=[0, 1]),
}

VARIABLES = {
    "scalar": variable(()),
    "vector": variable((4,)),
    "matrix": variable((2, 3)),
    "three_dimensional": variable((2, 3, 2)),
    "nonneg": variable((4,), nonneg=True),
    "nonpos": variable((4,), nonpos=True),
    "pos": variable((4,), pos=True),
    "neg": variable((2, 3), neg=True),
    "bounds": variable((4,), bounds=[-0.5, np.array([0.1, np.inf, 1.0, 2.0])]),
    "symmetric": variable((3, 3), symmetric=True),
    "PSD": variable((3, 3), PSD=True),
    "NSD": variable((3, 3), NSD=True),
    "diag": variable((3, 3), diag=True),
    "sparse": variable((2, 3), sparsity=([0, 1, 1], [1, 0, 2])),
}

PROBLEMS = {
    "quadratic_program": quadratic_program,
    "parametric_quad_forms": parametric_quad_forms,
    "least_squares": least_squares,
    "linear_program": linear_program,
    "cancelled": cancelled,
    "parametric_bounds": parametric_bounds,
    "second_order": second_order,
    "semidefinite": semidefinite,
    "exponential": exponential,
    "power": power,
    "power_many": power_many,
    "matrix_constraints": matrix_constraints,
    "infinite_bounds": infinite_bounds,
    "geometric": geometric,
    "hidden": hidden,
}

CASES: dict[str, Callable[[], Built]] = {
    **{f"parameter_{name}": build for name, build in KINDS.items()},
    **{f"variable_{name}": build for name, build in VARIABLES.items()},
    **PROBLEMS,
}
