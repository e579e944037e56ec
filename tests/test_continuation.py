"""Continuation on the central path, and the factorisations that go with it."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest

from cvxlayers import CvxpyLayer, SolverError
from cvxlayers.cones import Product, Smoothed, derivative_dual
from cvxlayers.cones.frame import Frame
from cvxlayers.coordinates import find_coordinates
from cvxlayers.derivative import Method, System, factorise
from cvxlayers.program import ConeProgram, Pattern, Status, Structure
from tests.programs import known_solution, pattern_of, values_of

SYMMETRIC = {
    "nonnegative": Product(nonnegative=4),
    "second_order": Product(second_order=(3, 3, 5)),
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
