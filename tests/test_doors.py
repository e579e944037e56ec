"""Every problem of the catalogue in every framework: values and gradients are the core's."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from cvxlayers import CvxpyLayer
from cvxlayers.errors import CvxlayersWarning
from tests import checks
from tests.doors import DOORS
from tests.problems import CASES, Case

CASE = pytest.mark.parametrize("case", CASES.values(), ids=str)
DOOR = pytest.mark.parametrize("door", DOORS)
EXACT = 1e-12
# How float32 results differ from the core's at the same numbers: by their own rounding, times the condition number of
# what the framework then still sums.
SINGLE = 1e-5

pytestmark = [
    pytest.mark.filterwarnings("ignore:The problem has an expression with dimension greater than 2"),
    pytest.mark.filterwarnings("ignore:.*sparse CVXPY expression"),
]


def layer_of(case: Case) -> CvxpyLayer:
    problem, parameters, variables = case.build()
    return CvxpyLayer(problem, parameters, variables, gp=case.gp)


def core(layer: CvxpyLayer, values: list[np.ndarray], cotangents: list[np.ndarray]):
    """Outputs and gradients of the core, in float64."""
    forward = layer.layer.forward([np.asarray(value, dtype=float) for value in values], layer.layer.options)
    return forward.outputs, layer.layer.vjp(forward, [np.asarray(c, dtype=float) for c in cotangents])[0]


@CASE
@DOOR
def test_values_and_gradients_are_the_core_s(case: Case, door: str):
    layer, rng = layer_of(case), np.random.default_rng(3)
    values = [np.asarray(value) for value in case.sample(np.random.default_rng(0), (2,))]
    values = [value if slot % 2 else value[0] for slot, value in enumerate(values)]
    outputs = layer(*values)
    cotangents = [np.asarray(c) for c in checks.cotangents_of(outputs, rng)]
    wanted, gradients = core(layer, values, cotangents)
    got, got_gradients = DOORS[door](layer, values, cotangents)
    checks.assert_close(got, wanted, EXACT, "variable")
    checks.assert_close(got_gradients, gradients, EXACT, "gradient")


@CASE
@DOOR
def test_single_precision_loses_no_more_than_its_own_rounding(case: Case, door: str):
    layer, rng = layer_of(case), np.random.default_rng(3)
    values = [np.asarray(value, dtype=np.float32) for value in case.sample(np.random.default_rng(0))]
    cotangents = [np.asarray(c, dtype=np.float32) for c in checks.cotangents_of(layer(*values), rng)]
    wanted, gradients = core(layer, values, cotangents)
    got, got_gradients = DOORS[door](layer, values, cotangents)
    assert all(output.dtype == np.float32 for output in got)
    checks.assert_close(got, wanted, SINGLE, "variable")
    checks.assert_close(got_gradients, gradients, SINGLE, "gradient")


@DOOR
def test_a_rough_solution_makes_its_derivative_doubtful(door: str):
    # The constraints contradict one another, by so little beside the coefficients of one that it counts as solved.
    x, r = cp.Variable(4), cp.Parameter()
    rows = [1e9 * cp.sum(x) == 1e9 * r, x >= 0]
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - 1) + cp.norm(x)), rows), [r], [x])
    with pytest.warns(CvxlayersWarning) as said:
        DOORS[door](layer, [np.array(-1.0)], [np.ones(4)])
    assert any("the derivative of 1 of 1 programs is unreliable" in str(entry.message) for entry in said)
