"""Factorisations of systems with a dense P ≻ 0, by the Cholesky factors of P and of what it leaves of the active rows.

`cvxlayers.elimination` has the formulas. Its matrices belong to the programs, and may have served their solver.

Items of which P or S is singular to working precision are left to a factorisation of the whole matrix.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from cvxlayers.derivative.structured import StructuredFactorisation
from cvxlayers.derivative.system import Factorise, Rank, System
from cvxlayers.elimination import Active, invert_lower

# A condition number above this is for methods that pivot.
_DOUBTFUL = 1e9
# A pivot so many times as small as its row leaves S⁻¹ to a closer look.
_ROUGH = 1e2


def factorise_cholesky(system: System, factorise: Factorise) -> StructuredFactorisation:
    """Factorises a batch of systems of polyhedral programs.

    Args:
        system: the systems.
        factorise: how systems are factorised whose P is not positive, or whose active rows depend on one another.
    """
    program, d = system.program, system.derivative.eigenvalues
    active = program.active(d)
    condition, sound = _conditions(system, active)
    ranks = Rank.regular(condition, program.structure.n)
    return StructuredFactorisation.of(system, active.solve, ranks, sound & (condition <= _DOUBTFUL), factorise)


def _conditions(system: System, active: Active) -> tuple[Float[np.ndarray, " batch"], Bool[np.ndarray, " batch"]]:
    """Returns estimates of the condition numbers of K, as a rule too large ones, and whether P and S are regular.

    K⁻¹ = [[P⁻¹ − HS⁻¹Hᵀ, HS⁻¹], [S⁻¹Hᵀ, −S⁻¹]] with 0 ⪯ HS⁻¹Hᵀ ⪯ P⁻¹: no block is larger than P⁻¹ or S⁻¹. Of S⁻¹,
    pivots tell enough unless they are small.
    """
    sizes, place, counts, lower = system.program.sizes, active.place, active.root > 0, active.lower
    soft = np.max(1.0 - active.d, axis=1, initial=0.0, where=counts)
    size, counts = np.maximum(np.maximum(sizes.P, sizes.A), soft), counts[active.first]
    pivots, rows = np.square(np.diagonal(lower, axis1=1, axis2=2)), np.einsum("bij,bij->bi", lower, lower)
    spread = np.max(rows / pivots, axis=1)
    reciprocal = 1.0 / np.min(pivots, axis=1, initial=np.inf, where=counts)
    rough = np.flatnonzero(spread > _ROUGH)
    if len(rough):
        inverse = np.square(invert_lower(lower[rough])).sum(axis=1)
        spread[rough] = np.max(inverse * rows[rough], axis=1)
        reciprocal[rough] = np.max(inverse, axis=1, initial=0.0, where=counts[rough])
    inverse = active.eliminated.reciprocal
    condition = np.where(active.regular[place], size * np.maximum(inverse, reciprocal[place]), np.inf)
    return condition, spread[place] <= _DOUBTFUL
