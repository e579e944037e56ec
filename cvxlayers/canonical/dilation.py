"""The real form of complex semidefinite constraints: [[Re X, −Im X], [Im X, Re X]] ⪰ 0 in place of X ⪰ 0.

The real constraint's dual variable D is not unique: so is every J D Jᵀ with J = [[0, −I], [I, 0]], and only their mean
has the form of the dual variable of X ⪰ 0.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from cvxlayers.cones import Product
from cvxlayers.cones.semidefinite import Semidefinite

Rows = Float[np.ndarray, " m"]


def mean_dual(y: Rows, cone: Product) -> Rows:
    """Returns y with ½(D + J D Jᵀ) in place of each semidefinite block D of even order."""
    mean = y.copy()
    for factor, rows in cone.blocks():
        if isinstance(factor, Semidefinite) and factor.order % 2 == 0:
            source, sign = _conjugation(factor.order)
            mean[rows] = 0.5 * (y[rows] + sign * y[rows][source])
    return mean


def _conjugation(order: int) -> tuple[Int[np.ndarray, " size"], Float[np.ndarray, " size"]]:
    """Returns J D Jᵀ as signs and sources of the entries of the upper triangle, column by column."""
    column, row = np.tril_indices(order)
    half = order // 2
    first, second = (row + half) % order, (column + half) % order
    low, high = np.minimum(first, second), np.maximum(first, second)
    sign = np.where(row < half, -1.0, 1.0) * np.where(column < half, -1.0, 1.0)
    return high * (high + 1) // 2 + low, sign
