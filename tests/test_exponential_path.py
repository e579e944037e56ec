"""The path of exponential cones, and the solver that follows it for whole batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

import cvxlayers
from cvxlayers import CvxpyLayer, SolverError
from cvxlayers.cones import Exponential
from cvxlayers.cones.curves import CurvePoints
from cvxlayers.errors import OptionError
from cvxlayers.solvers.exponential import _advance, _lower, _Walk, _Way
from cvxlayers.solvers.newton_step import DenseStep
from cvxlayers.solvers.path_units import PathUnits

BATCH = 8


def points(rng: np.random.Generator, mu: float, steps: int = 40) -> tuple[np.ndarray, CurvePoints]:
    """Returns v = y − s of random points of the path, and what is found next to it."""
    rho, lam, width = rng.normal(size=(50, 2)), *np.exp(rng.normal(size=(2, 50, 2)))
    y = np.stack([-lam, lam * (rho - 1.0), lam * np.exp(-rho)], axis=-1)
    s = np.stack([width * rho - mu / lam, width, width * np.exp(rho)], axis=-1)
    v = (y - s).reshape(50, 6)
    return v, CurvePoints.near(v, np.full((50, 2), 1.1), np.full((50, 1), mu), steps)


def gradient(s: np.ndarray) -> np.ndarray:
    """∇g of g = s₂ log(s₃/s₂) − s₁."""
    rho = np.log(s[:, 2::3] / s[:, 1::3])
    return np.stack([-np.ones(rho.shape), rho - 1.0, np.exp(-rho)], axis=-1).reshape(s.shape)


@pytest.mark.parametrize("steps", [1, 2, 40])
def test_points_are_on_the_path_wherever_the_search_ends(steps, rng):
    mu = 0.3
    v, found = points(rng, mu, steps)
    g = found.s[:, 1::3] * np.log(found.s[:, 2::3] / found.s[:, 1::3]) - found.s[:, 0::3]
    np.testing.assert_allclose(found.lam * g, mu, rtol=1e-9)
    np.testing.assert_allclose(found.y, np.repeat(found.lam, 3, axis=1) * gradient(found.s), rtol=1e-9, atol=1e-12)
    if steps == 40:
        np.testing.assert_allclose(found.y - found.s, v, atol=1e-9)


def test_multipliers_are_positive_wherever_a_step_leads(rng):
    v, rho = rng.normal(size=(200, 6)), 2.0 * rng.normal(size=(200, 2))
    v[:, 1::3] = -np.abs(v[:, 1::3])
    assert (CurvePoints.near(v, rho, np.full((200, 1), 0.3), 1).lam > 0).all()


def test_multipliers_inside_the_cone_are_as_small_as_the_barrier_parameter(rng):
    """λ g = μ, for g of any size."""
    rho, width, depth = rng.normal(size=(50, 2)), *np.exp(rng.normal(size=(2, 50, 2)))
    s = np.stack([width * rho - depth, width, width * np.exp(rho)], axis=-1).reshape(50, 6)
    found = CurvePoints.near(-s, np.full((50, 2), 1.1), np.full((50, 1), 1e-14), 40)
    np.testing.assert_allclose(found.s, s, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.lam, 1e-14 / depth, rtol=1e-9)


def test_the_path_ends_at_the_projection(rng):
    v, found = points(rng, 1e-14)
    np.testing.assert_allclose(found.s, Exponential(2).project(-v), atol=1e-6)


def test_the_metric_is_the_slope_of_the_path(rng):
    v, found = points(rng, 0.3)
    w, step = rng.normal(size=v.shape), 1e-5
    mu = np.full((50, 1), 0.3)
    ends = [CurvePoints.near(v + sign * step * w, found.rho, mu, 40) for sign in (1.0, -1.0)]
    dy, ds = ((getattr(ends[0], name) - getattr(ends[1], name)) / (2 * step) for name in ("y", "s"))
    along, across = found.products(ds[:, 0::3], ds[:, 1::3], ds[:, 2::3])
    out = np.zeros(v.shape)
    found.add(found.steep * along, found.bent * across, out)
    np.testing.assert_allclose(dy, -out, atol=1e-6)
    np.testing.assert_allclose(found.moved(dy, step), ends[0].rho, atol=1e-7)


def box_of_largest_volume() -> Any:
    wall, floor = (cp.Parameter(pos=True, name=name) for name in ("wall", "floor"))
    size = cp.Variable(3, pos=True)
    h, w, d = size[0], size[1], size[2]
    limits = [2 * (h * w + h * d) <= wall, w * d <= floor, h / w >= 0.5, d / w <= 2.0]
    return cp.Problem(cp.Maximize(h * w * d), limits), [wall, floor], [size], {"gp": True}


def log_sum_exp() -> Any:
    x, A, b = cp.Variable(3), cp.Parameter((5, 3), name="A"), cp.Parameter(5, name="b")
    return cp.Problem(cp.Minimize(cp.log_sum_exp(A @ x + b) + cp.sum_squares(x))), [A, b], [x], {}


def entropy_with_equalities() -> Any:
    x, A, b = cp.Variable(6), cp.Parameter((2, 6), name="A"), cp.Parameter(2, name="b")
    text = cp.Problem(cp.Maximize(cp.sum(cp.entr(x))), [A @ x == b, cp.sum(x) == 1])
    return text, [A, b], [x], {"recognise": False}


def logarithms() -> Any:
    x, A, b = cp.Variable(4), cp.Parameter((3, 4), nonneg=True, name="A"), cp.Parameter(3, pos=True, name="b")
    return cp.Problem(cp.Maximize(cp.sum(cp.log(x))), [A @ x <= b]), [A, b], [x], {}


def divergence() -> Any:
    x, p, G = cp.Variable(4), cp.Parameter(4, pos=True, name="p"), cp.Parameter((2, 4), name="G")
    text = cp.Problem(cp.Minimize(cp.sum(cp.kl_div(x, p))), [G @ x <= 0.5, cp.sum(x) == 1])
    return text, [p, G], [x], {"recognise": False}


def logistic() -> Any:
    w, X = cp.Variable(2), cp.Parameter((4, 2), name="X")
    return cp.Problem(cp.Minimize(cp.sum(cp.logistic(X @ w)) + cp.sum_squares(w))), [X], [w], {}


PROBLEMS = (box_of_largest_volume, log_sum_exp, entropy_with_equalities, logarithms, divergence, logistic)


def draw(name: str, rng: np.random.Generator, batch: int, scale: float = 1.0) -> list[np.ndarray]:
    normal = rng.normal
    match name:
        case "box_of_largest_volume":
            return [200.0 * scale * np.exp(0.3 * normal(size=batch)), 50.0 * scale * np.exp(0.3 * normal(size=batch))]
        case "log_sum_exp":
            return [scale * normal(size=(batch, 5, 3)), scale * normal(size=(batch, 5))]
        case "entropy_with_equalities":
            A, x = normal(size=(batch, 2, 6)), rng.dirichlet(np.ones(6), size=batch)
            return [scale * A, scale * np.einsum("bij,bj->bi", A, x)]
        case "logarithms":
            return [scale * (0.1 + np.abs(normal(size=(batch, 3, 4)))), 0.5 + np.abs(normal(size=(batch, 3)))]
        case "divergence":
            return [scale * (0.1 + np.abs(normal(size=(batch, 4)))), 0.3 * normal(size=(batch, 2, 4))]
    return [scale * normal(size=(batch, 4, 2))]


def layer_of(build: Any, solver: str | None = "EXPONENTIAL", **keywords: Any) -> CvxpyLayer:
    text, parameters, variables, more = build()
    return CvxpyLayer(text, parameters=parameters, variables=variables, solver=solver, **more, **keywords)


@pytest.mark.parametrize("build", PROBLEMS, ids=lambda build: build.__name__)
def test_solutions_and_derivatives_are_those_of_clarabel(build, rng):
    values = draw(build.__name__, rng, BATCH)
    ours, theirs = layer_of(build), layer_of(build, "CLARABEL")
    result, reference = ours.solve(*values), theirs.solve(*values)
    # A rare item has no step that stays next to the path, and is left to Clarabel.
    assert np.count_nonzero(result.info.solver == "EXPONENTIAL") >= BATCH - 1
    assert max(result.info.primal.max(), result.info.dual.max()) <= 1e-12
    np.testing.assert_allclose(result.variables[0], reference.variables[0], rtol=1e-9, atol=1e-10)
    weights = [rng.normal(size=result.variables[0].shape)]
    pulled, _ = ours.vjp(values, weights)
    wanted, _ = theirs.vjp(values, weights)
    for mine, other in zip(pulled, wanted, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-4, 30.0, 1e4])
@pytest.mark.parametrize("build", PROBLEMS, ids=lambda build: build.__name__)
def test_badly_scaled_programs_are_solved_as_well_as_by_clarabel(build, scale, rng):
    values = draw(build.__name__, rng, BATCH, scale)
    ours, theirs = (layer_of(build, solver, on_failure="mask").solve(*values) for solver in ("EXPONENTIAL", "CLARABEL"))
    assert (ours.status <= theirs.status).all()
    worst = np.maximum(ours.info.primal, ours.info.dual)
    assert worst[ours.status == 0].max(initial=0.0) <= 1e-8


@pytest.mark.parametrize("build", PROBLEMS, ids=lambda build: build.__name__)
def test_items_do_not_depend_on_their_neighbours(build, rng):
    layer, values = layer_of(build), draw(build.__name__, rng, BATCH)
    values[-1][2] *= 1e3
    whole = layer.solve(*values, on_failure="mask")
    order = rng.permutation(BATCH)
    turned = layer.solve(*(value[order] for value in values), on_failure="mask")
    np.testing.assert_array_equal(turned.variables[0], whole.variables[0][order])
    for item in range(BATCH):
        alone = layer.solve(*(value[item : item + 1] for value in values), on_failure="mask")
        np.testing.assert_array_equal(alone.variables[0][0], whole.variables[0][item])


def test_the_size_of_the_batch_chooses(rng, tmp_path):
    layer = layer_of(box_of_largest_volume, None)
    assert "EXPONENTIAL for batches of 64 and more, CLARABEL for smaller ones" in layer.describe()
    layer.save(tmp_path / "layer")
    for one in (layer, cvxlayers.load(tmp_path / "layer")):
        many, few = (one.solve(*draw("box_of_largest_volume", rng, batch)).info for batch in (64, 63))
        assert set(many.solver) == {"EXPONENTIAL"}
        assert set(few.solver) == {"CLARABEL"}
        assert not np.concatenate([many.fell_back, few.fell_back]).any()
        asked = one.solve(*draw("box_of_largest_volume", rng, 64), solver_args={"tol_feas": 1e-9}).info
        assert set(asked.solver) == {"CLARABEL"}


def test_programs_without_a_solution_are_named(rng):
    x, c, b = cp.Variable(), cp.Parameter(name="c"), cp.Parameter(name="b")
    text = cp.Problem(cp.Minimize(cp.exp(x) + c * x), [x >= b, x <= 1])
    layer = CvxpyLayer(text, parameters=[c, b], variables=[x], solver="EXPONENTIAL", on_failure="nan")
    c_values, b_values = rng.normal(size=5) - 1.0, np.array([0.0, 2.0, 0.5, 3.0, -1.0])
    result = layer.solve(c_values, b_values)
    assert result.status.tolist() == [0, 2, 0, 2, 0]
    inside = np.clip(np.log(np.maximum(-c_values, 1e-9)), b_values, 1.0)
    np.testing.assert_allclose(result.variables[0][result.ok], inside[result.ok], atol=1e-9)
    free = CvxpyLayer(cp.Problem(cp.Minimize(cp.exp(x) + c * x)), parameters=[c], variables=[x], solver="EXPONENTIAL")
    with pytest.raises(SolverError, match="unbounded"):
        free.solve(np.array([1.0, -1.0]))


def test_cones_that_may_shrink_to_a_point_are_refused():
    x, y = cp.Variable(2), cp.Variable(2)
    text = cp.Problem(cp.Minimize(cp.sum(cp.rel_entr(x, y))), [x + 2 * y == cp.Parameter(2, name="p")])
    with pytest.raises(OptionError, match="second or third coordinate is no variable"):
        CvxpyLayer(text, parameters=text.parameters(), variables=[x], solver="EXPONENTIAL")


def beginning(build: Any, scale: float, rng: np.random.Generator) -> _Walk:
    """Returns where the paths of a batch begin."""
    layer = layer_of(build).layer
    theta, _ = layer.compiled.parameters.flatten(draw(build.__name__, rng, BATCH, scale))
    program = layer.compiled.program(theta)
    reduced = layer.kernel.reduce(program)
    unit = PathUnits.of(program if reduced is None else reduced.program)
    step = DenseStep.of(unit.program, unit.widths)
    return _Walk.begin(step, unit.program.structure, BATCH)


@pytest.mark.parametrize(
    ("build", "scale"), [(entropy_with_equalities, 1e-4), (logarithms, 30.0), (logistic, 1e4), (log_sum_exp, 1e4)]
)
def test_a_step_is_the_longest_that_stays_next_to_the_path(build, scale, rng):
    """Of the whole way, the half of it and so on, six times, it is the first that lowers the residual or is near μ."""
    walk, pending = beginning(build, scale, rng), np.arange(BATCH) > 0
    found = set()
    with np.errstate(all="ignore"):
        for _ in range(12):
            point, way = walk.point, _Way.of(walk.step, walk.point, walk.aim)
            reached, length = _advance(walk.step, point, walk.aim, pending)
            wanted, merit, mu = np.zeros(BATCH), point.merit.copy(), point.mu[:, 0].copy()
            for halvings in reversed(range(7)):
                share = 0.5**halvings
                trial = way.end(walk.step, point, share)
                left = 0.9 if share == 1.0 else 1.0 - 0.1 * share
                near = trial.merit <= np.maximum(left * point.merit, 100.0 * trial.mu[:, 0])
                near |= ~pending & (share == 1.0)
                wanted[near], merit[near], mu[near] = share, trial.merit[near], trial.mu[near, 0]
            np.testing.assert_array_equal(length, wanted)
            np.testing.assert_allclose(reached.merit, merit, rtol=1e-9)
            np.testing.assert_allclose(reached.mu[:, 0], mu, rtol=1e-12)
            found |= set(length.tolist())
            walk = walk.advance(pending)
    assert len(found) > 2  # else nothing was halved


def test_the_barrier_parameter_falls_as_far_as_steps_lead_and_rises_where_there_is_none(rng):
    walk = beginning(logistic, 1.0, rng)
    length = np.array([1.0, 0.5, 0.25, 0.125, 0.0, 1.0, 1.0, 0.5])
    mu = np.array([1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-8, 1e-8])
    merit = np.array([1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e4, 1e-12, 1e-12])
    point = replace(walk.point, mu=mu[:, None], merit=merit)
    aim = _lower(point, np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1e4, 1.0, 1.0]), length)[:, 0]
    steepest = 0.1 * 1e-3**1.8
    wanted = [steepest, 0.3e-3, 1e-3, 1e-3, 1e-2, 1e-3, 3e-15, 0.3e-8]
    np.testing.assert_allclose(aim, wanted, rtol=1e-12)
