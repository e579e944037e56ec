"""Compiles a CVXPY problem: checks it, has CVXPY reduce it, and reads every map off as a sparse matrix."""

from __future__ import annotations

from collections.abc import Sequence

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from cvxlayers.canonical.conic import Conic, conic_form
from cvxlayers.canonical.leaves import parameter_matrix, variable_matrices
from cvxlayers.canonical.signature import check_problem, check_signature
from cvxlayers.compiled import AffineMap, CompiledProblem, LinearMap, ParameterMap, VariableMap
from cvxlayers.errors import ProblemError
from cvxlayers.program import Pattern, Structure


def compile_problem(
    problem: object, parameters: Sequence[object], variables: Sequence[object], *, gp: bool = False
) -> CompiledProblem:
    """Compiles a problem into plain arrays.

    Args:
        problem: a DPP `cvxpy.Problem` (log-log convex with `gp`).
        parameters: all its parameters, in the order of a call.
        variables: what a call returns: variables, dual variables of constraints, or constraints that have exactly one.
        gp: whether the problem is a geometric program.

    Raises:
        SignatureError: if the lists do not fit the problem.
        DPPError: if the problem is not DPP; the message names the expression, its parameters, and the way out.
        ProblemError: if the problem is not convex, mixed-integer or complex, or has no variables.
    """
    checked, outputs = check_signature(problem, parameters, variables)
    check_problem(checked, gp)
    conic = conic_form(checked, gp)
    parameter_map = _parameter_map(conic, parameters)
    theta_to_cvxpy = parameter_matrix(conic, parameters, parameter_map)
    data = _Data(conic, theta_to_cvxpy, parameter_map)
    x, y = variable_matrices(conic, outputs)
    return CompiledProblem(
        structure=Structure(data.P_pattern, data.A_pattern, data.cone),
        parameters=parameter_map,
        variables=VariableMap(
            names=tuple(output.name for output in outputs),
            shapes=tuple(output.shape for output in outputs),
            x=LinearMap(x),
            y=LinearMap(sp.csr_array(y[:, data.kept_rows])),
            exps=tuple(output.exp(conic) for output in outputs),
        ),
        P=data.affine(data.P),
        q=data.affine(data.q),
        A=data.affine(data.A),
        b=data.affine(data.b),
        offset=data.affine(data.offset),
        maximise=isinstance(checked.objective, cp.Maximize),
        gp=gp,
    )


def _parameter_map(conic: Conic, parameters: Sequence[cp.Parameter]) -> ParameterMap:
    logarithms = conic.logarithms
    return ParameterMap(
        names=tuple(parameter.name() for parameter in parameters),
        shapes=tuple(parameter.shape for parameter in parameters),
        logs=tuple(parameter.id in logarithms for parameter in parameters),
    )


class _Data:
    """The tensors of CVXPY's program: matrices whose rows are data entries and whose columns are theta and 1."""

    def __init__(self, conic: Conic, theta_to_cvxpy: sp.csr_array, parameters: ParameterMap) -> None:
        program = conic.program
        self.parameters = parameters
        self._lift = sp.block_diag([theta_to_cvxpy, sp.csr_array([[1.0]])], format="csr")
        n = program.x.size
        objective = sp.csr_array(program.q) @ self._lift
        self.q, self.offset = objective[:n], objective[n:]
        self.P_pattern, self.P = self._quadratic(program.reduced_P, n)
        rows, cols, entries = self._entries(program.reduced_A)
        cone = conic.cone
        self.b = _placed(entries, rows, cols == n, cone.dim)
        stored = cols < n
        self.A_pattern, self.A = _stored(rows[stored], cols[stored], -entries[stored], (cone.dim, n))
        self.cone, self.kept_rows = self._drop_infinite_rows(cone)

    def affine(self, tensor: sp.csr_array) -> AffineMap:
        """Splits a tensor into its linear part and its constant, and notes which parameters enter."""
        linear = sp.csr_array(tensor[:, :-1])
        linear.eliminate_zeros()
        used = np.zeros(linear.shape[1], dtype=bool)
        used[linear.indices] = True
        pairs = zip(self.parameters.columns, self.parameters.log_columns, strict=True)
        depends = tuple(bool(used[raw].any() or (log is not None and used[log].any())) for raw, log in pairs)
        return AffineMap(LinearMap(linear), tensor[:, [-1]].toarray()[:, 0], depends)

    def _entries(self, reduced) -> tuple[np.ndarray, np.ndarray, sp.csr_array]:
        """Returns the row and column of each entry of a data matrix, and the entry as a row over theta and 1."""
        reduced.cache()
        if reduced.problem_data_index is None:
            return np.zeros(0, int), np.zeros(0, int), sp.csr_array((0, self._lift.shape[1]))
        indices, indptr, _ = reduced.problem_data_index
        cols = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        return np.asarray(indices), cols, sp.csr_array(reduced.reduced_mat) @ self._lift

    def _quadratic(self, reduced, n: int) -> tuple[Pattern, sp.csr_array]:
        """Returns P in full, both triangles, as the symmetric part of what CVXPY holds."""
        if reduced.matrix_data is None:
            return _stored(np.zeros(0, int), np.zeros(0, int), sp.csr_array((0, self._lift.shape[1])), (n, n))
        rows, cols, entries = self._entries(reduced)
        both = sp.csr_array(sp.vstack([0.5 * entries, 0.5 * entries]))
        return _stored(np.concatenate([rows, cols]), np.concatenate([cols, rows]), both, (n, n))

    def _drop_infinite_rows(self, cone):
        """Drops inequalities a ≤ ∞, which bind nobody; CVXPY's own bounds never produce any other infinity."""
        constant, parametric = self.b[:, [-1]].toarray()[:, 0], np.diff(self.b[:, :-1].indptr) > 0
        infinite = ~np.isfinite(constant)
        vacuous = infinite & (constant == np.inf) & ~parametric
        vacuous[: cone.zero] = vacuous[cone.zero + cone.nonnegative :] = False
        if np.any(infinite & ~vacuous):
            raise ProblemError(
                "the problem has a constraint with an infinite or NaN constant that no point satisfies; replace infinite "
                "constants by finite bounds, or leave the constraint out"
            )
        kept = np.flatnonzero(~vacuous)
        if len(kept) < cone.dim:
            self.b = self.b[kept]
            stays = ~vacuous[self.A_pattern.rows]
            position = np.cumsum(~vacuous) - 1
            rows, cols = position[self.A_pattern.rows[stays]], self.A_pattern.cols[stays]
            self.A_pattern, self.A = _stored(rows, cols, self.A[stays], (len(kept), self.A_pattern.shape[1]))
            cone = type(cone)(
                cone.zero, int(cone.nonnegative - vacuous.sum()), cone.second_order, cone.semidefinite, cone.exponential,
                cone.power,
            )
        return cone, kept


def _stored(
    rows: np.ndarray, cols: np.ndarray, entries: sp.csr_array, shape: tuple[int, int]
) -> tuple[Pattern, sp.csr_array]:
    """Returns the pattern of the entries in compressed-column order, duplicates added and structural zeros dropped."""
    entries = sp.csr_array(entries)
    entries.eliminate_zeros()
    present = np.diff(entries.indptr) > 0
    keys, place = np.unique(cols[present] * max(shape[0], 1) + rows[present], return_inverse=True)
    gather = sp.csr_array((np.ones(len(place)), (place, np.flatnonzero(present))), shape=(len(keys), entries.shape[0]))
    total = sp.csr_array(gather @ entries)
    total.sort_indices()
    counts = np.bincount(keys // max(shape[0], 1), minlength=shape[1])
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return Pattern(shape, keys % max(shape[0], 1), indptr), total


def _placed(entries: sp.csr_array, rows: np.ndarray, chosen: np.ndarray, size: int) -> sp.csr_array:
    """Returns the chosen entries as the rows of a tensor of that many rows."""
    index = np.flatnonzero(chosen)
    place = sp.csr_array((np.ones(len(index)), (rows[index], index)), shape=(size, entries.shape[0]))
    return sp.csr_array(place @ entries)
