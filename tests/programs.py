"""Random cone programs whose solution is known by construction."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from cvxlayers.cones import Product, project_dual
from cvxlayers.patterns import Pattern
from cvxlayers.program import ConeProgram, Structure

CONES = {
    "unconstrained": Product(),
    "equalities": Product(zero=3),
    "inequalities": Product(nonnegative=6),
    "polyhedral": Product(zero=2, nonnegative=5),
    "second_order": Product(second_order=(3, 4)),
    "semidefinite": Product(semidefinite=(3,)),
    "semidefinite_4": Product(zero=1, semidefinite=(4,)),
    "exponential": Product(exponential=2),
    "power": Product(power=(0.3, 0.5)),
    "mixed": Product(zero=1, nonnegative=2, second_order=(3,), semidefinite=(2,), exponential=1, power=(0.7,)),
}


def pattern_of(matrix: np.ndarray) -> Pattern:
    """The pattern of a matrix's non-zeros."""
    stored = sp.csc_array(matrix)
    stored.sort_indices()
    return Pattern(stored.shape, stored.indices, stored.indptr)


def values_of(pattern: Pattern, matrices: np.ndarray) -> np.ndarray:
    """The stored entries of a batch of matrices."""
    return matrices[:, pattern.rows, pattern.cols]


def known_solution(
    cone: Product, n: int, rng: np.random.Generator, batch: int = 1, rank: int | None = None, density: float = 1.0
) -> tuple[ConeProgram, np.ndarray, np.ndarray]:
    """Returns a program with its solution (x, v): q and b are chosen so that (x, v) is optimal."""
    m = cone.dim
    factor = rng.normal(size=(batch, n, n if rank is None else rank))
    mask = rng.random((n, n)) < density
    P = (factor @ factor.transpose(0, 2, 1)) * (mask | mask.T) + np.eye(n) * (n if density < 1 else rank is None)
    A = rng.normal(size=(batch, m, n)) * (rng.random((m, n)) < max(density, 2 / n))
    x, v = rng.normal(size=(batch, n)), rng.normal(size=(batch, m))
    y = project_dual(cone, v)
    s = y - v
    structure = Structure(pattern_of(np.abs(P).sum(axis=0)), pattern_of(np.abs(A).sum(axis=0)), cone)
    q = -(P @ x[..., None])[..., 0] - (A.transpose(0, 2, 1) @ y[..., None])[..., 0]
    b = (A @ x[..., None])[..., 0] + s
    program = ConeProgram(structure, batch, values_of(structure.P, P), q, values_of(structure.A, A), b)
    return program, x, v
