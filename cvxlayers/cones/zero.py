"""The zero cone {0}."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from cvxlayers.cones.basis import IdentityBasis
from cvxlayers.cones.cone import Cone, Derivative, Vector


@final
@dataclass(frozen=True)
class Zero(Cone):
    """The cone {0} in R^size: equality constraints. Its dual is the whole space."""

    size: int

    @property
    def dim(self) -> int:
        """The dimension of the space."""
        return self.size

    def project(self, v: Vector) -> Vector:
        """Returns 0."""
        return np.zeros(v.shape)

    def derivative(self, v: Vector) -> Derivative:
        """Returns 0."""
        return Derivative(np.zeros(v.shape), IdentityBasis(self.size))

    def second_derivative(self, v: Vector, dv: Vector, w: Vector) -> Vector:
        """Returns 0."""
        return np.zeros(v.shape)
