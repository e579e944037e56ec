"""Every problem of the catalogue: values and derivatives against an independent reference, and among themselves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cvxpy as cp
import numpy as np
import pytest

from cvxlayers import CvxpyLayer
from cvxlayers.solvers.registry import suitable
from tests import checks
from tests.problems import CASES, Case, support
from tests.reference import Difference, Reference, Solved

torch = pytest.importorskip("torch")
torch_layer = pytest.importorskip("cvxlayers.torch").CvxpyLayer

CASE = pytest.mark.parametrize("case", CASES.values(), ids=str)
CASE_SOLVER = pytest.mark.parametrize(
    ("case", "solver"),
    [(case, solver) for case in CASES.values() for solver in (None, *case.solvers)],
    ids=lambda value: "default" if value is None else str(value),
)
# Parameters of up to this many entries are differentiated along every entry, others along a few random directions.
FULL, DIRECTIONS = 4, 2
# Of a batch, these fractions of the items are solved alone: cones whose projection is a search take longer.
BATCH, STRIDE = 64, {"EXP": 4, "POWER": 16}
# Solvers for programs of one form, with tests of their own.
RECOGNISED = {"BOUNDED", "ENTROPIC", "PROJECTION"}
# Any solution x of the same residual is right to about 1e-11 at these condition numbers.
VALUE = 1e-8
# Rounding, times the condition numbers of the catalogue's systems.
ROUNDING = 1e-9
# What is computed with a batch axis of another length is summed in another order.
ALONE = 1e-12

pytestmark = [
    pytest.mark.filterwarnings("ignore:The problem has an expression with dimension greater than 2"),
    pytest.mark.filterwarnings("ignore:.*sparse CVXPY expression"),
]
# CVXPY before 1.9.3 drops a quadratic term that stands beside a log-determinant: its value is not that of its solution.
WRONG_IN_CVXPY = {("1.9.0", "exp_covariance"), ("1.9.2", "exp_covariance")}


@dataclass(frozen=True)
class Expected:
    """What the reference says of one problem at one sample."""

    reference: Reference
    values: list[np.ndarray]
    solved: Solved
    differences: list[Difference]

    @property
    def outputs(self) -> list[np.ndarray]:
        """The listed variables, without the duals."""
        return self.solved.outputs[: len(self.reference.variables)]

    @property
    def primal_differences(self) -> list[Difference]:
        """The differences of the listed variables."""
        count = len(self.reference.variables)
        return [Difference(d.slot, d.direction, d.outputs[:count], d.error) for d in self.differences]


@cache
def expected(name: str) -> Expected:
    """The reference's results for a problem, along enough directions for every parameter."""
    case = CASES[name]
    if (cp.__version__, name) in WRONG_IN_CVXPY:
        pytest.skip(f"CVXPY {cp.__version__} reduces this problem to another one, and the reference rests on it")
    reference = Reference(case)
    values = case.sample(np.random.default_rng(0))
    solved = reference.solve(values)
    rng = np.random.default_rng(1)
    differences = [
        reference.difference(values, solved, slot, direction)
        for slot, parameter in enumerate(reference.parameters)
        for direction in _directions(parameter, rng)
    ]
    return Expected(reference, values, solved, differences)


def _directions(parameter, rng: np.random.Generator) -> list[np.ndarray]:
    """Directions in which the parameter may move: symmetric, or on its sparsity."""
    mask = support(parameter)
    entries = np.argwhere(mask) if np.sum(mask) <= FULL else []
    found = [np.zeros(parameter.shape) for _ in entries]
    for direction, entry in zip(found, entries, strict=True):
        direction[tuple(entry)] = 1.0
    found = found or [rng.normal(size=parameter.shape) * mask for _ in range(DIRECTIONS)]
    if any(parameter.attributes[name] for name in ("symmetric", "PSD", "NSD")):
        found = [direction + direction.T for direction in found]
    return found


def layer_of(case: Case, **options: object) -> CvxpyLayer:
    """The neutral layer of a problem."""
    problem, parameters, variables = case.build()
    return CvxpyLayer(problem, parameters, variables, gp=case.gp, **options)


def torch_layer_of(case: Case, **options: object) -> torch.nn.Module:
    """The torch layer of a problem."""
    problem, parameters, variables = case.build()
    return torch_layer(problem, parameters, variables, gp=case.gp, **options)


def solve_and_differentiate(
    layer: torch.nn.Module, values: list[np.ndarray], cotangents: list[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The outputs at some values, and the gradients for some cotangents."""
    tensors = [torch.tensor(value, requires_grad=True) for value in values]
    outputs = layer(*tensors)
    gradients = torch.autograd.grad(outputs, tensors, [torch.tensor(cotangent) for cotangent in cotangents])
    return [output.detach().numpy() for output in outputs], [gradient.numpy() for gradient in gradients]


def known_shapes(case: Case, batch: int) -> list[np.ndarray]:
    """Arrays of the shapes of a batch of outputs."""
    return [np.empty((batch, *variable.shape)) for variable in case.build()[2]]


def _item(arrays: list[np.ndarray], item: int) -> list[np.ndarray]:
    return [array[item] for array in arrays]


def test_the_catalogue_covers_all_kinds():
    assert len(CASES) >= 40
    built = [case.build() for case in CASES.values()]
    parameters = [parameter.attributes for _, listed, _ in built for parameter in listed]
    variables = [variable.attributes for _, _, listed in built for variable in listed]
    for attribute in ("nonneg", "nonpos", "pos", "neg", "symmetric", "PSD", "NSD", "diag", "sparsity"):
        assert any(attributes[attribute] for attributes in parameters), f"no parameter has {attribute}"
    for attribute in ("nonneg", "nonpos", "bounds", "symmetric", "PSD", "NSD", "diag"):
        assert any(attributes[attribute] for attributes in variables), f"no variable has {attribute}"
    for axes in range(4):
        assert any(parameter.ndim == axes for _, listed, _ in built for parameter in listed)
        assert any(variable.ndim == axes for _, _, listed in built for variable in listed)


@CASE
def test_the_reference_is_exact(case: Case):
    known = expected(case.name)
    assert known.solved.residual <= 1e-12
    assert known.solved.margin >= 1e-2, "the sample is too near a kink: choose other draws"
    for difference in known.differences:
        size = max(1.0, *(float(np.max(np.abs(output))) for output in difference.outputs))
        assert difference.error <= 1e-7 * size, f"parameter #{difference.slot}"


@CASE
def test_the_row_names_every_solver_that_fits(case: Case):
    general = set(suitable(layer_of(case).layer.kernel.structure)) - RECOGNISED
    assert set(case.solvers) == general


@CASE_SOLVER
def test_values_and_gradients(case: Case, solver: str | None):
    if solver == "ECOS":
        pytest.importorskip("ecos")
    known = expected(case.name)
    layer = torch_layer_of(case, solver=solver)
    cotangents = checks.cotangents_of(known.outputs, np.random.default_rng(2))
    outputs, gradients = solve_and_differentiate(layer, known.values, cotangents)
    checks.assert_close(outputs, known.outputs, VALUE, "variable")
    checks.assert_gradients(gradients, cotangents, known.primal_differences, case.tolerance)


@CASE
def test_gradients_keep_the_structure_of_their_parameter(case: Case):
    known = expected(case.name)
    cotangents = checks.cotangents_of(known.outputs, np.random.default_rng(2))
    gradients, _ = layer_of(case).vjp(known.values, cotangents)
    for parameter, gradient in zip(known.reference.parameters, gradients, strict=True):
        if any(parameter.attributes[name] for name in ("symmetric", "PSD", "NSD")):
            np.testing.assert_array_equal(gradient, gradient.T)
        assert not np.any(gradient[~support(parameter)])


@CASE
def test_tangents(case: Case):
    known = expected(case.name)
    layer = layer_of(case)
    for difference in known.primal_differences:
        tangents: list[np.ndarray | None] = [None] * len(known.values)
        tangents[difference.slot] = difference.direction
        checks.assert_tangents(layer.jvp(known.values, tangents)[0], difference, case.tolerance)


@CASE
def test_duals(case: Case):
    known = expected(case.name)
    problem, parameters, variables = case.build()
    duals = [dual for constraint in problem.constraints for dual in constraint.dual_variables]
    layer = CvxpyLayer(problem, parameters, [*variables, *duals], gp=case.gp)
    outputs = layer(*known.values)
    checks.assert_close(outputs, known.solved.outputs, VALUE, "variable or dual")
    cotangents = checks.cotangents_of(outputs, np.random.default_rng(3))
    gradients, _ = layer.vjp(known.values, cotangents)
    checks.assert_gradients(gradients, cotangents, known.differences, case.tolerance)


@CASE
def test_adjoint_identity(case: Case):
    rng = np.random.default_rng(4)
    layer = layer_of(case)
    values = case.sample(rng, (3,))
    tangents = [rng.normal(size=value.shape) for value in values]
    outputs, _ = layer.jvp(values, tangents)
    cotangents = checks.cotangents_of(outputs, rng)
    gradients, _ = layer.vjp(values, cotangents)
    forwards, backwards = checks.inner(outputs, cotangents), checks.inner(tangents, gradients)
    size = sum(np.sum(np.abs(a * b)) for a, b in zip(outputs, cotangents, strict=True))
    # Where the derivative is zero, as at the vertices of a simplex, there is nothing but rounding.
    assert abs(forwards - backwards) <= ROUNDING * (size + 1e-4)


@CASE
def test_a_batch_equals_a_loop(case: Case):
    rng = np.random.default_rng(5)
    layer = torch_layer_of(case)
    values = case.sample(rng, (BATCH,))
    cotangents = checks.cotangents_of(known_shapes(case, BATCH), rng)
    outputs, gradients = solve_and_differentiate(layer, values, cotangents)
    for item in range(0, BATCH, STRIDE.get(case.kind, 1)):
        mine = solve_and_differentiate(layer, _item(values, item), _item(cotangents, item))
        checks.assert_close(_item(outputs, item), mine[0], ROUNDING, f"item {item}, variable")
        checks.assert_close(_item(gradients, item), mine[1], ROUNDING, f"item {item}, gradient")


@CASE
@pytest.mark.filterwarnings("ignore::cvxlayers.errors.CvxlayersWarning")
def test_neighbours_do_not_matter(case: Case):
    """An item is the same alone, up to rounding, and to the bit beside neighbours that are wild or not numbers."""
    rng = np.random.default_rng(6)
    layer = torch_layer_of(case, on_failure="mask")
    values = case.sample(rng, (4,))
    cotangents = checks.cotangents_of(known_shapes(case, 4), rng)
    outputs, gradients = solve_and_differentiate(layer, values, cotangents)
    alone = solve_and_differentiate(layer, _item(values, 2), _item(cotangents, 2))
    checks.assert_close(_item(outputs, 2), alone[0], ALONE, "alone: variable")
    checks.assert_close(_item(gradients, 2), alone[1], ALONE, "alone: gradient")
    for disturbance in (1e6, np.nan):
        beside = [value.copy() for value in values]
        for value in beside:
            value[[0, 1, 3]] *= disturbance
        mine = solve_and_differentiate(layer, beside, cotangents)
        checks.assert_same_bits(_item(mine[0], 2), _item(outputs, 2), f"beside {disturbance}: variable")
        checks.assert_same_bits(_item(mine[1], 2), _item(gradients, 2), f"beside {disturbance}: gradient")


@CASE
def test_upstream_gradients_of_any_size_scale_linearly(case: Case):
    known = expected(case.name)
    tensors = [torch.tensor(value, requires_grad=True) for value in known.values]
    outputs = torch_layer_of(case)(*tensors)
    cotangents = [torch.tensor(c) for c in checks.cotangents_of(known.outputs, np.random.default_rng(7))]

    def gradients(scale: float) -> list[np.ndarray]:
        scaled = torch.autograd.grad(outputs, tensors, [scale * cotangent for cotangent in cotangents], True)
        return [gradient.numpy() / scale for gradient in scaled]

    plain = gradients(1.0)
    for scale in (1e-30, 1e-8, 1e12, 1e30):
        checks.assert_close(gradients(scale), plain, 1e-12, f"scale {scale}: gradient")


@CASE
def test_an_empty_batch(case: Case):
    layer = torch_layer_of(case)
    values = [torch.empty((0, *parameter.shape), dtype=torch.float64).requires_grad_() for parameter in case.build()[1]]
    outputs = layer(*values)
    assert [output.shape for output in outputs] == [(0, *variable.shape) for variable in case.build()[2]]
    gradients = torch.autograd.grad(sum(output.sum() for output in outputs), values)
    assert [gradient.shape for gradient in gradients] == [value.shape for value in values]
