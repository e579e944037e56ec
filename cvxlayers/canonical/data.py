"""The data of CVXPY's parametrised cone program, read off as affine maps of theta on fixed sparsity patterns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Int

from cvxlayers.affine_map import AffineMap
from cvxlayers.canonical.conic import Conic
from cvxlayers.canonical.expressions import infinite_parts
from cvxlayers.cones import Product
from cvxlayers.errors import ProblemError
from cvxlayers.linear_map import LinearMap
from cvxlayers.parameter_map import ParameterMap
from cvxlayers.patterns import Pattern
from cvxlayers.program import Structure

Indices = Int[np.ndarray, " entries"]


@dataclass(frozen=True, eq=False)
class Data:
    """Maps from theta to the data, and which of CVXPY's rows are kept."""

    structure: Structure
    P: AffineMap
    q: AffineMap
    A: AffineMap
    b: AffineMap
    offset: AffineMap
    kept_rows: Int[np.ndarray, " m"]


def read_data(conic: Conic, theta_to_cvxpy: sp.csr_array, parameters: ParameterMap) -> Data:
    """Reads P, q, A, b and the offset of the objective; each entry is a row over (theta, 1).

    CVXPY states A x + b ∈ K, the house A x + s = b with s ∈ K.

    Raises:
        ProblemError: if the data hold an infinity that is not the right side of an inequality, or a NaN.
    """
    program, n, m = conic.program, conic.program.x.size, conic.cone.dim
    lift = sp.csr_array(sp.block_diag([theta_to_cvxpy, sp.csr_array([[1.0]])], format="csr"))
    objective = sp.csr_array(program.q) @ lift
    rows, cols, entries = _entries(program.reduced_A, lift)
    rows = conic.house_row[rows]
    b = _placed(entries, rows, cols == n, m)
    kept = _kept_rows(conic, b)
    place = np.full(m, -1)
    place[kept] = np.arange(len(kept))
    inside = np.flatnonzero((cols < n) & (place[rows] >= 0))
    A_pattern, A = _stored(place[rows[inside]], cols[inside], -entries[inside], (len(kept), n))
    P_pattern, P = _quadratic(program.reduced_P, lift, n)
    cone = replace(conic.cone, nonnegative=conic.cone.nonnegative - (m - len(kept)))
    q, offset = sp.csr_array(objective[:n]), sp.csr_array(objective[n:])
    maps = [_affine(conic, tensor, parameters) for tensor in (P, q, A, sp.csr_array(b[kept]), offset)]
    return Data(Structure(P_pattern, A_pattern, cone), *maps, kept_rows=kept)


def _affine(conic: Conic, tensor: sp.csr_array, parameters: ParameterMap) -> AffineMap:
    """Splits a tensor into its linear part and its constant."""
    if not np.all(np.isfinite(tensor.data)):
        raise _infinite(conic)
    linear = sp.csr_array(tensor[:, :-1])
    linear.eliminate_zeros()
    return AffineMap(LinearMap(linear), tensor[:, [-1]].toarray()[:, 0], parameters.blocks)


def _entries(reduced: Any, lift: sp.csr_array) -> tuple[Indices, Indices, sp.csr_array]:
    """Returns the row and column of each entry of one of CVXPY's matrices, and the entry as a row over (theta, 1)."""
    reduced.cache()
    if reduced.problem_data_index is None:
        return np.zeros(0, int), np.zeros(0, int), sp.csr_array(lift[:0])
    indices, indptr, _ = reduced.problem_data_index
    cols = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    return np.asarray(indices, dtype=int), cols, sp.csr_array(sp.csr_array(reduced.reduced_mat) @ lift)


def _quadratic(reduced: Any, lift: sp.csr_array, n: int) -> tuple[Pattern, sp.csr_array]:
    """Returns P in full, both triangles, as the symmetric part of what CVXPY holds."""
    rows, cols, entries = _entries(reduced, lift)
    both = sp.csr_array(sp.vstack([0.5 * entries, 0.5 * entries]))
    return _stored(np.concatenate([rows, cols]), np.concatenate([cols, rows]), both, (n, n))


def _kept_rows(conic: Conic, b: sp.csr_array) -> Int[np.ndarray, " m"]:
    """Leaves out the inequalities a ≤ ∞, which bind nobody."""
    cone = conic.cone
    vacuous = _vacuous(b, cone)
    if np.any(~np.isfinite(b.data[~np.repeat(vacuous, np.diff(b.indptr))])):
        raise _infinite(conic)
    return np.flatnonzero(~vacuous)


def _vacuous(b: sp.csr_array, cone: Product) -> Bool[np.ndarray, " rows"]:
    constant = b[:, [-1]].toarray()[:, 0]
    free = (constant == np.inf) & (np.diff(b[:, :-1].indptr) == 0)
    free[: cone.zero] = free[cone.zero + cone.nonnegative :] = False
    return free


def _infinite(conic: Conic) -> ProblemError:
    where = "; ".join(infinite_parts(conic.problem)) or "the problem"
    return ProblemError(
        f"an infinite or NaN constant occurs in {where}, where it is not a bound that can be left out. Replace it by "
        "a finite number, or leave the term out"
    )


def _stored(
    rows: Indices, cols: Indices, entries: sp.csr_array, shape: tuple[int, int]
) -> tuple[Pattern, sp.csr_array]:
    """Returns the pattern of the entries in compressed-column order, duplicates added and structural zeros dropped."""
    entries = sp.csr_array(entries)
    entries.eliminate_zeros()
    height = max(shape[0], 1)
    present = np.flatnonzero(np.diff(entries.indptr))
    keys, place = np.unique(cols[present] * height + rows[present], return_inverse=True)
    gather = sp.csr_array((np.ones(len(place)), (place, present)), shape=(len(keys), len(entries.indptr) - 1))
    total = sp.csr_array(gather @ entries)
    total.sort_indices()
    indptr = np.concatenate([[0], np.cumsum(np.bincount(keys // height, minlength=shape[1]))])
    return Pattern(shape, keys % height, indptr), total


def _placed(entries: sp.csr_array, rows: Indices, chosen: Bool[np.ndarray, " entries"], size: int) -> sp.csr_array:
    """Returns the chosen entries as the rows of a tensor of that many rows."""
    index = np.flatnonzero(chosen)
    place = sp.csr_array((np.ones(len(index)), (rows[index], index)), shape=(size, len(entries.indptr) - 1))
    placed = sp.csr_array(place @ entries)
    placed.eliminate_zeros()
    return placed
