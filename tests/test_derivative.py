"""The derivative of the residual map and the polish, on programs whose solution is known by construction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cvxlayers.cones import Derivative, IdentityBasis, Product
from cvxlayers.derivative import (
    EXACT,
    Data,
    Factorisation,
    Method,
    System,
    choose_method,
    evaluate,
    factorise,
    jvp,
    linearise,
    of_rows,
    polish,
    vjp,
)
from cvxlayers.patterns import Pattern
from cvxlayers.program import ConeProgram, Structure
from cvxlayers.residual import relative
from tests.programs import CONES, known_solution, values_of

METHODS = pytest.mark.parametrize(
    "method", [Method.DENSE, Method.BANDED, Method.SPARSE], ids=lambda method: method.value
)
CONE = pytest.mark.parametrize("cone", list(CONES.values()), ids=list(CONES))


def factoriser(method: Method, threads: int = 1) -> Callable[..., Factorisation]:
    """Factorises by one method."""
    return lambda system, items=None: factorise(system, method, threads)


def tangent(program: ConeProgram, rng: np.random.Generator) -> Data:
    """A random direction of the data; that of P is symmetric, as P is."""
    structure, batch = program.structure, program.batch
    S = rng.normal(size=(batch, structure.n, structure.n))
    S = S + S.transpose(0, 2, 1)
    return Data(
        P=0.1 * S[:, structure.P.rows, structure.P.cols],
        q=rng.normal(size=(batch, structure.n)),
        A=rng.normal(size=(batch, structure.A.nnz)),
        b=rng.normal(size=(batch, structure.m)),
    )


def moved(program: ConeProgram, direction: Data, step: float) -> ConeProgram:
    """The program with its data moved along a direction."""
    return replace(
        program,
        P=program.P + step * direction.P,
        q=program.q + step * direction.q,
        A=program.A + step * direction.A,
        b=program.b + step * direction.b,
    )


def differences(program: ConeProgram, x: np.ndarray, v: np.ndarray, direction: Data, step: float):
    """Fourth-order central differences of the solution (x, y, s), re-solved by Newton from the unperturbed one."""
    total = []
    for weight, k in ((1, -2), (-8, -1), (8, 1), (-1, 2)):
        point = polish(moved(program, direction, k * step), x, v, factoriser(Method.DENSE), max_steps=50)
        assert point.merit.max() < 1e-12
        total.append(weight / (12 * step) * np.concatenate([point.x, point.y, point.s], axis=1))
    return sum(total)


@METHODS
@CONE
def test_jvp_matches_differences(cone, method, rng):
    program, x, v = known_solution(cone, n=12, rng=rng, batch=3)
    lin = linearise(program, evaluate(program, x, v), factoriser(method))
    direction = tangent(program, rng)
    dx, dy, ds, info = jvp(lin, direction)
    expected = differences(program, x, v, direction, step=2e-5)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.concatenate([dx, dy, ds], axis=1), expected, atol=3e-8 * scale)
    assert info.residual.max() < 1e-10
    assert not info.degenerate.any()


@METHODS
@CONE
def test_vjp_is_the_adjoint_of_jvp(cone, method, rng):
    program, x, v = known_solution(cone, n=12, rng=rng, batch=4)
    lin = linearise(program, evaluate(program, x, v), factoriser(method))
    direction = tangent(program, rng)
    dx, dy, ds, _ = jvp(lin, direction)
    wx, wy, ws = (rng.normal(size=array.shape) for array in (dx, dy, ds))
    data, _ = vjp(lin, wx, wy, ws)
    forward = np.sum(dx * wx, axis=1) + np.sum(dy * wy, axis=1) + np.sum(ds * ws, axis=1)
    backward = sum(np.sum(a * b, axis=1) for a, b in zip(direction, data, strict=True))
    np.testing.assert_allclose(forward, backward, rtol=1e-9, atol=1e-9 * np.abs(forward).max())


@METHODS
@CONE
def test_batch_equals_loop_to_the_bit(cone, method, rng):
    program, x, v = known_solution(cone, n=9, rng=rng, batch=5)
    weights = rng.normal(size=x.shape), rng.normal(size=v.shape), rng.normal(size=v.shape)
    together, _ = vjp(linearise(program, evaluate(program, x, v), factoriser(method, 2)), *weights)
    for item in range(5):
        one = np.array([item])
        alone, _ = vjp(
            linearise(program.item(one), evaluate(program.item(one), x[one], v[one]), factoriser(method)),
            *(weight[one] for weight in weights),
        )
        for got, want in zip(alone, together, strict=True):
            np.testing.assert_array_equal(got[0], want[item])


@METHODS
@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1e12, 1e30])
def test_cotangents_of_any_size_scale_linearly(scale, method, rng):
    program, x, v = known_solution(CONES["mixed"], n=12, rng=rng)
    lin = linearise(program, evaluate(program, x, v), factoriser(method))
    wx, wy, ws = rng.normal(size=x.shape), rng.normal(size=v.shape), rng.normal(size=v.shape)
    plain, _ = vjp(lin, wx, wy, ws)
    scaled, _ = vjp(lin, scale * wx, scale * wy, scale * ws)
    for small, reference in zip(scaled, plain, strict=True):
        np.testing.assert_allclose(small / scale, reference, rtol=1e-9, atol=1e-9 * np.abs(reference).max())


@METHODS
@CONE
def test_polish_returns_to_the_solution(cone, method, rng):
    program, x, v = known_solution(cone, n=12, rng=rng, batch=6)
    start_x, start_v = x + 1e-5 * rng.normal(size=x.shape), v + 1e-5 * rng.normal(size=v.shape)
    point = polish(program, start_x, start_v, factoriser(method))
    np.testing.assert_allclose(point.x, x, atol=1e-10)
    np.testing.assert_allclose(point.v, v, atol=1e-10)


@METHODS
@CONE
def test_polish_never_makes_a_point_worse(cone, method, rng):
    program, x, v = known_solution(cone, n=12, rng=rng, batch=8)
    start_x, start_v = x + 3.0 * rng.normal(size=x.shape), v + 3.0 * rng.normal(size=v.shape)
    before = evaluate(program, start_x, start_v).merit
    assert np.all(polish(program, start_x, start_v, factoriser(method)).merit <= before)


def test_polish_leaves_points_that_are_not_finite(rng):
    program, x, v = known_solution(CONES["polyhedral"], n=6, rng=rng, batch=2)
    x[0] = np.nan
    point = polish(program, x, v, factoriser(Method.DENSE))
    assert np.isnan(point.x[0]).all()
    assert point.merit[0] == np.inf
    assert point.merit[1] < 1e-12


@METHODS
def test_duplicated_equalities_give_the_minimum_norm_derivative(method):
    """min ½‖x − p‖² s.t. x₁ = b₁, x₁ = b₂ at b₁ = b₂: x₁ follows the mean of both right-hand sides."""
    structure = Structure(_full(np.eye(2)), _full(np.array([[1.0, 0.0], [1.0, 0.0]])), Product(zero=2))
    program = ConeProgram(structure, 1, np.ones((1, 2)), np.array([[-3.0, -2.0]]), np.ones((1, 2)), np.ones((1, 2)))
    point = evaluate(program, np.array([[1.0, 2.0]]), np.array([[1.0, 1.0]]))
    assert point.merit[0] == 0.0
    data, info = vjp(linearise(program, point, factoriser(method)), np.array([[1.0, 1.0]]), *np.zeros((2, 1, 2)))
    assert info.degenerate[0]
    np.testing.assert_allclose(data.b, [[0.5, 0.5]], atol=1e-7)
    np.testing.assert_allclose(data.q, [[0.0, -1.0]], atol=1e-7)
    assert info.residual[0] < 1e-7


@METHODS
def test_a_face_of_solutions_is_reported(method):
    """min 0 s.t. x₁ + x₂ = 1 has a line of solutions: the residual of the adjoint solve says so."""
    structure = Structure(_full(np.zeros((2, 2))), _full(np.ones((1, 2))), Product(zero=1))
    program = ConeProgram(structure, 1, np.zeros((1, 0)), np.zeros((1, 2)), np.ones((1, 2)), np.ones((1, 1)))
    point = evaluate(program, np.array([[0.5, 0.5]]), np.zeros((1, 1)))
    data, info = vjp(linearise(program, point, factoriser(method)), np.array([[1.0, 0.0]]), *np.zeros((2, 1, 1)))
    assert info.degenerate[0]
    assert info.residual[0] > 0.1
    np.testing.assert_allclose(data.b, [[0.5]], atol=1e-6)


@METHODS
def test_a_weakly_active_row_gives_the_mean_of_both_sides(method):
    """min ½(x − p)² s.t. x ≥ 0 at p = 0: the derivative is 0 on one side, 1 on the other."""
    structure = Structure(_full(np.eye(1)), _full(-np.eye(1)), Product(nonnegative=1))
    program = ConeProgram(structure, 1, np.ones((1, 1)), np.zeros((1, 1)), -np.ones((1, 1)), np.zeros((1, 1)))
    lin = linearise(program, evaluate(program, np.zeros((1, 1)), np.zeros((1, 1))), factoriser(method))
    data, info = vjp(lin, np.ones((1, 1)), *np.zeros((2, 1, 1)))
    assert info.weakly_active[0]
    np.testing.assert_allclose(data.q, [[-0.5]])


@METHODS
@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_badly_scaled_programs_keep_their_derivative(scale, method, rng):
    program, x, v = known_solution(CONES["polyhedral"], n=8, rng=rng)
    weights = rng.normal(size=x.shape), np.zeros_like(v), np.zeros_like(v)
    plain, _ = vjp(linearise(program, evaluate(program, x, v), factoriser(method)), *weights)
    scaled_program = replace(program, P=scale * program.P, q=scale * program.q)
    point = evaluate(scaled_program, x, _scaled_duals(program, x, v, scale))
    assert point.merit[0] < 1e-12
    scaled, info = vjp(linearise(scaled_program, point, factoriser(method)), *weights)
    assert not info.degenerate.any()
    np.testing.assert_allclose(scaled.q * scale, plain.q, rtol=1e-6, atol=1e-7 * np.abs(plain.q).max())
    np.testing.assert_allclose(scaled.b, plain.b, rtol=1e-6, atol=1e-7 * np.abs(plain.b).max())


@METHODS
@pytest.mark.parametrize("active", [[0, 0, 0, 0], [0, 1, 0, 2], [3, 2, 1, 0]], ids=["one", "some", "all differ"])
def test_items_that_share_their_matrices_are_solved_as_if_they_did_not(method, active, rng):
    """P and A are shared; items with the same active rows have one factorisation, which changes no bit."""
    n, m = 6, 4
    structure = Structure(_full(np.ones((n, n))), _full(np.ones((m, n))), Product(zero=1, nonnegative=m - 1))
    M = rng.normal(size=(n, n))
    P = values_of(structure.P, (M @ M.T)[None])
    A = values_of(structure.A, rng.normal(size=(1, m, n)))
    program = ConeProgram(structure, 4, P, np.zeros((4, n)), A, np.zeros((4, m)))
    v = np.where(np.arange(m - 1) < np.array(active)[:, None], 1.0, -1.0)
    system = System(program, structure.cone.derivative(np.hstack([np.ones((4, 1)), v])))
    first, second = rng.normal(size=(4, n)), rng.normal(size=(4, m))
    factors = factorise(system, method, 1)
    found, once = factors.solve(first, second), factors.once(first, second)
    for item in range(4):
        alone = factorise(system.item(slice(item, item + 1)), method, 1)
        expected = alone.solve(first[[item]], second[[item]])
        np.testing.assert_array_equal(found.first[item], expected.first[0])
        np.testing.assert_array_equal(found.second[item], expected.second[0])
        for part, mine in zip(once, alone.once(first[[item]], second[[item]]), strict=True):
            np.testing.assert_array_equal(part[item], mine[0])
    np.testing.assert_allclose(np.hstack(once), np.hstack([found.first, found.second]), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        np.hstack(system.matvec(found.first, found.second)), np.hstack([first, second]), atol=1e-9
    )


def test_a_diagonal_that_cancels_the_shift_is_factorised(rng):
    """One entry of P is minus the shift of the sparse factorisation: K is regular, its shifted twin is not."""
    n, m = 4, 2
    structure = Structure(_full(np.eye(n)), _full(np.array([[0.0, 1, 1, 0], [0, 0, 1, 1]])), Product(zero=m))
    P, A = np.array([[-1e-9, 1.0, 1.0, 1.0]]), np.ones((1, 4))
    program = ConeProgram(structure, 1, P, np.zeros((1, n)), A, np.zeros((1, m)))
    system = System(program, structure.cone.derivative(np.ones((1, m))))
    first, second = rng.normal(size=(1, n)), rng.normal(size=(1, m))
    solve = factorise(system, Method.SPARSE, 1).solve(first, second)
    np.testing.assert_allclose(
        np.hstack(system.matvec(solve.first, solve.second)), np.hstack([first, second]), rtol=1e-6
    )


def test_chains_get_the_banded_method_and_scattered_structures_the_sparse_one():
    chain = np.eye(3000) + np.eye(3000, k=1)
    structure = Structure(_full(np.eye(3000)), _full(chain), Product(zero=3000))
    assert choose_method(structure) is Method.BANDED
    scattered = np.random.default_rng(0).random((3000, 3000)) < 1e-3
    assert choose_method(Structure(_full(np.eye(3000)), _full(scattered), Product(zero=3000))) is Method.SPARSE


def _full(matrix: np.ndarray) -> Pattern:
    from tests.programs import pattern_of

    return pattern_of(matrix)


def _scaled_duals(program: ConeProgram, x: np.ndarray, v: np.ndarray, scale: float) -> np.ndarray:
    point = evaluate(program, x, v)
    return scale * point.y - point.s


@pytest.mark.parametrize("cone", [Product(exponential=2), Product(second_order=(3, 4))], ids=["exponential", "second"])
def test_the_last_step_of_the_polish_takes_the_factors_of_the_one_before(cone, rng):
    """Errors of 1e-5 leave the first step at about 1e-10: the second one is as good as one by factors of its own."""
    program, x, v = known_solution(cone, 4, rng, batch=6)
    near = x + 1e-5 * rng.normal(size=x.shape), v + 1e-5 * rng.normal(size=v.shape)
    calls = []

    def counted(system, items=None):
        calls.append(len(system.derivative.eigenvalues))
        return factorise(system, Method.DENSE, 1)

    point = polish(program, *near, counted)
    assert point.merit.max() <= EXACT
    np.testing.assert_allclose(point.x, x, atol=1e-9)
    assert sum(calls) <= 8


def test_what_is_not_finite_or_has_no_scale_is_infinitely_far_from_a_solution() -> None:
    sizes = np.array([2.0, 0.0, 1.0, np.nan, np.inf])
    scales = np.array([4.0, 0.0, 0.0, 1.0, np.inf])
    zeros, ones = np.zeros((5, 1)), np.ones(5)
    expected = [0.5, 0.0, np.inf, np.inf, np.inf]
    np.testing.assert_array_equal(relative(sizes[:, None], zeros, scales, ones), expected)
    np.testing.assert_array_equal(relative(zeros, sizes[:, None], ones, scales), expected)


@pytest.mark.parametrize("shared", [False, True])
@CONE
def test_residuals_are_relative_to_the_terms_that_cancel(cone, shared, rng):
    """To the largest of two where they are beyond doubt, and else to those of all sums; nothing given is written to."""
    program, x, v = known_solution(cone, n=6, rng=rng, batch=4)
    if shared:
        program = replace(program, P=program.P[:1], A=program.A[:1])
    given = [*(getattr(program, name) for name in "PqAb"), x, v]
    for array in given:
        array.setflags(write=False)
    if not shared:
        x = x + np.array([0.0, 1e-9, 1.0, 0.0])[:, None]
    point = evaluate(program, x, v)
    P, A = program.structure.P.dense(program.P), program.structure.A.dense(program.A)
    y = v + point.s
    Px, Aty, Ax = (
        np.einsum("bij,bj->bi", np.broadcast_to(matrix, (4, *matrix.shape[1:])), w)
        for matrix, w in ((P, x), (A.transpose(0, 2, 1), y), (A, x))
    )
    sums = [np.abs(P) @ np.abs(x)[..., None] + np.abs(A).transpose(0, 2, 1) @ np.abs(y)[..., None]]
    sums.append(np.abs(A) @ np.abs(x)[..., None])
    terms = [(Px, program.q, sums[0][..., 0]), (point.s, program.b, sums[1][..., 0])]
    sizes = [[np.abs(part).max(axis=1, initial=0.0) for part in parts] for parts in terms]
    exact = point.merit <= EXACT
    assert exact.tolist() == [True, False, False, not shared]
    for scale, (one, two, total) in zip((point.dual_scale, point.primal_scale), sizes, strict=True):
        two_terms = np.maximum(one, two)
        np.testing.assert_allclose(scale, np.where(exact, two_terms, np.maximum(two_terms, total)), rtol=1e-12)
    np.testing.assert_allclose(point.dual, Px + Aty + program.q, atol=1e-12)
    np.testing.assert_allclose(point.primal, Ax + point.s - program.b, atol=1e-12)


def test_a_derivative_of_some_rows_is_that_part_of_it(rng):
    """Rows of inequalities may be left out between those of cones with a basis of their own."""
    cone = CONES["mixed"]
    derivative = cone.derivative(rng.normal(size=(3, cone.dim)))
    kept = np.delete(np.arange(cone.dim), [0, 2])
    part = of_rows(derivative, kept)
    unit = np.broadcast_to(np.eye(cone.dim), (3, cone.dim, cone.dim))
    whole = np.stack([derivative.apply(unit[:, row]) for row in range(cone.dim)], axis=1)
    unit = unit[:, : len(kept), : len(kept)]
    found = np.stack([part.apply(unit[:, row]) for row in range(len(kept))], axis=1)
    np.testing.assert_allclose(found, whole[:, kept][:, :, kept], atol=1e-12)
    plain = of_rows(Derivative(rng.random((3, 5)), IdentityBasis(5)), np.array([1, 4]))
    assert plain.eigenvalues.shape == (3, 2)
    assert plain.basis.dim == 2
