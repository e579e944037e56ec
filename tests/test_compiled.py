"""The maps of a compiled problem: plain arrays, tested without CVXPY against dense matrices and dot products."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import cvxpy
import numpy as np
import pytest
import scipy.sparse as sp

from cvxlayers.affine_map import AffineMap
from cvxlayers.canonical import compile_problem
from cvxlayers.compiled import CompiledProblem
from cvxlayers.errors import InputError, ShapeError
from cvxlayers.grid import find_grid
from cvxlayers.linear_map import LinearMap
from cvxlayers.parameter_map import ParameterMap, Theta
from cvxlayers.variable_map import VariableMap

# CVXPY's annotations do not know the operators of its expressions.
cp: Any = cvxpy

# Sums of a few products of numbers of order one.
ROUNDING = 1e-13


def sparse(dense: list[list[float]] | np.ndarray) -> sp.csr_array:
    return sp.csr_array(np.asarray(dense, dtype=float))


def transposition(height: int, width: int) -> np.ndarray:
    """Takes matrices whose columns lie one after another to those whose rows do."""
    return np.eye(height * width)[np.arange(height * width).reshape(width, height).T.ravel()]


MATRICES = {
    "selection": np.eye(5)[[3, 0, 4, 2, 1]],
    "repeated": np.eye(5)[[3, 3, 0]],
    "scaled": np.diag([1.0, -2.0, 0.5, 3.0, 1.0]),
    "uniformly_scaled": -2.0 * np.eye(5)[[1, 2]],
    "empty_rows": np.eye(5) * np.array([0.0, 1.0, 0.0, 2.0, 0.0]),
    "pairs": 0.5 * (np.eye(5) + np.eye(5)[::-1]),
    "pairs_beside_lone_entries": np.array([[1.0, 2, 0, 0, 0], [0, 0, 0, 3, 0], [0, 0, 0, 0, 0], [0, 0, -1, 0, 1]]),
    "longer_rows": np.arange(15.0).reshape(3, 5) - 7,
    "transposed": transposition(9, 11),
    "symmetrised": 0.5 * (np.eye(81) + transposition(9, 9)),
    "antisymmetrised": np.eye(81) - transposition(9, 9),
    "transposed_among_others": 3.0 * np.pad(transposition(11, 9), ((2, 5), (4, 1))),
    "transposed_with_rows_apart": transposition(10, 12).reshape(12, 10, 120)[:, 2:].reshape(96, 120),
    "transposed_with_gaps": np.kron(transposition(8, 9), [[0.0], [2.0]]),
    "nothing": np.zeros((4, 5)),
    "no_rows": np.zeros((0, 5)),
    "no_columns": np.zeros((3, 0)),
}


@pytest.mark.parametrize("name", list(MATRICES))
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_linear_map(name: str, batch: int, rng: np.random.Generator) -> None:
    matrix = MATRICES[name]
    linear = LinearMap(sparse(matrix))
    v, w = rng.normal(size=(batch, matrix.shape[1])), rng.normal(size=(batch, matrix.shape[0]))
    kept = v.copy(), w.copy()
    np.testing.assert_allclose(linear.apply(v), v @ matrix.T, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(linear.adjoint(w), w @ matrix, rtol=0, atol=ROUNDING)
    total = np.ones((batch, matrix.shape[1]))
    linear.add_adjoint(w, total)
    np.testing.assert_allclose(total, 1 + w @ matrix, rtol=0, atol=ROUNDING)
    np.testing.assert_array_equal(v, kept[0])
    np.testing.assert_array_equal(w, kept[1])


@pytest.mark.parametrize("name", list(MATRICES))
def test_a_row_of_a_batch_has_the_bits_it_has_alone(name: str, rng: np.random.Generator) -> None:
    linear = LinearMap(sparse(MATRICES[name]))
    v, w = (rng.normal(size=(7, size)) for size in reversed(MATRICES[name].shape))
    for item in range(7):
        np.testing.assert_array_equal(linear.apply(v)[item], linear.apply(v[[item]])[0])
        np.testing.assert_array_equal(linear.adjoint(w)[item], linear.adjoint(w[[item]])[0])


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("down", "across"), [(40, 3), (3, 40), (27, 2)])
def test_grids_are_views_of_the_indices(turned: bool, down: int, across: int, rng: np.random.Generator) -> None:
    index = 5 + down * np.arange(9)[:, None] + across * np.arange(13)
    index = (index.T if turned else index).ravel()
    size = int(index.max()) + 20
    grid = find_grid(index, size)
    v = rng.normal(size=(4, size + 7))
    assert grid is not None
    for vectors in (v[:, :size], v[:0, :size], v[:, 7:]):
        view = grid.view(vectors)
        assert view.base is not None
        np.testing.assert_array_equal(view.reshape(len(vectors), len(index)), vectors[:, index])


@pytest.mark.parametrize(
    "index",
    [
        np.arange(100),
        np.zeros(0, dtype=int),
        np.array([3]),
        np.tile(np.arange(9), 9),
        np.arange(81)[::-1],
        np.append(np.arange(90).reshape(9, 10).T.ravel(), 3),
        np.arange(90).reshape(30, 3).T.ravel()[:-1],
        np.add.outer(np.arange(9), 5 * np.arange(9)).ravel(),
    ],
)
def test_what_is_no_grid_is_told(index: np.ndarray) -> None:
    assert find_grid(index, 200) is None


@pytest.mark.parametrize("batch", [1, 4, 300])
@pytest.mark.parametrize("offset", [0.0, 0.25])
def test_matrices_side_by_side_have_the_bits_of_one_item(batch: int, offset: float, rng: np.random.Generator) -> None:
    """Columns of two parameters one below the other, and a constant: in large batches these are written apart.

    Not so where a constant is added to them.
    """
    top, bottom = np.arange(120).reshape(10, 12), 120 + np.arange(200).reshape(10, 20)
    order = np.hstack([top, bottom, np.full((10, 1), -1)]).ravel()
    matrix, constant = np.zeros((330, 320)), np.where(order < 0, 2.0, offset)
    matrix[order >= 0, order[order >= 0]] = -0.3
    affine = AffineMap(LinearMap(sparse(matrix)), constant, (slice(0, 120), slice(120, 320)))
    blocks = rng.normal(size=(batch, 120)), rng.normal(size=(batch, 200))
    found = affine.apply(Theta(blocks, (False, False), batch))
    np.testing.assert_array_equal(found, np.where(order < 0, 2.0, -0.3 * np.hstack(blocks)[:, order] + offset))
    last = Theta((blocks[0][-1:], blocks[1][-1:]), (False, False), 1)
    np.testing.assert_array_equal(found[-1:], affine.apply(last))


def test_affine_map_shares_what_no_batched_parameter_enters() -> None:
    matrix = sparse([[1.0, 0.0], [2.0, 0.0]])
    columns = (slice(0, 1), slice(1, 2))
    affine = AffineMap(LinearMap(matrix), np.array([0.0, 1.0]), columns)
    assert affine.depends == (True, False)
    blocks = (np.array([[3.0], [3.0]]), np.array([[1.0], [2.0]]))
    np.testing.assert_array_equal(affine.apply(Theta(blocks, (True, False), 2)), [[3.0, 7.0]])
    np.testing.assert_array_equal(affine.apply(Theta(blocks, (False, True), 2)), [[3.0, 7.0], [3.0, 7.0]])
    constant = AffineMap(LinearMap(sparse(np.zeros((2, 2)))), np.array([4.0, 5.0]), columns)
    shared = constant.apply(Theta(blocks, (False, False), 2))
    np.testing.assert_array_equal(shared, [[4.0, 5.0]])
    assert np.shares_memory(shared, constant.constant)
    assert affine.constant_values is None
    assert constant.constant_values is constant.constant


def test_affine_map_of_shared_and_batched_parameters() -> None:
    affine = AffineMap(LinearMap(sparse([[1.0, 10.0]])), np.zeros(1), (slice(0, 1), slice(1, 2)))
    blocks = (np.array([[3.0], [3.0]]), np.array([[1.0], [2.0]]))
    np.testing.assert_array_equal(affine.apply(Theta(blocks, (True, False), 2)), [[13.0], [23.0]])
    np.testing.assert_array_equal(affine.apply(Theta(blocks, (True, True), 2)), [[13.0]])


def test_sums_of_large_parameters_are_sums(rng: np.random.Generator) -> None:
    matrix = sparse(np.hstack([np.eye(128), 2.0 * np.eye(128)]))
    affine = AffineMap(LinearMap(matrix), np.zeros(128), (slice(0, 128), slice(128, 256)))
    one, other = rng.normal(size=(2, 300, 128))
    np.testing.assert_allclose(affine.apply(Theta((one, other), (False, False), 300)), one + 2.0 * other, atol=1e-14)


def test_data_that_are_a_parameter_are_not_the_callers_array(rng: np.random.Generator) -> None:
    affine, block = AffineMap(LinearMap(sparse(np.eye(3))), np.zeros(3), (slice(0, 3),)), rng.normal(size=(2, 3))
    found = affine.apply(Theta((block,), (False,), 2))
    np.testing.assert_array_equal(found, block)
    assert not np.shares_memory(found, block)


LAYOUT = ParameterMap(names=("a", "M", "c"), shapes=((), (2, 3), (2,)), logs=(True, False, True))


def values(rng: np.random.Generator, *leads: tuple[int, ...]) -> list[np.ndarray]:
    """Positive values for the three parameters of LAYOUT with these leading axes."""
    return [
        np.asarray(rng.uniform(0.5, 2.0, size=lead + shape)) for lead, shape in zip(leads, LAYOUT.shapes, strict=True)
    ]


def test_theta_holds_each_parameter_in_c_order_and_its_logarithm_behind_it(rng: np.random.Generator) -> None:
    a, M, c = values(rng, (), (), ())
    theta, batch = LAYOUT.flatten([a, M, c])
    assert batch == ()
    np.testing.assert_array_equal(theta.values, [[a, np.log(a), *M.ravel(), *c, *np.log(c)]])
    assert theta.shared == (True, True, True)


LEADS = {
    "none": ((), (), ()),
    "one_axis": ((4,), (4,), (4,)),
    "mixed": ((), (4,), ()),
    "size_one": ((1,), (4,), ()),
    "two_axes": ((2, 4), (4,), ()),
    "stretched_both_ways": ((2, 1), (1, 4), (4,)),
    "lone_item": ((1,), (1,), (1,)),
    "empty": ((0,), (), (1,)),
    "empty_inside": ((2, 0), (1, 1), ()),
}
LEAD = pytest.mark.parametrize("name", list(LEADS))


@LEAD
def test_flatten_broadcasts_batch_axes(name: str, rng: np.random.Generator) -> None:
    leads = LEADS[name]
    inputs = values(rng, *leads)
    kept = [value.copy() for value in inputs]
    theta, batch = LAYOUT.flatten(inputs)
    assert batch == np.broadcast_shapes(*leads)
    assert theta.values.shape == (int(np.prod(batch)), LAYOUT.width)
    assert theta.shared == tuple(int(np.prod(lead)) == 1 for lead in leads)
    full = [np.broadcast_to(value, batch + shape) for value, shape in zip(inputs, LAYOUT.shapes, strict=True)]
    for row, index in zip(theta.values, np.ndindex(batch), strict=True):
        expected, _ = LAYOUT.flatten([np.asarray(value[index]) for value in full])
        np.testing.assert_array_equal(row, expected.values[0])
    for value, before in zip(inputs, kept, strict=True):
        np.testing.assert_array_equal(value, before)


@LEAD
def test_parameter_adjoint(name: str, rng: np.random.Generator) -> None:
    inputs = values(rng, *LEADS[name])
    _, batch = LAYOUT.flatten(inputs)
    tangents = [np.asarray(rng.normal(size=value.shape)) for value in inputs]
    dtheta = LAYOUT.tangent(inputs, tangents, batch)
    weights = rng.normal(size=dtheta.shape)
    gradients = LAYOUT.adjoint(inputs, LAYOUT.split(weights), batch)
    assert [gradient.shape for gradient in gradients] == [value.shape for value in inputs]
    forward = np.sum(dtheta * weights)
    backward = sum(np.sum(gradient * tangent) for gradient, tangent in zip(gradients, tangents, strict=True))
    np.testing.assert_allclose(backward, forward, rtol=1e-12, atol=1e-12)


def test_parameter_tangent_is_the_derivative(rng: np.random.Generator) -> None:
    inputs = values(rng, (2,), (), (2,))
    tangents = [np.asarray(rng.normal(size=value.shape)) for value in inputs]
    step = 1e-6
    ahead, behind = (
        LAYOUT.flatten([np.asarray(value + sign * step * t) for value, t in zip(inputs, tangents, strict=True)])[
            0
        ].values
        for sign in (1, -1)
    )
    # Rounding divided by the step, and the cubic term of the logarithm.
    np.testing.assert_allclose(LAYOUT.tangent(inputs, tangents, (2,)), (ahead - behind) / (2 * step), atol=1e-9)


def test_a_missing_tangent_is_zero(rng: np.random.Generator) -> None:
    inputs = values(rng, (2,), (), ())
    tangents = [None, rng.normal(size=(2, 3)), None]
    zeros = [
        np.zeros(value.shape) if tangent is None else tangent for value, tangent in zip(inputs, tangents, strict=True)
    ]
    np.testing.assert_array_equal(LAYOUT.tangent(inputs, tangents, (2,)), LAYOUT.tangent(inputs, zeros, (2,)))


def test_a_masked_item_has_a_zero_gradient_where_its_parameter_is_not_a_number() -> None:
    layout = ParameterMap(names=("a",), shapes=((),), logs=(True,))
    (gradient,) = layout.adjoint([np.array([2.0, np.nan, 0.0])], [np.array([[1.0, 4.0], [0.0, 0.0], [0.0, 0.0]])], (3,))
    np.testing.assert_array_equal(gradient, [3.0, 0.0, 0.0])


SHAPE_ERRORS = {
    "too_few": (
        [(), (2, 3)],
        r"A tensor must be provided for each CVXPY parameter: received 2, expected 3 \(a, M, c\)",
    ),
    "too_many": (
        [(), (2, 3), (2,), (2,)],
        "A tensor must be provided for each CVXPY parameter: received 4, expected 3",
    ),
    "too_flat": (
        [(), (3,), (2,)],
        r"Invalid parameter dimensionality for parameter 'M' \(#1\): got 1 axes, shape \(3,\); expected at least 2",
    ),
    "wrong_shape": (
        [(), (5, 2, 4), (2,)],
        r"Invalid parameter shape for parameter 'M' \(#1\): got \(5, 2, 4\), expected \(2, 3\) or \(\*batch, 2, 3\)$",
    ),
    "transposed": ([(), (5, 3, 2), (2,)], "Invalid parameter shape .* look transposed"),
    "batches": ([(4,), (2, 3), (3, 2)], r"Inconsistent batch sizes: .*'a': \(4,\), 'c': \(3,\)"),
    "empty_batch": ([(0,), (2, 3), (3, 2)], "Inconsistent batch sizes"),
}


@pytest.mark.parametrize("name", list(SHAPE_ERRORS))
def test_shape_errors(name: str) -> None:
    shapes, words = SHAPE_ERRORS[name]
    with pytest.raises(ShapeError, match=words) as raised:
        LAYOUT.flatten([np.ones(shape) for shape in shapes])
    assert isinstance(raised.value, ValueError)


def test_a_logarithm_needs_positive_values() -> None:
    with pytest.raises(
        InputError, match=r"'c' of a geometric program must be positive: 2 of 3 items .* \(items \[0, 2\]\)"
    ):
        LAYOUT.flatten([np.array(1.0), np.ones((2, 3)), np.array([[1.0, 0.0], [1.0, 1.0], [-2.0, 1.0]])])


OUTPUTS = VariableMap(
    names=("x", "dual", "grown"),
    shapes=((2, 2), (), (3,)),
    x=LinearMap(sparse(np.vstack([np.eye(4)[[0, 2, 1, 3]], np.zeros((1, 4)), np.eye(4)[:3] * 0.3]))),
    y=LinearMap(sparse(np.vstack([np.zeros((4, 2)), [[0.0, -1.5]], np.zeros((3, 2))]))),
    exps=(False, False, True),
)


def test_variables_are_recovered_in_their_shapes(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(3, 4)), rng.normal(size=(3, 2))
    primal, dual, grown = OUTPUTS.recover(x, y)
    np.testing.assert_array_equal(primal, x.reshape(3, 2, 2).transpose(0, 2, 1))
    np.testing.assert_array_equal(dual, -1.5 * y[:, 1])
    np.testing.assert_array_equal(grown, np.exp(0.3 * x[:, :3]))


def test_a_variable_that_is_all_of_x_is_not_part_of_it(rng: np.random.Generator) -> None:
    whole = VariableMap(("x",), ((3,),), LinearMap(sparse(np.eye(3))), LinearMap(sparse(np.zeros((3, 1)))), (False,))
    x = rng.normal(size=(2, 3))
    (found,) = whole.recover(x, np.zeros((2, 1)))
    np.testing.assert_array_equal(found, x)
    assert not np.shares_memory(found, x)


def test_variable_tangent_and_adjoint(rng: np.random.Generator) -> None:
    x, y, dx, dy = (rng.normal(size=(3, size)) for size in (4, 2, 4, 2))
    step = 1e-6
    ahead, behind = (OUTPUTS.recover(x + sign * step * dx, y + sign * step * dy) for sign in (1, -1))
    tangents = OUTPUTS.tangent(x, y, dx, dy)
    for tangent, up, down in zip(tangents, ahead, behind, strict=True):
        np.testing.assert_allclose(tangent, (up - down) / (2 * step), atol=1e-9)
    weights = [rng.normal(size=tangent.shape) for tangent in tangents]
    x_bar, y_bar = OUTPUTS.adjoint(x, y, weights)
    forward = sum(np.sum(weight * tangent) for weight, tangent in zip(weights, tangents, strict=True))
    np.testing.assert_allclose(np.sum(x_bar * dx) + np.sum(y_bar * dy), forward, rtol=1e-12)
    missing = OUTPUTS.adjoint(x, y, [None, weights[1], None])
    zeros = OUTPUTS.adjoint(x, y, [np.zeros_like(weights[0]), weights[1], np.zeros_like(weights[2])])
    for left, right in zip(missing, zeros, strict=True):
        np.testing.assert_array_equal(left, right)


def compiled() -> CompiledProblem:
    """A least-squares problem on the simplex, with its multiplier."""
    x, A, b = cp.Variable(3, nonneg=True, name="x"), cp.Parameter((4, 3), name="A"), cp.Parameter(4, name="b")
    budget = cp.sum(x) == 1
    return compile_problem(cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [budget]), [A, b], [x, budget])


def assert_same(left: CompiledProblem, right: CompiledProblem, rng: np.random.Generator) -> None:
    inputs = [rng.normal(size=(2, *shape)) for shape in left.parameters.shapes]
    programs = [layer.program(layer.parameters.flatten(inputs)[0]) for layer in (left, right)]
    for field in "PqAb":
        np.testing.assert_array_equal(getattr(programs[0], field), getattr(programs[1], field))
    x, y = rng.normal(size=(2, left.structure.n)), rng.normal(size=(2, left.structure.m))
    for one, other in zip(left.variables.recover(x, y), right.variables.recover(x, y), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_batch_equals_a_loop(rng: np.random.Generator) -> None:
    layer = compiled()
    A, b = rng.normal(size=(5, 4, 3)), rng.normal(size=4)
    theta, _ = layer.parameters.flatten([A, b])
    program = layer.program(theta)
    assert program.batch == 5
    assert len(program.A) == 5
    for shared in (program.P, program.q, program.b):
        assert len(shared) == 1
    cotangents = [
        rng.normal(size=(5, tensor.shape[1])) for tensor in layer.tangent(np.zeros((5, layer.parameters.width)))
    ]
    A_bar, b_bar = layer.parameters.adjoint([A, b], layer.parameters.split(layer.adjoint(*cotangents)), (5,))
    b_total = np.zeros(4)
    for item in range(5):
        theta, _ = layer.parameters.flatten([A[item], b])
        alone = layer.program(theta)
        for field in "PqAb":
            np.testing.assert_array_equal(getattr(program.item(np.array([item])), field), getattr(alone, field))
        parts = layer.adjoint(*(part[[item]] for part in cotangents))
        A_alone, b_alone = layer.parameters.adjoint([A[item], b], layer.parameters.split(parts), ())
        np.testing.assert_array_equal(A_alone, A_bar[item])
        b_total += b_alone
    np.testing.assert_allclose(b_total, b_bar, rtol=0, atol=ROUNDING)


def test_an_empty_batch_has_empty_programs() -> None:
    layer = compiled()
    theta, batch = layer.parameters.flatten([np.zeros((0, 4, 3)), np.zeros(4)])
    program = layer.program(theta)
    assert batch == (0,)
    assert program.batch == 0
    x, dual = layer.variables.recover(np.zeros((0, layer.structure.n)), np.zeros((0, layer.structure.m)))
    assert x.shape == (0, 3)
    assert dual.shape == (0,)


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["copy", "pickle"]
)
def test_copies(clone, rng: np.random.Generator) -> None:
    layer = compiled()
    assert_same(layer, clone(layer), rng)
    # Once more with what the first call has cached.
    assert_same(layer, clone(layer), rng)


def test_a_pickled_problem_works_without_cvxpy(tmp_path: Path) -> None:
    path = tmp_path / "layer.pickle"
    path.write_bytes(pickle.dumps(compiled()))
    script = (
        "import sys; sys.modules['cvxpy'] = None\n"
        "import pickle, pathlib, numpy as np\n"
        f"layer = pickle.loads(pathlib.Path({str(path)!r}).read_bytes())\n"
        "theta, _ = layer.parameters.flatten([np.ones((4, 3)), np.ones(4)])\n"
        "print(layer.program(theta).structure.m, layer.variables.names)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert result.stdout.startswith("8 ('x', ")
