"""The nonnegative orthant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from cvxlayers.cones.basis import IdentityBasis
from cvxlayers.cones.cone import Cone, Derivative, Vector


@final
@dataclass(frozen=True)
class NonNegative(Cone):
    """The cone {v : v ≥ 0} in R^size: inequality constraints. It is its own dual."""

    size: int

    @property
    def dim(self) -> int:
        """The dimension of the space."""
        return self.size

    def project(self, v: Vector) -> Vector:
        """Returns max(v, 0)."""
        return np.maximum(v, 0.0)

    def derivative(self, v: Vector) -> Derivative:
        """Returns diag(v > 0), with ½, the mean of both sides, where v = 0."""
        return Derivative(np.heaviside(v, 0.5), IdentityBasis(self.size))

    def second_derivative(self, v: Vector, dv: Vector, w: Vector) -> Vector:
        """Returns 0: the projection is piecewise linear."""
        return np.zeros(v.shape)
