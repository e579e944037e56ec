"""Rows in one variable as bounds: the same solutions, duals and statuses as with the rows."""

from __future__ import annotations

import numpy as np
import pytest

from cvxlayers.cones import Product
from cvxlayers.patterns import Pattern
from cvxlayers.program import ConeProgram, Status, Structure
from cvxlayers.solvers import Options, Plan, solve_batch
from cvxlayers.solvers.boxes import find_boxes
from cvxlayers.solvers.piqp import prefers_dense
from cvxlayers.solvers.registry import SOLVERS
from tests.programs import known_solution

N = 4
# Rows: one equation, two general inequalities, and bounds on x₀ (three times), x₁ (both sides) and x₃.
BOUNDED = [0, 0, 0, 1, 1, 3]


def programs(rng: np.random.Generator, batch: int, signs: np.ndarray) -> ConeProgram:
    """Strictly convex programs whose bounds have coefficients of these signs, and that x = 0.1 satisfies."""
    m = 3 + len(BOUNDED)
    dense = np.zeros((batch, m, N))
    dense[:, :3] = rng.normal(size=(batch, 3, N))
    dense[:, 3 + np.arange(len(BOUNDED)), BOUNDED] = signs * rng.uniform(0.5, 2, size=(batch, len(BOUNDED)))
    pattern = np.zeros((m, N), dtype=bool)
    pattern[:3], pattern[3 + np.arange(len(BOUNDED)), BOUNDED] = True, True
    rows, cols = (index[np.lexsort(np.nonzero(pattern))] for index in np.nonzero(pattern))
    A = Pattern((m, N), rows, np.concatenate([[0], np.cumsum(pattern.sum(axis=0))]))
    P = Pattern((N, N), np.tile(np.arange(N), N), N * np.arange(N + 1))
    factor = rng.normal(size=(batch, N, N))
    cost = factor @ factor.transpose(0, 2, 1) + np.eye(N)
    slack = np.concatenate([np.zeros((batch, 1)), rng.uniform(0.01, 0.4, size=(batch, m - 1))], axis=1)
    b = (dense @ np.full(N, 0.1)) + slack
    structure = Structure(P, A, Product(zero=1, nonnegative=m - 1))
    values = dense[:, rows, cols]
    return ConeProgram(structure, batch, cost.reshape(batch, -1), 3 * rng.normal(size=(batch, N)), values, b)


SIGNS = {
    "alike": np.array([1, 1, -1, 1, -1, -1]),
    "of two kinds": np.array([[1, 1, -1, 1, -1, -1], [1, -1, -1, 1, -1, 1]])[np.arange(24) ** 2 % 5 % 2],
    "mixed": np.random.default_rng(3).choice([-1, 0, 1], size=(24, len(BOUNDED))),
}


def solution_of(program: ConeProgram, solver: str):
    return solve_batch(program, Plan(SOLVERS[solver]), Options(), threads=1).solution


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("solver", ["DAQP", "PIQP"])
def test_solutions_and_duals_are_those_of_the_rows(solver, signs, rng):
    program = programs(rng, 24, SIGNS[signs])
    found, reference = solution_of(program, solver), solution_of(program, "CLARABEL")
    assert (found.status == Status.SOLVED).all()
    for name in ("x", "s"):
        np.testing.assert_allclose(getattr(found, name), getattr(reference, name), atol=1e-6)
    P, A = program.structure.P, program.structure.A
    gap = P.matvec(program.P, found.x) + A.rmatvec(program.A, found.y) + program.q
    np.testing.assert_allclose(gap, 0.0, atol=1e-7)
    assert (found.y[:, 1:] >= -1e-9).all()
    np.testing.assert_allclose(found.y[:, 1:] * found.s[:, 1:], 0.0, atol=1e-7)


@pytest.mark.parametrize("solver", ["DAQP", "PIQP"])
def test_an_item_has_the_bits_that_it_has_alone(solver, rng):
    program = programs(rng, 24, SIGNS["mixed"])
    together = solution_of(program, solver)
    for item in (0, 7, 23):
        alone = solution_of(program.item(np.array([item])), solver)
        for name in ("x", "y", "s"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(together, name)[item])


def test_rows_become_bounds_where_they_can(rng):
    (boxes,) = find_boxes(programs(rng, 5, SIGNS["alike"]))
    # Of the two upper bounds on x₀ the second stays a row.
    assert boxes.kept.tolist() == [0, 1, 2, 4]
    assert boxes.upper.columns.tolist() == [0, 1]
    assert boxes.lower.columns.tolist() == [0, 1, 3]
    assert boxes.bounded == 4


@pytest.mark.parametrize("solver", [None, "DAQP", "PIQP"])
def test_bounds_that_cross_are_infeasible_for_their_item_alone(solver, rng):
    program = programs(rng, 6, SIGNS["alike"])
    b = program.b.copy()
    b[2, 3:6] = -1.0
    crossed = ConeProgram(program.structure, 6, program.P, program.q, program.A, b)
    plan = Plan(SOLVERS[solver or "DAQP"], (SOLVERS["CLARABEL"],))
    status = solve_batch(crossed, plan, Options(), threads=1).solution.status
    assert status.tolist() == [Status.SOLVED] * 2 + [Status.INFEASIBLE] + [Status.SOLVED] * 3


@pytest.mark.parametrize("solver", ["PIQP", "CLARABEL"])
@pytest.mark.parametrize("n", [6, 60])
def test_one_solver_serves_many_programs_without_a_history(solver, n, rng):
    cone = Product(zero=n // 6, nonnegative=2 * n)
    program = known_solution(cone, n, rng, batch=12, density=1.0 if n == 6 else 0.03)[0]
    assert prefers_dense(program.structure) == (n == 6)
    # Rows of very different size, a cost that leaves equilibration much to do, and a program without a solution.
    units = 10.0 ** rng.uniform(-4, 4, size=(4, program.structure.m))
    program.A[2:6] *= units[:, program.structure.A.rows]
    program.b[2:6] *= units
    program.P[7], program.q[7] = program.P[7] * 1e7, program.q[7] * 1e-3
    program.b[8, -1] = 1e100
    program.A[9], program.b[9] = 0.0, -1.0
    together = SOLVERS[solver].solve(program, Options())
    solved = np.delete(together.status == Status.SOLVED, [8, 9])
    assert solved.all()
    backwards = SOLVERS[solver].solve(program.item(np.arange(12)[::-1]), Options())
    for item in range(12):
        alone = SOLVERS[solver].solve(program.item(np.array([item])), Options())
        for name in ("status", "iterations", "x", "y", "s"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(together, name)[item])
            np.testing.assert_array_equal(getattr(backwards, name)[11 - item], getattr(together, name)[item])
