"""The maps between the user's leaves and CVXPY's: parameters on the way in, variables and duals on the way out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.reductions.dgp2dcp.dgp2dcp import Dgp2Dcp

from cvxlayers.canonical.conic import Conic
from cvxlayers.canonical.dilation import mean_dual
from cvxlayers.canonical.probe import matrix_of
from cvxlayers.parameter_map import ParameterMap
from cvxlayers.variable_map import Owner

_NOTHING = (np.zeros(0, dtype=int), np.zeros(0, dtype=int), np.zeros(0))
# The attributes that make a matrix symmetric, or Hermitian.
SYMMETRIC = ("symmetric", "PSD", "NSD", "hermitian")


@dataclass(frozen=True, eq=False)
class Output:
    """One entry of `variables`: a variable, or the dual variable `index` of a constraint."""

    leaf: cp.Variable
    constraint: Any | None = None
    index: int = 0

    @property
    def name(self) -> str:
        """The name of the variable."""
        return self.leaf.name()

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, with a last axis of real and imaginary part where it is complex."""
        return real_shape(self.leaf.shape, self.complex)

    @property
    def complex(self) -> bool:
        """Whether it is complex: a dual variable where its constraint is."""
        return bool((self.leaf if self.constraint is None else self.constraint).is_complex())

    @property
    def owner(self) -> Owner:
        """What it belongs to, for results that are read by CVXPY object or by name."""
        if self.constraint is None:
            return Owner(self.leaf.id, (self.leaf.name(),), dual=False)
        return Owner(self.constraint.id, (str(self.constraint), self.leaf.name()), dual=True)

    def exp(self, conic: Conic) -> bool:
        """Whether the program holds its logarithm."""
        return self.constraint is None and self.leaf.id in conic.exponentials


def real_shape(shape: tuple[int, ...], is_complex: bool) -> tuple[int, ...]:
    """Returns the shape of real numbers that hold an array: complex ones have a last axis of length two."""
    return (*shape, 2) if is_complex else shape


def parameter_matrix(conic: Conic, parameters: Sequence[cp.Parameter], layout: ParameterMap) -> sp.csr_array:
    """Returns the map from theta to CVXPY's vector of parameters, symmetrised where a parameter is symmetric."""
    blocks = []
    for parameter, columns, logs in zip(parameters, layout.columns, layout.log_columns, strict=True):
        blocks.append(_parameter_block(conic, parameter, parameter.id, columns.start))
        if logs is not None:
            blocks.append(_parameter_block(conic, parameter, conic.logarithms[parameter.id], logs.start))
    rows, cols, values = (np.concatenate(parts) for parts in zip(_NOTHING, *blocks, strict=True))
    return sp.csr_array((values, (rows, cols)), shape=(conic.program.total_param_size, layout.width))


def _parameter_block(
    conic: Conic, parameter: cp.Parameter, identity: int, start: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the entries of the map whose columns from `start` on hold a leaf raveled in C order."""
    block = _leaf_matrix(conic, identity, parameter.shape, parameter.is_complex())
    if any(parameter.attributes[attribute] for attribute in SYMMETRIC):
        block = block @ _symmetriser(parameter.shape, parameter.is_complex())
    entries = sp.coo_array(block)
    return entries.row, entries.col + start, entries.data


def _leaf_matrix(conic: Conic, identity: int, shape: tuple[int, ...], is_complex: bool) -> sp.csr_array:
    """Returns the map from one leaf, raveled in C order, to CVXPY's vector of parameters."""
    program = conic.program

    def evaluate(v: np.ndarray) -> np.ndarray:
        deltas: dict[int, Any] = {identity: (v[::2] + 1j * v[1::2] if is_complex else v).reshape(shape)}
        for reduction in conic.chain.reductions:
            if not isinstance(reduction, Dgp2Dcp):
                deltas = reduction.param_forward(deltas)
        vector = np.zeros(program.total_param_size)
        for inner, column in program.param_id_to_col.items():
            if inner in deltas:
                value = np.asarray(deltas[inner]).ravel(order="F")
                vector[column : column + len(value)] = value
        return vector

    return matrix_of(evaluate, int(np.prod(real_shape(shape, is_complex))))


def _symmetriser(shape: tuple[int, ...], is_complex: bool) -> sp.csr_array:
    """Returns the matrix of X ↦ ½(X + Xᴴ) on matrices (the last two axes) raveled in C order."""
    size = int(np.prod(shape))
    swapped = np.swapaxes(np.arange(size).reshape(shape), -1, -2).ravel()
    both = np.concatenate([np.arange(size), swapped])
    # The signs of the transposed real and imaginary parts.
    signs = (1.0, -1.0) if is_complex else (1.0,)
    rows, columns, entries = [], [], []
    for part, sign in enumerate(signs):
        rows.append(len(signs) * np.tile(np.arange(size), 2) + part)
        columns.append(len(signs) * both + part)
        entries.append(0.5 * np.repeat([1.0, sign], size))
    place = (np.concatenate(rows), np.concatenate(columns))
    return sp.csr_array((np.concatenate(entries), place), shape=(len(signs) * size, len(signs) * size))


def variable_matrices(conic: Conic, outputs: Sequence[Output]) -> tuple[sp.csr_array, sp.csr_array]:
    """Returns the maps from x and from y to all outputs, each raveled in C order and stacked."""
    n, m = conic.program.x.size, conic.cone.dim
    x = matrix_of(lambda v: _primals(conic, v, outputs), n)
    if not any(output.constraint is not None for output in outputs):
        return x, sp.csr_array((len(x.indptr) - 1, m))
    return x, matrix_of(lambda v: _duals(conic, v, outputs), m)


def dual_ids(conic: Conic) -> frozenset[int]:
    """Returns the ids of the constraints whose dual variables CVXPY carries back."""
    return frozenset(_dual_values(conic, np.zeros(conic.cone.dim)))


def _primals(conic: Conic, x: np.ndarray, outputs: Sequence[Output]) -> np.ndarray:
    """Carries x back through CVXPY's reductions, all of which are linear there but the exponential."""
    values = conic.program.split_solution(x)
    for reduction in reversed(conic.chain.reductions):
        if not isinstance(reduction, Dgp2Dcp):
            values = reduction.var_forward(values)
    return _stack([_primal(conic, values, output) for output in outputs])


def _primal(conic: Conic, values: dict[int, Any], output: Output) -> np.ndarray:
    size = int(np.prod(output.shape))
    if output.constraint is not None or not size:
        return np.zeros(size)
    identity = conic.exponentials.get(output.leaf.id, output.leaf.id)
    # CVXPY leaves out a complex scalar that is zero.
    value = values.get(identity, 0.0) if output.complex else values[identity]
    return _parts(value, output)


def _duals(conic: Conic, y: np.ndarray, outputs: Sequence[Output]) -> np.ndarray:
    duals = _dual_values(conic, y)
    means = _dual_values(conic, mean_dual(y, conic.cone)) if any(map(_dilated, outputs)) else duals
    return _stack([_dual(means if _dilated(output) else duals, output) for output in outputs])


def _dilated(output: Output) -> bool:
    return output.complex and isinstance(output.constraint, cp.constraints.PSD)


def _dual_values(conic: Conic, y: np.ndarray) -> dict[int, Any]:
    """Carries y back as CVXPY carries a solver's duals to `dual_value`."""
    raw = SimpleNamespace(
        status="Solved", x=np.zeros(conic.program.x.size), z=y, obj_val=0.0, solve_time=0.0, iterations=0
    )
    return conic.chain.invert(raw, list(conic.inverse_data)).dual_vars


def _dual(duals: dict[int, Any], output: Output) -> np.ndarray:
    size = int(np.prod(output.shape))
    if output.constraint is None or not size:
        return np.zeros(size)
    value = duals[output.constraint.id]
    if isinstance(output.constraint, cp.ExpCone):
        # CVXPY up to 1.9.1 permutes the duals of matrices of exponential cones.
        return np.reshape(value, (-1, 3))[:, output.index].reshape(output.shape, order="F").ravel()
    # A twin takes the value in, so that the user's constraint keeps its own.
    twin = output.constraint.copy(output.constraint.args)
    twin.save_dual_value(value)
    return _parts(twin.dual_variables[output.index].value, output)


def _parts(value: Any, output: Output) -> np.ndarray:
    """Returns the real numbers that a value consists of, raveled in C order."""
    dense = value.toarray() if sp.issparse(value) else np.asarray(value)
    if not output.complex:
        return np.asarray(dense, dtype=float).reshape(output.shape).ravel()
    full = np.broadcast_to(np.asarray(dense, dtype=complex), output.leaf.shape)
    return np.stack([full.real, full.imag], axis=-1).ravel()


def _stack(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0)
