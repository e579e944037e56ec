"""Programs without copies: certified where the full ones are, and with the same solutions and derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from cvxlayers import CvxpyLayer, lean_call
from cvxlayers.layer import Layer
from cvxlayers.residual import EXACT, evaluate
from cvxlayers.result import WarmStart

N = 4


def _layer(cost: Callable, constraints: Callable, listed: Callable = lambda x, _: [x], **keywords: Any) -> Layer:
    x, c = cp.Variable(N), cp.Parameter(N)
    sets = constraints(x)
    return CvxpyLayer(cp.Problem(cp.Minimize(cost(x, c)), sets), [c], listed(x, sets), **keywords).layer


def _ball(x):
    return [cp.norm(x) <= 5]


def _cone(x):
    return [cp.SOC(cp.Constant(5), x)]


def _simplex(x):
    return [cp.sum(x) == 1, x >= 0]


def _box(x):
    return [x <= 1, x >= -0.5]


def _square(x, c):
    return cp.sum_squares(x - c)


SETS = {"ball": _ball, "cone": _cone, "simplex": _simplex, "box": _box}
LEAN = {
    "squares": _square,
    "halves": lambda x, c: 0.5 * cp.sum_squares(c - x),
    "doubles": lambda x, c: 0.25 * cp.sum_squares(2 * x - c),
    "moved": lambda x, c: cp.sum_squares(x - 3 * c - 1),
}


def _points(rng: np.random.Generator) -> np.ndarray:
    """Points at, next to and far from the boundary of a ball of radius 5, and of all sizes."""
    unit = rng.normal(size=N)
    unit /= np.linalg.norm(unit)
    near = [5 * unit * (1 + sign * 10.0**-k) for k in (1, 2, 3, 6, 10, 13, 16) for sign in (1, -1)]
    sizes = [10.0**k * rng.normal(size=N) for k in range(-8, 9, 4)]
    return np.array([np.zeros(N), 5 * unit, np.eye(N)[0], np.full(N, 0.25), *near, *sizes])


def _same(got: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> None:
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14 * np.abs(other).max())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cost", LEAN)
@pytest.mark.parametrize("form", SETS)
def test_is_as_without(form, cost, rng):
    layer = _layer(LEAN[cost], SETS[form])
    full, w, u = replace(layer, lean=None), rng.normal(size=(1, N)), rng.normal(size=(1, N))
    answered = 0
    for point in _points(rng):
        one, other = (each.forward([point[None]], each.options) for each in (layer, full))
        answered += one.lean is not None
        np.testing.assert_array_equal(one.outputs[0], other.outputs[0])
        np.testing.assert_array_equal(one.status, other.status)
        (got, got_info), (want, info) = (each.vjp(at, [w]) for each, at in ((layer, one), (full, other)))
        _same(got, want)
        (pushed, _), (wanted, _) = (each.jvp(at, [u]) for each, at in ((layer, one), (full, other)))
        _same(pushed, wanted)
        # Probes of curved cones are random, and in other directions where there are fewer rows.
        if form in {"simplex", "box"}:
            np.testing.assert_array_equal(got_info.weakly_active, info.weakly_active)
    assert answered > 10


@pytest.mark.parametrize("cost", LEAN)
@pytest.mark.parametrize("form", SETS)
def test_certificate_is_that_of_the_full_program(form, cost, rng):
    layer = _layer(LEAN[cost], SETS[form])
    lean, points = layer.lean, _points(rng)
    assert lean is not None
    theta, _ = layer.compiled.parameters.flatten([points])
    program, full = lean.compiled.program(theta), layer.compiled.program(theta)
    solution = layer.options.plan.primary.solve(program, layer.options.solver)
    found = lean.evaluate(program, solution.x, solution.y, solution.s)
    x, y, s = lean.reduction.eliminate(full).recover(solution.x, solution.y, solution.s)
    whole = evaluate(full, x, y - s)
    kept_variables, kept_rows = lean.reduction.kept
    np.testing.assert_array_equal(found.primal, whole.primal[:, kept_rows])
    np.testing.assert_array_equal(found.primal_scale, whole.primal_scale)
    np.testing.assert_allclose(found.merit, whole.merit, rtol=1e-6, atol=1e-15)
    if form in {"ball", "cone"}:
        np.testing.assert_array_equal(found.dual, whole.dual[:, kept_variables])


def test_costs_that_cancel_are_one_term(rng):
    """Next to the boundary of a ball x − c is no more exact than c: small beside c, but not beside the multipliers."""
    layer = _layer(_square, _ball)
    lean, units = layer.lean, rng.normal(size=(30, N))
    assert lean is not None
    points = 5 * (1 + 1e-6) * units / np.linalg.norm(units, axis=1, keepdims=True)
    theta, _ = layer.compiled.parameters.flatten([points])
    program = lean.compiled.program(theta)
    solution = layer.options.plan.primary.solve(program, layer.options.solver)
    x, y, s = solution.x, solution.y, solution.s
    assert (evaluate(program, x, y - s).merit <= EXACT).all()
    assert (lean.evaluate(program, x, y, s).merit > EXACT).any()
    assert layer.forward([points], layer.options).lean is None


def test_points_beside_a_solution_are_not_certified(rng):
    layer = _layer(_square, _ball)
    lean = layer.lean
    assert lean is not None
    theta, _ = layer.compiled.parameters.flatten([rng.normal(size=(3, N)) + 5])
    program = lean.compiled.program(theta)
    solution = layer.options.plan.primary.solve(program, layer.options.solver)
    x, y, s = solution.x, solution.y, solution.s
    assert (lean.evaluate(program, x, y, s).merit <= EXACT).all()
    for beside in ((x + 1e-9, y, s), (x, y * (1 + 1e-9), s), (x, y, s * (1 + 1e-9))):
        assert (lean.evaluate(program, *beside).merit > EXACT).all()


OTHERS = {
    "weights that round": (lambda x, c: 1.5 * cp.sum_squares(x - c), _ball, {}),
    "factors that round": (lambda x, c: cp.sum_squares(3 * x - c), _ball, {}),
    "different weights": (lambda x, c: cp.sum_squares(x[:2] - c[:2]) + 2 * cp.sum_squares(x[2:] - c[2:]), _box, {}),
    "two copies": (lambda x, c: cp.sum_squares(x - c) + cp.sum_squares(x + c), _box, {}),
    "linear costs": (lambda x, c: cp.sum_squares(x - c) + cp.sum(x), _ball, {}),
    "costs of x": (lambda x, c: cp.sum_squares(x - c) + cp.sum_squares(x), _ball, {}),
    "no copy": (lambda x, c: cp.sum_squares(x) - 2 * c @ x, _ball, {}),
    "linear costs that are parameters": (lambda x, c: cp.sum_squares(x - c) + c @ x, _ball, {}),
    "two copies of some": (lambda x, c: cp.sum_squares(x - c) + cp.square(x[0] - c[1]), _box, {}),
    "a sum": (_square, lambda x: [*_ball(x), cp.Variable() == x[0] + x[1]], {}),
    "a fixed radius": (_square, lambda x: (lambda r: [cp.norm(x) <= r, r == 5])(cp.Variable()), {}),
    "a row twice": (_square, lambda x: [*_box(x), 2 * x <= 2], {}),
    "another copy": (_square, lambda x: [*_ball(x), cp.Variable() == 2 * x[0]], {}),
    "multipliers": (_square, _ball, {"listed": lambda x, sets: [x, sets[0].dual_variables[0]]}),
    "not recognised": (_square, _ball, {"recognise": False}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_none(name):
    cost, constraints, keywords = OTHERS[name]
    assert _layer(cost, constraints, **keywords).lean is None


@pytest.mark.parametrize("where", ["in the copies", "of their squares"])
def test_factors_that_are_parameters_are_none(where):
    x, t, c, factor = cp.Variable(N), cp.Variable(N), cp.Parameter(N), cp.Parameter(nonneg=True)
    costs, copies = cp.sum_squares(factor * x - c), []
    if where == "of their squares":
        costs, copies = cp.sum(cp.multiply(1 + factor, cp.square(t))), [t == x - c]
    layer = CvxpyLayer(cp.Problem(cp.Minimize(costs), [*_ball(x), *copies]), [c, factor], [x]).layer
    assert layer.kernel.closed is not None
    assert layer.lean is None


def test_copies_that_are_listed_are_none():
    x, t, c = cp.Variable(N), cp.Variable(N), cp.Parameter(N)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(t)), [*_ball(x), t == x - c])
    assert CvxpyLayer(problem, [c], [x]).layer.lean is not None
    assert CvxpyLayer(problem, [c], [x, t]).layer.lean is None


def test_calls_that_ask_for_more_are_not_answered(rng):
    layer, point = _layer(_square, _ball), rng.normal(size=(3, N))
    call = layer.forward([point], layer.options)
    assert call.lean is not None
    assert layer.forward([point], layer.options, outputs=layer.compiled.leaves.map).lean is None
    start = call.point
    assert layer.forward([point], layer.options, WarmStart(start.x, start.v)).lean is None


@pytest.mark.parametrize("shared", [True, False])
def test_parameters_may_be_shared(shared, rng):
    x, c, radius = cp.Variable(N), cp.Parameter(N), cp.Parameter(nonneg=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(_square(x, c)), [cp.norm(x) <= radius]), [c, radius], [x]).layer
    values = [rng.normal(size=N if shared else (3, N)), np.array([0.5, 1.0, 9.0] if shared else 1.0)]
    full, w = replace(layer, lean=None), rng.normal(size=(3, N))
    call, other = (each.forward(values, each.options) for each in (layer, full))
    assert call.lean is not None
    np.testing.assert_array_equal(call.outputs[0], other.outputs[0])
    _same(layer.vjp(call, [w])[0], full.vjp(other, [w])[0])


def test_one_invalid_item_leaves_all_to_the_full_programs(rng):
    layer, point = _layer(_square, _ball), rng.normal(size=(3, N))
    point[1, 2] = np.nan
    call = layer.forward([point], replace(layer.options, on_failure="mask"))
    assert call.lean is None
    assert call.ok.tolist() == [True, False, True]


def test_full_programs_are_those_of_the_call(rng):
    layer, point = _layer(lambda x, c: _square(x, c) + cp.sum(c) + 3, _simplex), rng.normal(size=(3, N))
    want = replace(layer, lean=None).forward([c := point.copy()], layer.options)
    call = layer.forward([point], layer.options)
    assert call.lean is not None
    point[:] = 7.0
    for name in ("x", "v", "y", "s", "merit"):
        np.testing.assert_array_equal(getattr(call.point, name), getattr(want.point, name))
    np.testing.assert_array_equal(layer.objective(call), layer.objective(want))
    np.testing.assert_allclose(layer.objective(call), np.sum((call.outputs[0] - c) ** 2 + c, axis=1) + 3, rtol=1e-14)


def test_full_programs_are_not_asked_for(rng, monkeypatch):
    layer, point = _layer(_square, _ball), 9 * rng.normal(size=(8, N))
    monkeypatch.setattr(lean_call, "evaluate", None)
    call = layer.forward([point], layer.options)
    (gradient,), _ = layer.vjp(call, [np.ones((8, N))])
    assert np.isfinite(gradient).all()


def test_kinks_are_told_of_by_the_full_programs(rng):
    """One item of a batch on a kink, c at a corner: its derivative is between those of both sides, as without."""
    x, c, high = cp.Variable(N), cp.Parameter(N), cp.Parameter(N)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(_square(x, c)), [x <= high, x >= -0.5]), [c, high], [x]).layer
    point, bound = rng.uniform(-0.4, 0.9, size=(5, N)), np.ones((5, N))
    point[3, 1], bound[3, 2] = 1.0, point[3, 2] - 0.1
    full, w = replace(layer, lean=None), rng.normal(size=(5, N))
    call = layer.forward([point, bound], layer.options)
    assert call.lean is not None
    got, info = layer.vjp(call, [w])
    want, wanted = full.vjp(full.forward([point, bound], full.options), [w])
    assert info.weakly_active.tolist() == wanted.weakly_active.tolist() == [False, False, False, True, False]
    np.testing.assert_allclose(got, want, rtol=1e-14, atol=0)
    np.testing.assert_allclose([got[0][3, 2], got[1][3, 2]], [0.0, w[3, 2]], rtol=1e-14)
