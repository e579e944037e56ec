"""Recognised forms: the same solutions and derivatives as without, and nothing recognised that only looks alike."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cvxlayers
from cvxlayers import CvxpyLayer
from cvxlayers.closed.bounded import linearise_bounds
from cvxlayers.closed.entropic import certified
from cvxlayers.closed.projection_derivative import linearise_ball
from cvxlayers.cones import Product
from cvxlayers.derivative import Data, Method, evaluate, factorise, jvp, linearise, vjp
from cvxlayers.idioms.isotropic import find_isotropic
from cvxlayers.idioms.separable import require
from cvxlayers.program import Structure
from cvxlayers.solvers import find_optimum
from tests.programs import pattern_of

N = 6
BATCH = 5


def _x():
    return cp.Variable(N, name="x"), cp.Parameter(N, name="z")


def _minimise(cost: Any, constraints: Sequence[Any] = ()) -> cp.Problem:
    return cp.Problem(cp.Minimize(cost), list(constraints))


def box():
    x, z = _x()
    return _minimise((cp.sum_squares(x - z)), [x >= -0.5, x <= 0.75]), [z], [x]


def parametric_box():
    x, z = _x()
    low, width = cp.Parameter(N, name="low"), cp.Parameter(N, nonneg=True, name="width")
    return _minimise((0.5 * cp.sum_squares(x) - z @ x), [x >= low, x <= low + width]), [z, low, width], [x]


def simplex():
    x, z = _x()
    return _minimise((cp.sum_squares(x - z)), [cp.sum(x) == 1, x >= 0]), [z], [x]


def simplex_of_any_size():
    x, z = _x()
    total = cp.Parameter(nonneg=True, name="total")
    return _minimise((0.5 * cp.sum_squares(x) - z @ x), [x >= 0, cp.sum(x) == total]), [z, total], [x]


def capped_simplex():
    x, z = _x()
    return _minimise((cp.sum_squares(x - z)), [x <= 1, cp.sum(x) == 2, x >= 0]), [z], [x]


def weighted_budget():
    x, z = _x()
    price, weight = cp.Parameter(N, nonneg=True, name="price"), np.linspace(0.5, 2.0, N)
    cost = cp.sum(cp.multiply(weight, cp.square(x))) - z @ x
    return _minimise((cost), [price @ x <= 1, x >= -1, 2 * x <= 3]), [z, price], [x]


def hyperplane():
    x, z = _x()
    return _minimise((cp.sum_squares(x - z)), [np.linspace(-1, 2, N) @ x <= 0.1]), [z], [x]


def softmax():
    x, z = _x()
    return _minimise((-z @ x - cp.sum(cp.entr(x))), [cp.sum(x) == 1]), [z], [x]


def softmax_with_bounds():
    x, z = _x()
    return _minimise(-(z @ x + 0.5 * cp.sum(cp.entr(x))), [x >= 0, x <= 1, cp.sum(x) == 1]), [z], [x]


def weighted_entropy():
    x, z = _x()
    price, weight = cp.Parameter(N, pos=True, name="price"), np.linspace(0.5, 2.0, N)
    cost = -z @ x - cp.sum(cp.multiply(weight, cp.entr(2 * x + 0.1)))
    return _minimise((cost), [(price + 1) @ x <= 2]), [z, price], [x]


def relative_entropy():
    x, z = _x()
    prior = cp.Parameter(N, pos=True, name="prior")
    return _minimise((cp.sum(cp.rel_entr(x, prior + 0.2)) - z @ x), [cp.sum(x) == 1]), [z, prior], [x]


def entropy_in_a_budget():
    x, z = _x()
    return _minimise((-z @ x - cp.sum(cp.entr(x))), [cp.sum(x) <= N * np.exp(-1.0)]), [z], [x]


def capped_entropy():
    x, z = _x()
    return _minimise((-z @ x - cp.sum(cp.entr(x))), [cp.sum(x) == 1, x[0] <= 1.0 / N + 1e-13]), [z], [x]


def soft_top_k():
    x, z = _x()
    cost = -z @ x - cp.sum(cp.entr(x) + cp.entr(1 - x))
    return _minimise((cost), [cp.sum(x) == 2]), [z], [x]


def fermi():
    x, z = _x()
    return _minimise(-z @ x - cp.sum(cp.entr(x)) - cp.sum(cp.entr(1 - x))), [z], [x]


def semidefinite():
    X, Z = cp.Variable((3, 3), symmetric=True, name="X"), cp.Parameter((3, 3), symmetric=True, name="Z")
    return _minimise((cp.sum_squares(X - Z)), [X >> 0]), [Z], [X]


def shifted_semidefinite():
    X, Z = cp.Variable((3, 3), PSD=True, name="X"), cp.Parameter((3, 3), symmetric=True, name="Z")
    return _minimise(3 * cp.sum_squares(X) - cp.trace(Z @ X)), [Z], [X]


def second_order():
    x, z = _x()
    return _minimise((0.5 * cp.sum_squares(x - z)), [cp.SOC(x[0], x[1:])]), [z], [x]


def ball():
    x, z = _x()
    return _minimise(cp.sum_squares(x - z), [cp.norm(x) <= 1.5]), [z], [x]


def ball_of_any_size():
    x, z = _x()
    centre, radius = cp.Parameter(N, name="centre"), cp.Parameter(nonneg=True, name="radius")
    return _minimise(0.5 * cp.sum_squares(x) - z @ x, [cp.norm(2 * x - centre) <= radius]), [z, centre, radius], [x]


def ball_as_a_cone():
    x, z = _x()
    radius = cp.Parameter(nonneg=True, name="radius")
    return _minimise(cp.sum_squares(x - z), [cp.SOC(radius, x)]), [z, radius], [x]


def ball_of_a_bounded_variable():
    x, z = _x()
    t, radius = cp.Variable(name="t"), cp.Parameter(nonneg=True, name="radius")
    return _minimise(cp.sum_squares(x - z), [cp.SOC(3 * t, x), 2 * t <= radius]), [z, radius], [x]


def ball_of_shuffled_variables():
    x, z = _x()
    radius = cp.Parameter(nonneg=True, name="radius")
    return _minimise(cp.sum_squares(x - z), [cp.SOC(radius, x[[3, 0, 5, 1, 2, 4]])]), [z, radius], [x]


NAMES = {"BOUNDED", "ENTROPIC", "PROJECTION"}
BALLS = [ball, ball_of_any_size, ball_as_a_cone, ball_of_a_bounded_variable, ball_of_shuffled_variables]
BOUNDED = [box, parametric_box, simplex, simplex_of_any_size, capped_simplex, weighted_budget, hyperplane]
ENTROPIC = [softmax, softmax_with_bounds, weighted_entropy, relative_entropy, soft_top_k, fermi]
PROJECTIONS = [semidefinite, shifted_semidefinite, second_order]
FORMS = [
    *[(form, "PROJECTION") for form in PROJECTIONS],
    *[(form, "PROJECTION") for form in BALLS],
    *[(form, "BOUNDED") for form in BOUNDED],
    *[(form, "ENTROPIC") for form in ENTROPIC],
]
EACH = pytest.mark.parametrize(("form", "solver"), FORMS, ids=lambda value: getattr(value, "__name__", value))


def draw(parameters, rng, batch=BATCH):
    values = [rng.normal(size=(batch, *parameter.shape)) for parameter in parameters]
    values = [v + v.swapaxes(-1, -2) if len(p.shape) == 2 else v for v, p in zip(values, parameters, strict=True)]
    return [np.abs(v) + 0.1 if p.is_nonneg() else v for v, p in zip(values, parameters, strict=True)]


def primary(layer):
    return layer.layer.options.plan.primary.name


def both(form):
    problem, parameters, variables = form()
    return CvxpyLayer(problem, parameters, variables), CvxpyLayer(problem, parameters, variables, recognise=False)


@EACH
def test_is_as_without(form, solver, rng):
    mine, plain = both(form)
    assert primary(mine) == solver
    assert primary(plain) not in NAMES
    assert mine.layer.kernel.method.is_structured or mine.layer.kernel.closed is not None
    assert not plain.layer.kernel.method.is_structured
    values = draw(form()[1], rng)
    got, want = mine.solve(*values), plain.solve(*values)
    assert set(np.ravel(got.info.solver)) == {solver}
    np.testing.assert_allclose(got.variables[0], want.variables[0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(got.objective, want.objective, rtol=0, atol=1e-9)
    for one, other in zip(got.dual.values(), want.dual.values(), strict=True):
        for part, like in zip(one, other, strict=True):
            np.testing.assert_allclose(part, like, rtol=0, atol=1e-9)
    cotangents = [rng.normal(size=want.variables[0].shape)]
    pulled, info = mine.vjp(values, cotangents)
    for one, other in zip(pulled, plain.vjp(values, cotangents)[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)
    assert info.residual.max() <= 1e-12
    tangents = [rng.normal(size=value.shape) for value in values]
    np.testing.assert_allclose(mine.jvp(values, tangents)[0][0], plain.jvp(values, tangents)[0][0], rtol=0, atol=1e-9)


@EACH
def test_items_are_solved_independently(form, solver, rng):
    mine = both(form)[0]
    values = draw(form()[1], rng, 7)
    together = mine(*values)[0]
    for item in range(7):
        np.testing.assert_array_equal(mine(*[value[item] for value in values])[0], together[item])


@EACH
def test_is_kept_by_files(form, solver, rng, tmp_path):
    mine, plain = both(form)
    values = draw(form()[1], rng)
    for layer in (mine, plain):
        path = tmp_path / "layer"
        layer.save(path)
        loaded = cvxlayers.load(path)
        assert primary(loaded) == primary(layer)
        assert loaded.layer.kernel.method is layer.layer.kernel.method
        np.testing.assert_array_equal(loaded(*values)[0], layer(*values)[0])


def test_is_described():
    mine, plain = both(simplex)
    assert "recognised" in mine.describe()
    assert "BOUNDED" in mine.describe()
    assert "recognised" not in plain.describe()


def test_options_of_the_solver_behind_are_for_that_one(rng):
    problem, parameters, variables = simplex()
    layer = CvxpyLayer(problem, parameters, variables, solver_args={"iter_limit": 500})
    assert primary(layer) == "DAQP"
    result = both(simplex)[0].solve(*draw(parameters, rng), solver_args={"primal_tol": 1e-9})
    assert set(np.ravel(result.info.solver)) == {"DAQP"}


KINKS = {
    "tie": (simplex, np.zeros(N)),
    "one entry leaves": (simplex, np.array([1.0, 0.0, -3.0, -3.0, -3.0, -3.0])),
    "vertex": (simplex, np.array([5.0, 0.0, 0.0, 0.0, 0.0, 0.0])),
    "bound met": (box, np.array([0.75, -0.5, 0.0, 3.0, -3.0, 0.1])),
    "inside": (box, np.zeros(N)),
    "caps met": (capped_simplex, np.array([1.0, 1.0, 0.0, 0.0, 0.0, 0.0])),
    "plane met": (hyperplane, np.zeros(N)),
    "budget met by entropies": (entropy_in_a_budget, np.zeros(N)),
    "cap met by entropies": (capped_entropy, np.zeros(N)),
    "tip": (second_order, np.zeros(N)),
    "inside of a cone": (second_order, np.array([3.0, 1.0, 1.0, 1.0, 0.0, 0.0])),
    "boundary of a cone": (second_order, np.array([2.0, 1.0, 1.0, 1.0, 1.0, 0.0])),
    "inside of the polar cone": (second_order, np.array([-3.0, 1.0, 1.0, 1.0, 0.0, 0.0])),
    "inside of a ball": (ball, np.full(N, 0.1)),
    "centre": (ball, np.zeros(N)),
    "zero matrix": (semidefinite, np.zeros((3, 3))),
    "definite matrix": (semidefinite, np.diag([1.0, 2.0, 1.0])),
}


@pytest.mark.parametrize("name", KINKS)
def test_kinks_are_as_without(name, rng):
    form, z = KINKS[name]
    mine, plain = both(form)
    np.testing.assert_allclose(mine(z)[0], plain(z)[0], rtol=0, atol=1e-12)
    cotangents = [rng.normal(size=z.shape)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (got, info), (want, other) = mine.vjp([z], cotangents), plain.vjp([z], cotangents)
    np.testing.assert_allclose(got[0], want[0], rtol=0, atol=1e-9)
    for flag in ("weakly_active", "not_unique", "dependent"):
        assert getattr(info, flag) == getattr(other, flag), flag


def reduced_box():
    x, z = _x()
    weight = cp.Parameter(N, nonneg=True, name="weight")
    return _minimise(cp.sum_squares(cp.multiply(weight, x) - z), [x <= 0.75, x >= 0]), [z, weight], [x]


@pytest.mark.parametrize("name", [*KINKS, "bound met in a reduced program"])
def test_one_kink_in_a_batch_is_as_alone(name, rng):
    """What the formula does not serve goes to the general derivative without its neighbours, also reduced."""
    form, z = KINKS.get(name, (reduced_box, np.array([0.0, 0.0, 0.2, 3.0, -3.0, 0.1])))
    problem, parameters, variables = form()
    layer = CvxpyLayer(problem, parameters, variables)
    values = draw(parameters, rng)
    values[0][2] = z
    cotangents = rng.normal(size=values[0].shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        together, info = layer.vjp(values, [cotangents])
        alone, single = layer.vjp([value[2] for value in values], [cotangents[2]])
    for batch, one in zip(together, alone, strict=True):
        np.testing.assert_allclose(batch[2], one, rtol=0, atol=1e-12)
    for flag in ("weakly_active", "not_unique", "dependent"):
        assert getattr(info, flag)[2] == getattr(single, flag), flag


@pytest.mark.parametrize("form", [ball, ball_as_a_cone])
def test_sphere_is_a_kink_with_the_derivative_of_one_side(form, rng):
    z, cotangent = np.array([0.0, 1.5, 0.0, 0.0, 0.0, 0.0]), rng.normal(size=N)
    problem, parameters, variables = form()
    layer = CvxpyLayer(problem, parameters, variables)
    (z_bar, *_), info = layer.vjp([z, np.array(1.5)][: len(parameters)], [cotangent])
    assert info.weakly_active
    np.testing.assert_allclose(np.delete(z_bar, 1), np.delete(cotangent, 1), atol=1e-12)
    assert -1e-12 <= z_bar[1] / cotangent[1] <= 1.0 + 1e-12


@pytest.mark.parametrize("form", BALLS)
def test_kinks_of_a_ball_are_as_far_as_its_boundary(form, rng):
    """v = y − s, and the kinks of the projection on the cone are where ‖z‖ = |t|."""
    problem, parameters, variables = form()
    layer = CvxpyLayer(problem, parameters, variables).layer
    values = draw(parameters, rng, 40)
    values = [
        values[0] * np.geomspace(1e-2, 1e2, 40)[:, None],
        *values[1:-1],
        *(3.0 * value for value in values[1:][-1:]),
    ]
    program, point, reduced = layer.forward(values, layer.options).everything
    closed, small = layer.kernel.closed, program if reduced is None else reduced.program
    y, s = (part if reduced is None else part[:, closed.reduction.kept[1]] for part in (point.y, point.s))
    found = linearise_ball(closed.form, small, y, s)
    cone = slice(closed.form.top, None)
    v = (y - s)[:, cone]
    wanted = np.abs(np.linalg.norm(v[:, 1:], axis=1) - np.abs(v[:, 0]))
    assert 5 < found.outside.sum() < 35
    np.testing.assert_allclose(found.smallest, wanted, rtol=1e-9, atol=1e-12)


def test_ball_may_be_a_point():
    x, z = _x()
    layer = CvxpyLayer(_minimise(cp.sum_squares(x - z), [cp.norm(x) <= 0.0]), [z], [x])
    assert primary(layer) == "PROJECTION"
    np.testing.assert_allclose(layer(np.ones(N))[0], 0.0, atol=1e-12)


ROUTES = {
    "itself": lambda t, u, x: [],
    "a copy": lambda t, u, x: [u == 2 * t],
    "a sum": lambda t, u, x: [u == t + x[0]],
}


@pytest.mark.parametrize("route", ROUTES)
def test_radius_is_not_unique_where_it_is_listed_and_free(route, rng):
    (x, z), t, u = _x(), cp.Variable(name="t"), cp.Variable(name="u")
    more = ROUTES[route](t, u, x)
    problem = _minimise(cp.sum_squares(x - z), [cp.SOC(t, x), t <= 1, *more])
    layer = CvxpyLayer(problem, [z], [x, u if more else t])
    assert primary(layer) == "PROJECTION"
    points = np.outer([0.1, 3.0], np.ones(N))
    cotangents = [np.ones((2, N)), np.zeros(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (z_bar,), info = layer.vjp([points], cotangents)
    assert info.not_unique.tolist() == [True, False]
    np.testing.assert_allclose(z_bar, [np.ones(N), np.zeros(N)], rtol=0, atol=1e-12)


def test_multipliers_of_a_ball_have_derivatives_inside_and_outside(rng):
    problem, parameters, variables = ball_of_a_bounded_variable()
    outputs = [*variables, *(constraint.dual_variables[0] for constraint in problem.constraints)]
    mine, plain = (CvxpyLayer(problem, parameters, outputs, recognise=flag) for flag in (True, False))
    values = [np.outer([0.1, 0.5, 2.0], rng.normal(size=N)), np.array([2.0, 0.5, 0.3])]
    cotangents = [rng.normal(size=value.shape) for value in mine(*values)]
    for one, other in zip(mine.vjp(values, cotangents)[0], plain.vjp(values, cotangents)[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-8)


@pytest.mark.parametrize("form", BOUNDED)
def test_multipliers_of_bounds_and_rows_have_derivatives_by_a_formula(form, rng):
    problem, parameters, variables = form()
    outputs = [*variables, *(constraint.dual_variables[0] for constraint in problem.constraints)]
    mine, plain = (CvxpyLayer(problem, parameters, outputs, recognise=flag) for flag in (True, False))
    values = draw(parameters, rng, 40)
    # At a vertex, where bounds and rows depend on one another, multipliers have no derivative.
    regular = plain.vjp(values, [np.ones(value.shape) for value in plain(*values)])[1].reliable
    assert regular.sum() > 20
    values = [value[regular] for value in values]
    call = mine.layer.forward(values, mine.layer.options)
    mine.layer.kernel.closed.linearise(*call.everything, call.map.x.apply, whole=pytest.fail)
    cotangents, tangents = ([rng.normal(size=value.shape) for value in part] for part in (call.outputs, values))
    for one, other in zip(mine.vjp(values, cotangents)[0], plain.vjp(values, cotangents)[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)
    for one, other in zip(mine.jvp(values, tangents)[0], plain.jvp(values, tangents)[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)


def test_a_variable_that_two_bounds_hold_is_left_to_the_general_derivative(rng):
    problem, parameters, variables = parametric_box()
    layer = CvxpyLayer(problem, parameters, variables).layer
    program, point, _ = layer.forward(draw(parameters, rng, 2), layer.options).everything
    y = np.zeros(point.y.shape)
    y[0, 0] = y[1, 0] = y[1, N] = 1.0
    parts = require(program.structure)
    assert (parts.bounds[0].columns[0], parts.bounds[1].columns[0]) == (0, 0)
    assert linearise_bounds(parts, program, y).served.tolist() == [True, False]


def test_a_row_without_a_free_variable_is_left_to_the_general_derivative(rng):
    mine, plain = both(capped_simplex)
    z = np.array([9.0, 8.0, -9.0, -7.0, -8.0, -6.0])
    cotangents = [rng.normal(size=N)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (got, info), (want, _) = mine.vjp([z], cotangents), plain.vjp([z], cotangents)
    np.testing.assert_allclose(got[0], want[0], rtol=0, atol=1e-12)
    assert info.dependent


def test_costs_of_a_free_radius_are_doubted_inside():
    (x, z), t, price = _x(), cp.Variable(name="t"), cp.Parameter(nonneg=True, name="price")
    problem = _minimise(cp.sum_squares(x - z) + price * t, [cp.SOC(t, x), t <= 1])
    layer = CvxpyLayer(problem, [z, price], [x])
    values = [np.full(N, 0.1), np.zeros(())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        along_z, along_price = (layer.jvp(values, [np.full(N, float(k)), np.array(1.0 - k)])[1] for k in (1, 0))
    assert along_z.reliable
    assert not along_price.reliable


def test_radius_with_a_price_is_no_projection_on_a_ball(rng):
    (x, z), t, price = _x(), cp.Variable(name="t"), cp.Parameter(nonneg=True, name="price")
    problem = _minimise(cp.sum_squares(x - z) + price * t, [cp.SOC(t, x), t <= 1])
    mine, plain = (CvxpyLayer(problem, [z, price], [x], recognise=flag) for flag in (True, False))
    values = [0.3 * rng.normal(size=(4, N)), np.array([0.1, 0.2, 3.0, 0.1])]
    values[0][3] *= 10.0
    cotangents = [rng.normal(size=(4, N))]
    np.testing.assert_allclose(mine(*values)[0], plain(*values)[0], rtol=0, atol=1e-9)
    for one, other in zip(mine.vjp(values, cotangents)[0], plain.vjp(values, cotangents)[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-8)


@EACH
def test_infinite_cotangents_are_told(form, solver, rng):
    problem, parameters, variables = form()
    layer, values = CvxpyLayer(problem, parameters, variables), draw(parameters, rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, info = layer.vjp(values, [np.full((BATCH, *variables[0].shape), np.inf)])
    assert np.isinf(info.residual).all()


def test_balls_of_negative_size_are_empty(rng):
    x, z = _x()
    radius = cp.Parameter(name="radius")
    layer = CvxpyLayer(_minimise(cp.sum_squares(x - z), [cp.norm(x) <= radius]), [z, radius], [x])
    result = layer.solve(rng.normal(size=(3, N)), np.array([1.0, -1.0, 0.5]), on_failure="nan")
    assert result.status.tolist() == [0, 2, 0]


@pytest.mark.parametrize("size", [0.3, 30.0])
def test_ball_is_the_closed_form(size, rng):
    problem, parameters, variables = ball_as_a_cone()
    layer, z, cotangent = CvxpyLayer(problem, parameters, variables), rng.normal(size=(9, N)), rng.normal(size=(9, N))
    length = np.linalg.norm(z, axis=1, keepdims=True)
    share, unit = np.minimum(size / length, 1.0), z / length
    values = [z, np.full(9, size)]
    np.testing.assert_allclose(layer(*values)[0], share * z, rtol=0, atol=1e-15)
    along = np.sum(unit * cotangent, axis=1, keepdims=True)
    outside = length > size
    (z_bar, size_bar), info = layer.vjp(values, [cotangent])
    np.testing.assert_allclose(z_bar, share * (cotangent - np.where(outside, along * unit, 0.0)), rtol=0, atol=1e-14)
    np.testing.assert_allclose(size_bar, np.where(outside, along, 0.0)[:, 0], rtol=0, atol=1e-14)
    assert info.reliable.all()


def test_kink_between_matrices_has_a_derivative_between_both_sides(rng):
    cotangent = rng.normal(size=(3, 3))
    (z_bar,), info = both(semidefinite)[0].vjp([np.diag([1.0, 0.0, -1.0])], [cotangent])
    assert info.weakly_active
    assert 0.0 < z_bar[1, 1] / cotangent[1, 1] < 1.0
    np.testing.assert_allclose(z_bar[[0, 2], [0, 2]], [cotangent[0, 0], 0.0], atol=1e-12)


def test_solution_at_bounds_alone_stays(rng):
    z = np.array([9.0, 9.0, -9.0, -9.0, -9.0, -9.0])
    (z_bar,), info = both(capped_simplex)[0].vjp([z], [rng.normal(size=N)])
    np.testing.assert_allclose(z_bar, 0.0, atol=1e-12)
    assert info.dependent
    assert not info.weakly_active


def test_infeasible_sets_have_their_status(rng):
    x, z = _x()
    total = cp.Parameter(name="total")
    problem = _minimise((cp.sum_squares(x - z)), [x >= 0, x <= 1, cp.sum(x) == total])
    values = rng.normal(size=(4, N)), np.array([1.0, -1.0, N + 1.0, N])
    found = [CvxpyLayer(problem, [z, total], [x], recognise=r).solve(*values, on_failure="nan") for r in (True, False)]
    np.testing.assert_array_equal(found[0].status, found[1].status)
    np.testing.assert_array_equal(found[0].status, [0, 2, 2, 0])
    np.testing.assert_allclose(found[0].variables[0], found[1].variables[0], rtol=0, atol=1e-9)


def test_crossing_bounds_are_infeasible(rng):
    problem, parameters, variables = parametric_box()
    layer = CvxpyLayer(problem, parameters, variables, check=False)
    values = draw(parameters, rng, 3)
    values[2][1] = -1.0
    assert layer.solve(*values, on_failure="nan").status.tolist() == [0, 2, 0]


NO_PROJECTIONS = {
    "an equality without a variable": ([1, 1], [[0, 0], [0, 0], [1, 0], [0, 1]], Product(zero=1, second_order=(3,))),
    "a variable in no row": ([1, 1, 0], [[1, 0, 0], [0, 1, 0]], Product(second_order=(2,))),
    "a variable in no row, and a ball": ([1, 1, 0], [[0, 0, 0], [1, 0, 0], [0, 1, 0]], Product(second_order=(3,))),
    "two bounds": (
        [1, 1, 0, 0],
        [[0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]],
        Product(nonnegative=2, second_order=(3,)),
    ),
    "a bounded variable that moves the centre": (
        [1, 1, 0],
        [[0, 0, 1], [0, 0, 0], [1, 0, 1], [0, 1, 0]],
        Product(nonnegative=1, second_order=(3,)),
    ),
}


@pytest.mark.parametrize("name", NO_PROJECTIONS)
def test_structures_that_are_nearly_projections_are_none(name):
    costs, A, cone = NO_PROJECTIONS[name]
    structure = Structure(pattern_of(np.diag(costs)), pattern_of(np.array(A)), cone)
    assert find_isotropic(structure) is None


LOOKALIKES = {
    "two rows": lambda x, z: ([cp.sum(x) == 1, x[0] + 2 * x[1] <= 0.4, x >= 0], cp.sum_squares(x - z)),
    "coupled cost": lambda x, z: ([cp.sum(x) == 1, x >= 0], cp.sum_squares(x - z) + cp.square(x[0] - x[1])),
    "flat variable": lambda x, z: ([cp.sum(x) == 1, x >= 0, x <= 1], cp.sum_squares(x[1:] - z[1:]) + z[0] * x[0]),
    "norm": lambda x, z: ([cp.norm(x) <= 1, cp.sum(x) == 1], cp.sum_squares(x - z)),
    "entropy of a sum": lambda x, z: ([cp.sum(x) == 1], -z @ x - cp.sum(cp.entr(x)) - cp.entr(x[0] + x[1])),
    "entropy and square": lambda x, z: ([cp.sum(x) == 1], -z @ x - cp.sum(cp.entr(x)) + cp.sum_squares(x)),
    "three entropies": lambda x, z: (
        [cp.sum(x) == 1],
        -z @ x - cp.sum(cp.entr(x) + cp.entr(1 - x) + cp.entr(2 - x)),
    ),
    "entropy of some": lambda x, z: ([cp.sum(x) == 1, x >= 0], -z @ x - cp.sum(cp.entr(x[1:]))),
    "capped entropy": lambda x, z: ([cp.sum(x) == 1, x <= 0.17], -z @ x - cp.sum(cp.entr(x))),
    "ellipsoid": lambda x, z: ([cp.norm(cp.multiply(np.arange(1, N + 1), x)) <= 1], cp.sum_squares(x - z)),
    "ball and half-space": lambda x, z: ([cp.norm(x) <= 1, x[0] <= 0.1], cp.sum_squares(x - z)),
    "norm of some": lambda x, z: ([cp.norm(x[1:]) <= 0.3], cp.sum_squares(x - z)),
    "stretched cone": lambda x, z: ([cp.SOC(x[0], 2 * x[1:])], cp.sum_squares(cp.multiply(np.arange(1, N + 1), x - z))),
    "second entropy of some": lambda x, z: ([cp.sum(x) == 2], -z @ x - cp.sum(cp.entr(x)) - cp.entr(2 - x[0])),
    "uneven pair": lambda x, z: ([cp.sum(x) == 2], -z @ x - cp.sum(cp.entr(x) + 2 * cp.entr(1 - x))),
}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_lookalikes_are_solved_as_well(name, rng):
    x, z = _x()
    constraints, cost = LOOKALIKES[name](x, z)
    problem = _minimise((cost), constraints)
    mine, plain = (CvxpyLayer(problem, [z], [x], recognise=r) for r in (True, False))
    values, cotangents = [rng.normal(size=(3, N))], [rng.normal(size=(3, N))]
    got = mine.solve(*values)
    assert not set(np.ravel(got.info.solver)) & NAMES
    np.testing.assert_allclose(got.variables[0], plain(*values)[0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(mine.vjp(values, cotangents)[0], plain.vjp(values, cotangents)[0], rtol=0, atol=1e-8)


def test_entropies_over_two_rows_are_solved_as_well(rng):
    x, z = cp.Variable(8), cp.Parameter(8)
    rows: list[Any] = [cp.sum(x) == 1, x[0] + 2 * x[1] <= 0.2]
    problem = _minimise(-z @ x - cp.sum(cp.entr(x)), rows)
    mine, plain = (CvxpyLayer(problem, [z], [x], recognise=r) for r in (True, False))
    assert require(mine.layer.compiled.structure).coupling.size == 2
    values = rng.normal(size=(3, 8))
    got = mine(values)[0]
    assert (got[:, 0] + 2 * got[:, 1] <= 0.2 + 1e-9).all()
    np.testing.assert_allclose(got, plain(values)[0], rtol=0, atol=1e-9)


@st.composite
def separable_programs(draw_):
    """Programs near the recognised form: bounds of any sign and number, any row, repeated rows, equalities."""
    n = draw_(st.integers(1, 5))
    rng = np.random.default_rng(draw_(st.integers(0, 2**20)))
    x, z = cp.Variable(n), cp.Parameter(n)
    weight = 10.0 ** rng.uniform(-1, 1, size=n)
    inside = rng.normal(size=n)
    constraints = []
    for _ in range(draw_(st.integers(0, 3))):
        scale = rng.choice([-2.0, -1.0, 0.5, 1.0], size=n)
        gap = rng.choice([0.0, 0.3, 1.0], size=n)
        constraints.append(cp.multiply(scale, x) <= scale * inside + gap)
    for _ in range(draw_(st.integers(0, 2))):
        row = rng.choice([-1.0, 0.0, 1.0, 2.0], size=n)
        kind = draw_(st.sampled_from(["==", "<=", ">="]))
        value = row @ inside
        bound = {"==": row @ x == value, "<=": row @ x <= value + 0.2, ">=": row @ x >= value - 0.2}
        constraints.append(bound[kind])
    order = rng.permutation(len(constraints))
    cost = cp.sum(cp.multiply(weight, cp.square(x))) + z @ x
    return _minimise((cost), [constraints[k] for k in order]), z, x, rng


@pytest.mark.parametrize("recognise", [True, False])
def test_nothing_is_left_where_equalities_fix_everything(recognise, capfd):
    x, z = cp.Variable(1), cp.Parameter(1)
    problem = _minimise(cp.sum_squares(x) + z @ x, [2 * x == 1])
    layer = CvxpyLayer(problem, [z], [x], recognise=recognise)
    np.testing.assert_allclose(layer(np.ones(1))[0], [0.5])
    np.testing.assert_allclose(layer.vjp([np.ones(1)], [np.ones(1)])[0][0], [0.0], atol=1e-15)
    assert not "".join(capfd.readouterr())  # LAPACK complains of empty matrices on the terminal


@pytest.mark.parametrize("recognise", [True, False])
def test_simplex_of_one_is_a_point(recognise):
    x, z = cp.Variable(1), cp.Parameter(1)
    layer = CvxpyLayer(_minimise(cp.sum_squares(x - z), [cp.sum(x) == 1, x >= 0]), [z], [x], recognise=recognise)
    point = np.array([[3.0], [-2.0]])
    np.testing.assert_array_equal(layer(point)[0], np.ones((2, 1)))
    (gradient,), info = layer.vjp([point], [np.ones((2, 1))])
    np.testing.assert_array_equal(gradient, np.zeros((2, 1)))
    assert info.reliable.all()
    assert (info.condition == 1.0).all()


@settings(max_examples=40, deadline=None)
@given(separable_programs())
def test_any_separable_program_is_as_without(case):
    problem, z, x, rng = case
    values, cotangents = [3 * rng.normal(size=(3, x.size))], [rng.normal(size=(3, x.size))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mine, plain = (CvxpyLayer(problem, [z], [x], recognise=r) for r in (True, False))
        np.testing.assert_allclose(mine(*values)[0], plain(*values)[0], rtol=0, atol=1e-9)
        (got, info), (want, other) = mine.vjp(values, cotangents), plain.vjp(values, cotangents)
    # Where active constraints depend on one another, y is not unique, and with it which of them are weakly active.
    doubtful = [found.degenerate | found.weakly_active for found in (info, other)]
    np.testing.assert_array_equal(*doubtful)
    regular = ~doubtful[0]
    np.testing.assert_allclose(got[0][regular], want[0][regular], rtol=0, atol=1e-8)


@pytest.mark.parametrize("form", ENTROPIC, ids=lambda form: form.__name__)
def test_entropies_need_no_solver(form, rng):
    problem, parameters, variables = form()
    layer = CvxpyLayer(problem, parameters, variables).layer
    theta, _ = layer.compiled.parameters.flatten(draw(parameters, rng, 50))
    program = layer.compiled.program(theta)
    closed = layer.kernel.closed
    assert closed is not None
    point, _, sure = closed.solve(program, None)
    assert sure.all()
    again = evaluate(program, point.x, point.v)
    np.testing.assert_allclose(again.s, point.s, rtol=0, atol=1e-13)
    np.testing.assert_allclose(again.y, point.y, rtol=0, atol=1e-13)
    assert again.merit.max() <= 1e-12


def test_certificate_refuses_what_is_not_optimal(rng):
    form = require(both(soft_top_k)[0].layer.compiled.structure)
    layer = both(soft_top_k)[0].layer
    program = layer.compiled.program(layer.compiled.parameters.flatten([rng.normal(size=(4, N))])[0])
    optimum = find_optimum(program, form)
    moved = replace(optimum, nu=optimum.nu + np.array([0.0, 1e-9, 0.0, 0.0]))
    sigma = [value * (1.0 + 1e-9 * (np.arange(4) == 2)[:, None]) for value in optimum.sigma]
    for wrong, item in ((moved, 1), (replace(optimum, sigma=sigma), 2)):
        sure = certified(program, wrong)[1]
        assert not sure[item]
        assert sure[[0, 3]].all()


def test_saturated_entropies_are_doubted_as_without(rng):
    c = np.array([[50.0, -50.0, 0.0, 1.0, 2.0, 3.0], [0.5, 0.1, 0.0, 1.0, 0.2, 0.3], [60.0, 60.0, 0.5, 1.0, 0.0, 0.2]])
    for form, reliable in ((softmax, [True, True, True]), (soft_top_k, [True, True, False])):
        mine, plain = both(form)
        cotangents = [rng.normal(size=c.shape)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (got, info), (want, other) = mine.vjp([c], cotangents), plain.vjp([c], cotangents)
        np.testing.assert_allclose(got[0], want[0], rtol=0, atol=1e-8)
        np.testing.assert_array_equal(info.weakly_active, other.weakly_active)
        np.testing.assert_array_equal(other.reliable, reliable)
        np.testing.assert_array_equal(info.reliable, reliable)


@pytest.mark.parametrize("form", ENTROPIC, ids=lambda form: form.__name__)
def test_derivatives_of_dual_variables_are_as_without(form, rng):
    problem, parameters, variables = form()
    outputs = [*variables, *(constraint.dual_variables[0] for constraint in problem.constraints[-1:])]
    mine, plain = (CvxpyLayer(problem, parameters, outputs, recognise=flag) for flag in (True, False))
    values = draw(parameters, rng)
    cotangents = [rng.normal(size=value.shape) for value in mine(*values)]
    for one, other in zip(mine.vjp(values, cotangents)[0], plain.vjp(values, cotangents)[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-8)
    tangents = [rng.normal(size=value.shape) for value in values]
    for one, other in zip(mine.jvp(values, tangents)[0], plain.jvp(values, tangents)[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-8)


@pytest.mark.parametrize("form", [*ENTROPIC, *PROJECTIONS, *BALLS], ids=lambda form: form.__name__)
def test_formulas_of_derivatives_are_those_of_the_whole_system(form, rng):
    problem, parameters, variables = form()
    layer = CvxpyLayer(problem, parameters, variables).layer
    values = draw(parameters, rng)
    if form in BALLS:
        values[0] *= 10.0  # outside, where the whole system is regular in all variables
    call = layer.forward(values, layer.options)
    program, point, closed = call.program, call.point, layer.kernel.closed
    assert closed is not None
    mine = closed.linearise(program, point, call.found.reduced, call.map.x.apply, refuse)
    assert_same_derivatives(mine, program, point, rng)


def refuse(items):
    raise AssertionError("left to the whole system")


def assert_same_derivatives(mine, program, point, rng):
    """Compares with the whole system, in all directions of the data."""
    plain = linearise(program, point, lambda system, items=None: factorise(system, Method.DENSE, 1))
    x, y = rng.normal(size=point.x.shape), rng.normal(size=point.y.shape)
    for dual in (0.0 * y, y):
        got, want = vjp(mine, x, dual)[0], vjp(plain, x, dual)[0]
        for one, other in zip(got, want, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-10)
    tangent = Data(*(rng.normal(size=part.shape) for part in want))
    for one, other in zip(jvp(mine, tangent)[:2], jvp(plain, tangent)[:2], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("form", ENTROPIC, ids=lambda form: form.__name__)
def test_entropies_may_be_bounded_in_any_unit_and_from_anywhere(form, rng):
    """head t + offset ≤ −σ log(σ/γ), with the costs of t in its unit: the same x."""
    problem, parameters, variables = form()
    layer = CvxpyLayer(problem, parameters, variables).layer
    program = layer.compiled.program(layer.compiled.parameters.flatten(draw(parameters, rng))[0])
    A, q, b = (np.repeat(part, BATCH // len(part), axis=0) for part in (program.A, program.q, program.b))
    parts, closed = require(program.structure), layer.kernel.closed
    for places in parts.places:
        unit = rng.uniform(0.5, 2.0, size=q[:, places.bounded].shape)
        A[:, places.bounded_entries] *= unit
        q[:, places.bounded] *= unit
        b[:, places.rows[0]] += rng.normal(size=unit.shape)
    other = replace(program, A=A, q=q, b=b)
    point, _, sure = closed.solve(other, None)
    assert sure.all()
    assert evaluate(other, point.x, point.v).merit.max() <= 1e-12
    wanted = closed.solve(program, None)[0].x
    np.testing.assert_allclose(point.x[:, parts.main], wanted[:, parts.main], rtol=0, atol=1e-12)
    assert_same_derivatives(closed.linearise(other, point, None, np.asarray, refuse), other, point, rng)


def test_entropies_in_doubt_are_left_to_the_general_derivative(rng):
    """One in a unit so small that the system is badly conditioned, and one at a point that is not exact."""
    problem, parameters, variables = softmax()
    layer = CvxpyLayer(problem, parameters, variables).layer
    program, point, _ = layer.forward(draw(parameters, rng, 3), layer.options).everything
    A, q = (np.repeat(part, 3 // len(part), axis=0) for part in (program.A, program.q))
    (places,) = require(program.structure).places
    A[1, places.bounded_entries] *= 1e-10
    q[1, places.bounded] *= 1e-10
    left = []
    merit = np.array([1e-16, 1e-16, 2e-12])
    linear = layer.kernel.closed.linearise(
        replace(program, A=A, q=q), replace(point, merit=merit), None, np.asarray, lambda items: left.extend(items)
    )
    assert left == [1, 2] == linear.rest.tolist()
