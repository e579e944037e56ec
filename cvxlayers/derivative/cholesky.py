"""Factorisations of systems with a dense P ≻ 0, by the Cholesky factors of P and of what it leaves of the active rows.

`cvxlayers.elimination` has the formulas. Its matrices belong to the programs, and may have served their solver.

Items of which P or S is singular to working precision are left to a factorisation of the whole matrix.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from cvxlayers.derivative.structured import StructuredFactorisation
from cvxlayers.derivative.system import Factorise, Rank, System
from cvxlayers.elimination import Active, invert_lower, squares

# A condition number above this is for methods that pivot.
_DOUBTFUL = 1e9
# A pivot of S this small beside its row leaves the norm of S⁻¹ to a closer look.
_SMALL = 1e-2


def factorise_cholesky(system: System, factorise: Factorise) -> StructuredFactorisation:
    """Factorises a batch of systems of polyhedral programs.

    Args:
        system: the systems.
        factorise: how systems are factorised whose P is not positive, or whose active rows depend on one another.
    """
    program, d = system.program, system.derivative.eigenvalues
    active = program.eliminated().active(d, program.structure.cone.zero)
    condition = _condition(system, active)
    ranks = Rank.regular(condition, program.structure.n)
    return StructuredFactorisation.of(system, active.solve, ranks, condition <= _DOUBTFUL, factorise)


def _condition(system: System, active: Active) -> Float[np.ndarray, " batch"]:
    """Returns estimates of the condition numbers of K, in general too large ones.

    K⁻¹ = [[P⁻¹ − HS⁻¹Hᵀ, HS⁻¹], [S⁻¹Hᵀ, −S⁻¹]] with 0 ⪯ HS⁻¹Hᵀ ⪯ P⁻¹: no block is larger than P⁻¹ or S⁻¹. Of S⁻¹,
    pivots tell enough unless they are small.
    """
    sizes, soft = system.program.sizes, np.max(1.0 - active.root**2, axis=1, initial=0.0, where=active.root > 0)
    size = np.maximum(np.maximum(sizes.P, sizes.A), soft)
    counts, lower = (active.root > 0)[active.first], active.lower
    pivots = np.square(np.diagonal(lower, axis1=1, axis2=2))
    reciprocal = 1.0 / np.min(pivots, axis=1, initial=np.inf, where=counts)
    close = np.flatnonzero((pivots < _SMALL * np.einsum("bij,bij->bi", lower, lower)).any(axis=1))
    if len(close):
        reciprocal[close] = squares(invert_lower(lower[close]) * counts[close][:, :, None])
    reciprocal = np.where(active.regular, reciprocal, np.inf)[active.place]
    return size * np.maximum(active.eliminated.reciprocal, reciprocal)
