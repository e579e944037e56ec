"""Frozen parameters: the layer is that of the problem with constants in their place."""

from __future__ import annotations

from typing import Any

import cvxpy
import numpy as np
import pytest

from cvxlayers import CvxpyLayer
from cvxlayers.errors import SignatureError
from tests.cvxpy_problems import normal, positive_definite
from tests.problems import CASES, Case

cp: Any = cvxpy

pytestmark = [
    pytest.mark.filterwarnings("ignore:The problem has an expression with dimension greater than 2"),
    pytest.mark.filterwarnings("ignore:.*sparse CVXPY expression"),
]


@pytest.mark.parametrize("case", [case for case in CASES.values() if len(case.build()[1]) > 1], ids=str)
def test_freezing_one_parameter_changes_no_value_and_no_gradient(case: Case, rng):
    problem, parameters, variables = case.build()
    values = case.sample(rng)
    first, *rest = parameters
    whole = CvxpyLayer(problem, parameters, variables, gp=case.gp)
    with np.errstate(all="ignore"):
        first.value = values[0]
    part = CvxpyLayer(problem, rest, variables, gp=case.gp, freeze=[first])
    cotangents = [np.ones(variable.shape) for variable in variables]
    for got, want in zip(part(*values[1:]), whole(*values), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-7)
    (got, _), (want, _) = part.vjp(values[1:], cotangents), whole.vjp(values, cotangents)
    for one, other in zip(got, want[1:], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_problem_is_left_alone_and_later_values_do_not_matter():
    x, a, w = cp.Variable(2), cp.Parameter(2), cp.Parameter(2, value=np.ones(2))
    constraint = x >= w
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [constraint])
    before = str(problem)
    layer = CvxpyLayer(problem, [a], [x, constraint], freeze=[w])
    w.value = np.full(2, 5.0)
    assert str(problem) == before
    assert problem.parameters() == [a, w]
    result = layer.solve(np.array([0.0, 3.0]))
    np.testing.assert_allclose(result.primal[x], [1, 3], atol=1e-9)
    np.testing.assert_allclose(result.dual[constraint], [2, 0], atol=1e-8)
    np.testing.assert_allclose(result.variables[1], [2, 0], atol=1e-8)


def test_freezing_makes_products_and_quadratic_forms_of_parameters_affine():
    x, A, B, P = cp.Variable(3), cp.Parameter((3, 3)), cp.Parameter((3, 3)), cp.Parameter((3, 3), PSD=True)
    A.value, P.value = normal(3, 3), positive_definite(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ B @ x - 1) + cp.quad_form(x - 1, P)), [cp.quad_form(x, P) <= 1])
    (got,) = CvxpyLayer(problem, [B], [x], freeze=[A, P])(np.eye(3))
    B.value = np.eye(3)
    with pytest.warns(UserWarning, match="not DPP"):
        problem.solve(solver=cp.CLARABEL)
    np.testing.assert_allclose(got, x.value, atol=1e-5)


EXPONENTS = {
    "power": lambda x, p: (cp.sum(cp.power(x, p)), []),
    "power_cone": lambda x, p: (0, [cp.PowCone3D(x[0], x[1], x[2], p)]),
}


@pytest.mark.parametrize("name", list(EXPONENTS))
def test_a_frozen_exponent_is_a_constant(name):
    x, r = cp.Variable(3), cp.Parameter(3)
    for exponent in (0.3, 0.4) if name == "power_cone" else (2.5, 3.0):
        found = []
        for p in (cp.Parameter(pos=True, value=exponent), exponent):
            term, constraints = EXPONENTS[name](x, p)
            problem = cp.Problem(cp.Minimize(term + cp.sum_squares(x - r)), constraints)
            frozen = [p] if p is not exponent else []
            found.append(CvxpyLayer(problem, [r], [x], freeze=frozen)(np.array([1.0, 2.0, 3.0]))[0])
        np.testing.assert_allclose(*found, atol=1e-9)


def test_what_cannot_be_frozen():
    a, b, c = (cp.Parameter(2, name=name) for name in "abc")
    bound = cp.Parameter(2, name="bound", value=np.ones(2))
    x = cp.Variable(2, bounds=[0, bound])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a + b)))
    with pytest.raises(SignatureError, match=r"a has none: set a\.value"):
        CvxpyLayer(problem, [b, bound], [x], freeze=[a])
    with pytest.raises(SignatureError, match="not in the problem: c"):
        CvxpyLayer(problem, [a, b, bound], [x], freeze=[c])
    with pytest.raises(SignatureError, match="both listed and frozen: bound"):
        CvxpyLayer(problem, [a, b, bound], [x], freeze=[bound])
    with pytest.raises(SignatureError, match="cannot replace bound inside the attributes of a variable"):
        CvxpyLayer(problem, [a, b], [x], freeze=[bound])
    with pytest.raises(SignatureError, match="freeze must be a list or tuple of parameters, got Parameter"):
        CvxpyLayer(problem, [a, b], [x], freeze=bound)
