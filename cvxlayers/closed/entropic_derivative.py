"""The derivative of programs with entropies: a diagonal matrix and one row.

On the boundary of its cone an entropy's pair is s = σ(ρ, 1, e^ρ), y = w(−1, ρ − 1, e^−ρ), with tangents along σ, w and
ρ. An adjoint (λ, μ) of the optimality conditions, for cotangents (x̄, ȳ), is orthogonal to each of these,

    μ · ∂s + Aλ · ∂y = ȳ · ∂y,       which leaves     D λ + a μ₀ = f,   aᵀλ = ȳ₀

for the main variables and the row, where D = Σ w α²/σ is their curvature; and likewise for tangents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.closed.form import ClosedDerivative, Whole
from cvxlayers.derivative import (
    Data,
    DerivativeInfo,
    Linearisation,
    Needs,
    Point,
    jvp,
    reach,
    vjp,
)
from cvxlayers.program import ConeProgram, Vectors, largest
from cvxlayers.separable import Separable
from cvxlayers.solvers import Response, Weights, read_weights

Sizes = Float[np.ndarray, " batch"]
Terms = Float[np.ndarray, "#batch terms"]
Sides = Float[np.ndarray, "batch 1"]
Items = Int[np.ndarray, " rest"]

# Residuals up to which points count as exact, condition numbers above which systems are for methods that pivot, and how
# far a derivative may be off for both.
_EXACT, _DOUBTFUL, _BLURRED = 1e-12, 1e9, 1e-3


class _Pair(NamedTuple):
    """The pairs of one entropy of each variable: its numbers, σ, and ρ − 1."""

    term: Weights
    sigma: Terms
    tilt: Terms

    @property
    def decay(self) -> Terms:
        """e^−ρ."""
        return self.sigma / self.term.gamma


@final
@dataclass(frozen=True, eq=False)
class EntropicDerivative(ClosedDerivative):
    """The solution maps of a batch, linearised; of the items `rest` by their whole systems.

    Attributes:
        program: the programs.
        point: their solutions.
        parts: their parts.
        pairs: the entropies.
        h: 1/D.
        row: the row a, zero where it is not active.
        schur: aᵀ h a.
        condition: the ratio of the largest to the smallest pivot.
        rest: the items with another derivative.
        whole: theirs.
    """

    program: ConeProgram
    point: Point
    parts: Separable
    pairs: Sequence[_Pair]
    h: Vectors
    row: Vectors
    schur: Sizes
    condition: Sizes
    rest: Items
    whole: Linearisation | None

    def vjp(self, x: Vectors, y: Vectors, needs: Needs) -> tuple[Data, DerivativeInfo]:
        """Returns the cotangent of the data for cotangents of x and y: the adjoint of `jvp`."""
        with np.errstate(all="ignore"):
            lam, mu, residual = self._adjoint(x, y, needs)
        info = self._info(residual)
        if self.whole is not None:
            part, found = vjp(self.whole, x[self.rest], y[self.rest])
            lam[self.rest], mu[self.rest] = -part.q, part.b
            _put(info, self.rest, found)
        return needs.pull(self.program, self.point, lam, mu), info

    def jvp(self, tangent: Data) -> tuple[Vectors, Vectors, DerivativeInfo]:
        """Returns the tangents of x and y for one of the data."""
        with np.errstate(all="ignore"):
            dx, dy, residual = self._tangent(tangent)
        info = self._info(residual)
        if self.whole is not None:
            part = Data(*(values if len(values) == 1 else values[self.rest] for values in tangent))
            dx[self.rest], dy[self.rest], _, found = jvp(self.whole, part)
            _put(info, self.rest, found)
        return dx, dy, info

    def _adjoint(self, x: Vectors, y: Vectors, needs: Needs) -> tuple[Vectors, Vectors, Sizes]:
        force, side, moving = x[:, self.parts.main_run], np.zeros(len(x)), y.any()
        for term, _, tilt in self.pairs:
            top = x[:, term.places.bounded]
            if top.any():
                force = force + tilt * top * (term.alpha / term.head)
        for pair in self.pairs if moving else ():
            _, second, third = pair.term.places.rows
            force = force - pair.term.alpha * pair.term.w / pair.sigma * (y[:, second] - pair.decay * y[:, third])
        if moving and len(self.parts.coupling):
            side = y[:, self.parts.coupling[0]]
        inside, price, residual = self._solve(force, side)
        lam, mu = np.empty(self.point.x.shape), np.zeros(self.point.y.shape if needs.dual or len(self.rest) else (1, 1))
        lam[:, self.parts.main_run] = inside
        for pair in self.pairs:
            lam[:, pair.term.places.bounded] = _height(pair, inside, y, moving)
        if needs.dual:
            self._multipliers(x, y, inside, mu)
            mu[:, self.parts.coupling] = price[:, None]
        return lam, mu, residual

    def _multipliers(self, x: Vectors, y: Vectors, inside: Vectors, mu: Vectors) -> None:
        for pair in self.pairs:
            first, second, third = pair.term.places.rows
            top, decay = x[:, pair.term.places.bounded] / -pair.term.head, pair.decay
            bent = pair.term.w / pair.sigma * (y[:, second] - decay * y[:, third] + pair.term.alpha * inside)
            mu[:, first], mu[:, second], mu[:, third] = top, -pair.tilt * top - bent, decay * (bent - top)

    def _tangent(self, tangent: Data) -> tuple[Vectors, Vectors, Sizes]:
        A, (x, y) = self.program.structure.A, (self.point.x, self.point.y)
        dual, primal = -(A.rmatvec(tangent.A, y) + tangent.q), tangent.b - A.matvec(tangent.A, x)
        force, rises = dual[:, self.parts.main_run], []
        for pair in self.pairs:
            _, second, third = pair.term.places.rows
            rise = dual[:, pair.term.places.bounded] / pair.term.head
            turn = pair.decay * primal[:, third] - primal[:, second]
            force = force + pair.term.alpha * (pair.tilt * rise + pair.term.w / pair.sigma * turn)
            rises.append(rise)
        side = primal[:, self.parts.coupling[0]] if len(self.parts.coupling) else np.zeros(len(primal))
        inside, price, residual = self._solve(force, side)
        dx, dy = np.empty(x.shape), np.zeros(y.shape)
        dx[:, self.parts.main_run], dy[:, self.parts.coupling] = inside, price[:, None]
        for pair, rise in zip(self.pairs, rises, strict=True):
            (first, second, third), (term, sigma, tilt) = pair.term.places.rows, pair
            grown = primal[:, second] + term.alpha * inside
            turned = (pair.decay * primal[:, third] - grown) / sigma
            dx[:, term.places.bounded] = ((tilt + 1.0) * grown + sigma * turned - primal[:, first]) / term.head
            dy[:, first], dy[:, second] = -rise, tilt * rise + term.w * turned
            dy[:, third] = pair.decay * (rise - term.w * turned)
        return dx, dy, residual

    def _solve(self, force: Vectors, side: Sizes) -> tuple[Vectors, Sizes, Sizes]:
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

    def _info(self, residual: Sizes) -> DerivativeInfo:
        no = np.zeros((3, len(residual)), dtype=bool)
        return DerivativeInfo(residual, self.condition.copy(), *no)


def _height(pair: _Pair, inside: Vectors, y: Vectors, moving: bool | np.bool_) -> Vectors:
    """Returns the adjoint of the costs of t."""
    term = pair.term
    if not moving:
        return pair.tilt * inside * (term.alpha / term.head)
    one, two, three = (y[:, rows] for rows in term.places.rows)
    return (pair.tilt * (term.alpha * inside + two) - one + pair.decay * three) / term.head


def _put(info: DerivativeInfo, items: Items, part: DerivativeInfo) -> None:
    for name in info.__dataclass_fields__:
        getattr(info, name)[items] = getattr(part, name)


def linearise_entropies(program: ConeProgram, point: Point, parts: Separable, whole: Whole) -> EntropicDerivative:
    """Linearises the solution maps of a batch.

    Args:
        program: the programs.
        point: their solutions.
        parts: their parts.
        whole: linearises some items as any program: those next to a kink, or badly conditioned.
    """
    with np.errstate(all="ignore"):
        response = Response([read_weights(program, places) for places in parts.places])
        pairs = [_pair(point, term) for term in response.terms]
        h, row = response.flexibility([pair.sigma for pair in pairs]), _active_row(program, point, parts)
        schur = np.einsum("bn,bn->b", row**2, h)
        condition = _condition(h, schur, pairs)
        clear = (condition <= _DOUBTFUL) & (point.merit <= _EXACT) & (condition * point.merit <= _BLURRED)
        clear &= _smooth(program, point, parts, pairs, condition)
    rest = np.flatnonzero(~clear)
    return EntropicDerivative(
        program, point, parts, pairs, h, row, schur, condition, rest, whole(rest) if len(rest) else None
    )


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
