"""Dense quadratic programs whose variables are eliminated for a whole batch: their solver, and their derivatives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from cvxlayers import CvxpyLayer
from cvxlayers.cones import Derivative, IdentityBasis, Product
from cvxlayers.derivative import Method, System, factorise
from cvxlayers.elimination import Elimination, invert_lower
from cvxlayers.program import ConeProgram, Status, Structure
from cvxlayers.solvers import SOLVERS, Options, Plan, solve_batch
from tests.checks import assert_close
from tests.programs import pattern_of, values_of

N, ZERO, ROWS, BATCH = 12, 3, 8, 20
PLAN = Plan(SOLVERS["LEAST_DISTANCE"], (SOLVERS["DAQP"], SOLVERS["PIQP"]))


def batch_of(rng: np.random.Generator, shared: str = "", batch: int = BATCH) -> ConeProgram:
    """Feasible programs; `shared` names the matrices that all items have in common."""
    L = rng.normal(size=(1 if "P" in shared else batch, N, N))
    A = rng.normal(size=(1 if "A" in shared else batch, ROWS, N))
    structure = Structure(pattern_of(np.ones((N, N))), pattern_of(np.ones((ROWS, N))), Product(ZERO, ROWS - ZERO))
    slack = np.hstack([np.zeros((batch, ZERO)), rng.uniform(0.0, 0.3, size=(batch, ROWS - ZERO))])
    b = np.matmul(A, rng.normal(size=(batch, N, 1)))[:, :, 0] + slack
    P = values_of(structure.P, L @ L.mT + 0.1 * np.eye(N))
    return ConeProgram(structure, batch, P, rng.normal(size=(batch, N)), values_of(structure.A, A), b)


def system_of(program: ConeProgram, rng: np.random.Generator, choices: tuple[float, ...] = (0.0, 0.5, 1.0)) -> System:
    d = rng.choice(choices, size=(program.batch, ROWS))
    d[:, :ZERO] = 1.0
    return System(program, Derivative(d, IdentityBasis(ROWS)))


def solved(program: ConeProgram, plan: Plan = PLAN, threads: int = 1):
    return solve_batch(program, plan, Options(), threads)


@pytest.mark.parametrize("order", [1, 32, 33, 70, 101])
def test_triangular_matrices_are_inverted_whole_or_by_blocks(order, rng):
    """And no bit depends on the other items."""
    lower = np.tril(rng.normal(size=(5, order, order))) / order + np.eye(order)
    found = invert_lower(lower.copy())
    np.testing.assert_allclose(lower @ found, np.broadcast_to(np.eye(order), lower.shape), atol=1e-13)
    np.testing.assert_array_equal(np.triu(found, 1), 0.0)
    for item in range(5):
        np.testing.assert_array_equal(invert_lower(lower[item : item + 1].copy()), found[item : item + 1])


@pytest.mark.parametrize("shared", ["", "P", "A", "PA"])
def test_points_are_those_of_daqp(shared, rng):
    program = batch_of(rng, shared)
    mine, other = solved(program), solved(program, Plan(SOLVERS["DAQP"]))
    assert mine.is_first_choice
    assert mine.point is not None
    assert mine.point.is_exact
    assert np.count_nonzero(mine.solution.y[:, ZERO:]) > BATCH
    for name in ("x", "y", "s"):
        assert_close([getattr(mine.solution, name)], [getattr(other.solution, name)], 1e-10, name)
    assert (mine.solution.s >= 0).all()
    assert not (mine.solution.s * mine.solution.y).any()


@pytest.mark.parametrize("unit", [1e-24, 1e24])
def test_costs_may_have_any_unit(unit, rng):
    """The rows are as far from the best point without them as the root of it, which the accuracy of DAQP is not."""
    program = batch_of(rng)
    other = solved(replace(program, P=unit * program.P, q=unit * program.q))
    assert other.is_first_choice
    assert_close([other.solution.x], [solved(program).solution.x], 1e-9, "x")
    np.testing.assert_array_equal(other.solution.iterations, solved(program).solution.iterations)


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1e4])
def test_any_unit_will_do(unit, rng):
    """Programs are not scaled for it: x, the rows and the cost in other units."""
    program, rows = batch_of(rng), unit ** rng.uniform(-1, 1, size=(BATCH, ROWS))
    A = program.structure.A.dense(program.A) * rows[:, :, None] / unit
    other = replace(program, A=values_of(program.structure.A, A), b=program.b * rows, P=program.P / unit, q=program.q)
    assert_close([solved(other).solution.x], [unit * solved(program).solution.x], 1e-9, "x")
    assert solved(other).is_first_choice


def test_items_that_it_does_not_serve_are_left_to_daqp(rng):
    """A singular P, no feasible point, a row twice, and twice as an equality."""
    program = batch_of(rng)
    P, A, b = program.structure.P.dense(program.P).copy(), program.structure.A.dense(program.A).copy(), program.b.copy()
    P[1] = np.diag(np.arange(N, dtype=float))
    A[2, 4], b[2, 4] = -A[2, 3], -b[2, 3] - 1.0
    A[3, 4], b[3, 4] = A[3, 3], b[3, 3] + 1.0
    A[4, 1], b[4, 1] = A[4, 0], b[4, 0]
    structure = program.structure
    program = replace(program, P=values_of(structure.P, P), A=values_of(structure.A, A), b=b)
    itself = SOLVERS["LEAST_DISTANCE"].solve(program, Options())
    assert np.flatnonzero(itself.status == Status.NUMERICAL_ERROR).tolist() == [1, 2]
    for part in (itself.x, itself.y, itself.s):
        assert np.flatnonzero(np.isnan(part).all(axis=1)).tolist() == [1, 2]
    outcome, alone = solved(program), solved(batch := program.item(np.arange(5, BATCH)))
    assert outcome.solution.status[2] == Status.INFEASIBLE
    assert np.delete(outcome.solution.status, 2).max() == Status.SOLVED
    assert outcome.served[[0, 3, *range(5, BATCH)]].max() == 0 < outcome.served[[1, 2]].min()
    np.testing.assert_array_equal(outcome.solution.x[5:], alone.solution.x)
    assert batch.batch == BATCH - 5


@pytest.mark.parametrize("shared", ["", "P", "PA"])
def test_derivatives_are_those_of_the_whole_matrix(shared, rng):
    system = system_of(batch_of(rng, shared), rng)
    first, second = rng.normal(size=(BATCH, N)), rng.normal(size=(BATCH, ROWS))
    mine, whole = (factorise(system, method, 1) for method in (Method.CHOLESKY, Method.DENSE))
    got, want = mine.solve(first, second), whole.solve(first, second)
    assert_close([got.first, got.second], [want.first, want.second], 1e-10, "solution")
    assert got.residual.max() < 1e-12
    assert (mine.rank.condition > 0.1 * whole.rank.condition).all()


def test_no_item_depends_on_its_neighbours(rng):
    program = batch_of(rng)
    system, half = system_of(program, rng), np.arange(0, BATCH, 2)
    first, second = rng.normal(size=(BATCH, N)), rng.normal(size=(BATCH, ROWS))
    found = factorise(system, Method.CHOLESKY, 1).solve(first, second)
    fresh = System(replace(program.item(half)), system.derivative.item(half))
    other = factorise(fresh, Method.CHOLESKY, 1).solve(first[half], second[half])
    np.testing.assert_array_equal(found.first[half], other.first)
    np.testing.assert_array_equal(found.second[half], other.second)
    np.testing.assert_array_equal(solved(program).solution.x[half], solved(replace(program).item(half)).solution.x)


@pytest.mark.parametrize("unit", [1.0, 1e-8])
def test_items_without_regular_factors_are_left_to_the_whole_matrix(unit, rng):
    """A singular P, a nearly singular one, equal rows, nearly equal ones, a free variable; a small P makes S large."""
    program = batch_of(rng)
    P, A = program.structure.P.dense(program.P).copy(), program.structure.A.dense(program.A).copy()
    P[1, :, 0] = P[1, 0, :] = 0.0
    P[2] -= (np.linalg.eigvalsh(P[2])[0] - 1e-11) * np.eye(N)
    A[3, 4] = A[3, 3]
    A[4, 4] = A[4, 3] + 1e-13 * rng.normal(size=N)
    A[5, 1] = A[5, 0]
    P[6, :, 0] = P[6, 0, :] = A[6, :, 0] = 0.0
    structure = program.structure
    program = replace(program, P=values_of(structure.P, unit * P), A=values_of(structure.A, A))
    system = system_of(program, rng, (1.0,))
    mine, whole = (factorise(system, method, 1) for method in (Method.CHOLESKY, Method.DENSE))
    np.testing.assert_array_equal(mine.rank.dependent, whole.rank.dependent)
    np.testing.assert_array_equal(mine.rank.not_unique, whole.rank.not_unique)
    assert mine.rank.dependent[[3, 4, 5]].all()
    assert mine.rank.not_unique[6]
    first, second = rng.normal(size=(BATCH, N)), rng.normal(size=(BATCH, ROWS))
    got, want = mine.solve(first, second), whole.solve(first, second)
    for item in range(1, 7):
        np.testing.assert_array_equal(got.first[item], want.first[item])


def flat(P, A, rng, least=1e-6):
    """P is nearly flat along one direction, which no row sees."""
    sizes, turn = np.linalg.eigh(P)
    along = turn[:, :, :1]
    return P - (sizes[:, :1, None] - least) * along @ along.mT, A - A @ along @ along.mT, 1.0


def nearly_parallel(P, A, rng):
    return P, np.concatenate([A[:, :-1], A[:, :1] + 1e-3 * rng.normal(size=(BATCH, 1, N))], axis=1), 1.0


def hidden(P, A, rng):
    """The pivots of AAᵀ are no smaller than a hundredth (Kahan)."""
    order, s = 18, 0.5
    lower = (np.eye(order) - s * np.tril(np.ones((order, order)), -1)) * np.sqrt(1 - s * s) ** np.arange(order)
    return *(np.tile(part, (BATCH, 1, 1)) for part in (np.eye(order), lower)), 1.0


ILL = {
    "flat": flat,
    "nearly parallel": nearly_parallel,
    "hidden": hidden,
    "steep": lambda P, A, rng: (P, 1e5 * A, 1.0),
    "soft": lambda P, A, rng: (1e-8 * P, 1e-4 * A, 0.5),
    "flatter": lambda P, A, rng: flat(P, A, rng, 1e-10),
}


@pytest.mark.parametrize("kind", ILL)
def test_condition_numbers_are_no_less_than_those_of_the_matrices(kind, rng):
    """K = [[P, Aᵀr], [rA, d − 1]], written out. Where they are too large, it is left to the whole matrix."""
    program = batch_of(rng)
    P, A, d = ILL[kind](program.structure.P.dense(program.P), program.structure.A.dense(program.A), rng)
    m, n = A.shape[1:]
    structure = Structure(pattern_of(np.ones((n, n))), pattern_of(np.ones((m, n))), Product(ZERO, m - ZERO))
    q, b = np.zeros((BATCH, n)), np.zeros((BATCH, m))
    program = ConeProgram(structure, BATCH, values_of(structure.P, P), q, values_of(structure.A, A), b)
    d = np.where(np.arange(m) < ZERO, 1.0, np.full((BATCH, m), d))
    found = factorise(System(program, Derivative(d, IdentityBasis(m))), Method.CHOLESKY, 1)
    right = np.sqrt(d)[:, :, None] * A
    soft = (d - 1.0)[:, :, None] * np.eye(m)
    K = np.concatenate([np.concatenate([P, right.mT], axis=2), np.concatenate([right, soft], axis=2)], axis=1)
    assert len(found.rest) == (BATCH if kind == "flatter" else 0)
    assert (found.rank.condition >= np.linalg.cond(K) / (n + m)).all()


def test_factors_are_computed_once_for_solver_and_derivative(rng, monkeypatch):
    n, calls, cholesky = 32, [], np.linalg.cholesky
    x, p, L = cp.Variable(n), cp.Parameter(n), cp.Parameter((n, n))
    rows: list[Any] = [cp.sum(x) == 1, cp.Constant(rng.normal(size=(10, n))) @ x <= 1]
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(L @ x) + p @ x), rows), [p, L], [x]).layer
    assert layer.options.plan.primary.name == "LEAST_DISTANCE"
    assert layer.kernel.method is Method.CHOLESKY
    values = [rng.normal(size=(BATCH, n)), rng.normal(size=(BATCH, n, n))]
    monkeypatch.setattr(np.linalg, "cholesky", lambda matrices: calls.append(len(matrices)) or cholesky(matrices))
    call = layer.forward(values, layer.options)
    layer.vjp(call, [rng.normal(size=(BATCH, n))])
    assert calls == [BATCH] * 3  # P, the rows, and the active ones


def test_rows_that_another_thread_counts_meanwhile_are_not_taken_for_ones_own(rng, monkeypatch):
    program, compute = batch_of(rng, batch=2), Elimination.active
    mine, other = np.ones((2, ROWS)), np.hstack([np.ones((2, ZERO)), np.zeros((2, ROWS - ZERO))])

    def overtaken(self, d, zero):
        program._active[:] = [compute(self, other, zero)]
        return compute(self, d, zero)

    monkeypatch.setattr(Elimination, "active", overtaken)
    np.testing.assert_array_equal(program.active(mine).d, mine)
    np.testing.assert_array_equal(program.active(mine).d, mine)


def test_items_are_taken_while_another_thread_factorises(rng):
    """The factors appear when the list of them has been read, and is empty."""

    class Late(list):
        def __iter__(self):
            yield from super().__iter__()
            program.active(np.ones((2, ROWS)))

    program, first = batch_of(rng, batch=2), np.array([0])
    object.__setattr__(program, "_eliminated", Late())
    part = program.item(first)
    assert program._active
    wanted = replace(program.item(first)).active(np.ones((1, ROWS)))
    np.testing.assert_array_equal(part.active(np.ones((1, ROWS))).lower, wanted.lower)


@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_agree_with_finite_differences(threads, rng):
    n = 32
    x, Q, p, G, h = (
        cp.Variable(n),
        cp.Parameter((n, n), PSD=True),
        cp.Parameter(n),
        cp.Parameter((12, n)),
        cp.Parameter(12),
    )
    rows: list[Any] = [G @ x <= h, cp.sum(x) == 0.1]
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, Q) + p @ x), rows)
    layer = CvxpyLayer(problem, [Q, p, G, h], [x], threads=threads)
    assert "LEAST_DISTANCE for batches of 16 and more, DAQP for smaller ones" in layer.describe()
    assert "Cholesky" in layer.describe()
    L = rng.normal(size=(BATCH, n, n))
    data = [L @ L.mT / n + 0.1 * np.eye(n), rng.normal(size=(BATCH, n)), rng.normal(size=(BATCH, 12, n))]
    data.append(rng.uniform(0.1, 0.5, size=(BATCH, 12)))
    check = layer.gradcheck(*data)
    assert check.ok, str(check)
    assert set(layer.solve(*data).info.solver) == {"LEAST_DISTANCE"}


def test_rows_are_those_of_the_item_where_another_keeps_all(rng):
    """The dense factorisation of the whole matrix: one item has all rows active, the others some."""
    n, m = 30, 14
    structure = Structure(pattern_of(np.ones((n, n))), pattern_of(np.ones((m, n))), Product(nonnegative=m))
    A = rng.normal(size=(3, m, n))
    A[1, -1] = A[1, -2]
    P, zeros = values_of(structure.P, np.broadcast_to(np.eye(n), (3, n, n))), np.zeros((3, n))
    program = ConeProgram(structure, 3, P, zeros, values_of(structure.A, A), np.zeros((3, m)))
    d = np.ones((3, m))
    d[1:, :5] = 0.0
    system = System(program, Derivative(d, IdentityBasis(m)))
    found = factorise(system, Method.DENSE, 1)
    assert found.rank.dependent.tolist() == [False, True, False]
    assert found.rank.condition[2] < 1e4
