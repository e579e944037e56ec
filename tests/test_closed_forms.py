"""Layers whose solutions and Jacobians are known in closed form."""

from __future__ import annotations

from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import brentq

from cvxlayers import CvxpyLayer

ACCURATE = 1e-7


def assert_layer(
    layer: CvxpyLayer, point: np.ndarray, value: np.ndarray, pull: Callable[[np.ndarray], np.ndarray], rng
) -> None:
    """Asserts the value of a one-parameter layer, and its vjp for some cotangents, against a closed form."""
    (got,) = layer(point)
    np.testing.assert_allclose(got, value, rtol=0, atol=ACCURATE)
    for _ in range(3):
        cotangent = rng.normal(size=value.shape)
        (gradient,), _ = layer.vjp([point], [cotangent])
        np.testing.assert_allclose(gradient, pull(cotangent), rtol=0, atol=ACCURATE)


def layer_of(objective: Callable, constraints: Callable, shape: tuple[int, ...] | int, **attributes) -> CvxpyLayer:
    """The layer of min objective(y, x) over y under constraints(y), with x as its parameter."""
    x, y = cp.Parameter(shape, **attributes), cp.Variable(shape, **attributes)
    return CvxpyLayer(cp.Problem(cp.Minimize(objective(y, x)), constraints(y)), [x], [y])


def half_square(y, x):
    return 0.5 * cp.sum_squares(y - x)


def simplex_projection(x: np.ndarray) -> np.ndarray:
    """By sorting (Held, Wolfe, Crowder 1974)."""
    descending = np.sort(x)[::-1]
    excess = (np.cumsum(descending) - 1.0) / np.arange(1, len(x) + 1)
    return np.maximum(x - excess[np.flatnonzero(descending > excess)[-1]], 0.0)


@pytest.mark.parametrize("size", [2, 5, 30])
def test_softmax(size, rng):
    layer = layer_of(lambda y, x: -x @ y - cp.sum(cp.entr(y)), lambda y: [cp.sum(y) == 1], size)
    x = 3 * rng.normal(size=(4, size))
    y = np.exp(x - x.max(axis=1, keepdims=True))
    y /= y.sum(axis=1, keepdims=True)
    assert_layer(layer, x, y, lambda g: y * g - y * np.sum(y * g, axis=1, keepdims=True), rng)


def test_softmax_jacobian(rng):
    layer = layer_of(lambda y, x: -x @ y - cp.sum(cp.entr(y)), lambda y: [cp.sum(y) == 1], 6)
    x = rng.normal(size=6)
    y = np.exp(x) / np.exp(x).sum()
    jacobian = np.stack([layer.vjp([x], [row])[0][0] for row in np.eye(6)])
    np.testing.assert_allclose(jacobian, np.diag(y) - np.outer(y, y), rtol=0, atol=ACCURATE)


@pytest.mark.parametrize("size", [3, 8, 40])
def test_sparsemax_is_the_projection_on_the_simplex(size, rng):
    layer = layer_of(half_square, lambda y: [cp.sum(y) == 1, y >= 0], size)
    x = rng.normal(size=(6, size))
    y = np.stack([simplex_projection(row) for row in x])
    support = y > 0
    count = support.sum(axis=1, keepdims=True)
    assert_layer(layer, x, y, lambda g: support * (g - np.sum(support * g, axis=1, keepdims=True) / count), rng)


def test_relu(rng):
    layer = layer_of(half_square, lambda y: [y >= 0], (3, 4))
    x = rng.normal(size=(5, 3, 4))
    assert_layer(layer, x, np.maximum(x, 0), lambda g: g * (x > 0), rng)


def test_projection_on_the_ball(rng):
    layer = layer_of(half_square, lambda y: [cp.norm(y) <= 1], 5)
    x = rng.normal(size=(6, 5))
    x *= np.array([0.3, 0.9, 1.1, 2.0, 5.0, 100.0])[:, None] / np.linalg.norm(x, axis=1, keepdims=True)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    unit, inside = x / norm, norm <= 1

    def pull(g):
        across = (g - unit * np.sum(unit * g, axis=1, keepdims=True)) / norm
        return np.where(inside, g, across)

    assert_layer(layer, x, np.where(inside, x, unit), pull, rng)


def test_projection_on_the_box(rng):
    layer = layer_of(half_square, lambda y: [y <= 1, y >= -0.5], 7)
    x = 2 * rng.normal(size=(4, 7))
    assert_layer(layer, x, np.clip(x, -0.5, 1), lambda g: g * ((x > -0.5) & (x < 1)), rng)


@pytest.mark.parametrize("order", [2, 4, 8])
def test_projection_on_the_semidefinite_cone(order, rng):
    layer = layer_of(half_square, lambda y: [y >> 0], (order, order), symmetric=True)
    x = rng.normal(size=(3, order, order))
    x = x + np.swapaxes(x, 1, 2)
    eigenvalues, Q = np.linalg.eigh(x)
    above = np.maximum(eigenvalues, 0)
    size = np.abs(eigenvalues)
    share = (above[:, :, None] + above[:, None, :]) / (size[:, :, None] + size[:, None, :])
    transposed = np.swapaxes(Q, 1, 2)

    def pull(g):
        return Q @ (share * (transposed @ ((g + np.swapaxes(g, 1, 2)) / 2) @ Q)) @ transposed

    assert_layer(layer, x, (Q * above[:, None, :]) @ transposed, pull, rng)


def soft_top_k(size: int, k: int) -> CvxpyLayer:
    """The limited multi-label layer of Amos, Koltun, Kolter (2019)."""
    return layer_of(lambda y, x: -x @ y - cp.sum(cp.entr(y)) - cp.sum(cp.entr(1 - y)), lambda y: [cp.sum(y) == k], size)


@pytest.mark.parametrize(("size", "k"), [(10, 2), (12, 5)])
def test_soft_top_k(size, k, rng):
    x = rng.normal(size=(3, size))

    def sigmoid(row, nu):
        return 1 / (1 + np.exp(-row - nu))

    y = np.stack(
        [sigmoid(row, brentq(lambda nu, row=row: sigmoid(row, nu).sum() - k, -50, 50, xtol=1e-14)) for row in x]
    )
    h = y * (1 - y)

    def pull(g):
        return h * (g - np.sum(h * g, axis=1, keepdims=True) / h.sum(axis=1, keepdims=True))

    assert_layer(soft_top_k(size, k), x, y, pull, rng)


def test_soft_top_k_reference_values():
    """Values of locuslab/lml's test problem, to the digits that they are known to."""
    np.random.seed(0)  # noqa: NPY002 - the reference values rest on the legacy generator
    x = np.random.random(10)  # noqa: NPY002
    layer = soft_top_k(10, 2)
    (y,) = layer(x)
    want = [0.187941, 0.214658, 0.196313, 0.187342, 0.16958, 0.203208, 0.171551, 0.245921, 0.259494, 0.163992]
    np.testing.assert_allclose(y, want, rtol=0, atol=6e-7)
    (row,), _ = layer.vjp([x], [np.eye(10)[0]])
    want = [0.137977, -0.016174, -0.015137, -0.014606, -0.013511, -0.015534, -0.013635, -0.017791, -0.018436, -0.013153]
    np.testing.assert_allclose(row, want, rtol=0, atol=6e-7)


def test_soft_top_k_near_a_hard_choice():
    (y,) = soft_top_k(5, 2)(np.array([-4.0695, 10.8666, 13.0867, -7.1431, -14.7220]))
    np.testing.assert_allclose(y, [5.8745e-04, 9.9945e-01, 9.9994e-01, 2.7187e-05, 1.3897e-08], rtol=1e-4, atol=0)
    assert y.sum() == pytest.approx(2, abs=1e-12)


def test_least_moments_of_a_polynomial(rng):
    """A tight relaxation whose dual is not unique: xᵏ at the global minimiser, and dx/daⱼ = −j xʲ⁻¹ / p''(x)."""
    a, moments = cp.Parameter(7), cp.Variable(7)
    hankel = cp.bmat([[moments[i + j] for j in range(4)] for i in range(4)])
    layer = CvxpyLayer(cp.Problem(cp.Minimize(a @ moments), [hankel >> 0, moments[0] == 1]), [a], [moments])
    powers = np.arange(7)
    for _ in range(5):
        p = 6 * np.polynomial.Polynomial.fromroots(rng.uniform(-1.5, 1.5, 5)).integ()
        roots = p.deriv().roots()
        stationary = roots.real[np.abs(roots.imag) < 1e-9]
        x = stationary[np.argmin(p(stationary))]
        slopes = powers * x ** np.maximum(powers - 1, 0)
        jacobian = -np.outer(slopes, slopes) / p.deriv(2)(x)
        assert_layer(layer, p.coef, x**powers, jacobian.dot, rng)
