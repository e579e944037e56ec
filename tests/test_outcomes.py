"""What becomes of each item of a batch: statuses, masks, results, warm starts, in numpy and in torch."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

from cvxlayers import CvxpyLayer, SolverError, Status, solve
from cvxlayers import torch as door
from cvxlayers.cones import Product
from cvxlayers.derivative import evaluate
from cvxlayers.errors import CvxlayersWarning
from cvxlayers.forward import doubt, final_status
from cvxlayers.program import ConeProgram, Structure
from cvxlayers.residual import lopsided
from cvxlayers.solvers import solve_batch
from tests.programs import pattern_of, values_of


def boxed(**keywords):
    """min c·x + ½ w‖x‖² s.t. 1ᵀx = b, x ≥ 0: infeasible for b < 0, unbounded never; w = 0 makes it an LP."""
    x, c, b = cp.Variable(3, name="x"), cp.Parameter(3, name="c"), cp.Parameter(name="b")
    constraints = [cp.sum(x) == b, x >= 0]
    problem = cp.Problem(cp.Minimize(c @ x + 0.5 * cp.sum_squares(x)), constraints)
    return problem, [c, b], [x], keywords


def ray(**keywords):
    """min c·x s.t. x ≥ l: unbounded where c has a negative entry."""
    x, c, low = cp.Variable(2, name="x"), cp.Parameter(2, name="c"), cp.Parameter(2, name="low")
    return cp.Problem(cp.Minimize(c @ x), [x >= low]), [c, low], [x], keywords


def neutral(build, **keywords):
    problem, parameters, variables, keywords = build(**keywords)
    return CvxpyLayer(problem, parameters, variables, **keywords)


def mixed_batch(rng, batch=256):
    """A batch with three infeasible items and one of NaN, and which items are sound."""
    c, b = rng.normal(size=(batch, 3)), rng.uniform(0.5, 2.0, size=batch)
    b[[3, 77, 200]] = -1.0
    c[128, 1] = np.nan
    sound = np.setdiff1d(np.arange(batch), [3, 77, 128, 200])
    return c, b, sound


@pytest.mark.parametrize("on_failure", ["nan", "mask"])
def test_failures_leave_the_bits_of_their_neighbours(on_failure, rng):
    layer = neutral(boxed)
    c, b, sound = mixed_batch(rng)
    weights = rng.normal(size=(256, 3))
    together = layer.solve(c, b, on_failure=on_failure)
    alone = layer.solve(c[sound], b[sound])
    np.testing.assert_array_equal(together.variables[0][sound], alone.variables[0])
    assert together.status[[3, 77, 200]].tolist() == [Status.INFEASIBLE] * 3
    assert together.status[128] == Status.INVALID_INPUT
    assert (together.status[sound] == Status.SOLVED).all()
    masked = neutral(boxed, on_failure=on_failure)
    (c_bar, b_bar), info = masked.vjp((c, b), (weights,))
    (c_alone, b_alone), _ = layer.vjp((c[sound], b[sound]), (weights[sound],))
    np.testing.assert_array_equal(c_bar[sound], c_alone)
    np.testing.assert_array_equal(b_bar[sound], b_alone)
    failed = [3, 77, 128, 200]
    expected = 0.0 if on_failure == "mask" else np.nan
    np.testing.assert_array_equal(c_bar[failed], np.full((4, 3), expected))
    assert np.isnan(info.residual[failed]).all()


def weighted_matrix():
    """min Σ wᵢ ‖row i of X‖² s.t. Σ X = r, X ⪰ 0: infeasible for r < 0."""
    X, w, r = cp.Variable((4, 4), PSD=True), cp.Parameter(4, nonneg=True), cp.Parameter()
    return cp.Problem(cp.Minimize(cp.sum(w @ cp.square(X))), [cp.sum(X) == r]), [w, r], [X]


def far_from_one():
    """min ‖x − c‖² + ‖x‖ s.t. 10⁹ Σ x = r, 10⁹ x ≥ 0, whose units are changed: infeasible for r < 0."""
    x, c, r = cp.Variable(4), cp.Parameter(4), cp.Parameter()
    return (
        cp.Problem(cp.Minimize(cp.sum_squares(x - c) + cp.norm(x)), [1e9 * cp.sum(x) == r, 1e9 * x >= 0]),
        [c, r],
        [x],
    )


@pytest.mark.parametrize("build", [weighted_matrix, far_from_one])
@pytest.mark.parametrize("lead", [(), (0,), (3,), (2, 0)], ids=str)
@pytest.mark.parametrize("derivative", ["exact", "smoothed", "lpgd"])
def test_where_nothing_is_solved_nothing_moves(build, lead, derivative):
    problem, parameters, variables = build()
    layer = CvxpyLayer(problem, parameters, variables, on_failure="mask", derivative=derivative)
    values = [np.ones((*lead, 4)), np.full(lead, -1e9)]
    (x,) = layer(*values)
    assert x.shape == (*lead, *variables[0].shape)
    gradients, info = layer.vjp(values, [np.ones_like(x)])
    assert all(
        np.array_equal(gradient, np.zeros_like(value)) for gradient, value in zip(gradients, values, strict=True)
    )
    assert info.residual.shape == lead
    assert not layer.jvp(values, values)[0][0].any()
    assert not layer.jacobian(values)[0][0][0].any()


def contradictory(weight):
    """min ‖x − 1‖² + ‖x‖ s.t. w Σ x = w r, x ≥ 0: infeasible for r < 0."""
    x, r = cp.Variable(4), cp.Parameter()
    rows = [weight * cp.sum(x) == weight * r, x >= 0]
    return cp.Problem(cp.Minimize(cp.sum_squares(x - 1) + cp.norm(x)), rows), [r], [x]


def test_a_condition_that_drowns_beside_others_is_told_of():
    # Solvers take x = −1/4 for a solution: beside a coefficient of 10⁹ the violation of x ≥ 0 is small.
    layer, alone = CvxpyLayer(*contradictory(1e9)), np.array(-1.0)
    with pytest.warns(
        CvxlayersWarning, match=r"solved inaccurately: items \[0\] have relative KKT residuals up to 2.0e-01"
    ):
        result = layer.solve(alone)
    assert result.status == Status.INACCURATE
    with pytest.raises(SolverError, match="solved inaccurately"):
        CvxpyLayer(*contradictory(1e9), strict=True)(alone)
    assert CvxpyLayer(*contradictory(1e3)).solve(np.array(2.0)).status == Status.SOLVED
    assert layer.solve(alone, solver_args={"eps": 0.5}).status == Status.SOLVED
    with pytest.raises(SolverError, match="infeasible"):
        CvxpyLayer(*contradictory(1.0))(alone)


@pytest.mark.parametrize("solver", ["PIQP", "CLARABEL"])
def test_rows_in_units_of_their_own_are_kept_or_told_of(solver, rng):
    """Of rows a million times smaller than others and larger, what is solved satisfies each."""
    x, z, A = cp.Variable(6), cp.Parameter(6), rng.normal(size=(4, 6))
    units, cost = np.array([1.0, 1.0, 1e-6, 1e6]), cp.Minimize(cp.sum_squares(x - z))
    values = 3.0 * rng.normal(size=(100, 6))
    layer = CvxpyLayer(cp.Problem(cost, [(units[:, None] * A) @ x <= 0.1 * units]), [z], [x], solver=solver)
    with pytest.warns(CvxlayersWarning, match="solved inaccurately"):
        result = layer.solve(values, on_failure="mask")
    (wanted,) = CvxpyLayer(cp.Problem(cost, [A @ x <= 0.1]), [z], [x])(values)
    solved = result.status == Status.SOLVED
    assert 50 < solved.sum() < 100
    np.testing.assert_allclose(result.variables[0][solved], wanted[solved], atol=1e-6)


def two_equalities(size, slope):
    """The program min ½ size x₁² + x₂ s.t. x₁ + x₂ = 1, x₁ + (1 + slope) x₂ = 1, and x₂ = 0 for it."""
    P, A = pattern_of(np.diag([1.0, 0.0])), np.array([[[1.0, 1.0], [1.0, 1.0 + slope]]])
    structure = Structure(P, pattern_of(A[0]), Product(zero=2))
    program = ConeProgram(
        structure, 1, np.array([[size]]), np.array([[0.0, 1.0]]), values_of(structure.A, A), np.ones((1, 2))
    )
    return program, np.array([[1.0, 0.0]])


@pytest.mark.parametrize(("eps", "wanted"), [(1e-9, "INACCURATE"), (4e-6, "INACCURATE"), (6e-6, "SOLVED")])
def test_a_gap_may_be_ten_times_what_was_asked_for(eps, wanted):
    """Rows that nearly agree have multipliers of 1/slope, which turn residuals of 5e-9 into a gap of 5e-5."""
    program, x = two_equalities(0.0, 1e-4)
    v = np.array([[1e4, -1e4]])
    point = evaluate(program, x + np.array([-5e-5, 5e-5]), v)
    status, accuracy = doubt(np.zeros(1, dtype=int), point.accuracy(program), eps, program, point)
    assert status[0] == Status[wanted]
    assert wanted == "SOLVED" or 4e-5 < accuracy[0] < 6e-5


@pytest.mark.parametrize(("eps", "good", "fair"), [(1e-9, "INACCURATE", "NUMERICAL_ERROR"), (1e-3, "SOLVED", "SOLVED")])
def test_residuals_judge_what_solvers_take_for_solutions(eps, good, fair):
    claims = np.array([Status.INACCURATE, Status.INFEASIBLE, Status.SOLVED, Status.SOLVED, Status.SOLVED])
    judged = final_status(claims, np.array([1e-9, 1e-9, 1e-7, 1e-4, np.inf]), eps)
    assert judged.tolist() == [
        Status.SOLVED,
        Status.INFEASIBLE,
        Status[good],
        Status[fair],
        Status.NUMERICAL_ERROR,
    ]
    assert final_status(claims[:1], np.array([1e-9]), eps)[0] == Status.SOLVED


@pytest.mark.parametrize(
    ("q", "b", "x", "y", "wanted"),
    [
        (-10.0, 4.0, 1.5, 2.0, 1.0 / (4 + 2 * 2)),  # x is at least b/a = 2
        (-10.0, 4.0, 2.0, 3.0, 2.0 / (10 + 3 * 2 + 2 * 5)),  # and y is |q|/a = 5
        (-10.0, 0.0, 0.5, 4.25, 1.0 / (2 * 1)),  # b sets no size of x: it is one
        (0.0, 4.0, 2.0, 0.25, 6.5 / (3 * 2 + 2 * 1)),  # nor q of y
    ],
)
def test_a_violation_is_relative_to_the_terms_of_its_condition(q, b, x, y, wanted):
    """Of min ½ 3x² + qx s.t. 2x = b: 2x − b = 0 and 3x + 2y + q = 0, with terms as large as x and y may be."""
    one = np.ones((1, 1))
    structure = Structure(pattern_of(one), pattern_of(one), Product(zero=1))
    program = ConeProgram(structure, 1, 3.0 * one, q * one, 2.0 * one, b * one)
    assert lopsided(program, evaluate(program, x * one, y * one))[0] == pytest.approx(wanted)


def test_an_objective_beyond_the_largest_number_is_doubted():
    program, x = two_equalities(1e200, 1.0)
    point = evaluate(program, 1e100 * x, np.zeros((1, 2)))
    status, accuracy = doubt(np.zeros(1, dtype=int), np.full(1, 1e-9), 1e-9, program, point)
    assert (status[0], accuracy[0]) == (Status.INACCURATE, np.inf)


def ridge(**keywords):
    """min c·x + ½‖r∘x‖² s.t. a·x = b, x ≥ 0: infeasible for a > 0 > b; unbounded where r = 0 and c·d < 0 on a ray d."""
    x, r, c = cp.Variable(3, name="x"), cp.Parameter(3, name="r"), cp.Parameter(3, name="c")
    a, b = cp.Parameter(3, name="a"), cp.Parameter(name="b")
    objective = cp.Minimize(c @ x + 0.5 * cp.sum_squares(cp.multiply(r, x)))
    return cp.Problem(objective, [a @ x == b, x >= 0]), [r, c, a, b], [x], keywords


BAD = {
    7: Status.INFEASIBLE,
    99: Status.INFEASIBLE,
    255: Status.INFEASIBLE,
    128: Status.UNBOUNDED,
    40: Status.INVALID_INPUT,
}


def ridge_batch(rng):
    """256 items, five of them bad, and which are sound."""
    r, c = rng.uniform(0.5, 2, size=(256, 3)), rng.normal(size=(256, 3))
    a, b = rng.uniform(0.5, 2, size=(256, 3)), rng.uniform(0.5, 2, size=256)
    b[[7, 99, 255]] = -1.0
    r[128], c[128], a[128] = 0.0, [-1.0, -1.0, 0.5], [1.0, -1.0, 1.0]
    c[40, 1] = np.nan
    return (r, c, a, b), np.setdiff1d(np.arange(256), list(BAD))


@pytest.mark.parametrize("solver", [None, "PIQP", "CLARABEL", "SCS"])
def test_five_bad_items_in_a_batch_of_256(solver, rng):
    values, sound = ridge_batch(rng)
    weights = rng.normal(size=(256, 3))
    layer = neutral(ridge, solver=solver, on_failure="mask")
    result = layer.solve(*values)
    assert {item: result.status[item] for item in BAD} == BAD
    assert (result.status[sound] == Status.SOLVED).all()
    alone = layer.solve(*(value[sound] for value in values))
    np.testing.assert_array_equal(result.variables[0][sound], alone.variables[0])
    gradients, _ = layer.vjp(values, [weights])
    alone_gradients, _ = layer.vjp([value[sound] for value in values], [weights[sound]])
    for gradient, expected in zip(gradients, alone_gradients, strict=True):
        np.testing.assert_array_equal(gradient[sound], expected)
        assert not gradient[list(BAD)].any()

    problem, parameters, variables, _ = ridge()
    tensors = [torch.tensor(value, requires_grad=True) for value in values]
    (x,) = door.CvxpyLayer(problem, parameters, variables, solver=solver, on_failure="mask")(*tensors)
    np.testing.assert_array_equal(x.detach(), result.variables[0])
    for tensor, expected in zip(torch.autograd.grad(x, tensors, torch.tensor(weights)), gradients, strict=True):
        np.testing.assert_array_equal(tensor, expected)


def test_unbounded_items_are_told_from_the_others():
    layer = neutral(ray)
    result = layer.solve(np.array([[1.0, 1.0], [-1.0, 1.0]]), np.zeros(2), on_failure="nan")
    assert result.status.tolist() == [Status.SOLVED, Status.UNBOUNDED]
    assert result.ok.tolist() == [True, False]
    np.testing.assert_array_equal(result.objective, [0.0, np.nan])


@pytest.mark.parametrize("solver", ["PIQP", "CLARABEL"])
def test_lassos_with_nearly_active_signs_are_all_solved(solver):
    """An interior point leaves them beside the wrong face: y of an inactive row above its s, in other units."""
    rng = np.random.default_rng(3)
    x, A, b, weight = cp.Variable(40), cp.Parameter((500, 40)), cp.Parameter(500), cp.Parameter(nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + weight * cp.norm1(x)))
    layer = CvxpyLayer(problem, [A, b, weight], [x], solver=solver)
    values = rng.normal(size=(32, 500, 40)), rng.normal(size=(32, 500)), rng.uniform(1, 100, size=32)
    result = layer.solve(*values, on_failure="mask")
    assert result.ok.all()
    assert np.maximum(result.info.primal, result.info.dual).max() < 1e-11


def test_training_goes_on_under_mask(rng):
    problem, parameters, variables, _ = boxed()
    layer = door.CvxpyLayer(problem, parameters, variables, on_failure="mask")
    c, b, _ = mixed_batch(rng)
    weight = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([weight], lr=0.1)
    c_tensor = torch.nan_to_num(torch.from_numpy(c))
    losses = []
    for _ in range(5):
        optimiser.zero_grad()
        (x,) = layer(c_tensor + weight, torch.from_numpy(b))
        loss = (x[:, 0] - 0.5).square().mean()
        loss.backward()
        assert torch.isfinite(weight.grad).all()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_the_error_names_items_statuses_and_the_way_out():
    layer = neutral(boxed)
    words = r"1 of 2 programs were not solved: item 1: infeasible.*on_failure=\"mask\""
    with pytest.raises(SolverError, match=words) as e:
        layer(np.zeros(3), np.array([1.0, -1.0]))
    assert e.value.items == (1,)
    assert e.value.statuses == (Status.INFEASIBLE,)


def test_result_is_read_by_object_and_by_name(rng):
    problem, parameters, variables, _ = boxed()
    layer = CvxpyLayer(problem, parameters, variables)
    c, b = rng.normal(size=(2, 3)), np.array([1.0, 2.0])
    result = layer.solve(c, b)
    np.testing.assert_array_equal(result.primal[variables[0]], result.primal["x"])
    np.testing.assert_array_equal(result.variables[0], result.primal["x"])
    for item in range(2):
        parameters[0].value, parameters[1].value = c[item], b[item]
        problem.solve(solver=cp.CLARABEL)
        np.testing.assert_allclose(result.objective[item], problem.value, atol=1e-7)
        for constraint in problem.constraints:
            np.testing.assert_allclose(result.dual[constraint][item], constraint.dual_value, atol=1e-6)
    assert result.info.primal.max() < 1e-12
    with pytest.raises(KeyError, match="known are x"):
        result.primal["y"]


def test_objective_follows_the_envelope_theorem_where_solutions_are_not_unique(rng):
    """min c·x over the simplex with equal costs: any x is optimal, the value's derivative in b is unique."""
    x, c, b = cp.Variable(4), cp.Parameter(4), cp.Parameter()
    layer = door.CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [cp.sum(x) == b, x >= 0]), [c, b], [x])
    costs = torch.full((4,), 2.0, dtype=torch.float64)
    budget = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    objective = layer.solve(costs, budget).objective
    assert objective.item() == pytest.approx(6.0, abs=1e-8)
    (gradient,) = torch.autograd.grad(objective, budget)
    assert gradient.item() == pytest.approx(2.0, abs=1e-8)


@pytest.mark.parametrize("maximise", [False, True])
def test_objective_gradient_matches_differences(maximise, rng):
    x, c, A = cp.Variable(3), cp.Parameter(3), cp.Parameter((2, 3))
    value = c @ x + 0.5 * cp.sum_squares(A @ x) + 0.1 * cp.sum_squares(x) + cp.sum(c)
    objective = cp.Maximize(-value) if maximise else cp.Minimize(value)
    layer = door.CvxpyLayer(cp.Problem(objective, [x >= -1, cp.norm(x) <= 2]), [c, A], [x])
    inputs = [torch.from_numpy(rng.normal(size=shape)).requires_grad_() for shape in ((3,), (2, 3))]
    assert torch.autograd.gradcheck(lambda *values: layer.solve(*values).objective, inputs, atol=1e-8)


def test_a_warm_start_spares_the_solver_and_changes_no_answer(rng):
    problem, parameters, variables, _ = boxed()
    layer = CvxpyLayer(problem, parameters, variables)
    c, b = rng.normal(size=(8, 3)), rng.uniform(0.5, 2.0, size=8)
    first = layer.solve(c, b)
    warm = layer.solve(1.001 * c, b, warm_start=first)
    cold = layer.solve(1.001 * c, b)
    assert (warm.info.solver == "").all()
    assert (cold.info.solver != "").all()
    np.testing.assert_allclose(warm.primal["x"], cold.primal["x"], atol=1e-11)
    # A start that does not lead anywhere costs time, and nothing else.
    far = layer.solve(-50.0 * c, b, warm_start=first)
    np.testing.assert_allclose(far.primal["x"], layer.solve(-50.0 * c, b).primal["x"], atol=1e-10)


def curved():
    """Items that a solver's first stop leaves rough, where nothing polishes them."""
    x, z = cp.Variable(6, name="x"), cp.Parameter(6, name="z")
    constraints = [cp.norm(x - 1) <= 3, cp.sum(x) == 1]
    return cp.Problem(cp.Minimize(cp.sum_squares(x - z) + cp.norm(x)), constraints), [z], [x], {}


@pytest.fixture
def unpolished(monkeypatch):
    """Leaves points as solvers return them, and lets none of their tight solves end well."""

    def stopped(program, plan, options, threads):
        outcome = solve_batch(program, plan, options, threads)
        if options.eps < 1e-12:
            outcome.solution.status[:] = Status.ITERATION_LIMIT
        return outcome

    monkeypatch.setattr(solve, "polish", lambda program, x, v, factorise, **_: evaluate(program, x, v))
    monkeypatch.setattr(solve, "solve_batch", stopped)


def test_a_tighter_solve_that_ends_early_spoils_no_item(unpolished, rng):
    layer = neutral(curved)
    result = layer.solve(rng.normal(size=(3, 6)))
    assert (result.status == Status.SOLVED).all()
    assert (result.info.primal <= 1e-8).all()


def test_what_a_warm_start_does_not_help_is_solved_as_without(unpolished, rng):
    layer, z = neutral(curved), rng.normal(size=(3, 6))
    cold = layer.solve(z)
    warm = layer.solve(z, warm_start=layer.solve(z + 1.0))
    np.testing.assert_array_equal(warm.primal["x"], cold.primal["x"])


def test_a_warm_start_of_another_batch_is_refused(rng):
    layer = neutral(boxed)
    first = layer.solve(rng.normal(size=(8, 3)), np.ones(8))
    with pytest.raises(ValueError, match="comes from a batch of 8, this call's batch is 5"):
        layer.solve(rng.normal(size=(5, 3)), np.ones(5), warm_start=first)


def test_a_warm_start_of_another_problem_is_refused():
    with pytest.raises(ValueError, match="from a layer of another problem"):
        neutral(boxed).solve(np.ones(3), np.ones(()), warm_start=neutral(ray).solve(np.ones(2), np.ones(2)))


@pytest.mark.parametrize("build", [boxed, ray])
def test_infinite_data_are_invalid_after_a_warm_start_too(build):
    layer = neutral(build)
    size = layer.layer.compiled.parameters.shapes[0][0]
    others = np.ones((2, *layer.layer.compiled.parameters.shapes[1]))
    costs = np.ones((2, size))
    first = layer.solve(costs, others)
    costs[1, 0] = np.inf
    again = layer.solve(costs, others, warm_start=first, on_failure="nan")
    assert again.status.tolist() == [Status.SOLVED, Status.INVALID_INPUT]


def test_geometric_program_in_its_own_space():
    """max of a box's volume under wall and floor areas: values and gradients in original variables."""
    h, w, d = (cp.Variable(pos=True, name=name) for name in "hwd")
    wall, floor, power = cp.Parameter(pos=True), cp.Parameter(pos=True), cp.Parameter()
    constraints = [2 * (h * w + h * d) <= wall, w * d <= floor, h**power * w <= 20]
    problem = cp.Problem(cp.Maximize(h * w * d), constraints)
    layer = door.CvxpyLayer(problem, [wall, floor, power], [h, w, d], gp=True)
    values = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (200.0, 100.0, 0.5)]
    result = layer.solve(*values)
    for parameter, value in zip((wall, floor, power), values, strict=True):
        parameter.value = value.item()
    problem.solve(gp=True, solver=cp.CLARABEL)
    assert result.objective.item() == pytest.approx(problem.value, rel=1e-6)
    assert result.primal[h].item() == pytest.approx(h.value, rel=1e-5)
    assert torch.autograd.gradcheck(lambda *v: layer.solve(*v).objective, values, atol=1e-5)
    assert torch.autograd.gradcheck(lambda *v: layer(*v), values, atol=1e-5)


def test_all_items_may_fail_where_all_data_are_shared():
    x, b = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= b, x <= -b]), [b], [x], on_failure="nan")
    (value,) = layer(np.ones(2))
    assert np.isnan(value).all()
