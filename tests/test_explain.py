"""What is said about problems that cannot become layers, and whether the advice works."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import cvxpy
import numpy as np
import pytest

from cvxlayers import CvxpyLayer, explain
from cvxlayers.canonical import compile_problem
from cvxlayers.canonical.freeze import freeze_parameters
from cvxlayers.errors import DPPError, ProblemError, SignatureError
from tests.cvxpy_problems import normal, positive_definite
from tests.test_canonical import program_at, solve

# CVXPY's annotations do not know the operators of its expressions.
cp: Any = cvxpy

N = 3


class Leaves:
    """Fresh parameters and variables for one problem."""

    def __init__(self) -> None:
        self.x, self.t = cp.Variable(N, name="x"), cp.Variable(name="t")
        self.A, self.B = cp.Parameter((N, N), name="A"), cp.Parameter((N, N), name="B")
        self.P, self.M = cp.Parameter((N, N), PSD=True, name="P"), cp.Parameter((N, N), symmetric=True, name="M")
        self.r, self.w = cp.Parameter(N, name="r"), cp.Parameter(N, nonneg=True, name="w")
        self.g, self.h = cp.Parameter(pos=True, name="g", value=0.5), cp.Parameter(name="h")


Make = Callable[[Leaves], cvxpy.Problem]


def minimise(expression: Any, *constraints: Any) -> cvxpy.Problem:
    return cp.Problem(cp.Minimize(expression), list(constraints))


# The problem, and what its message must hold: the place, the expression, the parameters, the way out.
NOT_DPP: dict[str, tuple[Make, Sequence[str]]] = {
    "product_of_parameters": (
        lambda v: minimise(cp.sum_squares(v.A @ v.B @ v.x - 1)),
        ["the objective", "`A @ B`", "parameters A, B", "compute `A @ B` in the framework"],
    ),
    "parameter_times_parametric": (
        lambda v: minimise(cp.sum_squares(v.g * (v.A @ v.x) - 1)),
        ["both hold parameters", "parameters g, A", "Compute the product", "new variable and an equality constraint"],
    ),
    "quad_form_in_a_constraint": (
        lambda v: minimise(cp.sum(v.x), cp.quad_form(v.x, v.P) <= 1),
        [
            "constraint 0 (QuadForm(x, P) <= 1.0)",
            "parameters P",
            "pass a factor L of P = L @ L.T",
            "sum_squares(L.T @ x)",
        ],
    ),
    "quad_form_inside_maximum": (
        lambda v: minimise(cp.maximum(cp.quad_form(v.x, v.P), 1)),
        ["the objective", "`QuadForm(x, P)`", "pass a factor L of P = L @ L.T"],
    ),
    "quad_form_of_a_shifted_variable": (
        lambda v: minimise(cp.quad_form(v.x - v.r, v.P)),
        ["`QuadForm(x + -r, P)`", "parameters r, P", "e == x + -r", "quad_form(e, P)"],
    ),
    "quad_form_shifted_with_a_constant_matrix": (
        lambda v: minimise(cp.quad_form(v.x - v.r, np.eye(N))),
        ["parameters r", "e == x + -r"],
    ),
    "scaled_quad_form": (
        lambda v: minimise(v.g * cp.quad_form(v.x, v.P)),
        ["`QuadForm(x, P)`", "scale the matrix in the framework", "P_scaled = gamma * P"],
    ),
    "division_by_a_parameter": (
        lambda v: minimise(cp.sum(v.x) / v.g + cp.sum_squares(v.x)),
        ["parameters g", "divides by a parameter", "reciprocal"],
    ),
    "nonlinear_coefficient": (
        lambda v: minimise(cp.sum_squares(v.x) + cp.exp(v.g) * v.x[0]),
        ["`exp(g) * x[0]`", "compute `exp(g)` in the framework"],
    ),
    "nonlinear_bound": (
        lambda v: minimise(cp.sum_squares(v.x), v.x <= cp.abs(v.r)),
        ["constraint 0 (x <= abs(r))", "compute `abs(r)` in the framework"],
    ),
    "nonlinear_constant": (
        lambda v: minimise(cp.sum_squares(v.x) + cp.log(v.g)),
        ["the objective", "compute `log(g)` in the framework"],
    ),
    "parameter_in_an_atom": (
        lambda v: minimise(cp.quad_over_lin(v.x, v.g) - cp.sum(v.x)),
        ["quad_over_lin", "parameters g", "inside an atom that is not affine", "new variable"],
    ),
    "exponent_of_a_power_cone": (
        lambda v: minimise(cp.sum_squares(v.x), cp.PowCone3D(v.x[0], v.x[1], v.x[2], v.g)),
        ["constraint 0", "parameter g is the exponent of a power cone", "must be constants"],
    ),
    "exponent": (
        lambda v: minimise(cp.sum(cp.power(v.x, v.g)) - cp.sum(v.x)),
        ["parameter g as its exponent", "gp=True"],
    ),
}

NOT_CONVEX: dict[str, tuple[Make, Sequence[str]]] = {
    "concave_objective": (
        lambda v: minimise(-cp.norm(v.x, 1)),
        ["the objective `-(norm1(x))` is minimised but concave", "must be convex"],
    ),
    "maximised_convex": (
        lambda v: cp.Problem(cp.Maximize(cp.norm(v.x, 1))),
        ["is maximised but convex"],
    ),
    "constraint": (
        lambda v: minimise(cp.sum(v.x), cp.norm(v.x, 1) >= 1),
        ["in constraint 0 (1.0 <= norm1(x))", "`norm1(x)` is convex"],
    ),
    "unknown_sign": (
        lambda v: minimise(v.h * cp.norm(v.x, 1)),
        ["`h * norm1(x)` is neither convex nor concave", "Declare the sign of the parameters h", "nonneg=True"],
    ),
    "product_of_variables": (
        lambda v: minimise(v.t * v.x[0]),
        ["`t * x[0]`", "multiplies variables"],
    ),
    "matrix_of_unknown_definiteness": (
        lambda v: minimise(cp.quad_form(v.x, v.M)),
        ["`M` is not known to be semidefinite", "PSD=True"],
    ),
    "scaled_matrix": (
        lambda v: minimise(cp.quad_form(v.x, v.g * v.P)),
        ["not known to be semidefinite", "compute it in the framework"],
    ),
    "quasiconvex": (
        lambda v: minimise(cp.ceil(v.t)),
        ["`ceil(t)`", "quasiconvex (DQCP)"],
    ),
    "geometric": (
        lambda v: minimise(cp.Variable(pos=True, name="y") * cp.Variable(pos=True, name="z")),
        ["It is a geometric program: pass gp=True"],
    ),
    "mixed_integer": (
        lambda v: minimise(cp.sum_squares(cp.Variable(2, boolean=True, name="choice") - v.h)),
        ["mixed-integer (choice)", "bounds=[0, 1]"],
    ),
    "finite_set": (
        lambda v: minimise(cp.sum_squares(v.x), cp.constraints.FiniteSet(v.x, [1, 2])),
        ["mixed-integer (a finite set)"],
    ),
    "complex_diagonal": (
        lambda v: minimise(cp.norm(cp.Variable((2, 2), complex=True, diag=True, name="D") - 1)),
        ["CVXPY loses the attributes diag", "(D)"],
    ),
    "complex_symmetric": (
        lambda v: minimise(cp.abs(v.t - cp.trace(cp.Parameter((2, 2), complex=True, symmetric=True, name="S")))),
        ["symmetric of complex leaves", "(S)", "hermitian=True"],
    ),
    "imaginary_hermitian": (
        lambda v: minimise(cp.norm(cp.Variable((2, 2), imag=True, hermitian=True, name="H") - 1)),
        ["all of imaginary ones", "(H)"],
    ),
    "stack_of_hermitian_matrices": (
        lambda v: minimise(cp.sum_squares(v.t - cp.Parameter((2, 3, 3), hermitian=True, name="H"))),
        ["Hermitian leaves, of more than two axes", "(H)"],
    ),
    "stack_of_symmetric_matrices": (
        lambda v: minimise(cp.sum_squares(v.t - cp.Parameter((2, 3, 3), symmetric=True, name="S"))),
        ["symmetric parameters", "of more than two axes (S)", "one leaf for each matrix"],
    ),
    "no_variables": (lambda v: minimise(cp.sum_squares(v.r)), ["has no variables"]),
    "minus_infinity": (
        lambda v: minimise(cp.sum_squares(v.x), v.x <= np.array([1.0, -np.inf, 2.0])),
        ["infinite or NaN", "constraint 0 (x <= [ 1. -inf 2.])"],
    ),
    "infinite_equality": (
        lambda v: minimise(cp.sum_squares(v.x), v.x[0] == np.inf),
        ["infinite or NaN", "constraint 0"],
    ),
    "infinite_coefficient": (
        lambda v: minimise(cp.sum_squares(v.x) + np.array([np.inf, 1, 1]) @ v.x),
        ["infinite or NaN constant occurs in the objective"],
    ),
    "not_a_number": (
        lambda v: minimise(cp.sum_squares(v.x), v.x >= np.array([np.nan, 1, 1])),
        ["infinite or NaN", "constraint 0"],
    ),
}


def message_of(make: Make) -> tuple[type[Exception], str]:
    problem = make(Leaves())
    with pytest.raises(ProblemError) as raised:
        compile_problem(problem, problem.parameters(), problem.variables() or [cp.Variable()])
    return raised.type, re.sub(r"PnormApprox|Pnorm", "norm", str(raised.value))


@pytest.mark.parametrize("name", list(NOT_DPP))
def test_not_dpp(name: str) -> None:
    make, words = NOT_DPP[name]
    kind, message = message_of(make)
    assert kind is DPPError
    assert issubclass(kind, ValueError)
    assert message.startswith("Problem must be DPP.")
    for word in words:
        assert word in message


@pytest.mark.parametrize("name", list(NOT_CONVEX))
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_not_a_layer(name: str) -> None:
    make, words = NOT_CONVEX[name]
    kind, message = message_of(make)
    assert kind is ProblemError
    for word in words:
        assert word in message


def test_geometric_programs() -> None:
    x, p, q = (
        cp.Variable(pos=True, name="x"),
        cp.Parameter(pos=True, name="p"),
        cp.Parameter(pos=True, name="q", value=2.0),
    )
    with pytest.raises(ProblemError, match=r"not a disciplined geometric program \(DGP\).*pos=True"):
        compile_problem(minimise(x - p), [p], [x], gp=True)
    with pytest.raises(DPPError, match=r"Problem must be DPP\. In a geometric program .* the parameters are p, q\."):
        compile_problem(minimise((p * x) ** q), [p, q], [x], gp=True)


# Each returns a problem that is not DPP, the advised one, and how its new parameters are computed.
REWRITES: dict[str, Callable[[Leaves], tuple[Any, Any, dict[Any, Callable[..., Any]]]]] = {}


def rewrite(make: Callable[[Leaves], Any]) -> Callable[[Leaves], Any]:
    REWRITES[make.__name__] = make
    return make


@rewrite
def product(v: Leaves):
    C = cp.Parameter((N, N), name="C")
    before, after = (minimise(cp.sum_squares(matrix @ v.x - 1)) for matrix in (v.A @ v.B, C))
    return before, after, {C: lambda A, B: A @ B}


@rewrite
def named_factor(v: Leaves):
    e = cp.Variable(N)
    before = minimise(cp.sum_squares(v.g * (v.A @ v.x) - 1) + cp.sum_squares(v.x))
    return before, minimise(cp.sum_squares(v.g * e - 1) + cp.sum_squares(v.x), e == v.A @ v.x), {}


@rewrite
def factor(v: Leaves):
    L = cp.Parameter((N, N), name="L")
    before = minimise(cp.sum(v.x), cp.quad_form(v.x, v.P) <= 1)
    return before, minimise(cp.sum(v.x), cp.sum_squares(L.T @ v.x) <= 1), {L: lambda P: np.linalg.cholesky(P)}


@rewrite
def named_vector(v: Leaves):
    e = cp.Variable(N)
    before = minimise(cp.quad_form(v.x - v.r, v.P) + cp.sum_squares(v.x))
    return before, minimise(cp.quad_form(e, v.P) + cp.sum_squares(v.x), e == v.x - v.r), {}


@rewrite
def scaled(v: Leaves):
    Q = cp.Parameter((N, N), PSD=True, name="Q")
    before = minimise(v.g * cp.quad_form(v.x, v.P) + cp.sum(v.x))
    return before, minimise(cp.quad_form(v.x, Q) + cp.sum(v.x)), {Q: lambda g, P: g * P}


@rewrite
def reciprocal(v: Leaves):
    inverse = cp.Parameter(name="inverse")
    before = minimise(cp.sum(v.x) / v.g + cp.sum_squares(v.x))
    return before, minimise(cp.sum(v.x) * inverse + cp.sum_squares(v.x)), {inverse: lambda g: 1 / g}


@rewrite
def named_argument(v: Leaves):
    before = minimise(cp.quad_over_lin(v.x, v.g) - cp.sum(v.x))
    return before, minimise(cp.quad_over_lin(v.x, v.t) - cp.sum(v.x), v.t == v.g), {}


@rewrite
def factor_inside_maximum(v: Leaves):
    L = cp.Parameter((N, N), name="L")
    before = minimise(cp.maximum(cp.quad_form(v.x, v.P), -1) + cp.sum_squares(v.x - 2))
    after = minimise(cp.maximum(cp.sum_squares(L.T @ v.x), -1) + cp.sum_squares(v.x - 2))
    return before, after, {L: lambda P: np.linalg.cholesky(P)}


@rewrite
def nonlinear_coefficient(v: Leaves):
    exponential = cp.Parameter(name="exponential")
    before = minimise(cp.sum_squares(v.x) + cp.exp(v.g) * v.x[0])
    return before, minimise(cp.sum_squares(v.x) + exponential * v.x[0]), {exponential: lambda g: np.exp(g)}


@rewrite
def nonlinear_bound(v: Leaves):
    size = cp.Parameter(N, name="size")
    before, after = (minimise(cp.sum_squares(v.x - 2), v.x <= bound) for bound in (cp.abs(v.r), size))
    return before, after, {size: lambda r: np.abs(r)}


@rewrite
def declared_sign(v: Leaves):
    weight = cp.Parameter(nonneg=True, name="weight")
    before, after = (minimise(scale * cp.norm(v.x, 1) + cp.sum_squares(v.x - v.r)) for scale in (v.h, weight))
    return before, after, {weight: lambda h: h}


@rewrite
def declared_definite(v: Leaves):
    before, after = (minimise(cp.quad_form(v.x, matrix) + cp.sum(v.x)) for matrix in (v.M, v.P))
    return before, after, {v.P: lambda M: M}


@rewrite
def scaled_inside(v: Leaves):
    Q = cp.Parameter((N, N), PSD=True, name="Q")
    before, after = (minimise(cp.quad_form(v.x, matrix) + cp.sum(v.x)) for matrix in (v.g * v.P, Q))
    return before, after, {Q: lambda g, P: g * P}


@pytest.mark.parametrize("name", list(REWRITES))
def test_the_advice_works(name: str) -> None:
    leaves = Leaves()
    before, after, computed = REWRITES[name](leaves)
    values = {"A": np.eye(N) + 0.3 * normal(N, N), "B": normal(N, N), "r": normal(N), "g": np.array(0.7)}
    values |= {"P": positive_definite(N), "M": positive_definite(N), "h": np.array(0.4)}
    inputs = {}
    for parameter in after.parameters():
        compute = computed.get(parameter)
        arguments = [] if compute is None else [values[name] for name in compute.__code__.co_varnames]
        inputs[parameter] = values[parameter.name()] if compute is None else np.asarray(compute(*arguments))
    assert explain(after) == "Nothing stands in the way: the problem can become a layer."
    layer = compile_problem(after, list(inputs), [leaves.x])
    (value,) = layer.variables.recover(*solve(program_at(layer, (after, inputs))))
    for parameter in before.parameters():
        parameter.value = values[parameter.name()]
    freeze_parameters(before, before.parameters()).solve(solver=cp.CLARABEL)
    np.testing.assert_allclose(value[0], leaves.x.value, atol=1e-5)
    with pytest.raises(ProblemError) as raised:
        compile_problem(before, before.parameters(), [leaves.x])
    assert explain(before) == str(raised.value)


def test_the_relaxation_of_an_integral_polytope_has_the_same_solution() -> None:
    weight = cp.Parameter((N, N), name="weight")
    choice, relaxed = cp.Variable((N, N), boolean=True), cp.Variable((N, N), bounds=[0, 1])
    before, after = (
        cp.Problem(cp.Maximize(cp.sum(cp.multiply(weight, X))), [cp.sum(X, axis=0) == 1, cp.sum(X, axis=1) == 1])
        for X in (choice, relaxed)
    )
    assert "bounds=[0, 1]" in explain(before)
    (value,) = CvxpyLayer(after, [weight], [relaxed])(normal(N, N))
    best = max(itertools.permutations(range(N)), key=lambda order: normal(N, N)[range(N), order].sum())
    np.testing.assert_allclose(value, np.eye(N)[list(best)], atol=1e-7)


def test_explain_says_what_freezing_changes() -> None:
    leaves = Leaves()
    problem = minimise(cp.sum_squares(leaves.g * (leaves.A @ leaves.x) - 1) + cp.sum_squares(leaves.x))
    assert "freeze=[...]" in explain(problem)
    assert "Nothing stands in the way" in explain(problem, freeze=[leaves.g])
    with pytest.raises(SignatureError, match="A has none"):
        explain(problem, freeze=[leaves.A])
    with pytest.raises(SignatureError, match=r"must be a cvxpy\.Problem, got str"):
        explain("problem")


def test_explain_leaves_the_problem_alone() -> None:
    problem = NOT_DPP["scaled_quad_form"][0](Leaves())
    before = str(problem)
    explain(problem)
    assert str(problem) == before
    assert [parameter.value for parameter in problem.parameters()] == [0.5, None]


SIGNATURES: dict[str, tuple[Callable[[Leaves], tuple[object, object]], str]] = {
    "missing": (lambda v: ([v.r], [v.x]), r"must exactly match problem\.parameters; missing from the list: w$"),
    "foreign": (lambda v: ([v.r, v.w, v.h], [v.x]), r"must exactly match problem\.parameters; not in the problem: h$"),
    "twice": (lambda v: ([v.r, v.w, v.r], [v.x]), r"must exactly match problem\.parameters; listed twice: r$"),
    "no_parameter": (
        lambda v: ([v.r, v.w, 3], [v.x]),
        r"must exactly match problem\.parameters; not in the problem: 3$",
    ),
    "parameters_no_list": (lambda v: ({v.r, v.w}, [v.x]), "parameters must be provided as a list or tuple, got set"),
    "variables_no_list": (lambda v: ([v.r, v.w], v.x), "variables must be provided as a list or tuple, got Variable"),
    "no_variable": (lambda v: ([v.r, v.w], []), "list at least one variable"),
    "foreign_variable": (
        lambda v: ([v.r, v.w], [v.x, v.t]),
        r"must be a subset of problem\.variables, or dual .* entry #1, t, is neither\. The variables are x$",
    ),
    "expression": (lambda v: ([v.r, v.w], [v.x + 1]), r"entry #0, x \+ .*, is neither"),
}


@pytest.mark.parametrize("name", list(SIGNATURES))
def test_signature(name: str) -> None:
    leaves = Leaves()
    lists, words = SIGNATURES[name]
    parameters, variables = lists(leaves)
    problem = minimise(cp.sum_squares(leaves.x - leaves.r), leaves.x <= leaves.w)
    with pytest.raises(SignatureError, match=words) as raised:
        compile_problem(problem, parameters, variables)
    assert isinstance(raised.value, ValueError)


def test_a_missing_parameter_with_a_value_may_be_frozen() -> None:
    leaves = Leaves()
    leaves.w.value = np.ones(N)
    problem = minimise(cp.sum_squares(leaves.x - leaves.r), leaves.x <= leaves.w)
    with pytest.raises(SignatureError, match=r"missing from the list: w\. To fix w .*freeze=\[w\]"):
        compile_problem(problem, [leaves.r], [leaves.x])


def test_a_constraint_with_several_duals_must_be_listed_by_dual() -> None:
    x, t = cp.Variable(2), cp.Variable()
    cone = cp.SOC(t, x)
    with pytest.raises(SignatureError, match=r"Entry #0 .* 2 dual variables: .*constraint\.dual_variables\[0\]"):
        compile_problem(minimise(t, cone), [], [cone])


def test_what_is_not_a_problem() -> None:
    with pytest.raises(SignatureError, match=r"must be a cvxpy\.Problem, got int"):
        compile_problem(3, [], [])
