"""Every solver on every structure it takes: optimality, independence of items, statuses, fallbacks, threads."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from typing import final

import numpy as np
import pytest
import scipy.sparse as sp

from cvxlayers.cones import Product, project_dual
from cvxlayers.derivative import Point, evaluate, start
from cvxlayers.errors import CvxlayersWarning, OptionError
from cvxlayers.parallel import chunks
from cvxlayers.patterns import Pattern
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers import SOLVERS, Options, Plan, Solver, driver, parse_options, select, solve_batch, suitable
from cvxlayers.solvers.certificate import certify
from cvxlayers.solvers.items import select_rows, unsolved, upper_triangle
from cvxlayers.solvers.scaling import scale

CONES = {
    "unconstrained": Product(),
    "equalities": Product(zero=3),
    "inequalities": Product(nonnegative=6),
    "polyhedral": Product(zero=2, nonnegative=5),
    "second_order": Product(nonnegative=1, second_order=(3, 1, 4)),
    "semidefinite": Product(zero=1, semidefinite=(4, 2, 1)),
    "exponential": Product(nonnegative=1, exponential=2),
    "power": Product(nonnegative=1, power=(0.3, 0.5)),
    "mixed": Product(zero=1, nonnegative=2, second_order=(3,), semidefinite=(3,), exponential=1, power=(0.7,)),
}
N = 6


def pattern_of(matrix: np.ndarray) -> Pattern:
    stored = sp.csc_array(matrix)
    stored.sort_indices()
    return Pattern(matrix.shape, stored.indices, stored.indptr)


def program_of(cone: Product, P: np.ndarray, q: np.ndarray, A: np.ndarray, b: np.ndarray) -> ConeProgram:
    """A batch from dense matrices; the patterns are those of their absolute sums, unless these are zero."""
    P_pattern, A_pattern = pattern_of(np.abs(P).sum(axis=0)), pattern_of(np.abs(A).sum(axis=0) + 1e-300)
    P_values, A_values = P[:, P_pattern.rows, P_pattern.cols], A[:, A_pattern.rows, A_pattern.cols]
    arrays = (np.ascontiguousarray(array) for array in (P_values, q, A_values, b))
    return ConeProgram(Structure(P_pattern, A_pattern, cone), len(q), *arrays)


def quadratic(rng: np.random.Generator, batch: int, rank: int) -> np.ndarray:
    factor = rng.normal(size=(batch, N, rank))
    return factor @ factor.transpose(0, 2, 1) + (np.eye(N) if rank == N else 0.0)


def times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return (matrices @ vectors[..., None])[..., 0]


def solvable(cone: Product, rng: np.random.Generator, batch: int = 8, rank: int = N) -> tuple[ConeProgram, np.ndarray]:
    """Programs with their solutions: q and b are chosen for x and v."""
    P, A = quadratic(rng, batch, rank), rng.normal(size=(batch, cone.dim, N))
    x, v = rng.normal(size=(batch, N)), rng.normal(size=(batch, cone.dim))
    y = project_dual(cone, v)
    return program_of(cone, P, -times(P, x) - times(A.transpose(0, 2, 1), y), A, times(A, x) + y - v), x


def infeasible(cone: Product, rng: np.random.Generator, batch: int = 10, rank: int = N) -> ConeProgram:
    """Programs with y ∈ K*, Aᵀy = 0, bᵀy = −|y|²."""
    y = project_dual(cone, rng.normal(size=(batch, cone.dim)) + 0.5)
    size = np.sum(y * y, axis=1)
    A, b = rng.normal(size=(batch, cone.dim, N)), rng.normal(size=(batch, cone.dim))
    A -= y[:, :, None] * times(A.transpose(0, 2, 1), y)[:, None, :] / size[:, None, None]
    b -= y * (np.sum(y * b, axis=1) / size + 1.0)[:, None]
    return program_of(cone, quadratic(rng, batch, rank), rng.normal(size=(batch, N)), A, b)


def unbounded(cone: Product, rng: np.random.Generator, batch: int = 10, rank: int = 2) -> ConeProgram:
    """Feasible programs with a direction d: Pd = 0, −Ad ∈ K, qᵀd = −|d|²."""
    d, x = rng.normal(size=(2, batch, N))
    s, inside = cone.project(rng.normal(size=(2, batch, cone.dim)))
    size = np.sum(d * d, axis=1)
    A = rng.normal(size=(batch, cone.dim, N))
    A -= (times(A, d) + s)[:, :, None] * d[:, None, :] / size[:, None, None]
    across = np.eye(N) - d[:, :, None] * d[:, None, :] / size[:, None, None]
    q = rng.normal(size=(batch, N))
    q -= d * (np.sum(q * d, axis=1) / size + 1.0)[:, None]
    return program_of(cone, across @ quadratic(rng, batch, rank) @ across, q, A, times(A, x) + inside)


@final
class _Liar(Solver):
    """Calls zero the solution of everything."""

    @property
    def name(self) -> str:
        return "LIAR"

    def refusal(self, structure: Structure) -> str | None:
        return None

    def native_options(self) -> Mapping[str, type]:
        return {}

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        nothing = unsolved(program.structure, program.batch)
        x, y, s = (np.zeros_like(part) for part in (nothing.x, nothing.y, nothing.s))
        return Solution(x, y, s, np.zeros_like(nothing.status), nothing.iterations)


def only(name: str) -> Plan:
    return Plan(SOLVERS[name])


def cases(structures: Mapping[str, Product] = CONES, rank: int = N) -> list[object]:
    """Every solver with every cone it takes; rank 0 is a linear objective."""
    found = []
    for label, cone in structures.items():
        program, _ = solvable(cone, np.random.default_rng(0), batch=1, rank=rank)
        found += [pytest.param(name, cone, id=f"{name}-{label}") for name in suitable(program.structure)]
    return found


def dense(program: ConeProgram) -> tuple[np.ndarray, np.ndarray]:
    """P and A without the package's own products."""
    P, A = np.zeros((program.batch, N, N)), np.zeros((program.batch, program.structure.m, N))
    P[:, program.structure.P.rows, program.structure.P.cols] = program.P
    A[:, program.structure.A.rows, program.structure.A.cols] = program.A
    return P, A


def assert_optimal(program: ConeProgram, solution: Solution, tolerance: float) -> None:
    """The optimality conditions, one by one, relative to the sizes of what they compare."""
    (P, A), x, y, s = dense(program), solution.x, solution.y, solution.s
    cone, size = (
        program.structure.cone,
        1.0 + max(np.abs(array).max(initial=0) for array in (P, A, program.q, program.b)),
    )
    size *= 1.0 + max(np.abs(array).max(initial=0) for array in (x, y, s))
    assert np.abs(times(P, x) + program.q + times(A.transpose(0, 2, 1), y)).max(initial=0) <= tolerance * size
    assert np.abs(times(A, x) + s - program.b).max(initial=0) <= tolerance * size
    assert np.abs(np.sum(s * y, axis=1)).max(initial=0) <= tolerance * size
    assert np.abs(cone.project(s) - s).max(initial=0) <= tolerance * size
    assert np.abs(project_dual(cone, y) - y).max(initial=0) <= tolerance * size


def assert_same(first: Solution, second: Solution) -> None:
    """Bit for bit, NaN included."""
    for name in ("x", "y", "s", "status", "iterations"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def item(solution: Solution, index: object) -> Solution:
    return Solution(*(getattr(solution, name)[index] for name in ("x", "y", "s", "status", "iterations")))


@pytest.mark.parametrize(("name", "cone"), cases())
def test_strictly_convex_programs_are_solved(name: str, cone: Product, rng: np.random.Generator) -> None:
    program, x = solvable(cone, rng)
    outcome = solve_batch(program, only(name), Options(), threads=1)
    assert outcome.solvers == [name] * program.batch
    assert (outcome.solution.status == Status.SOLVED).all()
    assert_optimal(program, outcome.solution, 1e-8)
    # x is as wrong as the square root of a gap of 1e-9 allows: the polish is what removes it.
    np.testing.assert_allclose(outcome.solution.x, x, atol=2e-4)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("label", [label for label in CONES if label not in ("unconstrained", "equalities")])
def test_degenerate_objectives_are_solved(label: str, rank: int, rng: np.random.Generator) -> None:
    program, _ = solvable(CONES[label], rng, rank=rank)
    for name in [None, *suitable(program.structure)]:
        if name in ("DAQP", "LEAST_DISTANCE"):
            continue
        plan = select(program.structure, name)
        outcome = solve_batch(program, plan if name is None else only(name), Options(), threads=1)
        # Alone, an interior-point method may stop early here, and says so.
        accepted = (Status.SOLVED,) if name is None else (Status.SOLVED, Status.INACCURATE)
        assert np.isin(outcome.solution.status, accepted).all(), name
        assert_optimal(program, outcome.solution, 1e-8 if name is None else 1e-5)


LINEAR = ("polyhedral", "second_order", "exponential")


@pytest.mark.parametrize(
    ("name", "cone"), [*cases(), *(pytest.param("ECOS", CONES[k], id=f"ECOS-{k}") for k in LINEAR)]
)
def test_items_do_not_depend_on_their_neighbours(name: str, cone: Product, rng: np.random.Generator) -> None:
    program, _ = solvable(cone, rng, batch=7, rank=0 if name == "ECOS" else N)
    reference = solve_batch(program, only(name), Options(), threads=1).solution
    order = rng.permutation(7)
    assert_same(solve_batch(program.item(order), only(name), Options(), threads=1).solution, item(reference, order))
    wild = replace(program, P=program.P.copy(), q=program.q.copy(), A=program.A.copy(), b=program.b.copy())
    wild.P[:1], wild.q[0] = wild.P[:1] * 1e6, wild.q[0] * 1e6
    wild.A[3], wild.b[3] = wild.A[3] * 1e-5, wild.b[3] * 1e7
    wild.q[5] = np.nan
    others = [1, 2, 4, 6]
    assert_same(item(solve_batch(wild, only(name), Options(), threads=2).solution, others), item(reference, others))
    alone = [solve_batch(program.item(np.array([k])), only(name), Options(), threads=1).solution for k in range(7)]
    for k in range(7):
        assert_same(alone[k], item(reference, [k]))


@pytest.mark.parametrize("name", ["DIRECT", "DAQP", "PIQP", "CLARABEL", "SCS"])
def test_threads_and_sharing_leave_the_bits(
    name: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "cvxlayers.solvers.driver.worthwhile_chunks", lambda batch, threads, call: chunks(batch, threads)
    )
    cone = CONES["equalities" if name == "DIRECT" else "polyhedral"]
    program, _ = solvable(cone, rng, batch=7)
    shared = replace(program, P=program.P[:1], A=program.A[:1])
    repeated = replace(program, P=np.repeat(program.P[:1], 7, axis=0), A=np.repeat(program.A[:1], 7, axis=0))
    reference = solve_batch(shared, only(name), Options(), threads=1).solution
    for other, threads in ((shared, 2), (shared, 7), (repeated, 1), (repeated, 3)):
        assert_same(solve_batch(other, only(name), Options(), threads=threads).solution, reference)


@pytest.mark.parametrize("cost", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("length", [1e-8, 1.0, 1e7])
@pytest.mark.parametrize("height", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("label", ["equalities", "polyhedral", "second_order", "semidefinite", "exponential", "power"])
def test_units_do_not_matter(label: str, cost: float, length: float, height: float, rng: np.random.Generator) -> None:
    program, x = solvable(CONES[label], rng, batch=3)
    units = ConeProgram(
        program.structure,
        program.batch,
        program.P * cost,
        program.q * (cost * length),
        program.A * height,
        program.b * (height * length),
    )
    outcome = solve_batch(units, select(units.structure), Options(), threads=1)
    assert (outcome.solution.status == Status.SOLVED).all()
    np.testing.assert_allclose(outcome.solution.x / length, x, atol=2e-4)


def test_scaling_is_exact_and_has_a_way_back(rng: np.random.Generator) -> None:
    program, _ = solvable(CONES["mixed"], rng)
    cost, length, height = 1e-9, 1e14, 1e7
    data = {"P": program.P * cost, "q": program.q * cost * length, "A": program.A * height}
    units = replace(program, **data, b=program.b * (height * length))
    scaled = scale(units)
    for name in ("P", "q", "A", "b"):
        assert 2**-20 < np.abs(getattr(scaled.program, name)).max() < 2**20
        mantissas = [np.frexp(getattr(batch, name))[0] for batch in (units, scaled.program)]
        np.testing.assert_array_equal(*mantissas)
    x, y = rng.normal(size=(8, N)), rng.normal(size=(8, program.structure.m))
    back = scaled.restore(replace(unsolved(program.structure, 8), x=x, y=y, s=scaled.program.b))
    P, A = dense(units)
    (P_scaled, A_scaled), q = dense(scaled.program), scaled.program.q
    residual = times(P, back.x) + units.q + times(A.transpose(0, 2, 1), back.y)
    scaled_residual = times(P_scaled, x) + q + times(A_scaled.transpose(0, 2, 1), y)
    ratio = residual / scaled_residual
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-9)
    np.testing.assert_allclose(back.s, units.b, rtol=1e-15)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["DAQP", "PIQP"])
def test_points_on_linear_constraints_are_judged_by_the_residual_map(
    name: str, threads: int, rng: np.random.Generator, monkeypatch
) -> None:
    """It is what the polish would start from, bit by bit; a batch with anything else in it is left to the polish."""
    program, x = solvable(CONES["polyhedral"], rng)
    monkeypatch.setattr(driver, "worthwhile_chunks", lambda batch, threads, *_: chunks(batch, threads))
    outcome = solve_batch(program, only(name), Options(), threads=threads)
    assert outcome.point is not None
    assert outcome.point.is_exact == (name == "DAQP")
    np.testing.assert_allclose(outcome.point.x, x, atol=1e-9 if name == "DAQP" else 1e-6)
    solution = outcome.solution
    polished = evaluate(program, solution.x, start(program.structure.cone, solution.y, solution.s))
    for column in fields(Point):
        np.testing.assert_array_equal(getattr(outcome.point, column.name), getattr(polished, column.name))
    infinite = replace(program, q=np.where(np.arange(8)[:, None] == 3, np.inf, program.q))
    assert solve_batch(infinite, only(name), Options(), threads=threads).point is None


def test_points_that_only_claim_to_be_solved_are_not_believed(rng: np.random.Generator) -> None:
    program, _ = solvable(CONES["polyhedral"], rng)
    outcome = solve_batch(program, Plan(_Liar()), Options(), threads=1)
    assert (outcome.solution.status != Status.SOLVED).all()
    assert outcome.point is None or not outcome.point.is_exact


@pytest.mark.parametrize("rank", [0, 2, N])
@pytest.mark.parametrize("label", [label for label in CONES if label not in ("unconstrained", "equalities")])
def test_infeasible_programs_have_certificates(label: str, rank: int, rng: np.random.Generator) -> None:
    program = infeasible(CONES[label], rng, rank=rank)
    outcome = solve_batch(program, select(program.structure), Options(), threads=1)
    (_, A), y = dense(program), outcome.solution.y
    assert (outcome.solution.status == Status.INFEASIBLE).all()
    gain = -np.sum(program.b * y, axis=1)
    assert (gain > 0).all()
    assert (np.abs(times(A.transpose(0, 2, 1), y)).max(axis=1) <= 1e-6 * gain).all()
    np.testing.assert_allclose(project_dual(program.structure.cone, y), y, atol=1e-12)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("label", [label for label in CONES if label not in ("unconstrained", "equalities")])
def test_unbounded_programs_have_certificates(label: str, rank: int, rng: np.random.Generator) -> None:
    program = unbounded(CONES[label], rng, rank=rank)
    outcome = solve_batch(program, select(program.structure), Options(), threads=1)
    (P, A), x, s = dense(program), outcome.solution.x, outcome.solution.s
    assert (outcome.solution.status == Status.UNBOUNDED).all()
    gain = -np.sum(program.q * x, axis=1)
    assert (gain > 0).all()
    assert (np.abs(times(P, x)).max(axis=1) <= 1e-5 * gain).all()
    assert (np.abs(times(A, x) + s).max(axis=1) <= 1e-5 * gain).all()
    np.testing.assert_allclose(program.structure.cone.project(s), s, atol=1e-12)


@pytest.mark.parametrize("rank", [0, 2, N])
def test_direct_solver_certifies(rank: int, rng: np.random.Generator) -> None:
    contradictory = solve_batch(infeasible(Product(zero=9), rng, rank=rank), only("DIRECT"), Options(), threads=1)
    assert (contradictory.solution.status == Status.INFEASIBLE).all()
    falling = solve_batch(unbounded(Product(zero=2), rng, rank=min(rank, 2)), only("DIRECT"), Options(), threads=1)
    assert (falling.solution.status == Status.UNBOUNDED).all()


def slab(width: float, rng: np.random.Generator, cone: Product, inner: np.ndarray) -> ConeProgram:
    """Ax + s = b and −Ax + s′ = −b + width · inner, s, s′ ∈ K: feasible just where width ≥ 0, as K is pointed."""
    A, x = rng.normal(size=(10, cone.dim, N)), rng.normal(size=(10, N))
    b = times(A, x) + 0.5 * width * inner
    doubled = Product(
        nonnegative=2 * cone.nonnegative, second_order=2 * cone.second_order, semidefinite=2 * cone.semidefinite
    )
    both = np.concatenate([A, -A], axis=1), np.concatenate([b, width * inner - b], axis=1)
    return program_of(doubled, quadratic(rng, 10, N), rng.normal(size=(10, N)), *both)


@pytest.mark.parametrize("width", [1e-2, 1e-4, 1e-6, 1e-8, 0.0, -1e-8, -1e-6, -1e-4, -1e-2])
@pytest.mark.parametrize(
    ("cone", "inner"),
    [
        (Product(nonnegative=3), np.ones(3)),
        (Product(second_order=(3,)), np.array([1.0, 0.0, 0.0])),
        (Product(semidefinite=(2,)), np.array([1.0, 0.0, 1.0])),
    ],
    ids=["nonnegative", "second_order", "semidefinite"],
)
def test_near_infeasibility_is_never_misjudged(
    width: float, cone: Product, inner: np.ndarray, rng: np.random.Generator
) -> None:
    program = slab(width, rng, cone, inner)
    for name in ("CLARABEL", "SCS"):
        options = Options(max_iters=500 if name == "CLARABEL" else 5000)
        status = solve_batch(program, only(name), options, threads=1).solution.status
        assert not (status == Status.UNBOUNDED).any()
        if width >= 0:
            assert not (status == Status.INFEASIBLE).any()
        if width <= -1e-4:
            assert not (status == Status.SOLVED).any()
    status = solve_batch(program, select(program.structure), Options(), threads=1).solution.status
    if width >= 1e-4:
        assert (status == Status.SOLVED).all()
    if width <= -1e-4:
        assert (status == Status.INFEASIBLE).all()


def test_a_false_claim_is_not_believed(rng: np.random.Generator) -> None:
    program, x = solvable(CONES["polyhedral"], rng)
    claims = unsolved(program.structure, program.batch)
    for claim in (Status.INFEASIBLE, Status.UNBOUNDED):
        y = np.abs(rng.normal(size=claims.y.shape))
        judged = certify(program, replace(claims, x=x, y=y, status=np.full(program.batch, claim)))
        assert (judged.status == Status.NUMERICAL_ERROR).all()


@pytest.mark.parametrize("name", [None, "CLARABEL", "SCS", "PIQP"])
def test_items_that_are_not_finite_are_left_out(name: str | None, rng: np.random.Generator) -> None:
    program, _ = solvable(CONES["polyhedral"], rng)
    plan = select(program.structure, name)
    reference = solve_batch(program, plan, Options(), threads=1).solution
    program = replace(program, **{name: getattr(program, name).copy() for name in "PqAb"})
    program.P[1, 3], program.q[2, 0], program.A[4, 2], program.b[6, 1] = np.nan, np.inf, -np.inf, np.nan
    outcome = solve_batch(program, plan, Options(), threads=1)
    bad = np.isin(np.arange(8), (1, 2, 4, 6))
    assert (outcome.solution.status[bad] == Status.INVALID_INPUT).all()
    assert np.isnan(outcome.solution.x[bad]).all()
    assert [outcome.solvers[k] for k in (1, 2, 4, 6)] == [""] * 4
    assert_same(item(outcome.solution, ~bad), item(reference, ~bad))
    shared = replace(program, A=np.full((1, program.structure.A.nnz), np.nan))
    assert (solve_batch(shared, plan, Options(), threads=1).solution.status == Status.INVALID_INPUT).all()


def test_an_empty_batch_is_solved() -> None:
    program, _ = solvable(CONES["polyhedral"], np.random.default_rng(0), batch=1)
    empty = program.item(np.array([], dtype=int))
    empty = replace(empty, P=program.P[:0], q=program.q[:0], A=program.A[:0], b=program.b[:0])
    outcome = solve_batch(empty, select(program.structure), Options(), threads=2)
    assert outcome.solution.x.shape == (0, N)
    assert outcome.solvers == []


EDGES = {
    "one variable, no rows": (Product(), [[[2.0]]], [[-4.0]], np.zeros((1, 0, 1)), np.zeros((1, 0)), [2.0]),
    "no objective": (Product(nonnegative=1), [[[0.0]]], [[0.0]], [[[1.0]]], [[3.0]], None),
    "zero rows": (Product(zero=1, nonnegative=2), [[[2.0]]], [[-4.0]], [[[0.0], [0.0], [1.0]]], [[0, 1, 1]], [1.0]),
    "duplicate equations": (Product(zero=2), [[[2.0]]], [[-4.0]], [[[1.0], [1.0]]], [[1.0, 1.0]], [1.0]),
    "duplicate rows": (Product(nonnegative=2), [[[2.0]]], [[-4.0]], [[[1.0], [1.0]]], [[1.0, 1.0]], [1.0]),
    "a bound far away": (Product(nonnegative=2), [[[2.0]]], [[-4.0]], [[[1.0], [-1.0]]], [[1e25, 0.0]], [2.0]),
    "bounds far away": (Product(nonnegative=2), [[[2.0]]], [[-4.0]], [[[1.0], [-1.0]]], [[1e300, 1e300]], [2.0]),
    "all data zero": (Product(zero=1), [[[0.0]]], [[0.0]], [[[0.0]]], [[0.0]], None),
    "a tiny ridge": (Product(nonnegative=2), [[[1e-10]]], [[-1.0]], [[[1.0], [-1.0]]], [[1.0, 1.0]], [1.0]),
    "a box of two units": (Product(nonnegative=2), [[[2.0]]], [[-4.0]], [[[1e6], [-1e-6]]], [[1.0, 1.0]], [1e-6]),
}


@pytest.mark.parametrize("edge", EDGES.values(), ids=EDGES)
def test_edge_cases_are_solved_by_the_table(edge: tuple) -> None:
    cone, P, q, A, b, x = edge
    program = program_of(cone, *(np.asarray(array, dtype=float) for array in (P, q, A, b)))
    solution = solve_batch(program, select(program.structure), Options(), threads=1).solution
    assert solution.status[0] == Status.SOLVED
    if x is not None:
        np.testing.assert_allclose(solution.x[0], x, rtol=1e-6)


@pytest.mark.parametrize("edge", EDGES.values(), ids=EDGES)
def test_no_solver_stumbles_over_edge_cases(edge: tuple) -> None:
    cone, P, q, A, b, x = edge
    program = program_of(cone, *(np.asarray(array, dtype=float) for array in (P, q, A, b)))
    for name in suitable(program.structure):
        solution = solve_batch(program, only(name), Options(max_iters=2000), threads=1).solution
        if solution.status[0] == Status.SOLVED and x is not None:
            np.testing.assert_allclose(solution.x[0], x, rtol=1e-4, err_msg=name)


def test_huge_numbers_do_not_stop_a_batch(rng: np.random.Generator) -> None:
    program, _ = solvable(CONES["polyhedral"], rng)
    for name in [None, *suitable(program.structure)]:
        plan = select(program.structure, name)
        reference = solve_batch(program, plan, Options(max_iters=2000), threads=1).solution
        huge = replace(program, b=program.b.copy(), q=program.q.copy())
        huge.b[2], huge.q[5] = 1e307, -1e307
        solution = solve_batch(huge, plan, Options(max_iters=2000), threads=1).solution
        keep = ~np.isin(np.arange(8), (2, 5))
        assert_same(item(solution, keep), item(reference, keep))


@pytest.mark.parametrize("density", [0.01, 1.0])
@pytest.mark.parametrize("label", ["equalities", "inequalities"])
def test_large_programs_take_sparse_paths(label: str, density: float, rng: np.random.Generator) -> None:
    n, m = 160, 60
    A = rng.normal(size=(1, m, n)) * (rng.random((m, n)) < density) + np.eye(m, n)
    P = np.diag(rng.uniform(1.0, 2.0, size=n))[None] + (0.001 if density == 1.0 else 0.0)
    cone = Product(zero=m) if label == "equalities" else Product(nonnegative=m)
    q, b = rng.normal(size=(2, n)), times(A, rng.normal(size=(2, n))) + 0.1
    program = program_of(cone, P.repeat(2, axis=0), q, A.repeat(2, axis=0), b)
    reference = solve_batch(program, only("CLARABEL"), Options(), threads=1).solution
    names = [name for name in suitable(program.structure) if name != "CLARABEL"]
    for name in names:
        solution = solve_batch(program, only(name), Options(), threads=1).solution
        assert (solution.status == Status.SOLVED).all(), name
        # An interior point bounds the gap, and so x by its root.
        np.testing.assert_allclose(solution.x, reference.x, atol=np.sqrt(Options().eps), err_msg=name)


def test_large_singular_systems_are_solved_or_certified(rng: np.random.Generator) -> None:
    n, m = 160, 60
    A = rng.normal(size=(m, n)) * (rng.random((m, n)) < 0.02) + np.eye(m, n)
    A[-1] = A[0]
    P = np.diag(np.where(np.arange(n) < n - 5, 1.0, 0.0))
    A[:, -5:] = 0.0
    q, b = np.zeros((3, n)), times(A, rng.normal(size=(3, n)))
    q[:, :5], b[1, -1], q[2, -1] = 1.0, b[1, -1] + 1.0, -1.0
    program = program_of(Product(zero=m), P[None].repeat(3, 0), q, A[None].repeat(3, 0), b)
    solution = solve_batch(program, only("DIRECT"), Options(), threads=1).solution
    assert solution.status.tolist() == [Status.SOLVED, Status.INFEASIBLE, Status.UNBOUNDED]


@final
@dataclass(frozen=True)
class Scripted(Solver):
    """A solver that ends items with first cost 1, 2, ... in the way that `script` says, and solves the others."""

    script: Mapping[int, Callable[[Solution, int], None]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return "SCRIPTED"

    def refusal(self, structure: Structure) -> str | None:
        return None

    def native_options(self) -> Mapping[str, type]:
        return {}

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        solution = SOLVERS["CLARABEL"].solve(program, options)
        for index in range(program.batch):
            for key, change in self.script.items():
                if program.q[index, 0] == key:
                    change(solution, index)
        return solution


def crash(solution: Solution, index: int) -> None:
    raise ValueError("the solver stumbled")


def wrong(solution: Solution, index: int) -> None:
    solution.x[index] += 1.0


def claim(status: Status) -> Callable[[Solution, int], None]:
    def change(solution: Solution, index: int) -> None:
        solution.status[index] = status

    return change


def test_failures_fall_back_and_are_recorded(rng: np.random.Generator) -> None:
    program, _ = solvable(CONES["polyhedral"], rng)
    program.q[:, 0] = np.arange(8)
    reference = solve_batch(program, only("CLARABEL"), Options(), threads=1).solution
    script = {
        1: crash,
        2: wrong,
        3: claim(Status.INFEASIBLE),
        4: claim(Status.ITERATION_LIMIT),
        5: claim(Status.TIME_LIMIT),
        6: claim(Status.INACCURATE),
    }
    with pytest.warns(CvxlayersWarning, match=r"SCRIPTED raised ValueError \(the solver stumbled\)"):
        alone = solve_batch(program, Plan(Scripted(script)), Options(), threads=1)
    expected = [
        Status.SOLVED,
        Status.NUMERICAL_ERROR,
        Status.INACCURATE,
        Status.NUMERICAL_ERROR,
        Status.ITERATION_LIMIT,
        Status.TIME_LIMIT,
        Status.SOLVED,
        Status.SOLVED,
    ]
    assert alone.solution.status.tolist() == expected
    assert not alone.fell_back.any()
    with pytest.warns(CvxlayersWarning):
        outcome = solve_batch(program, Plan(Scripted(script), (SOLVERS["PIQP"],)), Options(), threads=1)
    assert outcome.fell_back.tolist() == [False, True, True, True, True, False, False, False]
    assert outcome.solvers == ["PIQP" if fell else "SCRIPTED" for fell in outcome.fell_back]
    solved = np.arange(8) != 5
    assert (outcome.solution.status[solved] == Status.SOLVED).all()
    assert outcome.solution.status[5] == Status.TIME_LIMIT
    np.testing.assert_allclose(outcome.solution.x[solved], reference.x[solved], atol=1e-5)
    assert_same(item(outcome.solution, [0, 7]), item(reference, [0, 7]))


def test_programs_that_are_not_strictly_convex_leave_daqp(rng: np.random.Generator) -> None:
    program, _ = solvable(CONES["polyhedral"], rng)
    singular, _ = solvable(CONES["polyhedral"], rng, rank=2)
    program.P[3], program.q[3] = singular.P[3], singular.q[3]
    program.A[3], program.b[3] = singular.A[3], singular.b[3]
    plan = select(program.structure)
    outcome = solve_batch(program, plan, Options(), threads=1)
    assert outcome.solvers == ["DAQP"] * 3 + ["PIQP"] + ["DAQP"] * 4
    assert (outcome.solution.status == Status.SOLVED).all()


def test_the_table_of_choice(rng: np.random.Generator) -> None:
    def chosen(label: str, rank: int = N) -> tuple[str, ...]:
        program, _ = solvable(CONES[label], rng, batch=1, rank=rank)
        return tuple(solver.name for solver in select(program.structure, P_values=program.P[0]).solvers)

    assert chosen("equalities") == ("DIRECT", "CLARABEL")
    assert chosen("unconstrained") == ("DIRECT", "CLARABEL")
    assert chosen("polyhedral") == ("DAQP", "PIQP", "CLARABEL")
    assert chosen("polyhedral", rank=2) == ("PIQP", "CLARABEL", "SCS")
    assert chosen("polyhedral", rank=0) == ("PIQP", "CLARABEL", "SCS")
    diagonal, full = (pattern_of(matrix) for matrix in (np.eye(120), np.ones((120, 120))))
    cone = Product(nonnegative=120)
    assert select(Structure(diagonal, diagonal, cone)).primary.name == "PIQP"
    assert select(Structure(diagonal, full, cone)).primary.name == "DAQP"
    plan = select(Structure(diagonal, full, Product(zero=60, nonnegative=60)))
    assert [solver.name for solver in plan.solvers] == ["LEAST_DISTANCE", "DAQP", "PIQP", "CLARABEL"]
    assert plan.of(15).primary.name == "DAQP"
    assert plan.of(16).primary.name == "LEAST_DISTANCE"
    for label in ("second_order", "semidefinite", "exponential", "power", "mixed"):
        assert chosen(label) == ("CLARABEL", "SCS")


@pytest.mark.parametrize(
    ("label", "name", "words"),
    [
        ("second_order", "DAQP", ["DAQP does not fit", "linear constraints", "CLARABEL, SCS"]),
        ("exponential", "piqp", ["PIQP does not fit", "linear constraints"]),
        ("polyhedral", "DIRECT", ["equality constraints only"]),
        ("polyhedral", "ECOS", ["linear objectives"]),
        ("polyhedral", "CLARABLE", ["unknown solver 'CLARABLE'", "did you mean 'CLARABEL'?", "PIQP"]),
        ("polyhedral", 3, ["by its name", "got 3"]),
    ],
)
def test_unfit_solvers_are_refused_with_the_way_out(
    label: str, name: object, words: list[str], rng: np.random.Generator
) -> None:
    program, _ = solvable(CONES[label], rng, batch=1)
    with pytest.raises(OptionError) as caught:
        select(program.structure, name)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("name", ["PIQP", "CLARABEL", "SCS", "DAQP"])
def test_iteration_limits_are_reported(name: str, rng: np.random.Generator) -> None:
    program, _ = solvable(Product(nonnegative=20), rng)
    status = solve_batch(program, only(name), Options(max_iters=1), threads=1).solution.status
    assert (status == Status.ITERATION_LIMIT).any()
    assert np.isin(status, (Status.ITERATION_LIMIT, Status.SOLVED)).all()


@pytest.mark.parametrize("name", ["PIQP", "CLARABEL", "SCS"])
def test_time_limits_are_reported(name: str, rng: np.random.Generator) -> None:
    program, _ = solvable(CONES["polyhedral"], rng, batch=2, rank=0)
    options = Options(time_limit=1e-9, max_iters=3 if name == "PIQP" else None)
    status = solve_batch(program, only(name), options, threads=1).solution.status
    assert (status == Status.TIME_LIMIT).all()


@pytest.mark.parametrize("name", ["DAQP", "PIQP", "CLARABEL", "SCS"])
def test_verbose_prints_and_quiet_does_not(
    name: str, rng: np.random.Generator, capfd: pytest.CaptureFixture[str]
) -> None:
    program, _ = solvable(CONES["polyhedral"], rng, batch=1)
    solve_batch(program, only(name), Options(), threads=1)
    assert capfd.readouterr().out == ""
    solve_batch(program, only(name), Options(verbose=True), threads=1)
    printed = capfd.readouterr().out
    assert bool(printed) == (name != "DAQP")


@pytest.mark.parametrize("name", ["PIQP", "CLARABEL", "SCS"])
def test_eps_is_the_tolerance(name: str, rng: np.random.Generator) -> None:
    program, _ = solvable(Product(nonnegative=20), rng)
    few = solve_batch(program, only(name), Options(eps=1e-3), threads=1).solution
    many = solve_batch(program, only(name), Options(eps=1e-9), threads=1).solution
    assert few.iterations.sum() < many.iterations.sum()
    assert (few.status == Status.SOLVED).all()


def test_native_options_reach_the_solver(rng: np.random.Generator) -> None:
    program, _ = solvable(Product(nonnegative=20), rng)
    limits = {"CLARABEL": {"max_iter": 1}, "PIQP": {"max_iter": 1}, "DAQP": {"iter_limit": 1}}
    for name, native in limits.items():
        request = parse_options(native, Options(), only(name), program.structure, 1)
        status = solve_batch(program, request.plan, request.options, threads=1).solution.status
        assert (status == Status.ITERATION_LIMIT).any(), name
    request = parse_options({"time_limit_secs": 1e-9}, Options(), only("SCS"), program.structure, 1)
    assert (solve_batch(program, only("SCS"), request.options, 1).solution.status == Status.TIME_LIMIT).all()


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "DIRECT"])
def test_every_native_option_is_one_of_the_solver(name: str, rng: np.random.Generator) -> None:
    """Each name, with a harmless value of its type, is accepted by the solver itself."""
    cone = CONES["inequalities"]
    program, _ = solvable(cone, rng, batch=1, rank=0 if name == "ECOS" else N)
    skipped = ("write_data_filename", "log_csv_filename", "time_limit_secs")
    values = {bool: False, int: 25, float: 1e-6}
    words = {"linear_solver": "qdldl", "direct_solve_method": "qdldl", "direct_kkt_solver": True}
    for option, kind in SOLVERS[name].native_options().items():
        if option in skipped or (kind is str and option not in words):
            continue
        native = {option: words.get(option, values.get(kind))}
        SOLVERS[name].solve(program, Options(max_iters=5, native=native))


def test_many_user_threads_may_call(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "cvxlayers.solvers.driver.worthwhile_chunks", lambda batch, threads, call: chunks(batch, threads)
    )
    programs = [solvable(CONES["second_order"], rng)[0] for _ in range(8)]
    plan = select(programs[0].structure)
    expected = [solve_batch(program, plan, Options(), threads=1).solution for program in programs]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda program: solve_batch(program, plan, Options(), threads=2).solution, programs))
    for first, second in zip(expected, found, strict=True):
        assert_same(first, second)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_child_can_solve() -> None:
    """In a process of its own, because a fork of the test process would copy other libraries' threads."""
    script = """
        import os, sys
        import numpy as np
        from cvxlayers.cones import Product
        from cvxlayers.parallel import chunks
        from cvxlayers.patterns import Pattern
        from cvxlayers.program import ConeProgram, Structure
        from cvxlayers.solvers import Options, driver, select, solve_batch

        driver.worthwhile_chunks = lambda batch, threads, call: chunks(batch, threads)
        identity = Pattern((2, 2), np.arange(2), np.arange(3))
        structure = Structure(identity, identity, Product(nonnegative=2))
        program = ConeProgram(structure, 8, np.ones((8, 2)), -np.ones((8, 2)), np.ones((8, 2)), np.zeros((8, 2)))
        solve = lambda: solve_batch(program, select(structure), Options(), threads=2).solution.status
        assert (solve() == 0).all()
        child = os.fork()
        if child == 0:
            os._exit(0 if (solve() == 0).all() else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert (solve() == 0).all()
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60, env=environment)


@pytest.mark.parametrize("many", [1, 32])
def test_submatrices_are_found_once_and_are_those_of_their_rows(many, monkeypatch, rng):
    monkeypatch.setattr("cvxlayers.solvers.items._MANY", many)
    dense = rng.normal(size=(4, 4)) * (rng.random((4, 4)) < 0.7)
    pattern = pattern_of(dense)
    values, upper = dense[None, pattern.rows, pattern.cols], np.triu(dense)
    for _ in range(2):
        for rows in ([0, 2], [2, 0], [1, 2, 3]):
            (found,) = select_rows(pattern, np.array(rows)).each(values, 1)
            np.testing.assert_array_equal(found.toarray(), dense[rows])
        (found,) = upper_triangle(pattern).each(values, 1)
        np.testing.assert_array_equal(found.toarray(), upper)
    rows = np.array([1, 2, 3])
    assert select_rows(pattern, rows) is select_rows(pattern, rows.copy())


def test_what_items_share_stays_shared_to_the_bit_where_one_is_left_or_units_differ(rng):
    """An item of a batch with one P and A is solved in one way, alone or not, and beside items in other units."""
    pairs = np.hstack([np.eye(6), np.eye(6)])
    P, A = pattern_of(np.eye(12)), pattern_of(pairs)
    structure = Structure(P, A, Product(nonnegative=6))
    for _ in range(20):
        q, b = 3.0 * rng.normal(size=(3, 12)), np.ones((3, 6))
        shared = ConeProgram(structure, 3, np.full((1, 12), 2.0), q, np.ones((1, 12)), b)
        wild = replace(shared, q=q * np.array([[1.0], [1e6], [1e-6]]), b=b * np.array([[1.0], [1e6], [1e-6]]))
        solved = [
            solve_batch(part, select(structure, "DAQP"), Options(), 1).solution
            for part in (shared, shared.item(slice(1)), wild, wild.item(slice(1)))
        ]
        for solution in solved[1:]:
            np.testing.assert_array_equal(solution.x[0], solved[0].x[0])
            np.testing.assert_array_equal(solution.y[0], solved[0].y[0])
