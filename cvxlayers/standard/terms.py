"""Affine maps from theta to matrices and vectors, put together from terms: coefficient × one entry of theta."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from cvxlayers.affine_map import AffineMap
from cvxlayers.linear_map import LinearMap
from cvxlayers.parameter_map import ParameterMap
from cvxlayers.patterns import Pattern

Index = Int[np.ndarray, " terms"]

# Stands in `columns` for what no parameter enters.
CONSTANT = -1


@dataclass(frozen=True, eq=False)
class Terms:
    """Adds coefficient × theta[column], or the coefficient itself where the column is `CONSTANT`, to entries.

    Attributes:
        rows: the row of each entry.
        cols: its column; zeros for a vector.
        columns: the column of theta.
        coefficients: what it is multiplied by.
    """

    rows: Index
    cols: Index
    columns: Index
    coefficients: Float[np.ndarray, " terms"]


def stack(parts: Sequence[Terms]) -> Terms:
    """Returns all terms as one."""
    nothing = Terms(np.zeros(0, int), np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    every = (nothing, *parts)
    return Terms(
        np.concatenate([part.rows for part in every]),
        np.concatenate([part.cols for part in every]),
        np.concatenate([part.columns for part in every]),
        np.concatenate([part.coefficients for part in every]),
    )


def matrix_map(terms: Terms, shape: tuple[int, int], parameters: ParameterMap) -> tuple[Pattern, AffineMap]:
    """Returns the pattern of the entries in compressed-column order, and the map to them."""
    keys, place = np.unique(terms.cols * shape[0] + terms.rows, return_inverse=True)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(keys // shape[0], minlength=shape[1]))])
    return Pattern(shape, keys % shape[0], indptr), _affine(place, terms, len(keys), parameters)


def vector_map(terms: Terms, size: int, parameters: ParameterMap) -> AffineMap:
    """Returns the map to a vector."""
    return _affine(terms.rows, terms, size, parameters)


def _affine(place: Index, terms: Terms, size: int, parameters: ParameterMap) -> AffineMap:
    fixed = terms.columns == CONSTANT
    constant = np.bincount(place[fixed], weights=terms.coefficients[fixed], minlength=size)
    entries = (terms.coefficients[~fixed], (place[~fixed], terms.columns[~fixed]))
    linear = sp.csr_array(entries, shape=(size, parameters.width))
    return AffineMap(LinearMap(linear), constant.astype(float), parameters.blocks)
