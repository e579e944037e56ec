"""Continuation on the central path, and the factorisations that go with it."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from cvxlayers import CvxpyLayer, SolverError
from cvxlayers.cones import Product, SecondOrder, Smoothed, derivative_dual
from cvxlayers.cones.basis import rows_of
from cvxlayers.cones.frame import Frame
from cvxlayers.cones.rays import rays_of
from cvxlayers.derivative import Method, System, factorise
from cvxlayers.idioms.coordinates import find_coordinates
from cvxlayers.patterns import Pattern
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers import Options
from cvxlayers.solvers.continuation import Continuation, _Aim
from cvxlayers.solvers.newton_step import CoordinateStep, DenseStep, Step, widths_of
from cvxlayers.solvers.optimality import violation
from tests.programs import known_solution, pattern_of, values_of

SYMMETRIC = {
    "nonnegative": Product(nonnegative=4),
    "second_order": Product(second_order=(3, 3, 5)),
    "interleaved": Product(second_order=(3, 5, 1, 3, 2, 5)),
    "semidefinite": Product(semidefinite=(4,)),
    "mixed": Product(zero=2, nonnegative=3, second_order=(3, 1, 3), semidefinite=(3, 2)),
}
MU = 0.3


@pytest.mark.parametrize("cone", SYMMETRIC.values(), ids=SYMMETRIC)
def test_the_metric_is_the_slope_of_the_path(cone, rng):
    """H = D (I − D)⁻¹ for the derivative D of the smoothed projection, which another file computes."""
    v = rng.normal(size=(5, cone.dim - cone.zero))
    metric = Frame.of(cone, v).at(np.full((5, 1), MU))
    full, smoothed = np.concatenate([np.zeros((5, cone.zero)), v], axis=1), Smoothed(cone, MU)
    np.testing.assert_allclose(metric.y, (full + smoothed.project(-full))[:, cone.zero :], atol=1e-13)
    w = rng.normal(size=v.shape)
    moved = np.concatenate([np.zeros((5, cone.zero)), w], axis=1)
    derivative = derivative_dual(smoothed, full)
    want, lost = derivative.apply(moved)[:, cone.zero :], derivative.complement().apply(moved)[:, cone.zero :]
    np.testing.assert_allclose(metric.apply(lost), want, atol=1e-12)
    values, basis = metric.spectrum()
    turned = basis.unrotate(values[..., None] * basis.rotate(w[..., None]))[..., 0]
    np.testing.assert_allclose(turned, metric.apply(w), rtol=1e-11, atol=1e-12)
    A = rng.normal(size=(5, v.shape[1], 3))
    weights, extra = metric.factor(A)
    gram = A.swapaxes(1, 2) @ (weights[..., None] * A) + extra.swapaxes(1, 2) @ extra
    columns = np.stack([metric.apply(A[..., k]) for k in range(3)], axis=-1)
    np.testing.assert_allclose(gram, A.swapaxes(1, 2) @ columns, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_rays_of_any_length_are_measured(size, rng):
    """Squares of one cone vanish or overflow, and those of the others do not."""
    rows, rays = rays_of([(np.array([0, 1, 2, 7, 8, 9]), SecondOrder(3, 2)), (slice(3, 7), SecondOrder(4))])
    v = rng.normal(size=(2, 10))
    v[1, 3:7] *= size
    ends = rays.ends(v[:, rows])
    for k, block in enumerate((slice(0, 3), slice(3, 7), slice(7, 10))):
        t, z = v[:, block.start], v[:, block.start + 1 : block.stop]
        norm = [math.hypot(*row) for row in z]
        np.testing.assert_allclose(ends[:, :, k], np.stack([t + norm, t - norm], axis=1), rtol=1e-14, atol=1e-15 * size)


def test_barrier_parameters_fall_carefully_after_trouble():
    """No step, the shortest step twice, a short one, half a step, and full ones far from the end and near to it."""
    aim = _Aim(np.array([[1e-2]] * 5 + [[1e-7]]), np.array([0.0, 0.3, 0.0, 0.0, 0.0, 0.0]))
    merit, length = np.full(6, 1e-9), np.array([0.0, 0.0625, 0.125, 0.5, 1.0, 1.0])
    after = aim.lower(merit, merit, length)
    floor = 0.2 * 1e-2**1.8
    np.testing.assert_allclose(after.mu[:, 0], [1e-1, 1e-1, 1e-2, floor, floor, 1e-15])
    # A full step later, those in trouble still keep a share of the last.
    again = after.lower(merit, merit, np.ones(6))
    np.testing.assert_allclose(again.mu[:3, 0], 0.09 * after.mu[:3, 0])
    np.testing.assert_allclose(again.mu[4:, 0], [0.2 * floor**1.8, 1e-15])


def test_barrier_parameters_fall_the_faster_the_more_steps_gain():
    aim, merit = _Aim(np.full((4, 1), 1e-3), np.zeros(4)), np.full(4, 1e-2)
    after = aim.lower(merit, merit * np.array([2.0, 100.0, 1e3, 1e9]), np.ones(4))
    np.testing.assert_allclose(after.mu[:, 0], [1e-5, 1e-5, 1e-6, 0.2 * 1e-3**1.8])


@pytest.mark.parametrize("cone", SYMMETRIC.values(), ids=SYMMETRIC)
def test_frames_of_items_are_put_in_place(cone, rng):
    first, second = (Frame.of(cone, rng.normal(size=(5, cone.dim - cone.zero))) for _ in range(2))
    mu, items = np.full((5, 1), MU), np.array([3, 1])
    both = first.put(items, second.item(items))
    want = first.at(mu).y.copy()
    want[items] = second.at(mu).y[items]
    np.testing.assert_array_equal(both.at(mu).y, want)
    np.testing.assert_array_equal(both.v[items], second.v[items])


@pytest.mark.parametrize("cone", SYMMETRIC.values(), ids=SYMMETRIC)
def test_rows_of_eigenbases(cone, rng):
    basis = derivative_dual(cone, rng.normal(size=(3, cone.dim))).basis
    index = rng.permutation(cone.dim)[: cone.dim - 1]
    units = np.broadcast_to(np.eye(cone.dim)[:, index], (3, cone.dim, len(index)))
    want = basis.rotate(units).swapaxes(1, 2)
    np.testing.assert_allclose(rows_of(basis, index, cone.dim, 3), want, atol=1e-14)


def coordinates_program(rng: np.random.Generator, curved: float, batch: int = 4) -> ConeProgram:
    """Random programs over the coordinates of three cones, two of whose rows have no variable, and two equalities."""
    cone = Product(zero=2, nonnegative=3, second_order=(4,), semidefinite=(4,))
    conic = cone.dim - cone.zero
    rows = np.setdiff1d(rng.permutation(conic), [1, 9])
    n = len(rows)
    A, a = np.zeros((batch, cone.dim, n)), rng.uniform(0.5, 2.0, size=(batch, n))
    A[:, cone.zero + rows, np.arange(n)] = a
    A[:, : cone.zero] = rng.normal(size=(batch, cone.zero, n)) * (rng.random((cone.zero, n)) < 0.5)
    weight = np.repeat(rng.uniform(0.5, 2.0, size=(batch, 3)), (3, 4, 10), axis=1)[:, rows]
    P = np.zeros((batch, n, n))
    P[:, np.arange(n), np.arange(n)] = curved * weight * a * a
    structure = Structure(pattern_of(np.abs(P).sum(axis=0)), pattern_of(np.abs(A).sum(axis=0)), cone)
    q, b = rng.normal(size=(batch, n)), rng.normal(size=(batch, cone.dim))
    return ConeProgram(structure, batch, values_of(structure.P, P), q, values_of(structure.A, A), b)


def step_of(program: ConeProgram, coordinates: bool) -> Step:
    if not coordinates:
        return DenseStep.of(program, widths_of(program))
    form = find_coordinates(program.structure)
    assert form is not None
    return CoordinateStep.of(program, widths_of(program), form)


@pytest.mark.parametrize(("coordinates", "curved"), [(False, 1.0), (True, 1.0), (True, 0.0)])
def test_steps_solve_the_linearised_residual_map(coordinates, curved, rng):
    """Against dense matrices, and the derivative of the smoothed projection that another file computes."""
    program = coordinates_program(rng, curved)
    if not coordinates:
        cone = Product(zero=2, nonnegative=3, second_order=(4, 4, 3), semidefinite=(4,))
        program, _, _ = known_solution(cone, 9, rng, batch=4)
    structure, cone, step = program.structure, program.structure.cone, step_of(program, coordinates)
    zero, batch = cone.zero, program.batch
    x, equal, v = (rng.normal(size=(batch, k)) for k in (structure.n, zero, structure.m - zero))
    metric = Frame.of(cone, v).at(np.full((batch, 1), MU))
    residual = step.residual(step.linear(x, equal), metric.y, metric.y - v)
    gain = rng.normal(size=metric.y.shape)
    dx, dequal, dv = step.direction(metric, residual, gain)
    P, A = structure.P.dense(program.P), structure.A.dense(program.A)
    full = derivative_dual(Smoothed(cone, MU), np.concatenate([np.zeros((batch, zero)), v], axis=1))
    # dy = −H ds + gain, where H = D (I − D)⁻¹.
    dy = gain + full.apply(np.concatenate([np.zeros((batch, zero)), dv - gain], axis=1))[:, zero:]
    y, s = (np.concatenate(pair, axis=1) for pair in ((equal, metric.y), (np.zeros(equal.shape), metric.y - v)))
    np.testing.assert_allclose(residual.dual, times(P, x) + times(A.mT, y) + program.q, atol=1e-12)
    primal = times(A, x) + s - program.b
    np.testing.assert_allclose(np.concatenate([residual.equal, residual.conic], axis=1), primal, atol=1e-12)
    ahead = times(P, dx) + times(A.mT, np.concatenate([dequal, dy], axis=1))
    np.testing.assert_allclose(ahead, -residual.dual, atol=1e-9)
    ds = np.concatenate([np.zeros(equal.shape), dy - dv], axis=1)
    np.testing.assert_allclose(times(A, dx) + ds, -primal, atol=1e-9)
    largest = np.maximum(np.abs(residual.dual / np.abs(A).max(axis=1)).max(axis=1), np.abs(primal).max(axis=1))
    np.testing.assert_allclose(step.size(residual), largest, rtol=1e-12)


def times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return (matrices @ vectors[..., None])[..., 0]


def follow(program: ConeProgram, **options: Any) -> Solution:
    return Continuation().solve(program, Options(eps=1e-7, **options))


CURVED = {
    "second_order": Product(second_order=(3, 6, 6)),
    "semidefinite": Product(zero=2, semidefinite=(5,)),
    "mixed": Product(zero=1, nonnegative=4, second_order=(4, 4, 6), semidefinite=(3,)),
}


@pytest.mark.parametrize("label", CURVED)
def test_the_path_ends_at_a_solution(label, rng):
    """Alone, without the polish, and in few steps: each of them is Newton's, and the last ones converge fast."""
    program, _, _ = known_solution(CURVED[label], 8, rng, batch=32)
    found = follow(program)
    assert (found.status == Status.SOLVED).all()
    # Where y and s nearly vanish both, the polish has something left to do.
    assert np.quantile(violation(program, found), 0.8) < 1e-12
    assert violation(program, found).max() < 1e-7
    assert found.iterations.min() > 4
    assert np.median(found.iterations) <= 15
    assert found.iterations.max() < 40


@pytest.mark.parametrize("factor", [1e-3, 50.0])
def test_variables_in_other_units_take_the_same_steps(factor, rng):
    """What a unit of x is, nothing that the path depends on knows of: powers of two leave every bit."""
    program, _, _ = known_solution(CURVED["second_order"], 8, rng, batch=6)
    scale = np.ldexp(1.0, np.round(np.log2(factor * rng.uniform(0.5, 2.0, size=8))).astype(int))
    P, A = program.structure.P, program.structure.A
    other = replace(
        program, P=program.P * scale[P.rows] * scale[P.cols], A=program.A * scale[A.cols], q=program.q * scale
    )
    got, want = follow(other), follow(program)
    np.testing.assert_array_equal(got.iterations, want.iterations)
    np.testing.assert_allclose(got.x * scale, want.x, rtol=1e-9, atol=1e-11)


def test_no_step_is_taken_that_does_not_help(monkeypatch, rng):
    """Where directions are wrong, points stay where residuals are small, and nothing is called solved."""
    program, _, _ = known_solution(CURVED["mixed"], 8, rng, batch=3)
    right = DenseStep.direction
    monkeypatch.setattr(DenseStep, "direction", lambda *args: tuple(-part for part in right(*args)))
    found = follow(program)
    assert (found.status == Status.ITERATION_LIMIT).all()
    assert np.abs(found.x).max() < 1e3
    # Nor is what such a step would leave taken for what is left.
    monkeypatch.setattr("cvxlayers.solvers.path._ROUGH", 1e3)
    monkeypatch.setattr("cvxlayers.solvers.continuation._HALVINGS", 0)
    monkeypatch.setattr(DenseStep, "direction", lambda *args: tuple(-1e6 * part for part in right(*args)))
    assert (follow(program, max_iters=1).status == Status.INACCURATE).all()


def test_directions_that_are_not_finite_lead_nowhere(monkeypatch, rng):
    program, _, _ = known_solution(CURVED["mixed"], 8, rng, batch=3)
    right, want = DenseStep.direction, follow(program.item(np.array([0, 2])))

    def broken(*args):
        way = right(*args)
        if len(way[0]) == 3:
            way[0][1] = np.nan
        return way

    monkeypatch.setattr(DenseStep, "direction", broken)
    found = follow(program, max_iters=20)
    assert found.status.tolist() == [Status.SOLVED, found.status[1], Status.SOLVED]
    np.testing.assert_array_equal(found.x[[0, 2]], want.x)


@pytest.mark.parametrize(("limit", "why"), [({"max_iters": 2}, "ITERATION_LIMIT"), ({"time_limit": 0.0}, "TIME_LIMIT")])
def test_what_ends_early_says_why(limit, why, rng):
    program, _, _ = known_solution(CURVED["mixed"], 8, rng, batch=3)
    found = follow(program, **limit)
    assert (found.status == Status[why]).all()
    assert np.isfinite(found.x).all()


def test_the_last_step_that_is_allowed_may_end_a_path(rng):
    program, _, _ = known_solution(CURVED["mixed"], 8, rng, batch=3)
    steps = int(follow(program).iterations.max())
    assert (follow(program, max_iters=steps).status == Status.SOLVED).all()


@pytest.mark.parametrize("coordinates", [True, False])
def test_paths_leave_one_another_s_bits(coordinates, rng):
    """Items end at different times, and some need shorter steps than others."""
    program = coordinates_program(rng, 1.0, batch=7)
    if not coordinates:
        program, _, _ = known_solution(CURVED["mixed"], 8, rng, batch=7)
    every = follow(program)
    assert len(set(every.iterations.tolist())) > 1
    for k in range(7):
        alone = follow(program.item(np.array([k])))
        assert (alone.status[0], alone.iterations[0]) == (every.status[k], every.iterations[k])
        for name in ("x", "y", "s"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(every, name)[k])


@pytest.mark.parametrize("method", [Method.COORDINATES, Method.CONDENSED])
def test_items_of_different_order_leave_one_another_s_bits(method, rng):
    """The systems of items keep different numbers of directions."""
    program = coordinates_program(rng, 1.0, batch=7)
    if method is Method.CONDENSED:
        cone = Product(zero=1, nonnegative=4, second_order=(4, 4, 6), semidefinite=(3,))
        program, _, _ = known_solution(cone, 12, rng, batch=7)
    v = rng.normal(size=(7, program.structure.m)) * 2.0
    rhs = rng.normal(size=(7, program.structure.n)), rng.normal(size=v.shape)
    whole = solved(program, v, method, *rhs)
    for k in range(7):
        index = np.array([k])
        alone = solved(program.item(index), v[index], method, rhs[0][index], rhs[1][index])
        for one, every in zip(alone, whole, strict=True):
            np.testing.assert_array_equal(one[0], every[k])


def solved(program: ConeProgram, v: np.ndarray, method: Method, first: np.ndarray, second: np.ndarray):
    found = factorise(System(program, derivative_dual(program.structure.cone, v)), method, 1).solve(first, second)
    return found.first, found.second, found.residual


@pytest.mark.parametrize("method", [Method.COORDINATES, Method.CONDENSED])
def test_smaller_systems_need_no_refinement(method, monkeypatch, rng):
    """Refinement, and whole matrices, would hide a wrong sign here: both are switched off."""
    monkeypatch.setattr("cvxlayers.derivative.system._REFINEMENTS", 0)
    monkeypatch.setattr("cvxlayers.derivative.structured._ESCALATE", np.inf)
    program = coordinates_program(rng, 1.0, batch=16)
    if method is Method.CONDENSED:
        cone = Product(zero=1, nonnegative=4, second_order=(4, 4, 6), semidefinite=(3,))
        program, _, _ = known_solution(cone, 12, rng, batch=16)
    system = System(program, derivative_dual(program.structure.cone, rng.normal(size=(16, program.structure.m))))
    regular = np.flatnonzero(factorise(system, method, 1).rank.condition < 1e4)
    assert len(regular) >= 4
    program, system = program.item(regular), system.item(regular)
    rhs = rng.normal(size=(len(regular), program.structure.n)), rng.normal(size=(len(regular), program.structure.m))
    found, want = (factorise(system, m, 1).solve(*rhs) for m in (method, Method.DENSE))
    assert found.residual.max() < 1e-11
    np.testing.assert_allclose(found.first, want.first, atol=1e-9)
    np.testing.assert_allclose(found.second, want.second, atol=1e-9)


def assert_factorises(program: ConeProgram, v: np.ndarray, method: Method, rng: np.random.Generator) -> None:
    """Right-hand sides K u, which singular systems have solutions for too."""
    system = System(program, derivative_dual(program.structure.cone, v))
    rhs = system.matvec(rng.normal(size=(len(v), program.structure.n)), rng.normal(size=v.shape) * system.root)
    got, want = (factorise(system, m, 1).solve(*rhs) for m in (method, Method.DENSE))
    assert max(got.residual.max(), want.residual.max()) < 1e-10
    size = max(np.abs(want.first).max(), np.abs(want.second).max())
    np.testing.assert_allclose(got.first, want.first, atol=1e-8 * size)
    np.testing.assert_allclose(got.second, want.second, atol=1e-8 * size)


@pytest.mark.parametrize("curved", [0.0, 1.0])
def test_coordinates_are_factorised_as_the_whole(curved, rng):
    program = coordinates_program(rng, curved)
    form = find_coordinates(program.structure)
    assert form is not None
    assert (form.zero, sorted(form.bare)) == (2, [1, 9])
    # With no curvature, K is regular where few directions of the cones are free: where most of v lies inside K*.
    v = rng.normal(size=(4, program.structure.m)) + (0.0 if curved else 1.0) * _middle(program.structure.cone)
    assert_factorises(program, v, Method.COORDINATES, rng)


def _middle(cone: Product) -> np.ndarray:
    """A point well inside the cones, with zeros for the zero cone."""
    second = [np.array([2.0, 0.0, 0.0, 0.0])]
    triangle = [1.5 if row == col else 0.0 for col in range(4) for row in range(col + 1)]
    return np.concatenate([np.zeros(cone.zero), np.full(cone.nonnegative, 0.5), *second, triangle])


def test_costs_that_weigh_the_rows_of_a_cone_differently_are_left_to_others(rng):
    program = coordinates_program(rng, 1.0)
    program.P[1:3, -4:] *= rng.uniform(0.5, 2.0, size=4)
    assert_factorises(program, rng.normal(size=(4, program.structure.m)), Method.COORDINATES, rng)


@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_condensed_systems_are_factorised_as_the_whole(scale, rng):
    cone = Product(zero=1, nonnegative=4, second_order=(4, 4, 6), semidefinite=(3,))
    program, _, v = known_solution(cone, 12, rng, batch=4)
    assert_factorises(program, scale * v, Method.CONDENSED, rng)


def max_cut(order: int, *more: str):
    C, X = cp.Parameter((order, order), symmetric=True), cp.Variable((order, order), symmetric=True)
    constraints: list = [cp.diag(X) == 1, X >> 0]
    if "dependent" in more:
        constraints.append(cp.trace(X) == order)
    if "equalities" in more:
        constraints.append(cp.sum(X) == order)
    cost = 0.5 * cp.sum_squares(X - C) if "quadratic" in more else cp.trace(C @ X)
    return cp.Problem(cp.Minimize(cost), constraints), [C], [X]


@pytest.mark.parametrize("more", [(), ("quadratic",), ("equalities",), ("quadratic", "equalities")], ids=str)
def test_semidefinite_programs_in_standard_form(more, rng):
    """Values and gradients are those of the general solver and the general system."""
    order = 7
    layer, plain = (
        CvxpyLayer(*max_cut(order, *more)),
        CvxpyLayer(*max_cut(order, *more), solver="CLARABEL", recognise=False),
    )
    assert layer.layer.kernel.method is Method.COORDINATES
    C = rng.normal(size=(6, order, order))
    values, cotangents = [C + C.mT], [rng.normal(size=(6, order, order))]
    assert set(np.ravel(layer.solve(*values).info.solver)) == {"CONTINUATION"}
    np.testing.assert_allclose(layer(*values)[0], plain(*values)[0], atol=1e-9)
    (got, info), (want, _) = layer.vjp(values, cotangents), plain.vjp(values, cotangents)
    assert info.reliable.all()
    np.testing.assert_allclose(got[0], want[0], atol=1e-8)


def test_dependent_constraints_are_seen(rng):
    """tr X = n says no more than diag X = 1: the system is singular, and solved as a whole."""
    layer, plain = CvxpyLayer(*max_cut(7, "dependent")), CvxpyLayer(*max_cut(7, "dependent"), recognise=False)
    C = rng.normal(size=(3, 7, 7))
    values, cotangents = [C + C.mT], [rng.normal(size=(3, 7, 7))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (got, info), (want, other) = layer.vjp(values, cotangents), plain.vjp(values, cotangents)
    np.testing.assert_array_equal(info.dependent, other.dependent)
    np.testing.assert_allclose(got[0], want[0], atol=1e-7)


def sum_of_norms(n: int = 24):
    A, b, x = cp.Parameter((2 * n, n)), cp.Parameter(2 * n), cp.Variable(n)
    norms = [cp.norm((A @ x - b)[k : k + 4]) for k in range(0, 2 * n, 4)]
    return cp.Problem(cp.Minimize(cp.sum(cp.hstack(norms)))), [A, b], [x]


def test_dense_second_order_programs(rng):
    layer, plain = CvxpyLayer(*sum_of_norms()), CvxpyLayer(*sum_of_norms(), solver="CLARABEL", recognise=False)
    values = [rng.normal(size=(5, 48, 24)), rng.normal(size=(5, 48))]
    result = layer.solve(*values)
    assert set(np.ravel(result.info.solver)) == {"CONTINUATION"}
    assert max(result.info.primal.max(), result.info.dual.max()) < 1e-11
    np.testing.assert_allclose(result.variables[0], plain(*values)[0], atol=1e-9)
    cotangents = [rng.normal(size=(5, 24))]
    (got, info), (want, _) = layer.vjp(values, cotangents), plain.vjp(values, cotangents)
    assert info.reliable.all()
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-8)


def test_units_do_not_matter(rng):
    """Costs and lengths in other units: the same solution in these."""
    layer, (A, b) = CvxpyLayer(*sum_of_norms()), (rng.normal(size=(3, 48, 24)), rng.normal(size=(3, 48)))
    (x,), (longer,) = layer(A, b), layer(30 * A, 3e4 * b)
    np.testing.assert_allclose(longer, 1e3 * x, rtol=0, atol=1e-8 * np.abs(longer).max())


@pytest.mark.parametrize("scale", [0.02, 30.0])
def test_coefficients_of_any_size_are_followed(scale, rng):
    """Those of one block of columns, so that no unit of all coefficients puts it right."""
    layer = CvxpyLayer(*sum_of_norms())
    A, b = scale * rng.normal(size=(6, 48, 24)), rng.normal(size=(6, 48))
    result = layer.solve(A, b)
    assert set(np.ravel(result.info.solver)) == {"CONTINUATION"}
    assert result.info.iterations.max() <= 14


def socp(n: int, cones: int):
    """A linear objective over intersections of ellipsoids: paths that bend."""
    x, c = cp.Variable(n), cp.Parameter(n)
    A, d = [cp.Parameter((5, n)) for _ in range(cones)], cp.Parameter(cones)
    balls = [cp.norm(A[k] @ x) <= 1 + d[k] for k in range(cones)]
    return cp.Problem(cp.Minimize(c @ x), [*balls, cp.norm(x, 1) <= n]), [*A, d, c], [x]


def test_paths_that_bend_are_followed_to_their_end(rng):
    layer = CvxpyLayer(*socp(20, 6), solver="CONTINUATION")
    values = [*rng.normal(size=(6, 12, 5, 20)), rng.uniform(size=(12, 6)), rng.normal(size=(12, 20))]
    result = layer.solve(*values)
    assert set(np.ravel(result.info.solver)) == {"CONTINUATION"}
    assert max(result.info.primal.max(), result.info.dual.max()) < 1e-11


def test_programs_without_a_solution_are_proven_so_by_another():
    """tr X = −1 has no solution among semidefinite X; the other items keep theirs."""
    X, t, C = cp.Variable((8, 8), symmetric=True), cp.Parameter(), np.diag(np.arange(1.0, 9.0))
    constraints: list = [cp.trace(X) == t, X >> 0]
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.trace(C @ X)), constraints), [t], [X])
    values = np.array([1.0, -1.0, 2.0])
    with pytest.raises(SolverError, match="item 1: infeasible"):
        layer(values)
    result = layer.solve(values, on_failure="nan")
    assert result.status.tolist() == [Status.SOLVED, Status.INFEASIBLE, Status.SOLVED]
    assert np.ravel(result.info.solver)[0] == "CONTINUATION"
    np.testing.assert_allclose(result.objective[[0, 2]], [1.0, 2.0], atol=1e-8)


def test_other_programs_are_no_coordinates():
    cone = Product(second_order=(3,))
    coupled = Pattern((3, 3), np.array([0, 1, 2, 2]), np.array([0, 1, 2, 4]))
    assert find_coordinates(Structure(Pattern((3, 3), np.array([], int), np.zeros(4, int)), coupled, cone)) is None


@pytest.mark.parametrize("equalities", [0, 1])
@pytest.mark.parametrize("parametric", [False, True])
def test_cones_some_rows_of_which_have_no_variable(equalities, parametric, rng):
    """Norms of separate variables under constant bounds, in coordinates with and without scales that are parameters."""
    x, p, scale = cp.Variable(8), cp.Parameter(8), cp.Parameter(8) if parametric else np.ones(8)
    moved = cp.multiply(scale, x)
    limits = [cp.SOC(cp.Constant(1.0), moved[:3]), cp.SOC(cp.Constant(0.7), moved[3:7]), moved[7] >= 0]
    limits += [cp.sum(x) == 0.1] * equalities
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, np.eye(8)) - p @ x), limits)
    layer = CvxpyLayer(problem, [p, scale] if parametric else [p], [x])
    assert layer.layer.kernel.method is Method.COORDINATES
    values = [rng.normal(size=(5, 8))] + [np.ones((5, 8))] * parametric
    found = layer.gradcheck(*values)
    assert found.ok, str(found)
