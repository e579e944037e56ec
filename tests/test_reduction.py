"""The elimination of variables that only name an affine expression."""

from __future__ import annotations

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

from cvxlayers import CvxpyLayer
from cvxlayers.build import build_layer
from cvxlayers.derivative import choose_method
from cvxlayers.kernel import Kernel
from cvxlayers.layer import Layer
from cvxlayers.solvers import select


def square_root():
    """A QP whose quadratic is written with a factor, one row of which is shared with a constraint."""
    x, L, q = cp.Variable(5), cp.Parameter((5, 5)), cp.Parameter(5)
    A, b = cp.Parameter((2, 5)), cp.Parameter(2)
    constraints = [A @ x == b, x >= -1]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(L @ x) + q @ x), constraints)
    outputs = [x, constraints[0].dual_variables[0], constraints[1].dual_variables[0]]
    return problem, [L, q, A, b], outputs, [(5, 5), (5,), (2, 5), (2,)]


def least_squares():
    """Two residuals on different variables, with weights and an l1 term."""
    x, F, g, H = cp.Variable(4), cp.Parameter((9, 4)), cp.Parameter(9), cp.Parameter((3, 2))
    objective = cp.sum_squares(F @ x - g) + 2 * cp.sum_squares(H @ x[:2]) + cp.norm1(x)
    return cp.Problem(cp.Minimize(objective)), [F, g, H], [x], [(9, 4), (9,), (3, 2)]


def second_order():
    """Eliminated squares beside a curved cone, whose rows move up."""
    x, F, g, r = cp.Variable(4), cp.Parameter((6, 4)), cp.Parameter(6), cp.Parameter(nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(F @ x - g)), [cp.norm(x) <= r, cp.sum(x) == 0.5])
    return problem, [F, g, r], [x], [(6, 4), (6,), ()]


def defined_not_squared():
    """A named expression that is in the objective linearly."""
    x, t, F, c = cp.Variable(3), cp.Variable(2), cp.Parameter((2, 3)), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(c @ t + cp.sum_squares(x)), [t == F @ x])
    return problem, [F, c], [x, t, problem.constraints[0].dual_variables[0]], [(2, 3), (2,)]


BUILDS = pytest.mark.parametrize(
    "build", [square_root, least_squares, second_order, defined_not_squared], ids=lambda build: build.__name__
)


def both(build) -> tuple[Layer, Layer]:
    """The layer with its reduction, and without."""
    problem, parameters, variables, _ = build()
    reduced = build_layer(problem, parameters, variables)
    assert reduced.kernel.reduction is not None
    full = reduced.compiled.structure
    plain = Kernel(full, None, choose_method(full))
    return reduced, replace(reduced, kernel=plain, options=replace(reduced.options, plan=select(full)))


def values_for(build, rng, batch=4):
    return [
        0.3 + 0.05 * rng.random((batch, *shape)) if not shape else rng.normal(size=(batch, *shape))
        for shape in build()[3]
    ]


@BUILDS
def test_solutions_and_duals_are_those_of_the_full_program(build, rng):
    reduced, plain = both(build)
    values = values_for(build, rng)
    small, large = (layer.forward(values, layer.options) for layer in (reduced, plain))
    assert reduced.kernel.structure.n < plain.kernel.structure.n
    for field in ("x", "y", "s"):
        np.testing.assert_allclose(getattr(small.point, field), getattr(large.point, field), atol=1e-9)
    assert small.point.merit.max() < 1e-12


@BUILDS
def test_derivatives_are_those_of_the_full_program(build, rng):
    reduced, plain = both(build)
    values = values_for(build, rng)
    forward = plain.forward(values, plain.options)
    cotangents = [rng.normal(size=output.shape) for output in forward.outputs]
    tangents = [rng.normal(size=value.shape) for value in values]
    for small, large in (
        (reduced.vjp(forward, cotangents)[0], plain.vjp(forward, cotangents)[0]),
        (reduced.jvp(forward, tangents)[0], plain.jvp(forward, tangents)[0]),
    ):
        for got, want in zip(small, large, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-9 * np.abs(want).max())


def test_both_ways_of_writing_a_quadratic_reach_the_same_solver(rng):
    x, L, P, q = cp.Variable(6), cp.Parameter((6, 6)), cp.Parameter((6, 6), PSD=True), cp.Parameter(6)
    by_root = CvxpyLayer(cp.Problem(cp.Minimize(0.5 * cp.sum_squares(L @ x) + q @ x), [x >= 0]), [L, q], [x])
    by_form = CvxpyLayer(cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, P) + q @ x), [x >= 0]), [P, q], [x])
    roots, costs = rng.normal(size=(3, 6, 6)), rng.normal(size=(3, 6))
    first, second = by_root.solve(roots, costs), by_form.solve(roots.transpose(0, 2, 1) @ roots, costs)
    assert first.info.solver.tolist() == second.info.solver.tolist() == ["DAQP"] * 3
    np.testing.assert_allclose(first.variables[0], second.variables[0], atol=1e-9)


def test_a_factor_model_keeps_its_factors():
    """Eliminating 3 factors of 60 assets would fill a 60 × 60 matrix."""
    x, f, F = cp.Variable(60), cp.Variable(3), cp.Parameter((3, 60))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(f) + cp.sum_squares(x)), [f == F @ x, cp.sum(x) == 1])
    layer = build_layer(problem, [F], [x])
    assert layer.kernel.structure.n >= 63
