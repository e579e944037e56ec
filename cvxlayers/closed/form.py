"""What a closed form is: points with their residuals, and derivatives, of all items that it fits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int

from cvxlayers.derivative import Data, DerivativeInfo, Linearisation, Needs, Point
from cvxlayers.program import ConeProgram, Vectors

Items = Int[np.ndarray, " items"]
Whole = Callable[[Items], Linearisation]


class ClosedDerivative(ABC):
    """The solution maps of a batch, linearised."""

    @abstractmethod
    def vjp(self, x: Vectors, y: Vectors, needs: Needs) -> tuple[Data, DerivativeInfo]:
        """Returns the cotangent of the data for cotangents of x and y: the adjoint of `jvp`."""

    @abstractmethod
    def jvp(self, tangent: Data) -> tuple[Vectors, Vectors, DerivativeInfo]:
        """Returns the tangents of x and y for one of the data."""


class ClosedForm(ABC):
    """Programs of one structure that formulas solve."""

    @property
    @abstractmethod
    def solver(self) -> str:
        """The name of the solver whose form it is."""

    @abstractmethod
    def solve(self, program: ConeProgram) -> tuple[Point, Items, Bool[np.ndarray, " items"]]:
        """Returns points, how many evaluations they took, and which of them are certified solutions, to rounding."""

    @abstractmethod
    def linearise(self, program: ConeProgram, point: Point, whole: Whole) -> ClosedDerivative:
        """Returns the derivative at solutions.

        Args:
            program: the programs.
            point: their solutions.
            whole: linearises some items as any program: those whose derivative no formula gives.
        """
