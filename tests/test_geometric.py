"""Geometric programs whose coefficients are tiny and huge: values are right, or the item says that they are not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from cvxlayers import CvxpyLayer, SolverError, Status
from cvxlayers.errors import CvxlayersWarning

VALUES = 10.0 ** np.array([-300, -200, -100, -30, -12, -5, -0.3, 0, 0.5, 4, 11, 30, 100, 300])
GRID = [side.ravel() for side in np.meshgrid(VALUES, VALUES)]


def positive(count: int, leaf: Any) -> list[Any]:
    return [leaf(pos=True) for _ in range(count)]


def layer_of(build: Callable[..., Any], outputs: int, **keywords: Any) -> CvxpyLayer:
    """A layer of p and q with as many variables, all of them outputs."""
    parameters, variables = positive(2, cp.Parameter), positive(outputs, cp.Variable)
    return CvxpyLayer(build(*parameters, *variables), parameters, variables, gp=True, **keywords)


def sum_of_two(p, q, x):
    return cp.Problem(cp.Minimize(x), [p + q <= x])


def balance(p, q, x):
    return cp.Problem(cp.Minimize(p * x + q / x))


def knee(p, q, x):
    return cp.Problem(cp.Minimize(cp.maximum(p / x, q * x)))


def root(p, q, x):
    return cp.Problem(cp.Maximize(x), [p * x + q * x**2 <= 1])


def difference(p, q, x):
    return cp.Problem(cp.Maximize(x), [p + x <= q])


def faint(p, q, x, y):
    """x = max(q, √p), y = p / x: beside x the objective feels y as little as it is small."""
    return cp.Problem(cp.Minimize(x + y), [x * y >= p, x >= q])


def log_of_root(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """log x for p x + q x² = 1: with x = exp(−log q / 2) u, c u + u² = 1."""
    log_c = np.log(p) - 0.5 * np.log(q)
    c = np.exp(np.minimum(log_c, 200.0))
    return np.where(log_c > 200.0, -np.log(p), np.log(2 / (c + np.sqrt(c**2 + 4))) - 0.5 * np.log(q))


LOGS = {
    sum_of_two: lambda p, q: np.logaddexp(np.log(p), np.log(q)),
    balance: lambda p, q: 0.5 * (np.log(q) - np.log(p)),
    knee: lambda p, q: 0.5 * (np.log(p) - np.log(q)),
    root: log_of_root,
}


@pytest.mark.parametrize("build", LOGS, ids=lambda build: build.__name__)
def test_values_are_those_of_closed_forms_from_1e_300_to_1e300(build):
    layer = layer_of(build, 1)
    wanted = LOGS[build](*GRID)
    result = layer.solve(*GRID)
    assert (result.status == Status.SOLVED).all()
    np.testing.assert_allclose(np.log(result.variables[0]), wanted, rtol=1e-13, atol=1e-10)


@pytest.mark.parametrize("p", [1.0, 1e-30, 1e-100, 1e-300, 1e100])
def test_what_is_left_of_nearly_everything_is_right_or_called_inaccurate(p):
    """x = q − p for q = (1 + d) p: the multiplier is 1/d, by which it amplifies what is violated by rounding."""
    layer, d = layer_of(difference, 1), 10.0 ** -np.arange(15)
    q = p * (1 + d)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CvxlayersWarning)
        result = layer.solve(np.array(p), q, on_failure="nan")
        none = layer.solve(np.array(p), np.array(p), on_failure="nan")
    solved = result.status == Status.SOLVED
    assert solved[d > 1e-6].all()
    np.testing.assert_allclose(result.variables[0][d > 1e-6], (q - p)[d > 1e-6], rtol=1e-8)
    np.testing.assert_allclose(result.variables[0][solved], (q - p)[solved], rtol=1e-2)
    assert none.status != Status.SOLVED  # without a solution


def test_the_gap_is_relative_to_the_natural_size_of_an_optimal_value_that_vanishes():
    result = layer_of(difference, 1).solve(np.array(1.0), np.array(2.0))
    assert result.info.gap <= 1e-13
    np.testing.assert_allclose(result.objective, 1.0, rtol=1e-12)


def test_no_derivative_of_a_variable_that_the_objective_hardly_feels_is_called_reliable_and_wrong():
    layer = layer_of(faint, 2, on_failure="nan")
    exponents = np.concatenate([np.arange(-300, 301, 40), np.linspace(-12, 12, 14)])
    p, q = (10.0 ** side.ravel() for side in np.meshgrid(exponents, exponents))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CvxlayersWarning)
        result = layer.solve(p, q)
        y = result.variables[1]
        (pulled, _), info = layer.vjp([p, q], [None, np.divide(1.0, y, out=np.zeros(len(y)), where=y > 0)])
    wanted = np.where(q > np.sqrt(p), 1.0, 0.5)
    kept = info.reliable & (p > 1e-300) & (y > 1e-300)
    np.testing.assert_allclose((pulled * p)[kept], wanted[kept], rtol=1e-4)
    log_y = np.where(q > np.sqrt(p), np.log(p) - np.log(q), 0.5 * np.log(p))
    np.testing.assert_allclose(np.log(y[kept]), log_y[kept], atol=1e-6)
    # Where y is no small share of the objective it is felt; derivatives by q = 1e-300 underflow.
    log_x, edge = np.log(np.maximum(q, np.sqrt(p))), np.log(q) - 0.5 * np.log(p)
    felt = (log_y - log_x > np.log(1e-5)) & (abs(edge) > 1e-3)
    assert info.reliable[felt & result.ok & (q > 1e-280)].all()
    assert result.ok.sum() >= len(p) - 1


def test_outputs_that_the_objective_feels_are_reliable_beside_others_that_it_does_not():
    p, x, y = (cp.Parameter(pos=True), *positive(2, cp.Variable))
    alone = CvxpyLayer(faint(p, 1e6, x, y), [p], [x], gp=True)
    assert alone.vjp([np.array(1.0)], [np.array(1.0)])[1].reliable


def test_a_variable_beyond_all_numbers_is_a_failure():
    x, y, p = cp.Variable(pos=True), cp.Variable(pos=True), cp.Parameter(pos=True)
    text = cp.Problem(cp.Maximize(y), [x <= p, y <= x**2])
    layer, values = CvxpyLayer(text, [p], [x, y], gp=True), np.array([1e100, 1e200])
    with pytest.raises(SolverError, match=r"item 1: numerical error \(.* residual inf\)") as caught:
        layer(values)
    assert caught.value.items == (1,)
    assert caught.value.statuses == (Status.NUMERICAL_ERROR,)
    found, squares = layer(values, on_failure="nan")
    np.testing.assert_allclose(found[0], 1e100)
    np.testing.assert_allclose(squares[0], 1e200, rtol=1e-12)
    assert np.isnan([found[1], squares[1]]).all()
    np.testing.assert_array_equal(layer(values, on_failure="mask")[1][1], 0.0)
    result = layer.solve(values, on_failure="nan")
    assert result.status.tolist() == [Status.SOLVED, Status.NUMERICAL_ERROR]
    assert np.isnan(result.objective[1])
    # What is not asked for may be anything.
    np.testing.assert_allclose(CvxpyLayer(text, [p], [x], gp=True)(values)[0], values, rtol=1e-12)


def test_a_failure_without_a_point_stays_what_it_is():
    x, y, p = cp.Variable(pos=True), cp.Variable(pos=True), cp.Parameter(pos=True)
    text = cp.Problem(cp.Maximize(y), [x <= p, x >= 1, y <= x**2])
    result = CvxpyLayer(text, [p], [x, y], gp=True).solve(np.array([0.5, 2.0, 1e200, np.nan]), on_failure="nan")
    wanted = [Status.INFEASIBLE, Status.SOLVED, Status.NUMERICAL_ERROR, Status.INVALID_INPUT]
    assert result.status.tolist() == wanted
