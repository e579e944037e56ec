"""The optimal value and its derivatives, by the envelope theorem.

The optimal value's derivative is the Lagrangian's at fixed x and y. It is exact where the solution map is not even a
function, and needs no linear solve.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from cvxlayers.batches import Vectors
from cvxlayers.compiled import CompiledProblem
from cvxlayers.derivative import Data
from cvxlayers.forward import Forward, spread

Weights = Float[np.ndarray, " batch"]


def value(compiled: CompiledProblem, forward: Forward) -> Float[np.ndarray, "*batch"]:
    """Returns the optimal value of each item; NaN where an item has no solution."""
    found = forward.program.objective(forward.point.x) + forward.found.offset
    found = -found if compiled.maximise else found
    found = np.where(forward.ok, found, np.nan)
    return (np.exp(found) if compiled.gp else found).reshape(forward.batch_shape)


def adjoint(compiled: CompiledProblem, forward: Forward, cotangent: Weights) -> Vectors:
    """Returns the cotangent of theta for a cotangent of the optimal value."""
    weight = cotangent * value(compiled, forward).reshape(-1) if compiled.gp else cotangent
    weight = (-weight if compiled.maximise else weight)[:, None]
    structure, x, y = forward.program.structure, forward.point.x, forward.point.y
    data = Data(
        P=0.5 * structure.P.outer((weight * x, x)),
        q=weight * x,
        A=structure.A.outer((weight * y, x)),
        b=-weight * y,
    )
    solved = np.flatnonzero(forward.ok)
    dtheta = compiled.adjoint(*data) + compiled.offset.adjoint(weight)
    return spread([dtheta[solved]], solved, forward)[0]


def tangent(compiled: CompiledProblem, forward: Forward, dtheta: Vectors) -> Float[np.ndarray, "*batch"]:
    """Returns the tangent of the optimal value for a tangent of theta."""
    slope = adjoint(compiled, forward, np.ones(forward.program.batch))
    return np.sum(slope * dtheta, axis=1).reshape(forward.batch_shape)
