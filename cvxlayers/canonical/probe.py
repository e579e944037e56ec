"""Finds the matrix of a linear map that can only be evaluated.

CVXPY's reductions replace parameters and variables, reorder, scale and fold them. What they do is not assumed: their
own maps are evaluated at coded inputs. Nearly all are scaled selections, which two evaluations reveal.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

Vector = Float[np.ndarray, " size"]


def matrix_of(function: Callable[[Vector], Vector], width: int) -> sp.csr_array:
    """Returns the matrix M with function(v) = M v for a linear function of vectors of length `width`."""
    if width == 0:
        return sp.csr_array((len(function(np.zeros(0))), 0))
    candidate = _selection(function, width)
    generator = np.random.default_rng(0)
    for _ in range(2):
        v = generator.uniform(1.0, 2.0, size=width)
        if not np.allclose(candidate @ v, function(v), rtol=1e-12, atol=0.0):
            return _columns(function, width)
    return candidate


def _selection(function: Callable[[Vector], Vector], width: int) -> sp.csr_array:
    """Assumes at most one entry a row: its coefficient is M 1, its column the ratio of M (1, 2, …) to that."""
    coefficients = function(np.ones(width))
    coded = function(np.arange(1.0, width + 1.0))
    rows = np.flatnonzero(coefficients)
    columns = np.clip(np.rint(coded[rows] / coefficients[rows]).astype(int) - 1, 0, width - 1)
    return sp.csr_array((coefficients[rows], (rows, columns)), shape=(len(coefficients), width))


def _columns(function: Callable[[Vector], Vector], width: int) -> sp.csr_array:
    columns = [sp.csc_array(function(unit)[:, None]) for unit in np.eye(width)]
    return sp.csr_array(sp.hstack(columns))
