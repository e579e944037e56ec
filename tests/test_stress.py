"""Random programs of every cone mix and of every kind of trouble: no gradient is silently wrong."""

from __future__ import annotations

import warnings
from collections import Counter

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cvxlayers import CvxpyLayer, Status
from cvxlayers.derivative import TRUSTED
from cvxlayers.errors import CvxlayersError, CvxlayersWarning
from tests import stress_layers
from tests.stress import MAKERS, judge, regular, survey, table

QUICK = settings(deadline=None, max_examples=20, derandomize=True, suppress_health_check=list(HealthCheck))
SEEDS = st.integers(0, 2**31)


@pytest.mark.parametrize("count", [160, pytest.param(2000, marks=pytest.mark.full)])
def test_no_gradient_of_a_random_program_is_silently_wrong(count, capsys):
    found = survey(count)
    with capsys.disabled():
        print(f"\n{table(found)}")
    assert not [one for one in found if one.silent], table(found)
    # Flags mean something: what is regular by construction is seldom flagged, what is degenerate always.
    kinds = {kind: [bool(one.flags) for one in found if one.kind == kind] for kind in {one.kind for one in found}}
    assert np.mean(kinds["no active row"]) <= 0.1
    assert np.mean(kinds["duplicated rows"]) == 1.0
    assert sum(one.error is not None and one.error <= 1e-5 for one in found) > 0.3 * count


@pytest.mark.parametrize(("seed", "index"), [(9, 479)])
def test_no_layer_that_once_was_silently_wrong_is_again(seed, index):
    rng = np.random.default_rng([seed, index])
    found = stress_layers.judge(stress_layers.draw(rng, index), rng)
    assert not [one for one in found if one.silent], table(found)


@pytest.mark.parametrize("count", [240, pytest.param(6000, marks=pytest.mark.full)])
def test_no_layer_of_a_recognised_form_is_silently_wrong(count, capsys):
    found = stress_layers.survey(count)
    with capsys.disabled():
        print(f"\n{table(found)}")
    assert not [one for one in found if one.silent], table(found)
    routes = Counter(one.kind.split("/")[1] for one in found)
    wanted = {"affine", "arrow", "closed form", "condensed", "coordinates", "dense", "Schur"}
    assert wanted <= {route for route, number in routes.items() if number >= 0.01 * count}
    solvers = Counter(one.kind.split("/")[0] for one in found)
    assert {"BOUNDED", "CONTINUATION", "DIRECT", "ENTROPIC", "PIVOTING", "PROJECTION"} <= set(solvers)
    assert sum(one.error is not None and one.error <= 1e-5 for one in found) > 0.5 * count


@QUICK
@given(seed=SEEDS, maker=st.sampled_from(MAKERS))
def test_any_seed(seed, maker):
    rng = np.random.default_rng(seed)
    found = judge(maker(rng), rng)
    assert not found.silent, found


SIZES = st.floats(-8, 8).map(lambda exponent: 10.0**exponent)


def boxed_layer(**keywords):
    """min ½‖x‖² + c·x s.t. a·x = b, l ≤ x ≤ u."""
    x = cp.Variable(3, name="x")
    c, a, b = cp.Parameter(3, name="c"), cp.Parameter(3, name="a"), cp.Parameter(name="b")
    low, high = cp.Parameter(3, name="low"), cp.Parameter(3, name="high")
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x) + c @ x), [a @ x == b, x >= low, x <= high])
    return CvxpyLayer(problem, [c, a, b, low, high], [x], on_failure="mask", **keywords)


BOXED = boxed_layer()


@QUICK
@given(seed=SEEDS, cost=SIZES, row=SIZES, right=SIZES, bound=SIZES)
@example(seed=0, cost=1e8, row=1e-8, right=1e8, bound=1e8)
@example(seed=0, cost=1e-8, row=1e8, right=1e-8, bound=1e-8)
@example(seed=1, cost=1.0, row=1.0, right=1.0, bound=1e8)
def test_data_of_any_size_are_solved_or_reported(seed, cost, row, right, bound):
    """Whatever is called solved satisfies its constraints; all derivatives are finite; nothing but our errors comes."""
    rng = np.random.default_rng(seed)
    c, a, b = cost * rng.normal(size=3), row * rng.normal(size=3), np.array(right * rng.normal())
    low, high = -bound * np.ones(3), bound * np.ones(3)
    values = [c, a, b, low, high]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CvxlayersWarning)
        result = BOXED.solve(*values)
        gradients, info = BOXED.vjp(values, [np.ones(3)])
    x = result.variables[0]
    assert np.isfinite(x).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    feasible = np.abs(a).sum() * bound >= abs(b)
    if result.ok:
        scale = max(np.abs(a * x).max(), abs(b))
        assert abs(a @ x - b) <= 1e-5 * scale + 1e-12
        assert np.abs(x).max() <= bound * (1 + 1e-5) + 1e-8
        assert info.residual <= TRUSTED or not info.reliable
    else:
        assert not feasible or result.status not in (Status.INFEASIBLE,) or np.abs(a).max() * bound < 1.01 * abs(b)
        assert all(not gradient.any() for gradient in gradients)


TROUBLE = {
    "zero row": ([0, 0, 0], [0, 0, 0], 0.0, [-1, -1, -1], [1, 1, 1]),
    "zero row, impossible": ([0, 0, 0], [0, 0, 0], 1.0, [-1, -1, -1], [1, 1, 1]),
    "zero cost": ([0, 0, 0], [1, 1, 1], 1.0, [-1, -1, -1], [1, 1, 1]),
    "fixed variables": ([1, 2, 3], [1, 1, 1], 0.6, [0.2, 0.2, 0.2], [0.2, 0.2, 0.2]),
    "huge bounds": ([1, 2, 3], [1, 1, 1], 1.0, [-1e8, -1e8, -1e8], [1e8, 1e8, 1e8]),
    "one point": ([1, 2, 3], [1, 1, 1], 3.0, [-1, -1, -1], [1, 1, 1]),
    "nearly infeasible": ([1, 2, 3], [1, 1, 1], 3.0 * (1 - 1e-9), [-1, -1, -1], [1, 1, 1]),
    "barely infeasible": ([1, 2, 3], [1, 1, 1], 3.0 * (1 + 1e-3), [-1, -1, -1], [1, 1, 1]),
    "no active row": ([0, 0, 0], [1, 1, 1], 0.0, [-1, -1, -1], [1, 1, 1]),
    "crossed bounds": ([0, 0, 0], [1, 1, 1], 0.0, [1, 1, 1], [-1, -1, -1]),
}
IMPOSSIBLE = {"zero row, impossible", "barely infeasible", "crossed bounds"}


@pytest.mark.parametrize("name", TROUBLE)
def test_troublesome_data(name):
    values = [np.array(value, dtype=float) for value in TROUBLE[name]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CvxlayersWarning)
        result = BOXED.solve(*values)
        gradients, info = BOXED.vjp(values, [np.ones(3)])
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert bool(result.ok) == (name not in IMPOSSIBLE)
    if result.ok:
        assert result.info.primal < 1e-6
    else:
        assert result.status == Status.INFEASIBLE
        assert all(not gradient.any() for gradient in gradients)
    if name in ("zero row", "fixed variables", "one point"):
        assert info.degenerate or info.weakly_active


@QUICK
@given(seed=SEEDS, position=st.integers(0, 4), trouble=st.sampled_from(sorted(TROUBLE)))
def test_troublesome_neighbours_change_no_bit(seed, position, trouble):
    rng = np.random.default_rng(seed)
    sound = [rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), 0.3 * rng.normal(size=5)]
    sound += [np.full((5, 3), -2.0), np.full((5, 3), 2.0)]
    disturbed = [value.copy() for value in sound]
    for value, bad in zip(disturbed, TROUBLE[trouble], strict=True):
        value[position] = bad
    others = np.setdiff1d(np.arange(5), [position])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CvxlayersWarning)
        np.testing.assert_array_equal(BOXED(*sound)[0][others], BOXED(*disturbed)[0][others])
        first, second = (BOXED.vjp(values, [np.ones((5, 3))])[0] for values in (sound, disturbed))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one[others], other[others])


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8])
def test_one_variable_and_no_constraint(size):
    x, c = cp.Variable(1), cp.Parameter(1)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x) + c @ x)), [c], [x])
    np.testing.assert_allclose(layer(np.array([size]))[0], [-size / 2], rtol=1e-12)
    np.testing.assert_allclose(layer.vjp([np.array([size])], [np.ones(1)])[0][0], [-0.5], rtol=1e-12)


def test_nearly_unbounded_programs_are_solved_or_called_unbounded():
    x, c = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [x >= 0, cp.sum(x) <= 1e6]), [c], [x], on_failure="mask")
    costs = np.array([[1.0, 1e-9], [1e-12, 1.0], [-1e-9, 1.0], [-1.0, -1.0 - 1e-9]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CvxlayersWarning)
        result = layer.solve(costs)
    assert result.ok.all()
    best = np.minimum(costs.min(axis=1), 0.0) * 1e6
    np.testing.assert_allclose(result.objective, best, atol=1e-2)


# A grammar of problems: an objective and constraints, each a random choice, over one variable and two parameters.
COSTS = {
    "linear": lambda x, c: c @ x,
    "squares": lambda x, c: cp.sum_squares(x - c),
    "norm": lambda x, c: cp.norm(x - c) + 0.1 * cp.sum_squares(x),
    "absolute": lambda x, c: cp.norm1(x - c) + 0.1 * cp.sum_squares(x),
    "huber": lambda x, c: cp.sum(cp.huber(x - c)),
    "exponentials": lambda x, c: cp.sum(cp.exp(x)) - c @ x + cp.sum_squares(x),
    "log-sum-exp": lambda x, c: cp.log_sum_exp(x - c) + 0.1 * cp.sum_squares(x),
    "entropy": lambda x, c: -cp.sum(cp.entr(x + 3)) + c @ x,
    "powers": lambda x, c: cp.sum(cp.power(cp.abs(x - c), 1.7, approx=False)) + 0.01 * cp.sum_squares(x),
    "eigenvalue": lambda x, c: cp.lambda_max(cp.diag(x - c)) + 0.1 * cp.sum_squares(x),
}
CONSTRAINTS = {
    "box": lambda x, b: [x >= -1 - b, x <= 1 + b],
    "ball": lambda x, b: [cp.norm(x) <= 1 + b],
    "simplex": lambda x, b: [cp.sum(x) == b, x >= -2],
    "diamond": lambda x, b: [cp.norm1(x) <= 1 + b],
    "matrix": lambda x, b: [
        cp.bmat([[cp.diag(x) + 3 * np.eye(3), np.ones((3, 1))], [np.ones((1, 3)), np.eye(1) * 4]]) >> 0
    ],
    "logarithm": lambda x, b: [cp.sum(cp.log(x + 3)) >= 0.1 * b],
    "mean": lambda x, b: [cp.geo_mean(x + 3, approx=False) >= 1 + 0.1 * b],
}


@settings(QUICK, max_examples=15)
@given(
    cost=st.sampled_from(sorted(COSTS)),
    constraints=st.sets(st.sampled_from(sorted(CONSTRAINTS)), min_size=0, max_size=3),
    seed=SEEDS,
)
def test_problems_of_a_grammar(cost, constraints, seed):
    """Every combination compiles, and its gradients agree with differences or one of the two is called unreliable."""
    rng = np.random.default_rng(seed)
    x, c, b = cp.Variable(3), cp.Parameter(3), cp.Parameter(nonneg=True)
    limits = [limit for name in sorted(constraints | {"box"}) for limit in CONSTRAINTS[name](x, b)]
    layer = CvxpyLayer(cp.Problem(cp.Minimize(COSTS[cost](x, c)), limits), [c, b], [x], on_failure="nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CvxlayersWarning)
        found = layer.gradcheck(rng.normal(size=(2, 3)), rng.uniform(0.2, 1.0, size=2))
    assert found.ok, f"{cost}, {sorted(constraints)}: {found}"


@QUICK
@given(
    keywords=st.dictionaries(
        st.sampled_from(["solver", "on_failure", "threads", "derivative", "mu", "ridge"]),
        st.one_of(st.none(), st.integers(-2, 2), st.floats(), st.text(max_size=8), st.sampled_from(["DAQP", "lpgd"])),
        max_size=3,
    )
)
def test_arguments_of_any_kind_are_taken_or_refused_by_name(keywords):

    x, c = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) + c @ x), [x >= 0])
    try:
        CvxpyLayer(problem, [c], [x], **keywords)
    except CvxlayersError as error:
        words = str(error)
    except Exception as error:
        # The types of arguments are checked while the tests run, before the library sees them.
        words = f"{type(error).__name__} of another kind" if "ype" not in type(error).__name__ else "of a wrong type"
    else:
        words = "taken as they are"
    assert "another kind" not in words
    assert len(words) > 10


def test_a_regular_program_is_not_flagged():
    rng = np.random.default_rng(3)
    assert judge(regular(rng), rng).error is not None
