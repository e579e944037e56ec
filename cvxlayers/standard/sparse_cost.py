"""What a sparse P must be: both triangles, with the same values in both, and positive semidefinite."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from scipy.sparse.linalg import splu

from cvxlayers.domain import WAY_OUT, named, worst_eigenvalues
from cvxlayers.errors import DomainError
from cvxlayers.standard.block import Block

Entries = Float[np.ndarray, "items nnz"]
Sizes = Float[np.ndarray, " items"]

# How far P may be from symmetric, and below zero, as a part of its largest entry: rounding of single precision.
_ROUNDING = 1e-5
# Up to this order matrices are checked as dense ones, of so many entries at a time.
_DENSE, _CACHE = 128, 2**17
# A symmetric matrix is factorised without exchanges: the pivots have the signs of its eigenvalues.
_SYMMETRIC = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}


def check_sparse(block: Block, entries: Entries) -> None:
    """Checks the values of all items. Items that are not finite are left to the solve, which reports them.

    Raises:
        DomainError: if P is not what it must be.
    """
    rows, cols = block.positions()
    order, mirrored = np.lexsort((rows, cols)), np.lexsort((cols, rows))
    size = np.abs(entries).max(axis=1, initial=0.0)
    same = np.array_equal(rows[order], cols[mirrored]) and np.array_equal(cols[order], rows[mirrored])
    with np.errstate(invalid="ignore"):
        apart = np.abs(entries[:, order] - entries[:, mirrored]).max(axis=1, initial=0.0) if same else np.inf
    if np.any(apart > _ROUNDING * size):
        raise DomainError(
            "a sparse P must hold both triangles, with the same values in both: of an upper triangle, pass "
            "P + triu(P, 1).T"
        )
    bad = np.flatnonzero(np.isfinite(size) & ~_definite(block, entries, _ROUNDING * size))
    if len(bad):
        which = named(bad, len(entries))
        raise DomainError(f"a sparse P must be positive semidefinite, but {which} indefinite. {WAY_OUT}")


def _definite(block: Block, entries: Entries, slack: Sizes) -> Bool[np.ndarray, " items"]:
    """Returns which items have no eigenvalue below −slack: as Gershgorin's circles tell, else eigenvalues or pivots."""
    (rows, cols), n = block.positions(), block.shape[0]
    lowest = np.where(rows == cols, entries, -np.abs(entries)) @ _sums(rows, n)
    definite = (lowest >= -slack[:, None]).all(axis=1)
    left, count = np.flatnonzero(~definite & np.isfinite(slack)), max(1, _CACHE // n**2) if n <= _DENSE else 1
    for piece in (left[start : start + count] for start in range(0, len(left), count)):
        if n > _DENSE:
            P = sp.csc_array((entries[piece[0]], (rows, cols)), shape=block.shape)
            definite[piece] = _has_positive_pivots(sp.csc_array(P + slack[piece[0]] * sp.eye_array(n)))
            continue
        matrices = (entries[piece] @ _sums(rows * n + cols, n * n)).reshape((-1, 1, n, n))
        definite[piece] = worst_eigenvalues(matrices, slack[piece]) <= slack[piece]
    return definite


def _sums(place: Int[np.ndarray, " nnz"], size: int) -> sp.csr_array:
    """Returns what adds each entry to its place."""
    return sp.csr_array((np.ones(len(place)), (np.arange(len(place)), place)), shape=(len(place), size))


def _has_positive_pivots(matrix: sp.csc_array) -> bool:
    try:
        factors = splu(matrix, **_SYMMETRIC)
    except RuntimeError:  # a pivot is zero
        return False
    return np.array_equal(factors.perm_r, factors.perm_c) and bool((factors.U.diagonal() > 0).all())
