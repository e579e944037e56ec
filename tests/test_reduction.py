"""The elimination of variables that only name an affine expression."""

from __future__ import annotations

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

from cvxlayers import CvxpyLayer, Status
from cvxlayers.derivative import choose_method
from cvxlayers.errors import DerivativeWarning
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


def fixed_variables():
    """Two entries fixed, one by a parameter; they stand in products, in a named expression, in rows and in a cone."""
    x, F, start = cp.Variable(5), cp.Parameter((4, 5)), cp.Parameter()
    P = np.eye(5) + np.ones((5, 5))
    rows = [2 * x[1] == start, x[3] == 0.4, cp.sum(x) == 0.5, x >= -2]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(F @ x) + cp.quad_form(x, P) + cp.norm(x) + x[1] - x[4]), rows)
    duals = [rows[0].dual_variables[0], rows[1].dual_variables[0], rows[2].dual_variables[0]]
    return problem, [F, start], [x, *duals], [(4, 5), ()]


def initial_state():
    """A control problem: the first state is fixed, and enters the dynamics."""
    x, u, A, x0 = cp.Variable((4, 2)), cp.Variable((3, 1)), cp.Parameter((2, 2)), cp.Parameter(2)
    B = np.array([[0.3], [1.0]])
    rows = [x[0] == x0, *(x[k + 1] == A @ x[k] + B @ u[k] for k in range(3)), u <= 0.7, u >= -0.7]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) + 0.1 * cp.sum_squares(u)), rows)
    return problem, [A, x0], [x, u, rows[0].dual_variables[0]], [(2, 2), (2,)]


def stages():
    """CVXPY copies what stands in a quadratic form: states, scaled ones, and ones less a reference; one is fixed."""
    x, Q, A, start = cp.Variable((2, 4)), cp.Parameter((2, 2), PSD=True), cp.Parameter((2, 2)), cp.Parameter(2)
    reference = np.array([0.1, -0.2])
    cost = sum(cp.quad_form(x[:, k] - reference, Q) + cp.quad_form(2 * x[:, k], np.eye(2) + 0.3) for k in range(4))
    rows = [x[:, 0] == start, *(x[:, k + 1] == A @ x[:, k] for k in range(2)), x[:, 3] <= 0.02]
    problem = cp.Problem(cp.Minimize(cost + cp.sum_squares(x[:, 3])), rows)
    return problem, [Q, A, start], [x, rows[1].dual_variables[0]], [(2, 2), (2, 2), (2,)]


def renamed():
    """A user's own copies: of each other, in an inequality too, and with an offset that is a parameter."""
    x, t, w, Q, c = cp.Variable(3), cp.Variable(3), cp.Variable(3), cp.Parameter((3, 3), PSD=True), cp.Parameter(3)
    rows = [t == 2 * x + c, w == -x, cp.sum(x) == 1, w <= 0.5]
    problem = cp.Problem(cp.Minimize(cp.quad_form(t, Q) + c @ (w + t) + cp.sum_squares(x)), rows)
    duals = [row.dual_variables[0] for row in rows]
    return problem, [Q, c], [x, t, w, *duals], [(3, 3), (3,)]


BUILDS = pytest.mark.parametrize(
    "build",
    [square_root, least_squares, second_order, defined_not_squared, fixed_variables, initial_state, stages, renamed],
    ids=lambda build: build.__name__,
)


def both(build) -> tuple[Layer, Layer]:
    """The layer with its reduction, and without."""
    problem, parameters, variables, _ = build()
    reduced = CvxpyLayer(problem, parameters, variables).layer
    assert reduced.kernel.reduction is not None
    full = reduced.compiled.structure
    plain = Kernel(full, None, choose_method(full))
    return reduced, replace(reduced, kernel=plain, options=replace(reduced.options, plan=select(full)))


def values_for(build, rng, batch=4):
    _, parameters, _, shapes = build()
    return [_values(parameter, (batch, *shape), rng) for parameter, shape in zip(parameters, shapes, strict=True)]


def _values(parameter, shape, rng):
    if len(shape) == 1:
        return 0.3 + 0.05 * rng.random(shape)
    values = rng.normal(size=shape)
    return values @ values.mT + np.eye(shape[-1]) if parameter.attributes["PSD"] else values


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
    call = plain.forward(values, plain.options)
    forward = replace(call, find=lambda: replace(call.found, known=None))
    cotangents = [rng.normal(size=output.shape) for output in forward.outputs]
    tangents = [rng.normal(size=value.shape) for value in values]
    for small, large in (
        (reduced.vjp(forward, cotangents)[0], plain.vjp(forward, cotangents)[0]),
        (reduced.jvp(forward, tangents)[0], plain.jvp(forward, tangents)[0]),
    ):
        for got, want in zip(small, large, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-9 * np.abs(want).max())


@BUILDS
def test_solutions_are_recovered_from_the_reduced_ones(build, rng):
    layer, _ = both(build)
    call = layer.forward(values_for(build, rng), layer.options)
    point, (variables, rows) = call.point, layer.kernel.reduction.kept
    recovered = call.found.reduced.recover(point.x[:, variables], point.y[:, rows], point.s[:, rows])
    for found, whole in zip(recovered, (point.x, point.y, point.s), strict=True):
        np.testing.assert_allclose(found, whole, rtol=1e-8, atol=1e-8)


def test_copies_are_eliminated():
    for build, left in ((stages, 6), (renamed, 6)):
        problem, parameters, variables, _ = build()
        assert CvxpyLayer(problem, parameters, variables).layer.kernel.structure.n == left


def redundant(twice: bool):
    """Rows that are repeated, scaled rows that are not the same, and rows without variables."""
    x, A, b, h = cp.Variable(4), cp.Parameter((2, 4)), cp.Parameter(2), cp.Parameter(4)
    rows = [A @ x == b, x <= h, x[0] + x[1] <= 0.3]
    again = [A @ x == b, x <= h, x[0] + x[1] <= 0.3, 0 * x[0] <= 1, 0 * x[0] == 0] if twice else []
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - 1)), [*rows, 2 * x[0] + 2 * x[1] <= 1, *again])
    return problem, [A, b, h], [x, *(row.dual_variables[0] for row in rows)], [(2, 4), (2,), (4,)]


def test_redundant_rows_are_dropped(rng):
    layers = [CvxpyLayer(*redundant(twice)[:3]) for twice in (False, True)]
    structures = [layer.layer.kernel.structure for layer in layers]
    assert structures[0].m == structures[1].m
    assert layers[1].layer.compiled.structure.m > structures[1].m
    values = [rng.normal(size=(5, *shape)) for shape in redundant(True)[3]]
    values[2] = np.abs(values[2]) + 1
    once, twice = (layer.solve(*values) for layer in layers)
    for got, want in zip(twice.variables, once.variables, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-10)
    cotangents = [rng.normal(size=output.shape) for output in once.variables]
    wanted, _ = layers[0].vjp(values, cotangents)
    with pytest.warns(DerivativeWarning, match="constraints that repeat one another the first bears the whole"):
        gradients, info = layers[1].vjp(values, cotangents)
    assert info.dependent.all()
    assert not info.not_unique.any()
    for got, want in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-9)


@pytest.mark.parametrize("twice", [False, True])
def test_repeated_rows_leave_the_derivatives_of_variables_alone(twice, rng):
    problem, parameters, variables, shapes = redundant(twice)
    layer = CvxpyLayer(problem, parameters, variables[:1])
    values = [rng.normal(size=(5, *shape)) for shape in shapes]
    values[2] = np.abs(values[2]) + 1
    _, info = layer.vjp(values, [rng.normal(size=(5, 4))])
    assert info.reliable.all()


# A constraint, and others that say the same or a part of it.
REPEATED = {
    "scaled": lambda x, b: [x <= b, 3 * x <= 3 * b],
    "turned": lambda x, b: [x <= b, -0.1 * x >= -0.1 * b],
    "apart": lambda x, b: [x[1] <= b, x <= b],
    "equal": lambda x, b: [cp.sum(x) == 2 * b, 7 * cp.sum(x) == 14 * b],
    "half": lambda x, b: [cp.sum(x) == 2 * b, -2 * cp.sum(x) <= -4 * b],
    "times_a_parameter": lambda x, b: [b * cp.sum(x) <= 2, 2 * b * cp.sum(x) <= 4],
}


@pytest.mark.parametrize("name", list(REPEATED))
@pytest.mark.parametrize("solver", [None, "DAQP", "PIQP", "CLARABEL"])
def test_multipliers_of_repeated_rows_are_told_to_be_shared_at_will(name, solver, rng):
    x, c, b = cp.Variable(3), cp.Parameter(3), cp.Parameter()
    rows = REPEATED[name](x, b)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), rows)
    duals = [row.dual_variables[0] for row in rows]
    values = [np.array([[2.0, 1.4, 1.5], [2.0, 1.3, 1.2]]), np.array([1.0, 0.9])]
    for listed in ([duals[0]], [duals[1]], duals):
        layer = CvxpyLayer(problem, [c, b], [x, *listed], solver=solver)
        cotangents = [rng.normal(size=output.shape) for output in layer(*values)]
        with pytest.warns(DerivativeWarning, match=r"of 2 programs.*active constraints are dependent"):
            _, info = layer.vjp(values, cotangents)
        assert info.dependent.all()
        assert layer.jvp(values, [None, np.ones(2)])[1].dependent.all()
        _, info = layer.vjp(values, [np.ones((2, 3)), *(None for _ in listed)])
        assert (info.residual < 1e-9).all()
    alone = CvxpyLayer(problem, [c, b], [x], solver=solver)
    assert alone.vjp(values, [np.ones((2, 3))])[1].reliable.all()
    assert len(alone.layer.kernel.redundant) == min(row.size for row in rows)


def test_inactive_repeated_rows_are_not_told_of():
    x, c = cp.Variable(2), cp.Parameter(2)
    row, again = x <= 1, 2 * x <= 2
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [row, again]), [c], [x, row.dual_variables[0]])
    values = np.array([[0.5, 0.2], [2.0, 0.3]])
    with pytest.warns(DerivativeWarning, match=r"items \[1\]"):
        _, info = layer.vjp([values], [np.ones((2, 2)), np.ones((2, 2))])
    assert info.dependent.tolist() == [False, True]


def test_rows_of_other_directions_offsets_or_sizes_are_kept():
    x, b = cp.Variable(2), cp.Parameter()
    for row in (x >= b, 2 * x <= b, 2 * x <= 2 * b + 1e-9, b * x <= b, 1e-4 * x <= 1e-4 * b, x + 1e-9 * x[0] <= b):
        layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x)), [x <= b, row]), [b], [x])
        assert layer.layer.kernel.structure.m == 4


def implied(name: str) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
    """Programs with inequalities that their cones imply."""
    x, t, c = cp.Variable(4), cp.Variable(2), cp.Parameter(4)
    distance, power = cp.sum_squares(x - c), cp.power(x, 0.3, approx=False)
    problems = {
        "entropy": cp.Problem(cp.Maximize(c @ x + cp.sum(cp.entr(x))), [x >= 0, 3 * x >= 0, cp.sum(x) == 1]),
        "logarithm": cp.Problem(cp.Minimize(distance - cp.sum(cp.log(2 * x - 1))), [2 * x - 1 >= 0]),
        "power": cp.Problem(cp.Minimize(distance - cp.sum(power)), [x >= 0]),
        "norm": cp.Problem(cp.Minimize(distance + cp.sum(t)), [t >= 0, cp.SOC(t[0], x[:2]), cp.SOC(t[1], x[2:])]),
    }
    return problems[name], [c], [x]


def left_out(layer: CvxpyLayer) -> int:
    reduction = layer.layer.kernel.reduction
    return 0 if reduction is None else len(reduction.redundant)


@pytest.mark.parametrize(("name", "rows"), [("entropy", 8), ("logarithm", 4), ("power", 4), ("norm", 2)])
def test_inequalities_that_a_cone_implies_are_left_out(name, rows, rng):
    problem, parameters, variables = implied(name)
    layer, c = CvxpyLayer(problem, parameters, variables), rng.normal(size=(3, 4))
    assert left_out(layer) == rows
    result, (gradient,) = layer.solve(c), layer.vjp([c], [np.ones((3, 4)) * [1, 2, 3, 4]])[0]
    shift, step = rng.normal(size=(3, 4)), 1e-6
    moved = [layer(c + side * step * shift)[0] for side in (1, -1)]
    slope = ((moved[0] - moved[1]) * [1, 2, 3, 4]).sum(axis=1) / (2 * step)
    np.testing.assert_allclose((gradient * shift).sum(axis=1), slope, rtol=1e-5, atol=1e-7)
    for item in range(3):
        parameters[0].value = c[item]
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
        np.testing.assert_allclose(result.variables[0][item], variables[0].value, atol=1e-5)


def test_what_a_cone_does_not_imply_stays():
    x, c = cp.Variable(4), cp.Parameter(4)
    objective = cp.Maximize(c @ x + cp.sum(cp.entr(x)))
    for constraint in (x <= 0.5, x >= 0.1, x >= c, 2 * x[::-1] + x >= 0, x >= -c):
        assert left_out(CvxpyLayer(cp.Problem(objective, [constraint, cp.sum(x) == 1]), [c], [x])) == 0
    bound = x >= 0
    asked = CvxpyLayer(cp.Problem(objective, [bound, cp.sum(x) == 1]), [c], [x, bound.dual_variables[0]])
    assert left_out(asked) == 0
    np.testing.assert_allclose(asked(np.zeros(4))[1], 0.0, atol=1e-12)


@pytest.mark.parametrize("recognise", [True, False])
def test_entropies_of_next_to_nothing_are_no_kinks_beside_their_bounds(recognise, rng):
    x, c = cp.Variable(6, nonneg=True), cp.Parameter(6)
    problem = cp.Problem(cp.Maximize(c @ x + 0.02 * cp.sum(cp.entr(x))), [cp.sum(x) == 1])
    layer, scores, weights = (
        CvxpyLayer(problem, [c], [x], recognise=recognise),
        rng.normal(size=(12, 6)),
        np.arange(6.0),
    )
    result, ((gradient,), info) = layer.solve(scores), layer.vjp([scores], [np.tile(weights, (12, 1))])
    share = np.exp((scores - scores.max(axis=1, keepdims=True)) / 0.02)
    share /= share.sum(axis=1, keepdims=True)
    assert share.min() < 1e-40
    assert (result.status == Status.SOLVED).all()
    assert info.reliable.all()
    np.testing.assert_allclose(result.variables[0], share, atol=1e-13)
    mean = (share * weights).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(gradient, share * (weights - mean) / 0.02, rtol=1e-6, atol=1e-9)


def test_a_cotangent_along_which_all_choices_agree_is_no_cause_to_warn():
    x, c = cp.Variable(2), cp.Parameter(2)
    row, again = x <= 1, 2 * x <= 2
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [row, again]), [c], [row, again])
    values, ones = np.array([2.0, 1.5]), np.ones(2)
    (gradient,), info = layer.vjp([values], [ones, 2 * ones])
    np.testing.assert_allclose(gradient, 2 * ones, atol=1e-9)
    assert info.dependent
    assert info.residual < 1e-9


@pytest.mark.parametrize("factor", [2.0, 0.5])
@pytest.mark.parametrize("size", [1.0, 1e3])
def test_the_residual_is_the_share_of_a_cotangent_that_no_other_choice_agrees_with(factor, size):
    x, c = cp.Variable(), cp.Parameter()
    row, again = x <= 1, factor * x <= factor
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.square(x - c)), [row, again]), [c], [row, again])
    with pytest.warns(DerivativeWarning, match="active constraints are dependent"):
        _, info = layer.vjp([np.array(2.0)], [np.array(size), np.array(-size)])
    along, cotangent = np.array([factor, -1.0]), np.array([1.0, -1.0])
    share = along * (along @ cotangent) / (along @ along)
    assert info.residual == pytest.approx(np.abs(share).max())


def test_a_row_that_cannot_hold_is_not_dropped():
    x = cp.Variable(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x)), [0 * x[0] >= 1]), [], [x])
    assert layer.solve(on_failure="nan").status == Status.INFEASIBLE


def test_equalities_that_fix_a_variable_twice_agree_or_are_infeasible():
    x, a, b = cp.Variable(2), cp.Parameter(), cp.Parameter()
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x)), [x[0] == a, x[0] == b]), [a, b], [x])
    result = layer.solve(np.array([1.0, 1.0]), np.array([1.0, 2.0]), on_failure="nan")
    assert result.status.tolist() == [Status.SOLVED, Status.INFEASIBLE]
    np.testing.assert_allclose(result.variables[0][0], [1.0, 0.0], atol=1e-9)


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
    layer = CvxpyLayer(problem, [F], [x]).layer
    assert layer.kernel.structure.n >= 63


def test_an_empty_batch_of_squares_is_reduced():
    x, A, b = cp.Variable(3), cp.Parameter((5, 3)), cp.Parameter(5)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [x >= 0]), [A, b], [x])
    values = np.zeros((0, 5, 3)), np.zeros(5)
    assert layer(*values)[0].shape == (0, 3)
    (A_bar, b_bar), _ = layer.vjp(values, [np.zeros((0, 3))])
    assert A_bar.shape == (0, 5, 3)
    assert np.array_equal(b_bar, np.zeros(5))
