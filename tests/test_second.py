"""Second derivatives of the core against central differences of the first, and against one another."""

from __future__ import annotations

import warnings
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

from cvxlayers import CvxpyLayer
from cvxlayers.derivative import Data, Method, evaluate, factorise, jvp, linearise, move
from cvxlayers.derivative import second_jvp as program_second_jvp
from cvxlayers.errors import DerivativeError
from cvxlayers.forward import Forward
from cvxlayers.layer import Layer
from cvxlayers.second import hvp, second_jvp
from tests import checks
from tests.problems import CASES, Case
from tests.programs import CONES, known_solution

POLYHEDRAL_AND_SECOND_ORDER = [case for case in CASES.values() if case.kind in ("LP", "QP", "SOC")]
SMOOTH = pytest.mark.parametrize("case", POLYHEDRAL_AND_SECOND_ORDER, ids=str)
CURVED = pytest.mark.parametrize(
    "case", [case for case in CASES.values() if case.kind in ("PSD", "EXP", "POWER")], ids=str
)
STEP = 1e-5

pytestmark = [
    pytest.mark.filterwarnings("ignore:The problem has an expression with dimension greater than 2"),
    pytest.mark.filterwarnings("ignore:.*sparse CVXPY expression"),
]


def layer_of(case: Case, gp: bool = False) -> Layer:
    problem, parameters, variables = case.build()
    return CvxpyLayer(problem, parameters, variables, gp=gp or case.gp).layer


def called(case: Case, batch: tuple[int, ...]) -> tuple[Layer, Forward, list, list, list, list]:
    """A call with cotangents, and with two tangents that keep the structure of the parameters."""
    rng = np.random.default_rng(8)
    layer, values = layer_of(case), [np.asarray(v) for v in case.sample(np.random.default_rng(0), batch)]
    first, others = (moved(case.sample(rng, batch), case.sample(rng, batch), -1.0) for _ in "12")
    forward = layer.forward(values, layer.options)
    return layer, forward, values, first, others, [np.asarray(c) for c in checks.cotangents_of(forward.outputs, rng)]


def moved(values: list, tangents: list, step: float) -> list:
    return [np.asarray(value + step * tangent) for value, tangent in zip(values, tangents, strict=True)]


@SMOOTH
@pytest.mark.parametrize("batch", [(), (2,)], ids=str)
def test_hvp_matches_differences_of_the_vjp(case: Case, batch: tuple[int, ...]):
    layer, forward, values, first, _, cotangents = called(case, batch)
    got, _ = hvp(layer, forward, cotangents, first)
    ends = [layer.forward(moved(values, first, sign * STEP), layer.options) for sign in (1, -1)]
    (plus, _), (minus, _) = (layer.vjp(end, cotangents) for end in ends)
    differences = [(a - b) / (2 * STEP) for a, b in zip(plus, minus, strict=True)]
    size = max(float(np.max(np.abs(d))) for d in differences)
    for a, b in zip(got, differences, strict=True):
        assert np.max(np.abs(a - b)) <= 1e-5 * (1 + size)


@SMOOTH
def test_second_jvp_is_symmetric_and_the_adjoint_of_hvp(case: Case):
    layer, forward, _, first, others, cotangents = called(case, (3,))
    bent, _ = second_jvp(layer, forward, first, others)
    swapped, _ = second_jvp(layer, forward, others, first)
    checks.assert_close(bent, swapped, 1e-9, "second derivative")
    product, _ = hvp(layer, forward, cotangents, first)
    forwards, backwards = checks.inner(bent, cotangents), checks.inner(product, others)
    assert abs(forwards - backwards) <= 1e-8 * (1 + abs(forwards))


def test_second_derivatives_of_multipliers_of_a_cone_match_differences(rng):
    x, p, B = cp.Variable(3), cp.Parameter(3), cp.Parameter((3, 3))
    row = cp.SOC(1.0 + 0.1 * x[0], B @ x)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - p)), [row])
    layer = CvxpyLayer(problem, [p, B], [x, *row.dual_variables]).layer
    values = [3.0 * rng.normal(size=(2, 3)), np.eye(3) + 0.3 * rng.normal(size=(2, 3, 3))]
    first, others = ([rng.normal(size=value.shape) for value in values] for _ in "12")
    got, _ = second_jvp(layer, layer.forward(values, layer.options), first, others)
    ends = [layer.forward(moved(values, others, sign * STEP), layer.options) for sign in (1, -1)]
    (plus, _), (minus, _) = (layer.jvp(end, first) for end in ends)
    for found, ahead, behind in zip(got, plus, minus, strict=True):
        assert np.max(np.abs(ahead - behind)) > STEP
        np.testing.assert_allclose(found, (ahead - behind) / (2 * STEP), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["polyhedral", "second_order"])
def test_data_that_are_curved_move_solutions_as_straight_ones_do(kind, rng):
    program, x, v = known_solution(CONES[kind], n=8, rng=rng, batch=2)
    lin = linearise(program, evaluate(program, x, v), lambda system: factorise(system, Method.DENSE, 1))
    parts = (program.P, program.q, program.A, program.b)
    curvature, nothing = Data(*(rng.normal(size=part.shape) for part in parts)), Data(*map(np.zeros_like, parts))
    still = move(lin, nothing)
    for got, want in zip(program_second_jvp(lin, still, still, curvature)[:2], jvp(lin, curvature)[:2], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def test_infinite_directions_are_told():
    """Whichever of the solves they enter, and whichever of several directions they are."""
    layer, forward, _, first, others, cotangents = called(CASES["qp_box"], (2,))
    huge, far = ([np.full(part.shape, np.inf) for part in parts] for parts in (cotangents, first))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        products = [hvp(layer, forward, huge, first), hvp(layer, forward, cotangents, far)]
        bends = [second_jvp(layer, forward, *pair) for pair in ((far, others), (first, far))]
        products.append(hvp(layer, forward, pairs(cotangents, huge), pairs(first, first), directions=1))
        bends.append(second_jvp(layer, forward, pairs(first, far), pairs(others, others), directions=1))
    for _, info in products + bends:
        assert np.isinf(info.residual).all()


def pairs(ones: list[np.ndarray], others: list[np.ndarray]) -> list[np.ndarray]:
    return [np.stack(pair) for pair in zip(ones, others, strict=True)]


@CURVED
def test_cones_without_second_derivatives_say_so(case: Case):
    layer, forward, _, first, others, cotangents = called(case, ())
    with pytest.raises(DerivativeError, match="second derivatives are not offered"):
        hvp(layer, forward, cotangents, first)
    with pytest.raises(DerivativeError, match="second derivatives are not offered"):
        second_jvp(layer, forward, first, others)


@pytest.mark.parametrize("name", ["qp_all_data", "soc_ball"])
def test_directions_share_a_factorisation(name: str):
    layer, forward, _, first, others, cotangents = called(CASES[name], (3,))
    both = pairs(first, others)
    twice = [np.stack([c, -2 * c]) for c in cotangents]
    stacked = (
        layer.jvp(forward, both, directions=1)[0],
        layer.vjp(forward, twice, directions=1)[0],
        hvp(layer, forward, twice, both, directions=1)[0],
        second_jvp(layer, forward, both, both, directions=1)[0],
    )
    for k, (tangents, scale) in enumerate(((first, 1), (others, -2))):
        scaled = [scale * c for c in cotangents]
        alone = (
            layer.jvp(forward, tangents)[0],
            layer.vjp(forward, scaled)[0],
            hvp(layer, forward, scaled, tangents)[0],
            second_jvp(layer, forward, tangents, tangents)[0],
        )
        for got, want in zip(stacked, alone, strict=True):
            checks.assert_close([array[k] for array in got], want, 1e-14, "direction")


def test_broadcast_parameters_get_sums():
    layer, _, values, first, _, cotangents = called(CASES["qp_all_data"], (3,))
    shared = [values[0][0], *values[1:]]
    alone = layer.forward(shared, layer.options)
    spread = layer.forward([np.stack(3 * [shared[0]]), *values[1:]], layer.options)
    tangents = [first[0][0], *first[1:]]
    got, _ = hvp(layer, alone, cotangents, tangents)
    want, _ = hvp(layer, spread, cotangents, [np.stack(3 * [tangents[0]]), *first[1:]])
    checks.assert_close(got, [want[0].sum(axis=0), *want[1:]], 1e-12, "product")


def test_masked_items_have_zero_second_derivatives():
    layer, _, values, first, others, cotangents = called(CASES["qp_simplex"], (3,))
    values[0][1] = np.nan
    forward = layer.forward(values, replace(layer.options, on_failure="mask"))
    got = hvp(layer, forward, cotangents, first)[0] + second_jvp(layer, forward, first, others)[0]
    assert all(np.all(array[1] == 0) and np.isfinite(array).all() for array in got)


def test_logarithms_and_exponentials_of_geometric_programs_are_curved():
    """max x y z subject to x ≤ a y, y ≤ b z, z ≤ c is x y z = a b² c³, whose log-log form is a linear program."""
    x, y, z = (cp.Variable(pos=True) for _ in range(3))
    a, b, c = (cp.Parameter(pos=True) for _ in range(3))
    problem = cp.Problem(cp.Maximize(x * y * z), [x <= a * y, y <= b * z, z <= c])
    layer = CvxpyLayer(problem, [a, b, c], [x], gp=True).layer
    values = [np.array(1.3), np.array(0.7), np.array(1.1)]
    forward = layer.forward(values, layer.options)
    hessian = [hvp(layer, forward, [np.array(1.0)], [np.array(float(i == k)) for i in range(3)])[0] for k in range(3)]
    wanted = np.array([[0, 1.1, 0.7], [1.1, 0, 1.3], [0.7, 1.3, 0]])
    np.testing.assert_allclose(hessian, wanted, atol=1e-9)
    one, other = np.array([1.0, 2.0, 3.0]), np.array([-1.0, 0.5, 2.0])
    bent, _ = second_jvp(layer, forward, list(map(np.asarray, one)), list(map(np.asarray, other)))
    np.testing.assert_allclose(bent[0], one @ wanted @ other, atol=1e-9)
