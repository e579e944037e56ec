"""Canonicalisation against CVXPY's own: the same data at given parameters, the same variables and duals back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import cvxpy
import numpy as np
import pytest
import scipy.sparse as sp

from cvxlayers import CvxpyLayer
from cvxlayers.canonical import compile_problem
from cvxlayers.canonical.probe import matrix_of
from cvxlayers.compiled import CompiledProblem
from cvxlayers.cones import Product
from cvxlayers.errors import InputError, ProblemError
from cvxlayers.program import ConeProgram
from tests.cvxpy_problems import CASES, KINDS, PROBLEMS, Built

# CVXPY's annotations do not know the operators of its expressions; Clarabel has none.
cp: Any = cvxpy
clarabel: Any = import_module("clarabel")

CASE = pytest.mark.parametrize("name", list(CASES))
# Rounding of a few additions of numbers of order one, in another order than CVXPY's.
ROUNDING = 1e-13
# CVXPY and the test solve the same data with the same tolerances; what is left is rounding on the way. Where CVXPY's
# program is another one (a power cone of many dimensions, infinite rows), both are right to the solver's tolerance.
OTHER_PROGRAM = ("power_many", "infinite_bounds")

pytestmark = [
    pytest.mark.filterwarnings("ignore:The problem has an expression with dimension greater than 2"),
    pytest.mark.filterwarnings("ignore:Reading from a sparse CVXPY expression"),
]


def built(name: str) -> tuple[Built, bool]:
    """A fresh problem, and whether it is geometric."""
    return CASES[name](), name == "geometric"


def compiled(case: Built, gp: bool = False) -> tuple[CompiledProblem, list[Any]]:
    """Compiles a problem with all its variables, and all its dual variables, as outputs."""
    problem, values = case
    outputs = [
        *problem.variables(),
        *(dual for constraint in problem.constraints for dual in constraint.dual_variables),
    ]
    return compile_problem(problem, list(values), outputs, gp=gp), outputs


def program_at(layer: CompiledProblem, case: Built) -> ConeProgram:
    """The cone program at the values of the case."""
    theta, _ = layer.parameters.flatten(list(case[1].values()))
    return layer.program(theta)


def assign(case: Built) -> cvxpy.Problem:
    """Gives CVXPY the values of the case."""
    problem, values = case
    for parameter, value in values.items():
        if parameter.attributes["sparsity"]:
            parameter.value_sparse = sp.coo_array(
                (value[parameter.sparse_idx], parameter.sparse_idx), shape=value.shape
            )
        else:
            parameter.value = value
    return problem


def clarabel_cones(cone: Product) -> list[object]:
    """The cone as Clarabel writes it."""
    cones: list[object] = [clarabel.ZeroConeT(cone.zero), clarabel.NonnegativeConeT(cone.nonnegative)]
    cones += [clarabel.SecondOrderConeT(size) for size in cone.second_order]
    cones += [clarabel.PSDTriangleConeT(order) for order in cone.semidefinite]
    cones += [clarabel.ExponentialConeT() for _ in range(cone.exponential)]
    return cones + [clarabel.PowerConeT(alpha) for alpha in cone.power]


def solve(program: ConeProgram) -> tuple[np.ndarray, np.ndarray]:
    """Solves one program: x and y, each with a batch axis of one."""
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    structure = program.structure
    P = sp.triu(structure.P.matrix(program.P[0]), format="csc")
    A, cones = structure.A.matrix(program.A[0]), clarabel_cones(structure.cone)
    solution = clarabel.DefaultSolver(P, program.q[0], A, program.b[0], cones, settings).solve()
    assert str(solution.status) == "Solved"
    return np.array([solution.x]), np.array([solution.z])


@CASE
def test_data_equal_cvxpys(name: str) -> None:
    case, gp = built(name)
    if name == "power_many":
        pytest.skip("CVXPY hands Clarabel this cone whole")
    layer, _ = compiled(case, gp)
    program, structure = program_at(layer, case), layer.structure
    data, _, inverse = assign(case).get_problem_data(cp.CLARABEL, gp=gp)
    bounding = np.isfinite(data["b"])
    n = structure.n
    P = data["P"].toarray() if "P" in data else np.zeros((n, n))
    np.testing.assert_allclose(structure.P.dense(program.P)[0], (P + P.T) / 2, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(program.q[0], data["c"], rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(structure.A.dense(program.A)[0], data["A"].toarray()[bounding], rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(program.b[0], data["b"][bounding], rtol=0, atol=ROUNDING)
    theta, _ = layer.parameters.flatten(list(case[1].values()))
    np.testing.assert_allclose(layer.offset.apply(theta)[0], inverse[-1]["offset"], rtol=0, atol=ROUNDING)
    dims = data["dims"]
    assert structure.cone.zero == dims.zero
    assert structure.cone.nonnegative == dims.nonneg - np.sum(~bounding)
    assert structure.cone.second_order == tuple(dims.soc)
    assert structure.cone.semidefinite == tuple(dims.psd)
    assert structure.cone.exponential == dims.exp
    assert structure.cone.power == tuple(dims.p3d)


@CASE
def test_outputs_equal_cvxpys_values(name: str) -> None:
    case, gp = built(name)
    layer, outputs = compiled(case, gp)
    x, y = solve(program_at(layer, case))
    recovered = layer.variables.recover(x, y)
    assign(case).solve(solver=cp.CLARABEL, gp=gp)
    tolerance = 1e-4 if name in OTHER_PROGRAM else 1e-8
    for output, value in zip(outputs, recovered, strict=True):
        expected = output.value.toarray() if sp.issparse(output.value) else np.asarray(output.value)
        assert value.shape == (1, *output.shape)
        np.testing.assert_allclose(value[0], np.reshape(expected, output.shape), rtol=tolerance, atol=tolerance)


@CASE
def test_objective_equals_cvxpys_value(name: str) -> None:
    case, gp = built(name)
    layer, _ = compiled(case, gp)
    program = program_at(layer, case)
    theta, _ = layer.parameters.flatten(list(case[1].values()))
    value = (program.objective(solve(program)[0]) + layer.offset.apply(theta)[:, 0]) * (-1 if layer.maximise else 1)
    expected: Any = assign(case).solve(solver=cp.CLARABEL, gp=gp)
    tolerance = 1e-6 if name in OTHER_PROGRAM else 1e-8
    np.testing.assert_allclose(np.exp(value) if gp else value, expected, rtol=tolerance, atol=tolerance)


@CASE
def test_adjoints(name: str, rng: np.random.Generator) -> None:
    case, gp = built(name)
    layer, _ = compiled(case, gp)
    dtheta = rng.normal(size=(2, layer.parameters.width))
    tangents = layer.tangent(dtheta)
    weights = [rng.normal(size=tangent.shape) for tangent in tangents]
    forward = sum(np.sum(tangent * weight) for tangent, weight in zip(tangents, weights, strict=True))
    np.testing.assert_allclose(np.sum(layer.adjoint(*weights) * dtheta), forward, rtol=1e-10, atol=1e-12)


@CASE
def test_data_are_affine_in_theta(name: str, rng: np.random.Generator) -> None:
    case, gp = built(name)
    layer, _ = compiled(case, gp)
    theta, _ = layer.parameters.flatten(list(case[1].values()))
    dtheta = rng.normal(size=theta.values.shape)
    moved = replace(theta, blocks=tuple(layer.parameters.split(theta.values + dtheta)))
    before, after, tangent = layer.program(theta), layer.program(moved), layer.tangent(dtheta)
    for field, change in zip("PqAb", tangent, strict=True):
        np.testing.assert_allclose(getattr(after, field) - getattr(before, field), change, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["symmetric", "PSD", "NSD"])
def test_gradient_of_a_symmetric_parameter_is_symmetric(name: str, rng: np.random.Generator) -> None:
    case = KINDS[name]()
    layer, _ = compiled(case)
    values = list(case[1].values())
    dtheta = layer.adjoint(
        *(rng.normal(size=part.shape) for part in layer.tangent(np.zeros((1, layer.parameters.width))))
    )
    (gradient,) = layer.parameters.adjoint(values, [dtheta], ())
    np.testing.assert_array_equal(gradient, gradient.T)
    assert np.abs(gradient).max() > 0.1


def test_only_the_symmetric_part_of_a_value_enters(rng: np.random.Generator) -> None:
    case = KINDS["symmetric"]()
    layer, _ = compiled(case)
    skew = rng.normal(size=(3, 3))
    (value,) = case[1].values()
    shifted, _ = layer.parameters.flatten([value + skew - skew.T])
    np.testing.assert_allclose(layer.program(shifted).b, program_at(layer, case).b, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", list(PROBLEMS))
def test_the_problem_is_left_as_it_was(name: str) -> None:
    case, gp = built(name)
    problem, _ = case
    leaves = [*problem.parameters(), *problem.variables()]
    duals = [dual for constraint in problem.constraints for dual in constraint.dual_variables]
    before = [leaf.value for leaf in [*leaves, *duals]]
    cache = problem._cache.key
    first, second = compiled(case, gp)[0], compiled(case, gp)[0]
    assert [leaf.value for leaf in [*leaves, *duals]] == before
    assert problem._cache.key == cache
    program, again = program_at(first, case), program_at(second, case)
    for field in "PqAb":
        np.testing.assert_array_equal(getattr(program, field), getattr(again, field))


def test_compiling_after_solving_and_with_values_changes_nothing() -> None:
    case, _ = built("quadratic_program")
    fresh = program_at(compiled(case)[0], case)
    assign(case).solve(solver=cp.CLARABEL)
    solved = program_at(compiled(case)[0], case)
    for parameter in case[1]:
        parameter.value = parameter.project(np.zeros(parameter.shape))
    zeroed = compiled(case)[0]
    assert zeroed.structure.P.nnz == 9
    for field in "PqAb":
        np.testing.assert_array_equal(getattr(solved, field), getattr(fresh, field))
        np.testing.assert_array_equal(getattr(program_at(zeroed, case), field), getattr(fresh, field))


def test_three_ways_to_write_a_bound_give_one_program() -> None:
    programs = []
    for attributes, constraints in (({"nonneg": True}, []), ({"bounds": [0, None]}, []), ({}, [lambda x: x >= 0])):
        x, p = cp.Variable(3, name="x", **attributes), cp.Parameter(3)
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [make(x) for make in constraints])
        layer = compile_problem(problem, [p], [x])
        programs.append(program_at(layer, (problem, {p: np.arange(3.0)})))
    for program in programs:
        assert program.structure.cone == programs[0].structure.cone
        np.testing.assert_array_equal(program.b, programs[0].b)
        np.testing.assert_array_equal(
            program.structure.A.dense(program.A), programs[0].structure.A.dense(programs[0].A)
        )


@pytest.mark.parametrize(
    "attributes", [{"symmetric": True}, {"PSD": True}, {"diag": True}, {"sparsity": ([0, 1], [0, 1])}]
)
def test_squares_of_a_variable_with_fewer_free_entries(attributes: dict[str, object]) -> None:
    X, p = cp.Variable((2, 2), name="X", **attributes), cp.Parameter(name="p")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X) - cp.trace(X)), [X[0, 0] >= p])
    layer = compile_problem(problem, [p], [X])
    x, y = solve(program_at(layer, (problem, {p: np.array(2.0)})))
    np.testing.assert_allclose(layer.variables.recover(x, y)[0][0], np.diag([2.0, 0.5]), atol=1e-6)


@pytest.mark.parametrize("kind", [cp.ExpCone, lambda x, y, z: cp.PowCone3D(x, y, z, np.full((2, 3), 0.4))])
def test_duals_of_matrices_of_cones(kind: Callable[..., Any]) -> None:
    x, y, z = (cp.Variable((2, 3)) for _ in range(3))
    p = [cp.Parameter((2, 3)) for _ in range(3)]
    cone = kind(x, y, z)
    variables = [x, y, z]
    objective = cp.Minimize(sum(cp.sum_squares(v - target) for v, target in zip(variables, p, strict=True)))
    problem = cp.Problem(objective, [cone])
    layer = compile_problem(problem, p, [*variables, *cone.dual_variables])
    values = dict(zip(p, np.random.default_rng(3).normal(size=(3, 2, 3)), strict=True))
    recovered = layer.variables.recover(*solve(program_at(layer, (problem, values))))
    # The Lagrangian Σ |v − p|² − ⟨dual, v⟩ is stationary in each variable v.
    for target, primal, dual in zip(values.values(), recovered[:3], recovered[3:], strict=True):
        np.testing.assert_allclose(dual[0], 2 * (primal[0] - target), atol=1e-5)
    assert np.abs(recovered[3]).max() > 0.1


def test_a_dropped_row_has_a_zero_dual_in_its_place() -> None:
    case, _ = built("infinite_bounds")
    layer, outputs = compiled(case)
    index = next(i for i, output in enumerate(outputs) if output is case[0].constraints[0].dual_variables[0])
    (_, y) = solve(program_at(layer, case))
    dual = layer.variables.recover(np.zeros((1, layer.structure.n)), y)[index][0]
    assert dual[0] == 0.0
    # The dual of Σ (x − p)² with x ≤ 0.1 and p = 0.4 is 2 (0.4 − 0.1), if the last constraint is not active.
    assert dual[1] > 0.1


def test_a_parameter_that_cancels_has_no_effect() -> None:
    case, _ = built("cancelled")
    layer, _ = compiled(case)
    for affine in (layer.P, layer.q, layer.A, layer.b):
        assert not affine.linear.matrix[:, :3].nnz
        assert not affine.depends[0]
    assert layer.b.depends == (False, True)


def test_a_constraint_stands_for_its_only_dual() -> None:
    x, p = cp.Variable(2), cp.Parameter(2)
    bound = x >= p
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [bound])
    layer = compile_problem(problem, [p], [bound, x, bound.dual_variables[0], x])
    assert layer.variables.shapes == ((2,), (2,), (2,), (2,))
    x_value, y_value = solve(program_at(layer, (problem, {p: np.array([1.0, 3.0])})))
    by_constraint, primal, by_variable, _ = layer.variables.recover(x_value, y_value)
    np.testing.assert_array_equal(by_constraint, by_variable)
    np.testing.assert_allclose(by_constraint[0], [2.0, 6.0], atol=1e-8)
    np.testing.assert_allclose(primal[0], [1.0, 3.0], atol=1e-8)


def test_geometric_parameters_must_be_positive_only_where_a_logarithm_enters() -> None:
    case, gp = built("geometric")
    layer, _ = compiled(case, gp)
    assert layer.parameters.logs == (True, False, True)
    c, a, both = case[1].values()
    with pytest.raises(InputError, match=r"parameter 'c' of a geometric program must be positive: 1 of 2 items.*\[1\]"):
        layer.parameters.flatten([np.stack([c, -c]), a, both])


def test_a_large_parameter_compiles_within_linear_memory() -> None:
    A, x = cp.Parameter((1000, 200)), cp.Variable(200)
    layer = compile_problem(cp.Problem(cp.Minimize(cp.sum_squares(A @ x - 1))), [A], [x])
    assert layer.A.linear.matrix.nnz == 200_000
    assert layer.structure.A.nnz == 201_000


PROBED = {
    "selection": np.eye(6)[[4, 0, 0, 2]] * -0.5,
    "pairs": np.eye(6) - np.eye(6)[::-1],
    "dense": np.arange(18.0).reshape(3, 6) - 8,
    "mixed": np.vstack([np.eye(6)[:3], np.ones((1, 6)), np.zeros((1, 6)), np.eye(6)[[1]] - np.eye(6)[[5]]]),
    "nothing": np.zeros((4, 6)),
    "no_rows": np.zeros((0, 6)),
    "no_columns": np.zeros((2, 0)),
}


@pytest.mark.parametrize("name", list(PROBED))
def test_the_matrix_of_a_linear_function_is_found(name: str) -> None:
    matrix = PROBED[name]
    found = matrix_of(lambda v: matrix @ v, matrix.shape[1])
    np.testing.assert_allclose(found.toarray(), matrix, rtol=0, atol=ROUNDING)
    assert found.nnz == np.count_nonzero(matrix)


@pytest.mark.parametrize("function", [lambda v: v**2, lambda v: v + 1.0, np.exp], ids=["square", "affine", "exp"])
def test_a_function_that_is_not_linear_is_refused(function: Callable[[np.ndarray], np.ndarray]) -> None:
    with pytest.raises(ProblemError, match="not linear"):
        matrix_of(function, 5)


def test_a_constraint_that_is_listed_twice_has_one_dual() -> None:
    x, p = cp.Variable(2, name="x"), cp.Parameter(2, name="p")
    row = cp.sum(x) == 1
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [row, x >= -9, row]), [p], [row])
    value = np.array([1.0, 2.0])
    np.testing.assert_allclose(layer(value)[0], 2.0)
    np.testing.assert_allclose(layer.solve(value).dual[row], 2.0)
