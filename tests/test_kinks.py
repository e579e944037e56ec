"""Points at which solution maps have kinks, or nearly so: each is told from the smooth ones next to it."""

from __future__ import annotations

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

from cvxlayers import CvxpyLayer
from cvxlayers.cones import Product
from cvxlayers.derivative import Method, System, evaluate, factorise, kinks
from cvxlayers.derivative.terms import drowned
from cvxlayers.program import ConeProgram, Structure
from tests.programs import pattern_of, values_of


def on_a_kink(rng: np.random.Generator, count: int, kind: str) -> tuple[Product, np.ndarray]:
    """Points with ‖z‖ = |t|, or matrices with an eigenvalue of zero."""
    if kind == "second-order":
        cone = Product(second_order=(4,))
        v = rng.normal(size=(count, 4))
        v[:, 0] = np.linalg.norm(v[:, 1:], axis=1) * rng.choice([-1.0, 1.0], size=count)
        return cone, v
    rotation = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
    sizes = np.array([1.0, 0.0, -1.0]) * rng.uniform(0.5, 2.0, size=(count, 3))
    matrices = rotation * sizes[:, None] @ rotation.mT
    columns, rows = np.tril_indices(3)
    return Product(semidefinite=(3,)), matrices[:, rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2.0))


@pytest.mark.parametrize("kind", ["second-order", "semidefinite"])
def test_no_kink_of_a_curved_cone_is_overlooked(kind, rng):
    cone, v = on_a_kink(rng, 2000, kind)
    distance = np.full((len(v), 1), 1e-9)
    assert kinks._kinked(cone, v, distance).all()
    assert not kinks._kinked(cone, v + rng.normal(size=v.shape), distance).any()


def test_a_multiplier_of_rounding_is_a_kink(rng):
    """min ½xᵀQx − p·x s.t. x₀ ≥ b, with b where x₀ would be without the constraint, but for rounding."""
    R = rng.normal(size=(3, 2))
    Q = R.T @ R
    x, p, b = cp.Variable(2), cp.Parameter(2), cp.Parameter()
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, Q) - p @ x), [x[0] >= b])
    values = rng.normal(size=(60, 2))
    free = np.linalg.solve(Q, values.T)[0]
    for solver in ("DAQP", "PIQP", "CLARABEL"):
        layer = CvxpyLayer(problem, [p, b], [x], solver=solver)
        assert layer.vjp([values, free], [np.ones((60, 2))])[1].weakly_active.all()
        for distance in (1e-3, -1e-3):
            _, info = layer.vjp([values, free + distance], [np.ones((60, 2))])
            assert not info.weakly_active.any()
            assert info.reliable.all()


@pytest.mark.filterwarnings("ignore:the derivative of")
def test_badly_conditioned_kinks_are_seldom_called_reliable(rng):
    """An equality and an inequality with multiplier zero, nearly parallel: rounding decides which side is found."""
    x, q, A, b = cp.Variable(2), cp.Parameter(2), cp.Parameter((2, 2)), cp.Parameter(2)
    P = np.array([[1.6, 1.06], [1.06, 2.0]])
    cost = 0.5 * cp.quad_form(x, P) + q @ x
    layer = CvxpyLayer(
        cp.Problem(cp.Minimize(cost), [A[0] @ x == b[0], A[1] @ x <= b[1]]), [q, A, b], [x], solver="PIQP"
    )
    left, right = np.linalg.qr(rng.normal(size=(2, 1000, 2, 2)))[0]
    values = left @ (np.stack([np.full(1000, 2.0), 10.0 ** -rng.uniform(3, 4.5, size=1000)], axis=1)[..., None] * right)
    solution, multipliers = rng.normal(size=(1000, 2)), rng.normal(size=(1000, 2))
    sides = np.einsum("bij,bj->bi", values, solution)
    for at_kink in (False, True):
        multipliers[:, 1] = 0.0 if at_kink else rng.uniform(0.1, 1.0, size=1000)
        costs = -solution @ P - np.einsum("bij,bi->bj", values, multipliers)
        _, info = layer.vjp([costs, values, sides], [np.ones((1000, 2))])
        assert info.reliable.mean() <= 0.002 if at_kink else info.reliable.all()


def test_multipliers_are_rounding_beside_what_their_variables_feel():
    """Of variables with a cost of one, with less beside a multiplier of a thousand, and with neither."""
    rows, sizes = np.array([0, 0, 1, 1, 1, 2, 2]), np.array([1e-13, 1e-15, 1e3, 1e-10, 1e-12, 1e-13, 1e-15])
    A = np.eye(3)[rows]
    structure = Structure(pattern_of(np.eye(3)), pattern_of(A), Product(nonnegative=7))
    q = np.array([[1.0, 1e-3, 0.0]])
    program = ConeProgram(structure, 1, np.ones((1, 3)), q, values_of(structure.A, A[None]), np.zeros((1, 7)))
    point = replace(evaluate(program, np.zeros((1, 3)), sizes[None]), dual_scale=np.ones(1))
    assert drowned(program, point).tolist() == [False, True, False, False, True, False, True]


def test_small_multipliers_in_small_units_are_no_kinks(rng):
    """min ½(x − p)² s.t. x ≥ 0, in units in which costs, and so multipliers, are tiny beside those of another x."""
    x, p, unit = cp.Variable(2), cp.Parameter(2), np.array([1e-8, 1.0])
    cost = 0.5 * cp.quad_form(x, np.diag(unit**2)) - cp.multiply(unit**2, p) @ x
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cost), [x[0] >= 0]), [p], [x])
    (gradient,), info = layer.vjp([np.array([-1.0, 1.0])], [np.ones(2)])
    assert not info.weakly_active
    np.testing.assert_allclose(gradient, [0.0, 1.0], atol=1e-9)


def test_no_singular_sparse_matrix_is_taken_for_a_regular_one(rng):
    """An equality that two others imply, in a thousand small programs."""
    batch, n = 1000, 3
    A = rng.normal(size=(batch, 3, n))
    A[:, 2] = np.einsum("bk,bkn->bn", rng.normal(size=(batch, 2)), A[:, :2])
    P = rng.uniform(0.5, 2.0, size=(batch, n))
    structure = Structure(pattern_of(np.eye(n)), pattern_of(np.ones((3, n))), Product(zero=3))
    program = ConeProgram(structure, batch, P, np.ones((batch, n)), values_of(structure.A, A), np.ones((batch, 3)))
    system = System(program, structure.cone.derivative(np.zeros((batch, 3))).complement())
    assert factorise(system, Method.SPARSE, 1).rank.dependent.all()


def test_the_condition_number_is_no_less_than_what_pivots_hide():
    """All pivots but the last of this matrix are one, and the last is a millionth of its condition number (Kahan)."""
    n, s = 30, 0.5
    factor = np.diag(np.sqrt(1 - s * s) ** np.arange(n)) @ (np.eye(n) - s * np.triu(np.ones((n, n)), 1))
    P = factor.T @ factor
    structure = Structure(pattern_of(np.ones((n, n))), pattern_of(np.zeros((0, n))), Product())
    none = np.zeros((1, 0))
    program = ConeProgram(structure, 1, values_of(structure.P, P[None]), np.ones((1, n)), none, none)
    point = evaluate(program, np.zeros((1, n)), none)
    system = System(program, structure.cone.derivative(point.v))
    found = factorise(system, Method.DENSE, 1).rank.condition[0]
    eigenvalues = np.linalg.eigvalsh(P)
    assert found > 0.05 * min(eigenvalues[-1] / eigenvalues[0], 1e12)
