"""Finds the matrix of a linear map that can only be evaluated.

CVXPY's reductions replace parameters and variables, reorder, scale and fold them. What they do is not assumed: their
own maps are evaluated at coded inputs. Nearly all rows are scaled selections, which two evaluations reveal; the columns
that enter the other rows are found by bisection.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from cvxlayers.errors import ProblemError

Vector = Float[np.ndarray, " size"]
Function = Callable[[Vector], Vector]

_TRIALS, _ROUNDING = 2, 1e-11


def matrix_of(function: Function, width: int) -> sp.csr_array:
    """Returns the matrix M with function(v) = M v for a linear function of vectors of length `width`.

    Raises:
        ProblemError: if the function is not linear.
    """
    if width == 0:
        return sp.csr_array((len(function(np.zeros(0))), 0))
    trials = np.random.default_rng(0).uniform(1.0, 2.0, size=(_TRIALS, width))
    values = np.stack([function(v) for v in trials])
    matrix = _selection(function, width)
    wrong = ~_agrees(matrix, trials, values)
    if wrong.any():
        rest = np.flatnonzero(wrong)
        rows, cols, entries = _bisect(function, rest, np.arange(width), width, np.random.default_rng(1))
        matrix = sp.csr_array(sp.diags_array(~wrong * 1.0) @ matrix)
        matrix = sp.csr_array(matrix + sp.csr_array((entries, (rows, cols)), shape=matrix.shape))
        matrix.eliminate_zeros()
        if not _agrees(matrix, trials, values).all():
            raise ProblemError("a reduction of this version of CVXPY is not linear where it was taken to be")
    return matrix


def _agrees(
    matrix: sp.csr_array, trials: Float[np.ndarray, "trials width"], values: Float[np.ndarray, "trials rows"]
) -> Bool[np.ndarray, " rows"]:
    """Which rows give the values of the trials, up to rounding relative to the terms that are added."""
    size = (abs(matrix) @ trials.T).T
    return np.all(np.abs((matrix @ trials.T).T - values) <= _ROUNDING * size, axis=0)


def _selection(function: Function, width: int) -> sp.csr_array:
    """Takes every row to have one entry: the coefficient is M 1, the column the ratio of M (1, 2, …) to that."""
    coefficients = function(np.ones(width))
    coded = function(np.arange(1.0, width + 1.0))
    rows = np.flatnonzero(coefficients)
    columns = np.clip(np.rint(coded[rows] / coefficients[rows]).astype(int) - 1, 0, width - 1)
    return sp.csr_array((coefficients[rows], (rows, columns)), shape=(len(coefficients), width))


def _bisect(
    function: Function,
    rows: Int[np.ndarray, " rows"],
    columns: Int[np.ndarray, " columns"],
    width: int,
    generator: np.random.Generator,
) -> tuple[Int[np.ndarray, " nnz"], Int[np.ndarray, " nnz"], Vector]:
    """Returns the entries of some rows in some columns: halves in which no row has an entry are given up at once."""
    v = np.zeros(width)
    v[columns] = 1.0 if len(columns) == 1 else generator.uniform(1.0, 2.0, size=len(columns))
    values = function(v)[rows]
    rows, values = rows[values != 0], values[values != 0]
    if len(columns) == 1 or not len(rows):
        return rows, np.full(len(rows), columns[0]), values
    halves = np.array_split(columns, 2)
    left, right = (_bisect(function, rows, half, width, generator) for half in halves)
    return np.concatenate([left[0], right[0]]), np.concatenate([left[1], right[1]]), np.concatenate([left[2], right[2]])
