"""Factorisations of separable systems: what the coupling rows leave of K falls apart into single variables.

Ordered by variables, K is an arrow: a diagonal of small blocks (a variable, its bounds, its entropies), bordered by the
coupling rows. Within a block, a direction of the cones with d = 1 is an equation, which fixes the variable or names the
t of an entropy, and one with d < 1 adds its weight d/(1 − d) to the curvature of the variable. So for each variable

    p x + Σ_C r a z = f    or    x = x̂,

and with h = 1/p, or h = 0 where x is fixed, the coupling rows are left with S = diag(r) a h aᵀ diag(r) + diag(1 − d).

Items of which a block, or S, is singular to working precision are left to a factorisation of the whole matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.batches import Vectors, every, spread_rows
from cvxlayers.cones import Basis, BlockBasis, ProductBasis
from cvxlayers.derivative.structured import StructuredFactorisation
from cvxlayers.derivative.system import Factorise, Rank, System
from cvxlayers.idioms.separable import Bounds, Entropies, Separable

# A condition number above this is for methods that pivot.
_DOUBTFUL = 1e9

Terms = Float[np.ndarray, "batch _terms"]
Matrices = Float[np.ndarray, "batch _coupling _coupling"]


@dataclass(frozen=True, eq=False)
class _Bound:
    """Some bounds: coefficients c, and roots r of the eigenvalues d; which are equations, and what the others add.

    That is `weight`, c² d/(1 − d), to the curvature, and `soft`, 1/(1 − d), times their right-hand sides.
    """

    bounds: Bounds
    c: Float[np.ndarray, "leading _terms"]
    r: Terms
    hard: Bool[np.ndarray, "batch _terms"]
    soft: Terms
    weight: Terms


@dataclass(frozen=True, eq=False)
class _Entropy:
    """Some entropies: the coefficients of t and x in the three directions of each cone, the equation's apart.

    The equation is τ t + ξ x = g. In its terms the other directions are rows η x, with η = ξₖ − τₖ ξ/τ.
    """

    cones: Entropies
    hard: Int[np.ndarray, "batch _terms 1"]
    tau: Terms
    xi: Terms
    tau_soft: Float[np.ndarray, "batch _terms 3"]
    eta: Float[np.ndarray, "batch _terms 3"]
    r: Float[np.ndarray, "batch _terms 3"]
    soft: Float[np.ndarray, "batch _terms 3"]


@dataclass(frozen=True, eq=False)
class Arrow:
    """The eliminated systems of a batch.

    Attributes:
        system: the systems.
        parts: what is coupled and what is not.
        p: curvatures, all softened rows included.
        h: their inverses, zero where a variable is fixed.
        bounds: the bounds, in groups.
        entropies: the entropies, in groups.
        border: the coupling rows times their roots.
        inverse: S⁻¹.
        condition: the ratio of the largest to the smallest pivot.
    """

    system: System
    parts: Separable
    p: Vectors
    h: Vectors
    bounds: Sequence[_Bound]
    entropies: Sequence[_Entropy]
    border: Float[np.ndarray, "batch _coupling n"]
    inverse: Float[np.ndarray, "batch _coupling _coupling"]
    condition: Float[np.ndarray, " batch"]

    def solve(self, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors]:
        """Solves K u = [first; second] for each item, once."""
        f, x, g = first.copy(), np.zeros(first.shape), second
        z = np.zeros(second.shape)
        for part in self.bounds:
            rows, columns, _ = part.bounds.runs
            rhs = g[:, rows]
            f[:, columns] += part.c * part.r * part.soft * rhs
            x[:, columns] += np.where(part.hard, rhs / part.c, 0.0)
        for part in self.entropies:
            t_hard, rhs = _equation(part, first, g)
            pull = part.soft * (part.r * part.tau_soft * t_hard[..., None] - rhs)
            f[:, part.cones.columns] -= part.xi * (first[:, part.cones.bounded] / part.tau)
            f[:, part.cones.columns] -= np.sum(part.r * part.eta * pull, axis=2)
        coupling = self.parts.coupling_run
        if len(self.parts.coupling):
            known = np.matmul(self.border, (x + self.h * f)[:, :, None])[:, :, 0] - g[:, coupling]
            z[:, coupling] = np.matmul(self.inverse, known[:, :, None])[:, :, 0]
            f = f - np.matmul(z[:, None, coupling], self.border)[:, 0, :]
        x += self.h * f
        self._bounds_back(f, x, g, z)
        self._entropies_back(first, x, g, z)
        return x, z

    def _bounds_back(self, f: Vectors, x: Vectors, g: Vectors, z: Vectors) -> None:
        for part in self.bounds:
            rows, columns, _ = part.bounds.runs
            inside = x[:, columns]
            soft = part.soft * (part.r * part.c * inside - g[:, rows])
            z[:, rows] = np.where(part.hard, (f[:, columns] - self.p[:, columns] * inside) / part.c, soft)

    def _entropies_back(self, first: Vectors, x: Vectors, g: Vectors, z: Vectors) -> None:
        for part in self.entropies:
            t_hard, rhs = _equation(part, first, g)
            inside = x[:, part.cones.columns]
            x[:, part.cones.bounded] = t_hard - part.xi / part.tau * inside
            moved = part.tau_soft * t_hard[..., None] + part.eta * inside[..., None]
            back = part.soft * (part.r * moved - rhs)
            top = (first[:, part.cones.bounded] - np.sum(part.r * part.tau_soft * back, axis=2)) / part.tau
            np.put_along_axis(back, part.hard, top[..., None], axis=2)
            z[:, part.cones.rows] = back


def _equation(part: _Entropy, first: Vectors, g: Vectors) -> tuple[Terms, Float[np.ndarray, "batch _terms 3"]]:
    """Returns t where x is zero, and the right-hand sides of all three directions."""
    rhs = g[:, part.cones.rows]
    return np.take_along_axis(rhs, part.hard, axis=2)[..., 0] / part.tau, rhs


def factorise_arrow(system: System, parts: Separable, factorise: Factorise) -> StructuredFactorisation:
    """Factorises a batch of separable systems.

    Args:
        system: the systems.
        parts: what in them is coupled.
        factorise: how systems are factorised that are singular, or of another form at the point.
    """
    with np.errstate(all="ignore"):
        arrow, sound = _eliminate(system, parts)
    ranks = Rank.regular(arrow.condition, system.program.structure.n)
    return StructuredFactorisation.of(system, arrow.solve, ranks, sound & (arrow.condition <= _DOUBTFUL), factorise)


def _eliminate(system: System, parts: Separable) -> tuple[Arrow, Bool[np.ndarray, " batch"]]:
    """Eliminates all but the coupling rows; says for which items that is possible."""
    program, eigenvalues = system.program, system.derivative.eigenvalues
    batch, n = len(eigenvalues), program.structure.n
    p = np.array(spread_rows(parts.diagonal(program.P), batch))
    fixed, sizes = np.zeros((batch, n)), []
    bounds, entropies = [_bound(system, group) for group in parts.bounds], _entropies(system, parts)
    for part in bounds:
        _, columns, _ = part.bounds.runs
        p[:, columns] += part.weight
        fixed[:, columns] += part.hard
        sizes.append(np.where(part.hard, np.abs(part.c), np.nan))
    sound = (fixed <= 1).all(axis=1)
    for part in entropies:
        p[:, part.cones.columns] += np.sum((part.r * part.eta) ** 2 * part.soft, axis=2)
        sizes.append(np.abs(part.tau))
        sound &= (np.sum(part.soft == 0, axis=2) == 1).all(axis=1)
    h = np.zeros((batch, n))
    main, coupling = parts.main_run, parts.coupling_run
    free = fixed[:, main] == 0
    h[:, main] = np.where(free, 1.0 / p[:, main], 0.0)
    sizes.append(np.where(free, p[:, main], np.nan))
    border = system.root[:, coupling, None] * parts.coupling_matrix(program.A)
    S = np.matmul(border * h[:, None, :], border.transpose(0, 2, 1))
    diagonal = np.arange(len(parts.coupling))
    S[:, diagonal, diagonal] += 1.0 - eigenvalues[:, coupling]
    inverse, eigenvalues_of_S = _inverse(S)
    sizes.append(eigenvalues_of_S)
    pivots = np.concatenate(sizes, axis=1)
    largest, smallest = np.fmax.reduce(pivots, axis=1, initial=0.0), np.fmin.reduce(pivots, axis=1, initial=np.inf)
    condition = np.fmin(np.where(smallest > 0, np.maximum(largest / smallest, 1.0), np.inf), np.inf)
    return Arrow(system, parts, p, h, bounds, entropies, border, inverse, condition), np.asarray(sound)


def _bound(system: System, bounds: Bounds) -> _Bound:
    rows, _, entries = bounds.runs
    c, d = system.program.A[:, entries], system.derivative.eigenvalues[:, rows]
    hard = d == 1.0
    soft = np.where(hard, 0.0, 1.0 / (1.0 - d))
    return _Bound(bounds, c, system.root[:, rows], hard, soft, c * c * d * soft)


def _entropies(system: System, parts: Separable) -> list[_Entropy]:
    if not parts.entropies:
        return []
    structure, derivative, A = system.program.structure, system.derivative, system.program.A
    basis, start = derivative.basis, structure.m - 3 * structure.cone.exponential
    blocks = [part.blocks for part in basis.parts if isinstance(part, BlockBasis)] if _is_product(basis) else []
    found = []
    for cones in parts.entropies:
        U = blocks[0][:, (cones.rows[:, 0] - start) // 3]
        tau = U[:, :, 0, :] * A[:, cones.bounded_entries, None]
        xi = U[:, :, 1, :] * A[:, cones.entries, None]
        d, r = derivative.eigenvalues[:, cones.rows], system.root[:, cones.rows]
        hard = np.argmax(d, axis=2)[..., None]
        soft = np.where(d == 1.0, 0.0, 1.0 / (1.0 - d))
        tau_hard, xi_hard = (np.take_along_axis(array, hard, axis=2)[..., 0] for array in (tau, xi))
        eta = xi - tau * (xi_hard / tau_hard)[..., None]
        found.append(_Entropy(cones, hard, tau_hard, xi_hard, tau, eta, r, soft))
    return found


def _is_product(basis: Basis) -> TypeGuard[ProductBasis]:
    return isinstance(basis, ProductBasis)


def _inverse(S: Matrices) -> tuple[Matrices, Float[np.ndarray, "batch _coupling"]]:
    """Returns the inverses of positive semidefinite matrices, and their eigenvalues."""
    if S.shape[1] <= 1:
        return 1.0 / S, S[:, :, 0] if S.shape[1] else np.zeros((len(S), 0))
    finite = np.isfinite(S)
    if not every(finite):
        S = np.where(finite.all(axis=(1, 2), keepdims=True), S, 0.0)
    eigenvalues, vectors = np.linalg.eigh(S)
    return (vectors / eigenvalues[:, None, :]) @ vectors.transpose(0, 2, 1), eigenvalues
