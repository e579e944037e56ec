"""How far a solver's point is from optimal, on the data as given."""

from __future__ import annotations

from functools import reduce

import numpy as np
from jaxtyping import Float

from cvxlayers.batches import largest
from cvxlayers.cones import project_dual
from cvxlayers.program import ConeProgram, Solution
from cvxlayers.residual import natural

Sizes = Float[np.ndarray, "#batch"]


def violation(program: ConeProgram, solution: Solution) -> Sizes:
    """Returns the largest relative violation of an optimality condition, infinite where the point is not finite.

    Unlike the residual map's, this measure does not punish strict complementarity that fails: y and s of size 1e-5 with
    sᵀy = 1e-10 are 1e-10 from optimal. Residuals are relative to the terms that cancel, or where these vanish at the
    solution, to what the data would make of variables of the natural sizes |b| / |A| and |q| / |A|.
    """
    structure, x, y, s = program.structure, solution.x, solution.y, solution.s
    with np.errstate(over="ignore", invalid="ignore"):
        Px, Aty = structure.P.matvec(program.P, x), structure.A.rmatvec(program.A, y)
        Ax = structure.A.matvec(program.A, x)
        P, q, A, b = program.sizes
        width = np.maximum(largest(x), natural(b, A))
        price = np.maximum(largest(y), natural(q, A))
        terms = [np.add.reduce(u * v, axis=1) for u, v in ((x, Px), (x, program.q), (y, program.b))]
        violations = [
            (largest(Ax + s - program.b), (largest(Ax), largest(s), b, A * width)),
            (largest(Px + Aty + program.q), (largest(Px), largest(Aty), q, P * width, A * price)),
            (np.abs(sum(terms)), (*np.abs(terms), q * width, b * price)),
            (largest(structure.cone.project(s) - s), (largest(s), A * width)),
            (largest(project_dual(structure.cone, y) - y), (largest(y), price)),
        ]
        scales = np.array([reduce(np.maximum, sizes) for _, sizes in violations])
        relative = np.array([size for size, _ in violations]) / np.where(scales > 0, scales, 1.0)
        worst = np.maximum.reduce(relative, axis=0)
    return np.where(np.isfinite(worst), worst, np.inf)
