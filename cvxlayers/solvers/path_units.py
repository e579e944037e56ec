"""Units in which programs are followed along a path: their right-hand sides and costs are of size one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from cvxlayers.batches import Vectors, largest
from cvxlayers.program import ConeProgram, Solution
from cvxlayers.solvers.newton_step import widths_of


@dataclass(frozen=True, eq=False)
class PathUnits:
    """Programs with b, and q relative to the widths of its columns, of size one; the units of x and s, and of y."""

    program: ConeProgram
    widths: Vectors
    length: Vectors
    price: Vectors

    @classmethod
    def of(cls, program: ConeProgram) -> PathUnits:
        """Scales programs."""
        widths = widths_of(program)
        length, price = _power(largest(program.b))[:, None], _power(largest(program.q / widths))[:, None]
        P = program.P * (length / price) if program.structure.P.nnz else program.P
        return cls(replace(program, P=P, q=program.q / price, b=program.b / length), widths, length, price)

    def restore(self, solution: Solution, items: Int[np.ndarray, " _count"]) -> Solution:
        """Scales points back."""
        solution.x[items] *= self.length
        solution.s[items] *= self.length
        solution.y[items] *= self.price
        return solution


def _power(sizes: Float[np.ndarray, " leading"]) -> Float[np.ndarray, " leading"]:
    """Returns the largest powers of two up to some sizes; a half for zero."""
    return np.ldexp(1.0, np.frexp(sizes)[1] - 1)
