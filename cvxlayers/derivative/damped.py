"""Damped steps on the residual map, where Newton's system is nearly singular because solutions are not unique.

Next to a solution whose dual is one of many, as in tight semidefinite relaxations, the matrix K is regular, but with a
singular value as small as the point is inexact: Newton's step is then long and points nowhere. The step of Levenberg
and Marquardt, the least-squares one with a damping in proportion to the residual, converges as fast as Newton's
wherever the residual bounds the distance to the set of solutions.

References: Yamashita, Fukushima, "On the rate of convergence of the Levenberg-Marquardt method" (2001).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from cvxlayers.batches import Vectors
from cvxlayers.derivative.dense import assemble
from cvxlayers.derivative.system import System

# Above this order of K an eigendecomposition costs more than a doubtful point is worth.
LARGEST = 400


def damped_solve(
    system: System, first: Vectors, second: Vectors, damping: Float[np.ndarray, " batch"]
) -> tuple[Vectors, Vectors]:
    """Returns the u = [first; second] of each item that minimises ‖K u − rhs‖² + (damping ‖K‖)² ‖u‖².

    It is zero for an item whose K is not finite.
    """
    n, m = system.program.structure.n, system.program.structure.m
    K = assemble(system, np.broadcast_to(np.arange(m), (len(first), m)))
    K[~np.isfinite(K).all(axis=(1, 2))] = 0.0
    eigenvalues, vectors = np.linalg.eigh(K)
    shift = damping[:, None] * np.abs(eigenvalues).max(axis=1, keepdims=True)
    rhs = np.concatenate([first, second], axis=1)[..., None]
    size = eigenvalues**2 + shift**2
    weights = np.divide(eigenvalues, size, out=np.zeros_like(size), where=size > 0)
    solution = (vectors @ (weights[..., None] * (vectors.transpose(0, 2, 1) @ rhs)))[..., 0]
    return solution[:, :n], solution[:, n:]
