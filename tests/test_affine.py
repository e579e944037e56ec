"""Layers whose solution is an affine function of their parameters: one product a call."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

from cvxlayers import CvxpyLayer, SolverError, kernel, solve


def regulator():
    """As a function of the first state."""
    rng = np.random.default_rng(0)
    A, B = 0.4 * rng.normal(size=(3, 3)), rng.normal(size=(3, 2))
    x, u, x0 = cp.Variable((3, 7)), cp.Variable((2, 6)), cp.Parameter(3)
    rows = [x[:, 0] == x0, x[:, 1:] == A @ x[:, :-1] + B @ u]
    return cp.Problem(cp.Minimize(cp.sum_squares(x) + 0.1 * cp.sum_squares(u)), rows), [x0], [u, x]


def least_squares():
    """As a function of the right-hand side and of linear costs, with a constant in the objective."""
    F = np.random.default_rng(1).normal(size=(9, 4))
    x, g, c = cp.Variable(4), cp.Parameter(9), cp.Parameter((2, 2))
    return cp.Problem(cp.Minimize(cp.sum_squares(F @ x - g) + cp.vec(c, order="C") @ x + 3)), [g, c], [x]


def projection():
    """On an affine set that moves; the dual variable is asked for too. One parameter does nothing."""
    G = np.random.default_rng(2).normal(size=(2, 5))
    x, point, h, idle = cp.Variable(5), cp.Parameter(5), cp.Parameter(2), cp.Parameter()
    row = G @ x == h
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - point) + 0 * idle), [row])
    return problem, [point, h, idle], [x, row.dual_variables[0]]


BUILDS = pytest.mark.parametrize("build", [regulator, least_squares, projection], ids=lambda build: build.__name__)


def both(build, **keywords):
    """The layer, and the same one that solves every program."""
    product, plain = (CvxpyLayer(*build(), recognise=recognise, **keywords) for recognise in (True, False))
    assert product.layer.affine is not None
    assert plain.layer.affine is None
    return product, plain


def values_for(build, rng, batch=5):
    return [rng.normal(size=(batch, *parameter.shape)) for parameter in build()[1]]


@BUILDS
def test_solutions_and_derivatives_are_those_of_the_solved_programs(build, rng):
    product, plain = both(build)
    values = values_for(build, rng)
    got, want = product(*values), plain(*values)
    cotangents = [rng.normal(size=output.shape) for output in want]
    tangents = [rng.normal(size=value.shape) for value in values]
    pairs = [
        (got, want),
        (product.vjp(values, cotangents)[0], plain.vjp(values, cotangents)[0]),
        (product.jvp(values, tangents)[0], plain.jvp(values, tangents)[0]),
    ]
    for mine, theirs in pairs:
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-13 * max(1.0, np.abs(other).max()))
    assert product.vjp(values, cotangents)[1].residual.max() < 1e-12


@BUILDS
def test_no_program_is_solved(build, rng, monkeypatch):
    product, _ = both(build)
    values = values_for(build, rng)

    def refuse(*_):
        raise AssertionError("a program was solved")

    for room, name in ((solve, "solve_batch"), (solve, "polish"), (kernel, "factorise")):
        monkeypatch.setattr(room, name, refuse)
    cotangents = [rng.normal(size=output.shape) for output in product(*values)]
    product.vjp(values, cotangents)


@BUILDS
def test_results_say_what_the_solved_programs_say(build, rng):
    product, plain = both(build)
    values = values_for(build, rng)
    mine, theirs = product.solve(*values), plain.solve(*values)
    np.testing.assert_allclose(mine.objective, theirs.objective, rtol=1e-12)
    for one, other in zip(mine.dual.values(), theirs.dual.values(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)
    assert (mine.info.solver == theirs.info.solver).all()
    assert (mine.info.iterations == theirs.info.iterations).all()
    assert max(mine.info.primal.max(), mine.info.dual.max()) < 1e-13
    assert mine.ok.all()


@BUILDS
def test_an_item_has_the_same_bits_alone(build, rng):
    product, _ = both(build)
    values = values_for(build, rng)
    together = product(*values)
    for item in range(5):
        alone = product(*(value[[item]] for value in values))
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_array_equal(one[[item]], other)


def test_invalid_items_fail_alone(rng):
    product, plain = both(least_squares, on_failure="mask")
    values = values_for(least_squares, rng)
    whole = product(*values)[0]
    values[0][2, 1], values[1][4] = np.nan, np.inf
    got, want = product.solve(*values), plain.solve(*values)
    np.testing.assert_array_equal(got.status, want.status)
    np.testing.assert_array_equal(got.variables[0][[2, 4]], want.variables[0][[2, 4]])
    good = [0, 1, 3]
    np.testing.assert_array_equal(product(*values)[0][good], whole[good])
    gradients, info = product.vjp(values, [np.ones((5, 4))])
    assert all((gradient[[2, 4]] == 0).all() and (gradient[good] != 0).any() for gradient in gradients)
    assert np.isnan(info.residual[[2, 4]]).all()
    with pytest.raises(SolverError, match="item 2"):
        CvxpyLayer(*least_squares())(*values)


def test_the_optimal_value_is_differentiated(rng):
    torch = pytest.importorskip("torch")
    from cvxlayers.torch import CvxpyLayer as TorchLayer

    product, plain = (TorchLayer(*least_squares(), recognise=recognise) for recognise in (True, False))
    values = [torch.tensor(value, requires_grad=True) for value in values_for(least_squares, rng)]
    found = []
    for layer in (product, plain):
        result = layer.solve(*values)
        (result.objective.sum() + result.variables[0].square().sum()).backward()
        found.append([value.grad.clone() for value in values])
        for value in values:
            value.grad = None
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradgradcheck(lambda *tensors: product(*tensors)[0].square(), values)


def test_values_that_change_after_the_call_change_nothing(rng):
    layer = CvxpyLayer(*least_squares()).layer
    values = values_for(least_squares, rng)
    call = layer.forward(values, layer.options)
    want = layer.objective(replace(call))
    values[0][:] = 0.0
    np.testing.assert_array_equal(layer.objective(call), want)


def test_what_is_not_affine_or_not_unique_is_solved():
    x, c, F = cp.Variable(3), cp.Parameter(3), np.ones((2, 3))
    not_unique = cp.Problem(cp.Minimize(cp.sum_squares(F @ x - c[:2])))
    bounded = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0])
    for problem in (not_unique, bounded):
        assert CvxpyLayer(problem, [c], [x]).layer.affine is None


@pytest.mark.parametrize(("weight", "found"), [(1e-4, True), (1e-11, False)])
def test_an_ill_conditioned_problem_is_solved_anew(weight, found):
    x, c = cp.Variable(2), cp.Parameter(2)
    cost = cp.square(x[0] - x[1]) + weight * cp.square(x[0] + x[1])
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cost + c @ x)), [c], [x])
    assert (layer.layer.affine is not None) == found


def test_another_solver_a_warm_start_and_smoothing_go_their_own_ways(rng, monkeypatch):
    values = values_for(projection, rng)
    product, _ = both(projection)
    result = product.solve(*values)
    asked = []
    polish = solve.polish
    monkeypatch.setattr(solve, "polish", lambda *rest, **more: asked.append(1) or polish(*rest, **more))
    np.testing.assert_allclose(product(*values, warm_start=result)[0], result.variables[0], atol=1e-13)
    assert asked
    asked.clear()
    other = CvxpyLayer(*projection(), solver="CLARABEL")
    np.testing.assert_allclose(other(*values)[0], result.variables[0], atol=1e-12)
    assert other.layer.affine is None
    assert asked


def test_what_equalities_fix_is_differentiated_after_a_warm_start_too():
    x, c, b = cp.Variable(2), cp.Parameter(2), cp.Parameter(2)
    row = 2 * x == b
    layer = CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [row]), [c, b], [x, row.dual_variables[0]])
    values = [np.array([1.0, -2.0]), np.array([3.0, 4.0])]
    start = layer.solve(*values).warm_start
    call = layer.layer.forward(values, layer.layer.options, start)
    np.testing.assert_allclose(call.outputs, [[1.5, 2.0], [-0.5, 1.0]], rtol=1e-15)
    weights, dual_weights = np.array([1.0, -3.0]), np.array([5.0, 7.0])
    pulled, info = layer.layer.vjp(call, [weights, dual_weights])
    np.testing.assert_allclose(pulled, [-dual_weights / 2, weights / 2], rtol=1e-15)
    assert info.reliable


def test_describe_says_so():
    assert "affine function of the parameters" in CvxpyLayer(*regulator()).describe()
    assert "affine function" not in CvxpyLayer(*regulator(), recognise=False).describe()


def difference_of_costs(**keywords):
    """Costs that are a difference of parameters, and a dual variable that is large whatever x is."""
    x, p, r, h = cp.Variable(3), cp.Parameter(3), cp.Parameter(3), cp.Parameter()
    row = cp.sum(x) == h
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x) + (p - r) @ x + 1e4 * cp.sum(x)), [row])
    return CvxpyLayer(problem, [p, r, h], [x, row.dual_variables[0]], **keywords)


@pytest.mark.parametrize("size", [1e8, 1e12])
def test_items_whose_terms_cancel_are_solved_one_by_one(size, rng):
    product, plain = difference_of_costs(), difference_of_costs(recognise=False)
    p, h = rng.normal(size=(4, 3)), np.array([1.0, 1.0, 1e-9, 1e3])
    r = rng.normal(size=(4, 3))
    p[1] *= size
    r[1] = p[1] - r[1]
    values = [p, r, h]
    got, want = product.solve(*values), plain.solve(*values)
    for one, other in zip(got.variables, want.variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)
    assert got.info.primal.max() < 1e-12
    assert got.info.dual.max() < 1e-12
    np.testing.assert_allclose(got.objective, want.objective, rtol=1e-10)
    cotangents = [rng.normal(size=output.shape) for output in want.variables]
    for one, other in zip(product.vjp(values, cotangents)[0], plain.vjp(values, cotangents)[0], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)
    alone = product(*(value[[1]] for value in values))
    np.testing.assert_array_equal(alone[0], got.variables[0][[1]])
    np.testing.assert_array_equal(product(*(value[[0]] for value in values))[0], got.variables[0][[0]])


def test_terms_cancel_sooner_where_rows_nearly_depend_on_one_another():
    rng, x, p, h = np.random.default_rng(0), cp.Variable(3), cp.Parameter(3), cp.Parameter(2)
    G = np.ones((2, 3)) + 1e-3 * rng.normal(size=(2, 3))
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, np.eye(3)) - p @ x), [G @ x == h])
    product, plain = (CvxpyLayer(problem, [p, h], [x], recognise=recognise) for recognise in (True, False))
    assert product.layer.affine is not None
    values = [rng.normal(size=(200, 3)), rng.normal(size=(200, 3)) @ G.T]
    np.testing.assert_allclose(product(*values)[0], plain(*values)[0], atol=1e-10)


def test_layers_can_be_copied_and_pickled(rng):
    layer = CvxpyLayer(*least_squares())
    values = values_for(least_squares, rng)
    want = layer(*values)[0]
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.layer.affine is not None
        np.testing.assert_array_equal(other(*values)[0], want)
