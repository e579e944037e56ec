"""Derivatives that inform where the exact one is zero or undefined: smoothed, lpgd, ridge; and who asks for them."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest

import cvxlayers
from cvxlayers import CvxpyLayer
from cvxlayers.cones import Product, Smoothed
from cvxlayers.errors import DerivativeError, DerivativeWarning, OptionError
from cvxlayers.testing import assert_gradients
from tests.doors import DOORS
from tests.problems import CASES

# One problem for each cone, and one of all.
SMOOTHED = ["lp_vertex", "qp_all_data", "soc_ball", "psd_linear_matrix_inequality", "exp_inactive", "power_inactive"]
SMOOTHED += ["every_cone", "exp_geometric_box"]


def linear(**keywords):
    """min c·x s.t. 1ᵀx = b, 0 ≤ x ≤ 1: a linear program whose solution is a vertex."""
    x, c, b = cp.Variable(4, name="x"), cp.Parameter(4, name="c"), cp.Parameter(name="b")
    return CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [cp.sum(x) == b, x >= 0, x <= 1]), [c, b], [x], **keywords)


COSTS, BUDGET = np.array([0.3, 0.1, 0.5, 0.2]), np.array(1.5)


@pytest.mark.parametrize(
    "product",
    [
        Product(zero=2, nonnegative=5),
        Product(second_order=(1, 2, 4, 4)),
        Product(semidefinite=(3, 4)),
        Product(exponential=5),
        Product(power=(0.1, 0.3, 0.5, 0.9)),
    ],
    ids=["polyhedral", "second_order", "semidefinite", "exponential", "power"],
)
@pytest.mark.parametrize("mu", [1.0, 1e-3])
def test_smoothed_projections_are_smooth_and_tend_to_the_projection(product, mu, rng):
    v, w = rng.normal(size=(20, product.dim)), rng.normal(size=(20, product.dim))
    smoothed, h = Smoothed(product, mu), 1e-5
    differences = (smoothed.project(v + h * w) - smoothed.project(v - h * w)) / (2 * h)
    derivative = smoothed.derivative(v)
    np.testing.assert_allclose(derivative.apply(w), differences, atol=2e-7)
    assert (derivative.eigenvalues >= 0).all()
    assert (derivative.eigenvalues < 1).all()
    # Inside the cone, and at a distance from the projection that shrinks like √μ.
    s = smoothed.project(v)
    np.testing.assert_allclose(product.project(s), s, atol=1e-13)
    assert np.abs(Smoothed(product, 1e-10).project(v) - product.project(v)).max() < 1e-4


@pytest.mark.parametrize("mu", [1e-1, 1e-4])
def test_smoothed_inequalities_lie_on_the_central_path(mu, rng):
    v = rng.normal(size=(10, 6))
    s = Smoothed(Product(nonnegative=6), mu).project(-v)
    np.testing.assert_allclose(s * (v + s), mu, rtol=1e-10)
    # Far outside, what is left of v is as small as it may be.
    far = Smoothed(Product(nonnegative=6), 1e-6 * mu).project(-np.abs(v))
    np.testing.assert_allclose(far * (np.abs(v) + far), 1e-6 * mu, rtol=1e-12)


@pytest.mark.parametrize("name", SMOOTHED)
def test_the_smoothed_derivative_is_that_of_the_central_path(name):
    case = CASES[name]
    problem, parameters, variables = case.build()
    layer = CvxpyLayer(problem, parameters, variables, gp=case.gp, derivative="smoothed", mu=1e-2)
    assert_gradients(layer, *case.sample(np.random.default_rng(0), (2,)), conclusive=True)


def test_the_smoothed_derivative_of_a_linear_program_in_closed_form():
    """min c·x on the simplex: on the central path x_i = μ / (c_i + λ), with λ such that they sum to one."""
    x, c = cp.Variable(3), cp.Parameter(3)
    layer = CvxpyLayer(
        cp.Problem(cp.Minimize(c @ x), [cp.sum(x) == 1, x >= 0]), [c], [x], derivative="smoothed", mu=0.1
    )
    costs = np.array([0.0, 0.3, 1.0])
    ((jacobian,),), _ = layer.jacobian([costs])
    low, high = 1e-9, 10.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if (0.1 / (costs + middle)).sum() > 1 else (low, middle)
    slope = 0.1 / (costs + low) ** 2
    np.testing.assert_allclose(jacobian, np.outer(slope, slope) / slope.sum() - np.diag(slope), atol=1e-9)


@pytest.mark.parametrize(("kind", "mu"), [("smoothed", 1e-10), ("lpgd", 1e-6)])
def test_strong_convexity_makes_all_derivatives_agree_as_mu_vanishes(kind, mu, rng):
    x, c, b = cp.Variable(4), cp.Parameter(4), cp.Parameter(3)
    A = rng.normal(size=(3, 4))
    problem = cp.Problem(cp.Minimize(c @ x + cp.sum_squares(x)), [A @ x <= b])
    values, weights = (rng.normal(size=(5, 4)), rng.uniform(0.1, 1.0, size=(5, 3))), rng.normal(size=(5, 4))
    exact, _ = CvxpyLayer(problem, [c, b], [x]).vjp(values, [weights])
    near, info = CvxpyLayer(problem, [c, b], [x], derivative=kind, mu=mu).vjp(values, [weights])
    assert info.residual.max() < 1e-8
    for got, want in zip(near, exact, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-6)


@pytest.mark.parametrize("kind", ["smoothed", "lpgd"])
@pytest.mark.parametrize("door", DOORS)
def test_every_door_learns_the_costs_of_a_linear_program(door, kind):
    layer = linear(derivative=kind, mu=0.3)
    weights = [np.array([1.0, 0.0, 0.0, 0.0])]
    outputs, (c_bar, b_bar) = DOORS[door](layer, [COSTS, BUDGET], weights)
    (want_c, want_b), info = layer.vjp([COSTS, BUDGET], weights)
    np.testing.assert_allclose(outputs[0], [0, 1, 0, 0.5], atol=1e-9)  # the solution itself stays exact
    np.testing.assert_allclose(c_bar, want_c, atol=1e-12)
    np.testing.assert_allclose(b_bar, want_b, atol=1e-12)
    assert c_bar[0] < -0.1  # a larger cost of x₀ means less of it
    assert info.reliable.all()


@pytest.mark.parametrize("kind", ["smoothed", "lpgd"])
def test_small_cotangents_scale_linearly(kind):
    layer = linear(derivative=kind, mu=0.3)
    weights = np.array([1.0, -0.5, 0.2, 0.0])
    whole, _ = layer.vjp([COSTS, BUDGET], [weights])
    tiny, _ = layer.vjp([COSTS, BUDGET], [1e-9 * weights])
    # What is zero is so up to rounding.
    np.testing.assert_allclose(1e9 * tiny[0], whole[0], rtol=1e-9, atol=1e-14)


def test_smoothed_tangents_are_adjoint_to_cotangents(rng):
    layer = linear(derivative="smoothed")
    tangent, cotangent = (rng.normal(size=4), rng.normal(size=())), rng.normal(size=4)
    (dx,), _ = layer.jvp([COSTS, BUDGET], tangent)
    bars, _ = layer.vjp([COSTS, BUDGET], [cotangent])
    assert np.sum(dx * cotangent) == pytest.approx(sum(np.sum(a * b) for a, b in zip(bars, tangent, strict=True)))


def test_a_ridge_is_the_program_with_the_ridge_written_out(rng):
    x, X = cp.Variable(3), cp.Variable((2, 2), symmetric=True)
    c, b = cp.Parameter(3), cp.Parameter((2, 2), symmetric=True)
    cost, constraints = c @ x + cp.norm1(x) + cp.trace(X), [X >> b, x >= -1, x <= 2]
    written = cost + 0.05 * cp.sum_squares(x) + 0.05 * cp.sum_squares(X)
    pair = [
        CvxpyLayer(cp.Problem(cp.Minimize(cost), constraints), [c, b], [x, X], ridge=0.1),
        CvxpyLayer(cp.Problem(cp.Minimize(written), constraints), [c, b], [x, X]),
    ]
    factor = rng.normal(size=(2, 2))
    values = [2 * rng.normal(size=3), factor + factor.T]
    weights = [rng.normal(size=3), rng.normal(size=(2, 2))]
    (x1, X1), (x2, X2) = (layer(*values) for layer in pair)
    np.testing.assert_allclose(x1, x2, atol=1e-8)
    np.testing.assert_allclose(X1, X2, atol=1e-8)
    first, second = (layer.vjp(values, weights)[0] for layer in pair)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert_gradients(pair[0], *values)


@pytest.mark.parametrize("door", DOORS)
def test_the_keywords_are_those_of_every_door(door):
    module = pytest.importorskip("cvxlayers.neutral" if door == "numpy" else f"cvxlayers.{door}")
    x, c = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(c @ x), [x >= 0, cp.sum(x) == 1])
    layer = module.CvxpyLayer(problem, [c], [x], derivative="smoothed", mu=0.5, ridge=0.25, strict=True).layer
    assert (layer.differentiation.kind, layer.differentiation.mu, layer.differentiation.ridge) == (
        "smoothed",
        0.5,
        0.25,
    )
    assert layer.strict
    with pytest.raises(OptionError, match=r"derivative must be one of .*did you mean 'smoothed'"):
        module.CvxpyLayer(problem, [c], [x], derivative="smooth")


def test_they_travel_with_the_file_and_are_described(tmp_path):
    layer = linear(derivative="smoothed", mu=0.5, ridge=0.25, strict=True)
    layer.save(tmp_path / "layer.cvxl")
    loaded = cvxlayers.load(tmp_path / "layer.cvxl")
    assert loaded.layer.differentiation == layer.layer.differentiation
    assert loaded.layer.strict
    weights = [np.array([1.0, 0.0, 0.0, 0.0])]
    first, second = (each.vjp([COSTS, BUDGET], weights)[0] for each in (layer, loaded))
    np.testing.assert_array_equal(first[0], second[0])
    for words in (
        "smoothed: that of the central path at mu = 0.5",
        "0.25 / 2 times the squares",
        "doubtful derivatives",
    ):
        assert words in loaded.describe()


def test_compiled_graphs_of_torch_keep_the_derivative():
    torch = pytest.importorskip("torch")
    operators = pytest.importorskip("cvxlayers.torch_operators")
    layer = linear(derivative="smoothed", mu=0.5)
    costs = torch.tensor(COSTS, requires_grad=True)
    x, _ = operators.solve(operators.encode(layer.layer), [costs, torch.tensor(BUDGET)])
    (got,) = torch.autograd.grad(x[0], costs)
    np.testing.assert_allclose(got, layer.vjp([COSTS, BUDGET], [np.eye(4)[0]])[0][0], atol=1e-12)


WRONG = {
    "kind": ({"derivative": "barrier"}, "derivative must be one of"),
    "exact mu": ({"mu": 0.1}, 'mu has a meaning for derivative="smoothed" and "lpgd" only'),
    "negative mu": ({"derivative": "lpgd", "mu": -1.0}, "mu must be a positive number, got -1.0"),
    "infinite mu": ({"derivative": "smoothed", "mu": np.inf}, "mu must be a positive number, got inf"),
    "negative ridge": ({"ridge": -1.0}, "ridge must be a number that is not negative, got -1.0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_keywords_that_mean_nothing_are_refused(name):
    keywords, words = WRONG[name]
    with pytest.raises(OptionError) as raised:
        linear(**keywords)
    assert words in str(raised.value)


def test_a_linear_program_is_warned_of_once():
    layer = linear()
    with pytest.warns(
        DerivativeWarning, match=r"constant almost everywhere in its costs.*'c' is zero.*smoothed"
    ) as seen:
        [layer.vjp([COSTS, BUDGET], [np.ones(4)]) for _ in range(3)]
    assert len(seen) == 1
    for quiet in (linear(derivative="smoothed"), linear(derivative="lpgd"), linear(ridge=0.1)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            quiet.vjp([COSTS, BUDGET], [np.ones(4)])


def test_informative_derivatives_have_no_second():
    torch = pytest.importorskip("torch")
    module = linear(derivative="smoothed").to_torch()
    costs = torch.tensor(COSTS, requires_grad=True)
    (x,) = module(costs, torch.tensor(BUDGET))
    (gradient,) = torch.autograd.grad(x[0], costs, create_graph=True)
    with pytest.raises(DerivativeError, match='derivative="smoothed" has no second derivatives'):
        gradient.sum().backward()


def test_a_path_that_does_not_exist_is_reported():
    """x is fixed by two inequalities: no interior, so no central path."""
    x, c = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [x >= 1, x <= 1]), [c], [x], derivative="smoothed")
    with pytest.warns(DerivativeWarning, match="The central path was not reached"):
        _, info = layer.vjp([np.ones(2)], [np.ones(2)])
    assert not info.reliable.any()
    with pytest.raises(DerivativeError, match="The central path was not reached"):
        CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [x >= 1, x <= 1]), [c], [x], derivative="smoothed", strict=True).vjp(
            [np.ones(2)], [np.ones(2)]
        )


def test_perturbations_without_a_solution_are_reported():
    """min c·x s.t. x ≥ 0 is unbounded as soon as a cost is negative, on one side or on both."""
    x, c = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [x >= 0]), [c], [x], derivative="lpgd", mu=1.0)
    _, info = layer.vjp([np.full(2, 0.5)], [np.array([1.0, 0.0])])
    assert info.residual == 0.0  # one-sided
    with pytest.warns(DerivativeWarning, match="Neither of the perturbed programs has a solution"):
        (gradient,), info = layer.vjp([np.full(2, 0.5)], [np.array([1.0, -1.0])])
    assert np.isinf(info.residual)
    np.testing.assert_array_equal(gradient, 0.0)
