"""Derivatives that say how far they can be trusted, gradcheck, the same bits twice, and solvers that misbehave."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from cvxlayers import CvxpyLayer, SolverError, Status
from cvxlayers.derivative import Method, evaluate, factorise, linearise, vjp
from cvxlayers.derivative.terms import worst
from cvxlayers.errors import CvxlayersWarning, DerivativeError, DerivativeWarning, MissingDependencyError, OptionError
from cvxlayers.gradcheck import Verdict
from cvxlayers.program import Solution
from cvxlayers.solvers import SOLVERS, Plan
from cvxlayers.solvers.solver import Solver
from cvxlayers.testing import assert_gradients
from tests.programs import CONES, known_solution, values_of
from tests.soak import PROGRAMS, digest

ROOT = Path(__file__).parents[1]

METHODS = pytest.mark.parametrize(
    "method", [Method.DENSE, Method.BANDED, Method.SPARSE], ids=lambda method: method.value
)


def projection(**keywords):
    """min ½‖x − p‖² s.t. a·x = b twice: the equality's dual is not unique, x is."""
    x, p, b = cp.Variable(2, name="x"), cp.Parameter(2, name="p"), cp.Parameter(2, name="b")
    row = np.ones(2)
    constraints = [row @ x == b[0], row @ x == b[1]]
    return CvxpyLayer(cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - p)), constraints), [p, b], [x], **keywords)


def face(**keywords):
    """min c·x s.t. 1ᵀx = b, x ≥ 0: for equal costs every point of the simplex is a solution."""
    x, c, b = cp.Variable(3, name="x"), cp.Parameter(3, name="c"), cp.Parameter(name="b")
    return CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [cp.sum(x) == b, x >= 0]), [c, b], [x], **keywords)


def smooth(**keywords):
    """min ½‖x − p‖² s.t. ‖x‖ ≤ 1: smooth wherever ‖p‖ ≠ 1."""
    x, p = cp.Variable(2, name="x"), cp.Parameter(2, name="p")
    return CvxpyLayer(cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - p)), [cp.norm(x) <= 1]), [p], [x], **keywords)


def test_dependent_constraints_are_told_from_solutions_that_are_not_unique():
    (p_bar, b_bar), info = projection().vjp([np.array([3.0, 1.0]), np.ones(2)], [np.array([1.0, 0.0])])
    assert info.dependent
    assert not info.not_unique
    np.testing.assert_allclose(p_bar, [0.5, -0.5], atol=1e-9)
    # The element of smallest norm: x follows the mean of both right-hand sides.
    np.testing.assert_allclose(b_bar, [0.25, 0.25], atol=1e-9)
    with pytest.warns(DerivativeWarning, match="The solution is probably not unique"):
        _, info = face().vjp([np.ones(3), np.array(1.0)], [np.array([1.0, 0.0, 0.0])])
    assert info.not_unique
    assert info.degenerate
    assert not info.reliable


def test_one_warning_names_the_items_and_their_residuals():
    layer, costs = face(), np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 3.0], [2.0, 2.0, 2.0]])
    words = r"of 2 of 3 programs is unreliable: items \[1, 2\].*\(1: \d.\de-\d\d, 2: \d.\de-\d\d\)"
    with pytest.warns(DerivativeWarning, match=words) as seen:
        _, info = layer.vjp([costs, np.array(1.0)], [np.tile([1.0, 0.0, 0.0], (3, 1))])
    assert len([entry for entry in seen if "unreliable" in str(entry.message)]) == 1
    assert info.reliable.tolist() == [True, False, False]
    with pytest.raises(DerivativeError, match=words):
        face(strict=True).vjp([costs, np.array(1.0)], [np.tile([1.0, 0.0, 0.0], (3, 1))])


@METHODS
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-7])
def test_the_condition_number_follows_the_curvature(method, scale, rng):
    program, x, v = known_solution(CONES["equalities"], n=4, rng=rng)
    # The weakest direction is one that the equalities leave free.
    null = np.linalg.svd(program.structure.A.dense(program.A)[0])[2][-1]
    P = np.eye(4) - (1 - scale) * np.outer(null, null)
    program = replace(program, P=P[None][:, program.structure.P.rows, program.structure.P.cols])
    found = linearise(program, evaluate(program, x, v), lambda s: factorise(s, method, 1)).factors.rank
    assert 0.01 / scale < found.condition[0] < 1e4 / scale
    assert not found.not_unique[0]
    assert not found.dependent[0]


def test_an_active_constraint_that_is_stated_twice_is_no_kink():
    x, p = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [x >= 1, x >= 1, x <= 5]), [p], [x])
    (gradient,), info = layer.vjp([np.array([[0.0, 2.0], [1.0, 2.0]])], [np.ones((2, 2))])
    np.testing.assert_allclose(gradient[0], [0.0, 1.0], atol=1e-12)
    assert info.weakly_active.tolist() == [False, True]


def test_a_curved_cone_at_its_kink_is_weakly_active():
    values = np.array([[0.6, 0.8], [0.3, 0.4], [3.0, 4.0]])  # on, inside and outside the unit circle
    _, info = smooth().vjp([values], [np.ones((3, 2))])
    assert info.weakly_active.tolist() == [True, False, False]
    assert info.reliable.tolist() == [False, True, True]
    # Inside, the bound t of the norm, which CVXPY introduces, may move: that is nobody's business.
    assert info.not_unique.tolist() == [False, False, False]


def test_a_derivative_that_the_residual_of_its_point_blurs_is_doubted(rng, monkeypatch):
    """Least moments of a polynomial have many dual solutions, next to which Newton's method alone gets stuck."""
    monkeypatch.setattr(sys.modules["cvxlayers.derivative.polish"], "LARGEST", 0)
    monkeypatch.setattr("cvxlayers.solve._FINE", 1.0)
    monkeypatch.setattr("cvxlayers.solve._START", 1e-9)
    a, moments = cp.Parameter(7), cp.Variable(7)
    hankel = cp.bmat([[moments[i + j] for j in range(4)] for i in range(4)])
    layer = CvxpyLayer(cp.Problem(cp.Minimize(a @ moments), [hankel >> 0, moments[0] == 1]), [a], [moments])
    polynomials, jacobians = zip(*(polynomial(rng) for _ in range(24)), strict=True)
    weights = rng.normal(size=(24, 7))
    with pytest.warns(CvxlayersWarning, match="solved inaccurately"):
        call = layer.layer.forward([np.array(polynomials)], replace(layer.layer.options, on_failure="mask"))
    with pytest.warns(DerivativeWarning, match="is unreliable"):
        (gradient,), info = layer.layer.vjp(call, [weights])
    want = np.einsum("bi,bij->bj", weights, np.array(jacobians))
    wrong = call.ok & (np.abs(gradient - want).max(axis=1) > 1e-5 * np.abs(want).max(axis=1))
    assert wrong.sum() > 5
    assert (info.residual[wrong] > 1e-3).all()
    assert not info.reliable[wrong].any()


def polynomial(rng):
    """Random coefficients aⱼ, and the derivative −j xʲ⁻¹ k xᵏ⁻¹ / p''(x) of the powers k of the global minimiser."""
    p = 6 * np.polynomial.Polynomial.fromroots(rng.uniform(-1.5, 1.5, 5)).integ()
    roots = p.deriv().roots()
    stationary = roots.real[np.abs(roots.imag) < 1e-9]
    x, powers = stationary[np.argmin(p(stationary))], np.arange(7)
    slopes = powers * x ** np.maximum(powers - 1, 0)
    return p.coef, -np.outer(slopes, slopes) / p.deriv(2)(x)


@pytest.mark.parametrize("size", [3, 60], ids=["dense", "sparse"])
def test_only_what_reaches_an_output_counts_as_not_unique(size, rng):
    """min ‖x − p‖² s.t. t ≥ |x|, r == x + w, w ≥ 0: x is unique; t, w and the named r are not."""
    x, t, w, r = (cp.Variable(size, name=name) for name in "xtwr")
    p = cp.Parameter(size)
    limits = [t >= cp.abs(x), t <= 9, r == x + w, w >= 0, w <= 1]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), limits)
    value = rng.normal(size=size)
    for asked, unique in (([x], True), ([x, t], False), ([w], False), ([r], False)):
        layer = CvxpyLayer(problem, [p], asked)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DerivativeWarning)
            (gradient,), info = layer.vjp([value], [np.ones(size)] + [None] * (len(asked) - 1))
        assert bool(info.not_unique) != unique, [variable.name() for variable in asked]
        if asked[0] is x:
            np.testing.assert_allclose(gradient, np.ones(size), atol=1e-8)
        assert bool(info.reliable) == unique


@pytest.mark.parametrize("unit", [1.0, 1e-12])
def test_each_condition_is_measured_by_its_own_terms(unit, rng):
    """Beside random points, by dense matrices; terms that are tiny beside the others may be rounding."""
    program, x, v = known_solution(CONES["polyhedral"], 4, rng, batch=30)
    P, A = program.structure.P.dense(program.P), program.structure.A.dense(program.A).copy()
    A[:, 0] *= unit
    b = program.b * np.where(np.arange(7) == 0, unit, 1.0) + rng.normal(size=(30, 1)) * unit * np.eye(7)[0]
    program = replace(program, A=values_of(program.structure.A, A), b=b)
    point = evaluate(program, x, v + np.where(rng.random((30, 1)) < 0.5, 1.0, 0.0) * rng.normal(size=v.shape))
    y, s = point.y, point.s
    left = np.abs([times(P, x) + times(A.mT, y) + program.q]), np.abs([times(A, x) + s - b])
    terms = times(abs(P), abs(x)) + times(abs(A).mT, abs(y)) + abs(program.q), times(abs(A), abs(x)) + s + abs(b)
    floors = (np.maximum(part, 1e-8 * part.max(axis=1, keepdims=True)) for part in terms)
    wanted = np.max([np.max(size[0] / floor, axis=1) for size, floor in zip(left, floors, strict=True)], axis=0)
    np.testing.assert_allclose(worst(program, point), wanted, rtol=1e-12)


def times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return (matrices @ vectors[..., None])[..., 0]


@pytest.mark.parametrize("noise", [0.0, 1e-17, -3e-17])
def test_a_right_hand_side_of_rounding_sets_no_scale(noise):
    x, b = cp.Variable(3), cp.Parameter(2)
    for cost in (cp.sum(x), cp.norm(x) + 0.1 * cp.sum(x), cp.sum_squares(x) + cp.sum(x)):
        layer = CvxpyLayer(cp.Problem(cp.Minimize(cost), [x[0] + x[1] >= b[0], x[1] - x[2] >= b[1], x >= 0]), [b], [x])
        result = layer.solve(noise * np.array([1.0, 0.3]))
        assert result.ok
        np.testing.assert_allclose(result.variables[0], 0.0, atol=1e-9)


@pytest.mark.parametrize("solver", ["DAQP", "PIQP", "CLARABEL"])
@pytest.mark.parametrize("size", [1e-18, 1e-60, 1e-300])
@pytest.mark.parametrize("beside", [False, True])
def test_right_hand_sides_next_to_nothing_are_no_unit(solver, size, beside):
    """Projections of c on x ≤ p, and with a far bound on their sum, are those on x ≤ 0."""
    c, x, p = np.linspace(-1.0, 1.1, 8), cp.Variable(8), cp.Parameter(8)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x <= p] + [cp.sum(x) >= -4.0] * beside)
    layer, value = CvxpyLayer(problem, [p], [x], solver=solver, strict=True), np.full(8, size)
    np.testing.assert_allclose(layer(value)[0], np.minimum(c, 0.0), atol=1e-12)
    (gradient,), info = layer.vjp([value], [np.ones(8)])
    np.testing.assert_allclose(gradient, (c > 0) * 1.0, atol=1e-12)
    assert info.reliable


@METHODS
def test_a_singular_system_has_the_solution_of_smallest_norm(method, rng):
    """Against NumPy's least squares, for a program with two equal equalities."""
    program, x, v = known_solution(CONES["equalities"], n=4, rng=rng)
    A = program.structure.A.dense(program.A)[0]
    A[1] = A[0]
    values = A[program.structure.A.rows, program.structure.A.cols][None]
    program = replace(program, A=values)
    program = replace(program, b=x @ A.T, q=-(x @ program.structure.P.dense(program.P)[0]) - v @ A)
    weights = rng.normal(size=(1, 4))
    lin = linearise(program, evaluate(program, x, v), lambda s: factorise(s, method, 1))
    data, info = vjp(lin, weights, np.zeros((1, 3)), np.zeros((1, 3)))
    K = np.block([[program.structure.P.dense(program.P)[0], A.T], [A, np.zeros((3, 3))]])
    best = np.linalg.lstsq(K, np.concatenate([weights[0], np.zeros(3)]), rcond=1e-12)[0]
    np.testing.assert_allclose(-data.q[0], best[:4], atol=1e-7)
    np.testing.assert_allclose(data.b[0], best[4:], atol=1e-6)
    assert info.dependent[0]


class TestGradcheck:
    def test_a_right_derivative_agrees(self, rng):
        found = assert_gradients(smooth(), rng.normal(size=(4, 2)) + 3.0, conclusive=True)
        assert found.ok
        assert found.verdict.shape == (1, 4)
        assert found.error.max() < 1e-8
        assert "p: 4 agrees; worst (item" in str(found)

    def test_a_kink_makes_one_side_unreliable(self):
        found = smooth().gradcheck(np.array([[0.6, 0.8], [3.0, 4.0]]))
        assert found.verdict[0].tolist() == [Verdict.DERIVATIVE_UNRELIABLE, Verdict.AGREES]
        assert "1 derivative unreliable" in str(found)
        with pytest.raises(AssertionError, match=r"do not agree to 1e-05:\np: 1 agrees, 1 derivative unreliable"):
            assert_gradients(smooth(), np.array([[0.6, 0.8], [3.0, 4.0]]), conclusive=True)

    def test_differences_across_a_kink_are_called_unreliable(self):
        near = np.array([0.6, 0.8]) * (1 + 1e-7)
        assert smooth().gradcheck(near).verdict[0] == Verdict.DIFFERENCES_UNRELIABLE

    def test_a_wrong_derivative_differs(self, monkeypatch):
        from cvxlayers.layer import Layer

        right = Layer.vjp

        def wrong(self, *arguments, **keywords):
            gradients, info = right(self, *arguments, **keywords)
            return [1.001 * gradient for gradient in gradients], info

        monkeypatch.setattr(Layer, "vjp", wrong)
        found = smooth().gradcheck(np.array([3.0, 4.0]))
        assert not found.ok
        assert found.error[0] == pytest.approx(1e-3, rel=0.1)
        with pytest.raises(AssertionError, match=r"p: 1 differs; worst: relative error 1\.0e-03"):
            assert_gradients(smooth(), np.array([3.0, 4.0]))

    def test_items_without_a_solution_are_named(self):
        found = face().gradcheck(np.array([1.0, 2.0, 3.0]), np.array([1.0, -1.0]))
        assert found.verdict[:, 1].tolist() == [Verdict.NOT_SOLVED] * 2
        assert found.ok

    def test_every_door_has_it(self):
        torch, layer = pytest.importorskip("torch"), smooth()
        value = np.array([[3.0, 4.0], [0.1, 0.2]])
        want = layer.gradcheck(value).verdict
        assert (layer.to_torch().gradcheck(torch.tensor(value)).verdict == want).all()
        pytest.importorskip("jax")
        assert (layer.to_jax().gradcheck(value).verdict == want).all()
        tf = pytest.importorskip("tensorflow")
        assert (layer.to_tensorflow().gradcheck(tf.constant(value)).verdict == want).all()

    def test_lpgd_is_not_a_derivative(self):
        with pytest.raises(OptionError, match="lpgd's differences are no derivative"):
            smooth(derivative="lpgd").gradcheck(np.array([3.0, 4.0]))

    def test_definite_parameters_stay_definite(self, rng):
        x, Q = cp.Variable(3), cp.Parameter((3, 3), PSD=True)
        problem = cp.Problem(cp.Minimize(cp.quad_form(x, Q) + cp.sum(x)), [x >= -5, cp.sum(x) == 1])
        factor = rng.normal(size=(2, 3, 2))
        assert_gradients(CvxpyLayer(problem, [Q], [x]), factor @ factor.swapaxes(-1, -2))


def mixed(**keywords):
    """One problem with every cone but the power cone."""
    x, c = cp.Variable(3, name="x"), cp.Parameter(3, name="c")
    cost = c @ x + cp.norm(x) + cp.sum(cp.exp(x)) + cp.lambda_max(cp.diag(x)) + 0.5 * cp.sum_squares(x)
    return CvxpyLayer(cp.Problem(cp.Minimize(cost), [x >= -1, cp.sum(x) == 0]), [c], [x], **keywords)


@pytest.mark.parametrize("build", [smooth, mixed], ids=["quadratic", "mixed"])
def test_the_same_bits_twice_and_on_one_and_two_threads(build, rng):
    width = build().layer.compiled.parameters.width
    values, weights = rng.normal(size=(40, width)) + 0.5, rng.normal(size=(40, width))
    seen = set()
    for threads in (1, 2, 1, 2):
        layer = build(threads=threads)
        gradients, info = layer.vjp([values], [weights])
        seen.add(digest([*layer(values), *gradients, info.residual, info.condition]))
    assert len(seen) == 1


def served(solver: str, **keywords):
    """A problem for each solver: only equalities for the direct one, a second-order cone for those that take one."""
    x, p = cp.Variable(4, name="x"), cp.Parameter(4, name="p")
    simplex = [x >= 0, cp.sum(x) == 1]
    limits: dict[str, list[Any]] = {
        "DIRECT": simplex[1:],
        "PROJECTION": [cp.SOC(x[0], x[1:])],
    }
    limits |= dict.fromkeys(("DAQP", "PIVOTING", "PIQP", "BOUNDED", "ENTROPIC"), simplex)
    limits |= {"EXPONENTIAL": simplex, "LEAST_DISTANCE": [x[:3] >= 0, cp.sum(x) == 1]}
    costs = {
        "ECOS": p @ x,
        "ENTROPIC": p @ x - cp.sum(cp.entr(x)),
        "EXPONENTIAL": cp.sum_squares(x - p) + cp.sum(cp.exp(x)),
    }
    cost = costs.get(solver, cp.sum_squares(x - p))
    problem = cp.Problem(cp.Minimize(cost), limits.get(solver, [cp.norm(x) <= 1, x >= -0.5]))
    return CvxpyLayer(problem, [p], [x], solver=solver, **keywords)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_repeats_its_bits_on_one_and_two_threads(solver, rng):
    try:
        served(solver)(np.zeros(4))
    except MissingDependencyError:
        pytest.skip(f"{solver} is not installed")
    values, weights, seen = rng.normal(size=(70, 4)), rng.normal(size=(70, 4)), set()
    for threads in (1, 2, 1, 2):
        layer = served(solver, threads=threads)
        result = layer.solve(values)
        assert solver in result.info.solver.tolist()
        gradients, info = layer.vjp([values], [weights])
        seen.add(digest([*result.variables, result.objective, *gradients, info.residual, info.condition]))
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("program", "calls"),
    [("quadratic", 500), ("conic", 250), *(pytest.param(p, 10_000, marks=pytest.mark.full) for p in PROGRAMS)],
)
def test_calls_from_eight_threads_keep_memory_flat_and_bits_equal(program, calls):
    command = [sys.executable, "-m", "tests.soak", program, str(calls)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert not finished.returncode, finished.stderr
    found = json.loads(finished.stdout)
    assert not found["different"]
    assert abs(found["growth"]) < 5e6
    assert found["peak"] < 5e6


class Rogue(Solver):
    """A solver that raises, returns garbage, or takes its time."""

    def __init__(self, behaviour):
        self.behaviour = behaviour

    @property
    def name(self):
        return "ROGUE"

    def refusal(self, structure):
        return None

    def native_options(self):
        return {}

    def solve(self, program, options):
        return self.behaviour(program, options)


def _points(program, value, status=Status.SOLVED) -> Solution:
    sizes = (program.structure.n, program.structure.m, program.structure.m)
    arrays = [np.full((program.batch, size), value) for size in sizes]
    codes = np.full(program.batch, int(status))
    return Solution(*arrays, codes, np.zeros(program.batch, dtype=np.int64))


def _raises(program, options):
    raise RuntimeError("no licence")


def _late(program, options):
    time.sleep(0.05)
    return _points(program, 0.0, Status.TIME_LIMIT)


ROGUES = {
    "raises": (_raises, Status.NUMERICAL_ERROR),
    "lies": (lambda program, options: _points(program, 7.0), Status.NUMERICAL_ERROR),
    "not a number": (lambda program, options: _points(program, np.nan), Status.NUMERICAL_ERROR),
    "infinite": (lambda program, options: _points(program, np.inf), Status.NUMERICAL_ERROR),
    "lies about infeasibility": (
        lambda program, options: _points(program, 1.0, Status.INFEASIBLE),
        Status.NUMERICAL_ERROR,
    ),
    "late": (_late, Status.TIME_LIMIT),
}


@pytest.mark.parametrize("name", ROGUES)
@pytest.mark.filterwarnings("ignore::cvxlayers.errors.CvxlayersWarning")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_solver_that_misbehaves_is_found_out(name, rng):
    behaviour, status = ROGUES[name]
    layer = face().layer
    plan = Plan(Rogue(behaviour), ())
    layer = replace(layer, options=replace(layer.options, plan=plan, on_failure="mask"))
    door = CvxpyLayer.from_layer(layer)
    costs = rng.normal(size=(3, 3))
    result = door.solve(costs, np.array(1.0))
    # Newton's method may reach the solution even from nonsense; then it is one.
    found = np.asarray(result.ok)
    np.testing.assert_allclose(result.variables[0][found], face()(costs[found], np.array(1.0))[0], atol=1e-8)
    assert (result.status[~found] == status).all()
    assert not found.all()
    (gradient, _), _ = door.vjp([costs, np.array(1.0)], [np.ones((3, 3))])
    np.testing.assert_array_equal(gradient[~found], 0.0)
    with pytest.raises(SolverError, match=r"of 3 programs were not solved.*ROGUE"):
        door(costs, np.array(1.0), on_failure="raise")


@pytest.mark.parametrize("name", ["raises", "lies", "not a number"])
def test_a_fallback_rescues_what_a_rogue_leaves(name, rng):
    layer = face().layer
    fallbacks = layer.options.plan.solvers
    rescued = replace(layer, options=replace(layer.options, plan=Plan(Rogue(ROGUES[name][0]), fallbacks)))
    costs = rng.normal(size=(3, 3))
    if name == "raises":
        with pytest.warns(CvxlayersWarning, match=r"ROGUE raised RuntimeError \(no licence\)"):
            result = CvxpyLayer.from_layer(rescued).solve(costs, np.array(1.0))
    else:
        result = CvxpyLayer.from_layer(rescued).solve(costs, np.array(1.0))
    assert result.info.fell_back.all()
    np.testing.assert_array_equal(result.variables[0], face()(costs, np.array(1.0))[0])


def test_a_solver_whose_annotations_do_not_hold_has_not_failed(rng):
    """Such an error is the library's own, which tests must see."""

    def behaviour(program, options):
        raise TypeCheckError("shapes")

    layer = face().layer
    rogue = replace(layer, options=replace(layer.options, plan=Plan(Rogue(behaviour), layer.options.plan.solvers)))
    with pytest.raises(TypeCheckError, match="shapes"):
        CvxpyLayer.from_layer(rogue).solve(rng.normal(size=(3, 3)), np.array(1.0))


def test_no_thread_is_left_behind(rng):
    before = threading.active_count()
    for _ in range(20):
        smooth(threads=2)(rng.normal(size=(64, 2)))
    assert threading.active_count() <= before + 4


@pytest.mark.parametrize(("value", "fine"), [(1e-290, True), (1e-300, True), (1e-307, False), (1e-310, False)])
def test_derivatives_that_underflow_are_doubted(value, fine):
    """x = p + q for q = 1: dx/dp is one, and d log x / d log p is p, which may be too small a number to be one."""
    x = cp.Variable(pos=True)
    p, q = cp.Parameter(pos=True, name="p"), cp.Parameter(pos=True, name="q")
    layer = CvxpyLayer(cp.Problem(cp.Minimize(x), [x >= p + q]), [p, q], [x], gp=True)
    values, one = [np.array([1.0, value]), np.array(1.0)], np.ones(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gradients, info = layer.vjp(values, [one])
        (moved,), other = layer.jvp(values, [one, np.array(0.0)])
        _, none = layer.vjp(values, [np.zeros(2)])
    assert info.reliable.tolist() == other.reliable.tolist() == [True, fine]
    assert none.reliable.all()
    if fine:
        np.testing.assert_allclose(gradients[0], [1.0, 1.0], rtol=1e-6)
        np.testing.assert_allclose(moved, [1.0, 1.0], rtol=1e-6)


FELT_BY_ALL = {
    "linear": lambda x: 0.0,
    "quadratic": lambda x: cp.sum_squares(x),
    "norm": lambda x: cp.norm(x - 0.3),
    "entropy": lambda x: -cp.sum(cp.entr(x + 1.5)),
    "exponential": lambda x: cp.log_sum_exp(x),
    "eigenvalue": lambda x: cp.lambda_max(cp.diag(x) + np.ones((4, 4))),
}


@pytest.mark.parametrize("price", [1e-8, -1e-8, 1e-9, -1e-9])
@pytest.mark.parametrize("build", FELT_BY_ALL.values(), ids=FELT_BY_ALL)
def test_a_variable_that_the_objective_hardly_feels_is_on_its_bound(build, price, rng):
    """y in [0, 1] for a price of 1e-9 beside others of one: elsewhere only 1e-9 of the residual is left."""
    x, y, c, p = cp.Variable(4), cp.Variable(), cp.Parameter(4), cp.Parameter()
    problem = cp.Problem(cp.Minimize(c @ x + p * y + build(x)), [y >= 0, y <= 1, x >= -1, x <= 1])
    layer = CvxpyLayer(problem, [c, p], [x, y])
    result = layer.solve(rng.normal(size=(5, 4)), np.full(5, price))
    assert (result.status == Status.SOLVED).all()
    np.testing.assert_allclose(result.variables[1], float(price < 0), atol=1e-9)
