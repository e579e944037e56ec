"""What factorisations cost, by which solvers and derivatives are chosen."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import scipy.sparse.linalg as spl

from cvxlayers.kkt.columns import columns_of
from cvxlayers.program import Structure

# Variables between which a dense P is factorised by itself.
_FEWEST, _MOST = 32, 150

_flops: WeakKeyDictionary[Structure, float] = WeakKeyDictionary()


def eliminates(structure: Structure) -> bool:
    """Whether a batch is served faster without its variables: P may be positive definite, and few rows are left."""
    definite = structure.cone.polyhedral and structure.has_full_diagonal
    few = 0 < structure.m <= structure.n and 2 * structure.cone.nonnegative <= structure.n
    return definite and few and _FEWEST <= structure.n <= _MOST


def dense_microseconds(order: int) -> float:
    """Returns about how long LAPACK takes to factorise a matrix of this order without structure."""
    return 1e-4 * order**3


def stored(structure: Structure) -> int:
    """Returns how many entries are stored once A is turned by an orthogonal matrix within each curved cone."""
    n, A, cone = structure.n, structure.A, structure.cone
    sizes, block = np.ones(structure.m, dtype=np.int64), np.arange(structure.m)
    for _, rows in cone.blocks():
        if rows.start >= cone.zero + cone.nonnegative:
            sizes[rows], block[rows] = rows.stop - rows.start, rows.start
    touched = np.unique(block[A.rows] * n + A.cols) // n
    return structure.P.nnz + 2 * int(sizes[touched].sum()) + structure.m


def factor_flops(structure: Structure) -> float:
    """Returns about how many operations a sparse factorisation takes, with rows in the order of least degree.

    It is the sum of squares of the columns' counts in the factor; for inequalities' rows, C is taken as −1.
    """
    if structure not in _flops:
        n, columns = structure.n, columns_of(structure)
        # Strong diagonals of both signs need no exchanges, so that the counts are those of any quasi-definite matrix.
        signs = np.where(columns.pattern.cols < n, 1.0, -1.0)
        K = columns.pattern.matrix(np.where(columns.pattern.rows == columns.pattern.cols, 1e6 * signs, 1.0))
        symmetric = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
        counts = np.diff(spl.splu(K, **symmetric).L.indptr)
        _flops[structure] = float(np.sum(counts.astype(float) ** 2))
    return _flops[structure]
