"""What was measured to be wrong in other layers, as tests of this one."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from cvxlayers import CvxpyLayer, Status
from cvxlayers.testing import assert_gradients


@pytest.mark.parametrize("order", [4, 5])
def test_semidefinite_matrices_of_order_four_and_more(order, rng):
    """Projection on the cone, with two and more positive eigenvalues: feasible, in closed form, and differentiable."""
    X, C = cp.Variable((order, order), PSD=True), cp.Parameter((order, order), symmetric=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(X - C))), [C], [X])
    basis = np.linalg.qr(rng.normal(size=(order, order)))[0]
    eigenvalues = np.array([2.0, 1.0, -0.5, -1.5, 0.7])[:order]
    value = (basis * eigenvalues) @ basis.T
    np.testing.assert_allclose(layer(value)[0], (basis * np.maximum(eigenvalues, 0)) @ basis.T, atol=1e-8)
    assert_gradients(layer, value, conclusive=True)


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.7])
def test_power_cones_of_any_exponent(alpha, rng):
    x, p = cp.Variable(3), cp.Parameter(3)
    cone = cp.PowCone3D(x[0], x[1], x[2], alpha)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cone]), [p], [x])
    assert_gradients(layer, np.array([[0.2, 0.5, 1.5], [1.0, -0.3, 0.8], [0.4, 0.4, -1.0]]), conclusive=True)


def test_upstream_gradients_of_1e_9_are_no_zeros(rng):
    x, p = cp.Variable(3), cp.Parameter(3)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cp.norm(x) <= 1]), [p], [x])
    value, weight = 3 * rng.normal(size=3), rng.normal(size=3)
    whole, tiny = (layer.vjp([value], [size * weight])[0][0] for size in (1.0, 1e-9))
    assert np.abs(whole).max() > 1e-2
    np.testing.assert_allclose(1e9 * tiny, whole, rtol=1e-9)


def test_the_arrays_of_the_caller_keep_their_values(rng):
    x, A, b = cp.Variable(3), cp.Parameter((2, 3)), cp.Parameter(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x)), [A @ x == b, x <= 5]), [A, b], [x])
    values, weights = [rng.normal(size=(4, 2, 3)), rng.normal(size=(4, 2))], [rng.normal(size=(4, 3))]
    values[0][:, 0, 1] = 0.0  # an explicit zero stays stored
    before = [array.copy() for array in (*values, *weights)]
    layer(*values)
    layer.vjp(values, weights)
    layer.jvp(values, values)
    for array, want in zip((*values, *weights), before, strict=True):
        np.testing.assert_array_equal(array, want)


@pytest.mark.parametrize("solver", [None, "PIQP", "CLARABEL", "SCS"])
def test_an_unbounded_linear_program_is_not_solved(solver):
    x, c = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [x <= 1]), [c], [x], solver=solver, on_failure="mask")
    result = layer.solve(np.array([[1.0, 1.0], [-1.0, -1.0]]))
    assert result.status.tolist() == [Status.UNBOUNDED, Status.SOLVED]
    (gradient,), _ = layer.vjp([np.array([[1.0, 1.0], [-1.0, -1.0]])], [np.ones((2, 2))])
    np.testing.assert_array_equal(gradient[0], 0.0)


def test_an_infeasible_item_has_no_gradient_and_disturbs_none(rng):
    x, c, b = cp.Variable(2), cp.Parameter(2), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [cp.sum(x) == b, x >= 0])
    layer = CvxpyLayer(problem, [c, b], [x], on_failure="mask")
    costs, sums = rng.normal(size=(3, 2)), np.array([1.0, -1.0, 2.0])
    gradients, _ = layer.vjp([costs, sums], [np.ones((3, 2))])
    alone, _ = layer.vjp([costs[[0, 2]], sums[[0, 2]]], [np.ones((2, 2))])
    for gradient, want in zip(gradients, alone, strict=True):
        np.testing.assert_array_equal(gradient[[0, 2]], want)
        assert not gradient[1].any()


@pytest.mark.parametrize("solver", [None, "PIQP", "CLARABEL"])
def test_duplicated_equalities_are_solved_and_flagged(solver):
    x, b = cp.Variable(2), cp.Parameter(2)
    row = np.array([1.0, 2.0])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [row @ x == b[0], row @ x == b[1], x <= 9])
    layer = CvxpyLayer(problem, [b], [x], solver=solver)
    np.testing.assert_allclose(layer(np.full(2, 5.0))[0], [1.0, 2.0], atol=1e-9)
    (gradient,), info = layer.vjp([np.full(2, 5.0)], [np.ones(2)])
    np.testing.assert_allclose(gradient, [0.3, 0.3], atol=1e-7)
    assert info.dependent


def test_two_solves_before_one_backward():
    torch = pytest.importorskip("torch")
    x, q = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x) + q @ x), [x >= 0])
    layer = CvxpyLayer(problem, [q], [x]).to_torch()
    first, second = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([-1.0, 1.0], [1.0, -1.0]))
    (a,), (b,) = layer(first), layer(second)
    (a.sum() + 10 * b.sum()).backward()
    np.testing.assert_allclose(first.grad, [-1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(second.grad, [0.0, -10.0], atol=1e-12)
