"""Rows that repeat others: one of them bears the multipliers of all, which derivatives tell of."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from cvxlayers.batches import Vectors, largest, some
from cvxlayers.derivative import DerivativeInfo
from cvxlayers.reduction.parts import Index


@dataclass(frozen=True, eq=False)
class Repeated:
    """Rows that are multiples of others, and left out: their multipliers are zero.

    Attributes:
        rows: the rows that are left out.
        others: for each the one that it repeats, which bears the multipliers.
        factors: how many times that one it is.
        equal: whether that one is an equality.
    """

    rows: Index
    others: Index
    factors: Float[np.ndarray, " _count"]
    equal: Bool[np.ndarray, " _count"]

    def asked(self, listed: Bool[np.ndarray, " m"]) -> Bool[np.ndarray, " _count"]:
        """Returns which of them share multipliers that are listed."""
        return listed[self.rows] | listed[self.others]

    def tell(
        self, info: DerivativeInfo, listed: Bool[np.ndarray, " m"], y: Vectors, cotangent: Vectors | None = None
    ) -> DerivativeInfo:
        """Returns how far to trust a derivative of multipliers, of which those of repeated rows are not unique.

        With rows a and f a, multipliers may move along (f, -1) and stay as good. The derivative there is that of the
        choice made here; a cotangent's share of that direction is what no other choice would agree with.

        Args:
            info: how far to trust it otherwise.
            listed: the rows whose multipliers are asked for.
            y: the multipliers.
            cotangent: theirs, if it is a cotangent that is pulled back.
        """
        asked = self.asked(listed)
        if not some(asked):
            return info
        rows, others, factors = self.rows[asked], self.others[asked], self.factors[asked]
        active = self.equal[asked] | (y[:, others] > 0)
        dependent, residual = info.dependent | active.any(axis=1), info.residual
        if cotangent is not None:
            along = np.where(active, np.abs(factors * cotangent[:, others] - cotangent[:, rows]), 0.0)
            share = largest(along * np.maximum(1.0, np.abs(factors)) / (1.0 + factors**2))
            scale = largest(cotangent)
            residual = np.maximum(residual, np.divide(share, scale, out=np.zeros(len(share)), where=scale > 0))
        return replace(info, dependent=dependent, residual=residual)
