"""Programs with a diagonal P: block principal pivoting on the dual, and the Schur complement in the derivative."""

from __future__ import annotations

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

import cvxlayers
from cvxlayers.complement import find_complement
from cvxlayers.cones import Derivative, IdentityBasis, Product
from cvxlayers.derivative import Method, System, choose_method, factorise
from cvxlayers.derivative.schur import factorise_schur
from cvxlayers.parallel import chunks
from cvxlayers.program import ConeProgram, Status, Structure
from cvxlayers.solvers import SOLVERS, Options, Plan, pivoting, select, solve_batch
from tests.checks import assert_close, assert_same_bits
from tests.programs import pattern_of, values_of

ZERO, INEQUALITIES, N = 4, 30, 60
PLAN = Plan(SOLVERS["PIVOTING"])


def separable(rng: np.random.Generator, batch: int = 6, n: int = N) -> tuple[ConeProgram, np.ndarray, np.ndarray]:
    """Programs with a diagonal P, and their solutions x and y: half of the inequalities are active."""
    cone = Product(zero=ZERO, nonnegative=INEQUALITIES)
    mask = rng.random((cone.dim, n)) < 0.2
    mask[np.arange(cone.dim), rng.permutation(n)[: cone.dim]] = True
    A = rng.normal(size=(batch, cone.dim, n)) * mask
    P = rng.uniform(0.5, 2.0, size=(batch, n))
    x, v = rng.normal(size=(batch, n)), rng.normal(size=(batch, cone.dim))
    y = np.where(np.arange(cone.dim) < ZERO, v, np.maximum(v, 0.0))
    structure = Structure(pattern_of(np.eye(n)), pattern_of(mask.astype(float)), cone)
    q = -P * x - np.einsum("bmn,bm->bn", A, y)
    b = np.einsum("bmn,bn->bm", A, x) + np.where(np.arange(cone.dim) < ZERO, 0.0, np.maximum(-v, 0.0))
    return ConeProgram(structure, batch, P, q, values_of(structure.A, A), b), x, y


def solved(program: ConeProgram, options: Options | None = None, plan: Plan = PLAN):
    return solve_batch(program, plan, options or Options(), 1)


def test_it_finds_the_solution_in_a_handful_of_systems(rng):
    program, x, y = separable(rng)
    solution = solved(program).solution
    assert (solution.status == Status.SOLVED).all()
    assert_close([solution.x, solution.y], [x, y], 1e-10, "point")
    assert (solution.s >= 0).all()
    assert not (solution.s * solution.y).any()
    assert solution.iterations.max() <= 12


def from_equalities(monkeypatch) -> None:
    """Lets it begin with the equalities alone, so that it is far from the solution."""
    first = lambda program, dual, equation: np.repeat(equation[None], program.batch, axis=0)  # noqa: E731
    monkeypatch.setattr(pivoting, "_first", first)


def test_projected_gradients_leave_one_or_two_systems(rng, monkeypatch):
    program, _, _ = separable(rng, batch=20)
    near = solved(program).solution
    assert near.iterations.mean() < 1.5
    from_equalities(monkeypatch)
    far = solved(program).solution
    assert far.iterations.mean() > 3
    np.testing.assert_array_equal(near.y > 0, far.y > 0)
    assert_close([near.x, near.y], [far.x, far.y], 1e-12, "point")


def test_items_do_not_depend_on_their_neighbours(rng):
    program, _, _ = separable(rng)
    whole = solved(program).solution
    for item in range(program.batch):
        alone = solved(program.item(np.array([item]))).solution
        assert_same_bits([whole.x[[item]], whole.y[[item]]], [alone.x, alone.y], "item")
        assert whole.iterations[item] == alone.iterations[0]


@pytest.mark.parametrize("most", [2**20, 0])
def test_shared_matrices_are_prepared_once_and_change_nothing(rng, monkeypatch, most):
    """Whether the entries of M are added up one by one, or are those of a dense product."""
    monkeypatch.setattr("cvxlayers.patterns.gram._MOST", most)
    program, _, _ = separable(rng)
    one = replace(program, P=program.P[:1], A=program.A[:1])
    many = replace(program, P=np.repeat(program.P[:1], 6, axis=0), A=np.repeat(program.A[:1], 6, axis=0))
    shared, own = solved(one).solution, solved(many).solution
    assert_same_bits([shared.x, shared.y, shared.status], [own.x, own.y, own.status], "shared")
    monkeypatch.setattr("cvxlayers.patterns.pattern.Pattern.gram", None)
    assert one.whole is not None
    assert one.item(slice(0, 2)).whole is one.whole
    assert_same_bits([solved(one).solution.y], [shared.y], "again")


def test_nothing_is_solved_of_an_empty_batch(rng):
    program, _, _ = separable(rng)
    nothing = SOLVERS["PIVOTING"].solve(program.item(slice(0, 0)), Options())
    assert nothing.x.shape == (0, N)
    assert not len(nothing.status)


def test_equalities_alone_take_one_system(rng):
    program, _, _ = separable(rng)
    equalities = replace(program, structure=replace(program.structure, cone=Product(zero=ZERO + INEQUALITIES)))
    solution = solved(equalities).solution
    assert (solution.status == Status.SOLVED).all()
    assert (solution.iterations == 1).all()


def test_what_it_cannot_solve_goes_to_the_next_solver(rng):
    """Not convex, dependent equalities, and no feasible point: each item ends as it must, its neighbours solved."""
    program, _, _ = separable(rng)
    P, A, b = program.P.copy(), program.A.copy(), program.b.copy()
    P[1, 3] = 0.0
    dense = program.structure.A.dense(A)
    structure = replace(program.structure, A=pattern_of(np.ones(dense.shape[1:])))
    dense[2, 1], b[2, 1] = dense[2, 0], b[2, 0]
    dense[3, 1], b[3, 1] = dense[3, 0], b[3, 0] + 1.0
    program = replace(program, structure=structure, P=P, A=values_of(structure.A, dense), b=b)
    alone = solved(program).solution.status
    assert (alone[[0, 4, 5]] == Status.SOLVED).all()
    assert (alone[[1, 2, 3]] != Status.SOLVED).all()
    outcome = solved(program, plan=Plan(SOLVERS["PIVOTING"], (SOLVERS["DAQP"], SOLVERS["CLARABEL"])))
    assert outcome.solution.status.tolist() == [0, 0, 0, Status.INFEASIBLE, 0, 0]
    assert outcome.fell_back.tolist() == [False, True, True, True, False, False]


def test_single_exchanges_end_where_exchanges_of_all_rows_go_in_circles(monkeypatch):
    M = np.array([[3.7, 2.5, -3.3, -1.7], [2.5, 5.5, -1.8, 1.5], [-3.3, -1.8, 3.5, 1.6], [-1.7, 1.5, 1.6, 3.2]])
    r = np.array([-0.2, -0.8, 0.4, -1.6])
    # The dual of ½‖x‖² over Rᵀx ≤ r, with M = RᵀR.
    A = np.linalg.cholesky(M)[None]
    structure = Structure(pattern_of(np.eye(4)), pattern_of(np.ones((4, 4))), Product(nonnegative=4))
    program = ConeProgram(structure, 1, np.ones((1, 4)), np.zeros((1, 4)), values_of(structure.A, A), r[None])
    from_equalities(monkeypatch)
    solution = solved(program).solution
    assert solution.status[0] == Status.SOLVED
    slack = M @ solution.y[0] + r
    assert solution.y[0].min() >= 0
    assert slack.min() >= -1e-12
    assert abs(slack @ solution.y[0]) < 1e-12
    monkeypatch.setattr(pivoting, "_PATIENCE", 10**9)
    assert solved(program).solution.status[0] != Status.SOLVED


def test_limits_are_kept_and_named(rng, monkeypatch):
    program, _, _ = separable(rng)
    from_equalities(monkeypatch)
    assert (solved(program, Options(max_iters=1)).solution.status == Status.ITERATION_LIMIT).all()
    assert (solved(program, Options(time_limit=0.0)).solution.status == Status.TIME_LIMIT).all()


@pytest.mark.parametrize("change", ["curved", "products", "missing", "rows"])
def test_it_refuses_what_it_does_not_take(change):
    n, rows = 4, 3
    P, cone = np.eye(n), Product(nonnegative=rows)
    if change == "products":
        P[0, 1] = P[1, 0] = 0.5
    elif change == "missing":
        P[2, 2] = 0.0
    elif change == "curved":
        cone = Product(second_order=(rows,))
    elif change == "rows":
        cone, rows = Product(nonnegative=2001), 2001
    structure = Structure(pattern_of(P), pattern_of(np.ones((rows, n))), cone)
    assert SOLVERS["PIVOTING"].refusal(structure) is not None


def scattered(n: int, rows: int) -> Structure:
    rng = np.random.default_rng(0)
    cone = Product(zero=rows // 6, nonnegative=rows - rows // 6)
    return Structure(pattern_of(np.eye(n)), pattern_of((rng.random((rows, n)) < 0.01).astype(float)), cone)


def test_it_is_chosen_where_sparse_factors_fill_in_and_rows_are_few():
    plan = select(scattered(1000, 600), P_values=np.ones((1, 1000)))
    assert [solver.name for solver in plan.solvers] == ["PIVOTING", "DAQP", "CLARABEL"]
    assert select(scattered(1000, 600), P_values=np.zeros((1, 1000))).primary.name != "PIVOTING"
    assert select(scattered(600, 1000), P_values=np.ones((1, 600))).primary.name != "PIVOTING"
    assert choose_method(scattered(1000, 600)) is Method.SCHUR
    assert choose_method(scattered(600, 1000)) is not Method.SCHUR


@pytest.mark.parametrize("threads", [1, 2])
def test_the_schur_complement_solves_what_the_whole_matrix_does(rng, threads):
    program, _, _ = separable(rng)
    d = np.where(np.arange(program.structure.m) < ZERO, 1.0, rng.choice([0.0, 0.4, 1.0], size=(6, program.structure.m)))
    system = System(program, Derivative(d, IdentityBasis(program.structure.m)))
    first, second = rng.normal(size=program.q.shape), rng.normal(size=program.b.shape)
    mine, whole = (factorise(system, method, threads).solve(first, second) for method in (Method.SCHUR, Method.SPARSE))
    assert_close([mine.first, mine.second], [whole.first, whole.second], 1e-9, "solution")
    assert mine.residual.max() < 1e-12
    alone = factorise(system.item(np.array([2])), Method.SCHUR, 1).solve(first[[2]], second[[2]])
    assert_same_bits([mine.first[[2]]], [alone.first], "item")


@pytest.mark.parametrize("threads", [1, 2])
def test_factors_of_the_last_systems_serve_the_derivatives(rng, monkeypatch, threads):
    program, _, _ = separable(rng)
    monkeypatch.setattr("cvxlayers.solvers.driver.worthwhile_chunks", lambda batch, count, call: chunks(batch, count))
    monkeypatch.setattr("cvxlayers.program._KEPT", 8 * program.batch * program.structure.m**2 - 1)
    solution = solve_batch(program, PLAN, Options(), threads).solution
    d = ((solution.y > 0) | (np.arange(program.structure.m) < ZERO)).astype(float)
    basis = IdentityBasis(program.structure.m)
    rhs = rng.normal(size=program.q.shape), rng.normal(size=program.b.shape)
    found = []

    def count(*args):
        found.append(args)
        return find_complement(*args)

    monkeypatch.setattr("cvxlayers.program.find_complement", count)
    without = factorise(System(program, Derivative(d, basis)), Method.SCHUR, threads).solve(*rhs)
    assert len(found) == program.batch
    monkeypatch.setattr("cvxlayers.program._KEPT", 8 * program.batch * program.structure.m**2)
    solve_batch(program, PLAN, Options(), threads)
    found.clear()
    kept = factorise(System(program, Derivative(d, basis)), Method.SCHUR, threads).solve(*rhs)
    assert not found
    assert_same_bits([kept.first, kept.second], [without.first, without.second], "solution")
    factorise(System(program, Derivative(0.5 * d, basis)), Method.SCHUR, threads)
    assert len(found) == program.batch


@pytest.mark.filterwarnings("error")
def test_doubtful_items_are_left_to_a_factorisation_of_the_whole_matrix(rng):
    """One item with dependent active rows, one with a zero in P, and one with a row of zeros."""
    program, _, _ = separable(rng, batch=4)
    dense, P = program.structure.A.dense(program.A).copy(), program.P.copy()
    structure = replace(program.structure, A=pattern_of(np.ones(dense.shape[1:])))
    dense[1, 1] = dense[1, 0]
    P[2, 0] = dense[3, 1] = 0.0
    program = replace(program, structure=structure, P=P, A=values_of(structure.A, dense))
    system = System(program, Derivative(np.ones((4, structure.m)), IdentityBasis(structure.m)))
    mine, whole = factorise(system, Method.SCHUR, 1), factorise(system, Method.SPARSE, 1)
    assert mine.rank.dependent.tolist() == [False, True, False, True]
    first, second = rng.normal(size=program.q.shape), rng.normal(size=program.b.shape)
    second[1, 1], second[3, 1] = second[1, 0], 0.0  # so that the singular ones have solutions
    got, want = mine.solve(first, second), whole.solve(first, second)
    assert_close([got.first, got.second], [want.first, want.second], 1e-8, "solution")


def test_gradients_of_a_layer_agree_with_finite_differences(rng):
    """Chosen by itself, with a batch, and the non-zeros of A as a parameter."""
    n, rows = 400, 300
    pattern = np.argwhere(rng.random((rows, n)) < 0.03)
    values, p, h = cp.Parameter(len(pattern)), cp.Parameter(n), cp.Parameter(rows)
    x = cp.Variable(n)
    gather, add = np.zeros((len(pattern), n)), np.zeros((rows, len(pattern)))
    gather[np.arange(len(pattern)), pattern[:, 1]] = 1.0
    add[pattern[:, 0], np.arange(len(pattern))] = 1.0
    constraint = cp.Constant(add) @ cp.multiply(values, cp.Constant(gather) @ x) <= h
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x) + p @ x), [constraint])
    layer = cvxlayers.CvxpyLayer(problem, [values, p, h], [x])
    assert "PIVOTING" in layer.describe()
    assert "Schur complement" in layer.describe()
    data = rng.normal(size=(2, len(pattern))), rng.normal(size=(2, n)), rng.uniform(0.1, 1.0, size=(2, rows))
    check = layer.gradcheck(*data)
    assert check.ok, str(check)
    assert set(layer.solve(*data).info.solver) == {"PIVOTING"}


def test_points_without_an_active_row_have_a_complement_of_order_zero(rng):
    program, _, _ = separable(rng)
    structure = replace(program.structure, cone=Product(nonnegative=program.structure.m))
    inside = replace(program, structure=structure)
    none = Derivative(np.zeros((6, structure.m)), IdentityBasis(structure.m))
    system = System(inside, replace(none, eigenvalues=np.where(np.arange(6)[:, None] == 1, 1.0, none.eigenvalues)))
    first, second = rng.normal(size=program.q.shape), rng.normal(size=program.b.shape)
    found = factorise(system, Method.SCHUR, 1).solve(first, second)
    assert found.residual.max() < 1e-12
    np.testing.assert_allclose(found.first[0], first[0] / program.P[0], rtol=1e-14)
    np.testing.assert_array_equal(found.second[0], -second[0])


def test_dependent_rows_are_seen_where_rounding_lets_them_be_factorised(rng):
    """Multiples of a row: what rounding leaves of the last pivot is positive in about half of the items."""
    program, _, _ = separable(rng, batch=40)
    dense = program.structure.A.dense(program.A).copy()
    structure = replace(program.structure, A=pattern_of(np.ones(dense.shape[1:])))
    dense[:, 1] = rng.uniform(0.5, 2.0, size=(40, 1)) * dense[:, 0]
    program = replace(program, structure=structure, A=values_of(structure.A, dense))
    system = System(program, Derivative(np.ones((40, structure.m)), IdentityBasis(structure.m)))
    found, whole = (factorise(system, method, 1) for method in (Method.SCHUR, Method.SPARSE))
    assert found.rank.dependent.all()
    rhs = rng.normal(size=program.q.shape), np.zeros(program.b.shape)
    np.testing.assert_allclose(found.solve(*rhs).second, whole.solve(*rhs).second, atol=1e-8)


@pytest.mark.parametrize("shared", [False, True])
def test_the_complement_alone_solves_regular_systems(shared, rng):
    """Rows half active among them, in units far apart; no whole matrix is asked for."""
    program, _, _ = separable(rng)
    m = program.structure.m
    if shared:
        program = replace(program, P=program.P[:1], A=program.A[:1])
    units = 10.0 ** rng.uniform(-3, 3, size=m)
    program = replace(program, A=program.A * units[program.structure.A.rows])
    d = rng.choice([0.0, 0.4, 1.0], size=(6, m))
    system = System(program, Derivative(d, IdentityBasis(m)))

    def refuse(_):
        raise AssertionError("a whole matrix was factorised")

    rhs = rng.normal(size=program.q.shape), rng.normal(size=program.b.shape)
    assert factorise_schur(system, 1, refuse).solve(*rhs).residual.max() < 1e-10


def test_the_condition_of_a_complement_is_that_of_a_unit_diagonal(rng):
    """S = B P⁻¹ Bᵀ + diag(1 − d), written out, of rows that are nearly parallel, in units far apart."""
    units, weights, d = np.geomspace(1e-3, 1e3, 12), rng.uniform(0.5, 2.0, size=30), np.tile([0.4, 1.0, 0.0], 4)
    A = units[:, None] * (1.0 + 0.3 * rng.normal(size=(12, 30)))
    pattern = pattern_of(A)
    found = find_complement(pattern, values_of(pattern, A[None])[0], weights, d)
    kept = d > 0
    S = (np.sqrt(d)[:, None] * A * weights @ A.T * np.sqrt(d) + np.diag(1.0 - d))[np.ix_(kept, kept)]
    scale = 1.0 / np.sqrt(np.diagonal(S))
    condition = np.linalg.cond(scale[:, None] * S * scale, 1)
    assert condition > 100.0
    np.testing.assert_allclose(found.condition, condition, rtol=0.1)  # LAPACK's estimate


def test_variables_that_nothing_determines_are_seen(rng):
    program, _, _ = separable(rng, batch=2)
    P, A = program.P.copy(), program.A.copy()
    P[1, 5] = 0.0
    A[1, program.structure.A.cols == 5] = 0.0
    program = replace(program, P=P, A=A)
    system = System(program, Derivative(np.ones((2, program.structure.m)), IdentityBasis(program.structure.m)))
    assert factorise(system, Method.SCHUR, 1).rank.not_unique.tolist() == [False, True]


def two_rows(slope: float, y: tuple[float, float]) -> ConeProgram:
    """min ½‖x‖² s.t. x₁ + x₂ ≤ b₁, slope x₁ ≤ b₂, where both rows are active with these multipliers."""
    A = np.array([[1.0, 1.0], [slope, 0.0]])
    structure = Structure(pattern_of(np.eye(2)), pattern_of(np.array([[1.0, 1.0], [1.0, 0.0]])), Product(nonnegative=2))
    values = values_of(structure.A, A[None])
    return ConeProgram(structure, 1, np.ones((1, 2)), np.zeros((1, 2)), values, (-A @ A.T @ np.array(y))[None])


def test_a_multiplier_below_the_tolerance_is_zero():
    solution = SOLVERS["PIVOTING"].solve(two_rows(1.0, (1.0, -1e-13)), Options())
    assert solution.status == Status.SOLVED
    np.testing.assert_array_equal(solution.y[0, 1], 0.0)
    np.testing.assert_allclose(solution.y[0, 0], 1.0)


def test_signs_are_right_however_little_accuracy_is_asked_for():
    solution = SOLVERS["PIVOTING"].solve(two_rows(0.01, (1.0, 0.5)), Options(eps=10.0))
    np.testing.assert_allclose(solution.y[0], [1.0, 0.5])
