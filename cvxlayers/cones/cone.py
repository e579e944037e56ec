"""The interface of a cone, and the derivative of its projection in spectral form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cvxlayers.errors import DerivativeError

Vector = Float[np.ndarray, "*batch dim"]


class Triplets(NamedTuple):
    """A batch of sparse matrices on one pattern."""

    rows: Int[np.ndarray, " nnz"]
    cols: Int[np.ndarray, " nnz"]
    values: Float[np.ndarray, "*batch nnz"]


class Basis(ABC):
    """A batch of orthogonal matrices U, applied without being formed."""

    @abstractmethod
    def rotate(self, w: Float[np.ndarray, "*batch dim k"]) -> Float[np.ndarray, "*batch dim k"]:
        """Returns Uᵀ w: coordinates in the eigenbasis."""

    @abstractmethod
    def unrotate(self, w: Float[np.ndarray, "*batch dim k"]) -> Float[np.ndarray, "*batch dim k"]:
        """Returns U w: back from the eigenbasis."""

    @abstractmethod
    def triplets(self) -> Triplets:
        """Returns U as triplets on a pattern that does not depend on the point."""

    @abstractmethod
    def item(self, index: slice | Int[np.ndarray, " k"]) -> Basis:
        """Returns the bases of some items of the (one) batch axis."""


@dataclass(frozen=True, eq=False)
class Derivative:
    """The derivative D = U diag(eigenvalues) Uᵀ of a projection at a batch of points.

    D is symmetric and its eigenvalues lie in [0, 1], because a projection is firmly non-expansive.
    """

    eigenvalues: Vector
    basis: Basis

    def apply(self, w: Vector) -> Vector:
        """Returns D w. D is symmetric, so this is its own adjoint."""
        rotated = self.basis.rotate(w[..., None])
        return self.basis.unrotate(self.eigenvalues[..., None] * rotated)[..., 0]

    def complement(self) -> Derivative:
        """Returns I − D, in the same basis."""
        return Derivative(1.0 - self.eigenvalues, self.basis)

    def item(self, index: slice | Int[np.ndarray, " k"]) -> Derivative:
        """Returns the derivatives at some items of the (one) batch axis."""
        return Derivative(self.eigenvalues[index], self.basis.item(index))


class Cone(ABC):
    """A closed convex cone K in Rᵈⁱᵐ, with the Euclidean projection on it.

    By Moreau's decomposition v = Π_K(v) − Π_K*(−v), so everything about the dual cone K* follows.
    """

    @property
    @abstractmethod
    def dim(self) -> int:
        """The dimension of the space that K lives in."""

    @abstractmethod
    def project(self, v: Vector) -> Vector:
        """Returns Π_K(v)."""

    @abstractmethod
    def derivative(self, v: Vector) -> Derivative:
        """Returns DΠ_K(v); where Π_K has a kink, one element of Clarke's generalised Jacobian."""

    @abstractmethod
    def second_derivative(self, v: Vector, dv: Vector, w: Vector) -> Vector:
        """Returns the derivative of v ↦ DΠ_K(v) w along dv.

        Raises:
            DerivativeError: if this cone does not offer it.
        """


def project_dual(cone: Cone, v: Vector) -> Vector:
    """Returns Π_K*(v) = v + Π_K(−v)."""
    return v + cone.project(-v)


def derivative_dual(cone: Cone, v: Vector) -> Derivative:
    """Returns DΠ_K*(v) = I − DΠ_K(−v)."""
    return cone.derivative(-v).complement()


def second_derivative_dual(cone: Cone, v: Vector, dv: Vector, w: Vector) -> Vector:
    """Returns the derivative of v ↦ DΠ_K*(v) w along dv."""
    return cone.second_derivative(-v, dv, w)


def no_second_derivative(cone: Cone) -> DerivativeError:
    """The error that a cone without `second_derivative` raises."""
    return DerivativeError(
        f"second derivatives are not offered for the {type(cone).__name__} cone; "
        "they exist for programs with zero, nonnegative and second-order cones"
    )
