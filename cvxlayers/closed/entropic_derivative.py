"""The derivative of programs with entropies: a diagonal matrix and one row.

On the boundary of its cone an entropy's pair is s = σ(ρ, 1, e^ρ), y = w(−1, ρ − 1, e^−ρ), with tangents along σ, w and
ρ. An adjoint (λ, μ) of the optimality conditions, for cotangents (x̄, ȳ), is orthogonal to each of these,

    μ · ∂s + Aλ · ∂y = ȳ · ∂y,       which leaves     D λ + a μ₀ = f,   aᵀλ = ȳ₀

for the main variables and the row, where D = Σ w α²/σ is their curvature. Tangents solve the same system.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from cvxlayers.batches import Vectors, largest
from cvxlayers.closed.form import Inverse
from cvxlayers.derivative import Point, reach
from cvxlayers.idioms.separable import Separable
from cvxlayers.program import ConeProgram
from cvxlayers.solvers import Response, Weights, read_weights

Sizes = Float[np.ndarray, " batch"]
Terms = Float[np.ndarray, "#batch terms"]
Sides = Float[np.ndarray, "batch 1"]

# Residuals up to which points count as exact, and condition numbers above which systems are for methods that pivot.
_EXACT, _DOUBTFUL = 1e-12, 1e9


class _Pair(NamedTuple):
    """The pairs of one entropy of each variable: its numbers, σ, and ρ − 1."""

    term: Weights
    sigma: Terms
    tilt: Terms

    @property
    def decay(self) -> Terms:
        """e^−ρ."""
        return self.sigma / self.term.gamma


@dataclass(frozen=True, eq=False)
class _Entropies:
    """The solution maps of a batch, linearised.

    Attributes:
        shape: the number of rows of the programs, for each item.
        parts: their parts.
        pairs: the entropies.
        h: 1/D.
        row: the row a, zero where it is not active.
        schur: aᵀ h a.
    """

    shape: tuple[int, ...]
    parts: Separable
    pairs: Sequence[_Pair]
    h: Vectors
    row: Vectors
    schur: Sizes

    def solve(self, first: Vectors, second: Vectors, dual: bool) -> tuple[Vectors, Vectors, Sizes]:
        """Returns λ, μ where it is asked for, and the relative residual of the row."""
        parts, moving = self.parts, bool(second.any())
        force, side = first[:, parts.main_run], np.zeros(len(first))
        for term, _, tilt in self.pairs:
            top = first[:, term.places.bounded]
            if top.any():
                force = force + tilt * top * (term.alpha / term.head)
        for pair in self.pairs if moving else ():
            _, two, three = pair.term.places.rows
            force = force - pair.term.alpha * pair.term.w / pair.sigma * (
                second[:, two] - pair.decay * second[:, three]
            )
        if moving and len(parts.coupling):
            side = second[:, parts.coupling[0]]
        inside, price, residual = self._balance(force, side)
        lam, mu = np.empty(first.shape), np.zeros(self.shape if dual else (1, 1))
        lam[:, parts.main_run] = inside
        for pair in self.pairs:
            lam[:, pair.term.places.bounded] = _height(pair, inside, second, moving)
        if dual:
            self._multipliers(first, second, inside, mu)
            mu[:, parts.coupling] = price[:, None]
        return lam, mu, residual

    def _multipliers(self, x: Vectors, y: Vectors, inside: Vectors, mu: Vectors) -> None:
        for pair in self.pairs:
            first, second, third = pair.term.places.rows
            top, decay = x[:, pair.term.places.bounded] / -pair.term.head, pair.decay
            bent = pair.term.w / pair.sigma * (y[:, second] - decay * y[:, third] + pair.term.alpha * inside)
            mu[:, first], mu[:, second], mu[:, third] = top, -pair.tilt * top - bent, decay * (bent - top)

    def _balance(self, force: Vectors, side: Sizes) -> tuple[Vectors, Sizes, Sizes]:
        """Solves D λ + a μ₀ = f, aᵀλ = g; returns λ, μ₀ and the relative residual, which is that of the row."""
        active = self.schur > 0
        side = np.where(active, side, 0.0)
        known = self.h * force
        known *= self.row
        price = np.sum(known, axis=1) - side
        price = np.divide(price, self.schur, out=np.zeros_like(price), where=active)
        inside = self.row * price[:, None]
        np.subtract(force, inside, out=inside)
        inside *= self.h
        gap = np.abs(np.sum(self.row * inside, axis=1) - side)
        scale = np.maximum(largest(force), np.abs(side))
        residual = np.divide(gap, scale, out=np.zeros_like(gap), where=scale > 0)
        residual[~np.isfinite(gap)] = np.inf
        return inside, price, residual


def _height(pair: _Pair, inside: Vectors, y: Vectors, moving: bool | np.bool_) -> Vectors:
    """Returns the adjoint of the costs of t."""
    term = pair.term
    if not moving:
        return pair.tilt * inside * (term.alpha / term.head)
    one, two, three = (y[:, rows] for rows in term.places.rows)
    return (pair.tilt * (term.alpha * inside + two) - one + pair.decay * three) / term.head


def linearise_entropies(
    program: ConeProgram, point: Point, parts: Separable
) -> tuple[Inverse, Sizes, Bool[np.ndarray, " batch"]]:
    """Linearises the solution maps of a batch; returns an inverse, its condition, and which items it serves.

    Args:
        program: the programs.
        point: their solutions.
        parts: their parts.
    """
    with np.errstate(all="ignore"):
        response = Response([read_weights(program, places) for places in parts.places])
        pairs = [_pair(point, term) for term in response.terms]
        h, row = response.flexibility([pair.sigma for pair in pairs]), _active_row(program, point, parts)
        schur = np.einsum("bn,bn->b", row**2, h)
        condition = _condition(h, schur, pairs)
        clear = (condition <= _DOUBTFUL) & (point.merit <= _EXACT)
        clear &= _smooth(program, point, parts, pairs, condition)
    return _Entropies(point.y.shape, parts, pairs, h, row, schur).solve, condition, clear


def _pair(point: Point, term: Weights) -> _Pair:
    first, second, _ = term.places.rows
    sigma = np.array(point.s[:, second])
    tilt = point.s[:, first] / sigma
    tilt -= 1.0
    return _Pair(term, sigma, tilt)


def _active_row(program: ConeProgram, point: Point, parts: Separable) -> Vectors:
    if not len(parts.coupling):
        return np.zeros((1, len(parts.main)))
    position = int(parts.coupling[0])
    row = parts.coupling_matrix(program.A)[:, 0, parts.main_run]
    return row if position < program.structure.cone.zero else row * (point.y[:, position] > 0)[:, None]


def _condition(h: Vectors, schur: Sizes, pairs: Sequence[_Pair]) -> Sizes:
    row = np.where(schur > 0, schur, np.nan)
    heads = [term.head for term, _, _ in pairs]
    top, bottom = 1.0 / h.min(axis=1), 1.0 / h.max(axis=1)
    top = np.fmax.reduce(np.broadcast_arrays(top, row, *(head.max(axis=1) for head in heads)))
    bottom = np.fmin.reduce(np.broadcast_arrays(bottom, row, *(head.min(axis=1) for head in heads)))
    return top / bottom


def _smooth(
    program: ConeProgram, point: Point, parts: Separable, pairs: Sequence[_Pair], condition: Sizes
) -> Bool[np.ndarray, " batch"]:
    """Returns which points have no active bound, and are clearly away from every kink."""
    close, smallest = reach(point, condition, _sizes(point, parts, pairs)), np.full(program.batch, np.inf)
    for term, sigma, _ in pairs:
        # All coordinates of a pair but those that are zero where nothing bends: σ, γ, w and wσ/γ.
        thin, others = sigma.min(axis=1), np.minimum(term.gamma.min(axis=1), term.w.min(axis=1))
        smallest = np.minimum(smallest, np.minimum(others, thin * np.minimum((term.w / term.gamma).min(axis=1), 1.0)))
    clear = close.is_smooth(smallest)
    inequalities = [group.rows for group in parts.bounds]
    for rows in inequalities:
        clear &= ~point.y[:, rows].any(axis=1)
    if len(parts.coupling) and parts.coupling[0] >= program.structure.cone.zero:
        inequalities.append(parts.coupling)
    for rows in inequalities:
        clear &= ~close.both_zero(point.y[:, rows], point.s[:, rows]).any(axis=1)
    return clear


def _sizes(point: Point, parts: Separable, pairs: Sequence[_Pair]) -> tuple[Sides, Sides]:
    """Returns bounds of the sizes of y, and of s and b."""
    y, s = point.dual_scale, point.primal_scale
    if len(parts.coupling):
        y = np.maximum(y, np.abs(point.y[:, parts.coupling[0]]))
    for term, _, _ in pairs:
        steep = np.maximum((term.w / term.gamma).max(axis=1) * s, term.w.max(axis=1))
        y = np.maximum(y / np.minimum(np.abs(term.alpha).min(axis=1), 1.0), steep)
        s = s * (1.0 + np.maximum(np.log(s / term.gamma.min(axis=1)), 0.0))
    return y[:, None], s[:, None]
