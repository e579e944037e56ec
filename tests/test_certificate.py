"""Certificates in any units: what has a solution is never called infeasible or unbounded, what has none is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cvxlayers.cones import Product
from cvxlayers.program import ConeProgram, Solution, Status
from cvxlayers.solvers import Options, Plan, select, solve_batch
from cvxlayers.solvers.certificate import certify, infeasible_multiplier, unbounded_ray
from cvxlayers.solvers.items import unsolved
from cvxlayers.solvers.registry import SOLVERS
from cvxlayers.solvers.solver import Solver
from tests.stress import Trial, scaled
from tests.test_solvers import CONES, N, infeasible, program_of, solvable, unbounded

LINEAR = [label for label in CONES if label not in ("unconstrained", "equalities")]


def in_units(program: ConeProgram, columns: np.ndarray, rows: np.ndarray) -> ConeProgram:
    """The program of x / columns with its rows multiplied."""
    P, A = program.structure.P, program.structure.A
    return ConeProgram(
        program.structure,
        program.batch,
        program.P * columns[P.rows] * columns[P.cols],
        program.q * columns,
        program.A * rows[A.rows] * columns[A.cols],
        program.b * rows,
    )


def units(cone: Product, rng: np.random.Generator, powers: float) -> tuple[np.ndarray, np.ndarray]:
    """Units of variables and of rows over some powers of ten; the rows of a curved cone share theirs."""
    columns, rows = 10.0 ** rng.uniform(-powers, powers, size=N), np.ones(cone.dim)
    flat = cone.zero + cone.nonnegative
    rows[:flat] = 10.0 ** rng.uniform(-min(powers, 4), min(powers, 4), size=flat)
    return columns, rows


@pytest.mark.parametrize("powers", [2.0, 8.0])
@pytest.mark.parametrize("label", LINEAR)
def test_certificates_hold_in_any_units(label, powers, rng):
    for program, status in ((infeasible(CONES[label], rng), "INFEASIBLE"), (unbounded(CONES[label], rng), "UNBOUNDED")):
        found = solve_batch(program, select(program.structure), Options(), threads=1).solution
        assert (found.status == Status[status]).all()
        columns, rows = units(CONES[label], rng, powers)
        moved = in_units(program, columns, rows)
        if status == "INFEASIBLE":
            assert infeasible_multiplier(moved, found.y / rows)[1].all()
        else:
            assert unbounded_ray(moved, found.x / columns)[2].all()


@pytest.mark.parametrize("powers", [0.0, 4.0, 8.0])
@pytest.mark.parametrize("rank", [2, N])
@pytest.mark.parametrize("label", CONES)
def test_no_point_near_a_solution_certifies_anything(label, rank, powers, rng):
    """Solutions, what lies near them, and points far away along them: all could be the last iterate of a solver."""
    program, x = solvable(CONES[label], rng, batch=40, rank=rank)
    columns, rows = units(CONES[label], rng, powers)
    moved, cone = in_units(program, columns, rows), program.structure.cone
    found = solve_batch(program, select(program.structure), Options(), threads=1).solution
    for noise in (0.0, 1e-6, 1e-3, 1.0, 1e3):
        near = x + noise * rng.normal(size=x.shape)
        y = found.y + noise * rng.normal(size=found.y.shape)
        claims = replace(unsolved(moved.structure, moved.batch), x=near / columns, y=y / rows, s=cone.project(y))
        assert (certify(moved, claims).status == Status.NUMERICAL_ERROR).all()


def trials(seeds: list[int]) -> list[Trial]:
    return [scaled(np.random.default_rng(seed)) for seed in seeds]


@pytest.mark.parametrize("limit", [None, 3, 8])
def test_badly_scaled_programs_that_have_a_solution_are_not_called_unbounded(limit):
    """The last iterates of every solver, also of one that is stopped early, certify nothing."""
    for trial in trials(list(range(25))):
        plan = select(trial.program.structure)
        for solver in plan.solvers:
            found = solve_batch(trial.program, Plan(solver), Options(max_iters=limit), threads=1).solution
            assert found.status[0] not in (Status.INFEASIBLE, Status.UNBOUNDED), (trial, solver)


class Quitter(Solver):
    """A solver that gives up on a ray without saying that it is one."""

    @property
    def name(self):
        return "QUITTER"

    def refusal(self, structure):
        return None

    def native_options(self):
        return {}

    def solve(self, program, options):
        found = unsolved(program.structure, program.batch)
        return replace(found, x=np.eye(2)[:1], status=np.full(1, int(Status.ITERATION_LIMIT)))


def far_away(size: float) -> ConeProgram:
    """min −x s.t. x / size + y ≤ 1, x, y ≥ 0: bounded, but far away."""
    A, q = np.array([[[1.0 / size, 1.0], [-1.0, 0.0], [0.0, -1.0]]]), np.array([[-1.0, 0.0]])
    return program_of(Product(nonnegative=3), np.zeros((1, 2, 2)), q, A, np.array([[1.0, 0.0, 0.0]]))


def test_an_iterate_that_certifies_by_chance_does_not_stop_the_next_solver():
    program, ray = far_away(1e8), np.eye(2)[:1]
    assert unbounded_ray(program, ray)[2].all()
    outcome = solve_batch(program, Plan(Quitter(), (SOLVERS["PIQP"], SOLVERS["CLARABEL"])), Options(), threads=1)
    assert outcome.solution.status.tolist() == [Status.SOLVED]
    np.testing.assert_allclose(outcome.solution.x, [[1e8, 0.0]], rtol=1e-6, atol=1.0)


@pytest.mark.parametrize("size", [1e2, 1e5, 1e8])
def test_what_is_bounded_or_feasible_far_away_is_solved(size):
    # x / size ≥ 1, x ≤ 10 size
    feasible = program_of(
        Product(nonnegative=2),
        np.zeros((1, 1, 1)),
        np.ones((1, 1)),
        np.array([[[-1 / size], [1.0]]]),
        np.array([[-1.0, 10 * size]]),
    )
    for program in (far_away(size), feasible):
        for plan in (select(program.structure), *(Plan(SOLVERS[name]) for name in ("PIQP", "CLARABEL"))):
            assert solve_batch(program, plan, Options(), threads=1).solution.status.tolist() == [Status.SOLVED], plan


def test_rows_of_rounding_say_nothing():
    """0·x = 1, up to rounding, is impossible; 1e-17·x = 1e-17 is not known to be."""
    A = np.array([[[1.0, 2.0], [1e-17, -1e-17]]] * 2)
    b = np.array([[1.0, 1.0], [1.0, 1e-17]])
    program = program_of(Product(zero=2), np.tile(np.eye(2), (2, 1, 1)), np.ones((2, 2)), A, b)
    y = np.array([[0.0, -1.0]] * 2)
    assert infeasible_multiplier(program, y)[1].tolist() == [True, False]
    empty = Solution(np.zeros((2, 2)), y, np.zeros((2, 2)), np.full(2, int(Status.INFEASIBLE)), np.zeros(2, dtype=int))
    assert certify(program, empty).status.tolist() == [Status.INFEASIBLE, Status.NUMERICAL_ERROR]


@pytest.mark.parametrize(
    ("row", "b", "known"), [(0, 1.0, True), (0, -1.0, True), (2, -1.0, True), (2, 1.0, False), (2, -1e-17, False)]
)
def test_a_row_without_entries_contradicts_itself_whatever_is_said_of_others(row, b, known, rng):
    A, sides = rng.normal(size=(1, 4, 3)), np.ones((1, 4))
    A[:, row], sides[:, row] = 0.0, b
    program = program_of(Product(zero=1, nonnegative=3), np.eye(3)[None], np.ones((1, 3)), A, sides)
    claims = replace(unsolved(program.structure, 1), y=rng.normal(size=(1, 4)), status=np.array([Status.INFEASIBLE]))
    judged = certify(program, claims)
    assert (judged.status[0] == Status.INFEASIBLE) == known
    if known:
        np.testing.assert_allclose(judged.y[0] / np.abs(judged.y[0]).max(), -np.sign(b) * np.eye(4)[row])
