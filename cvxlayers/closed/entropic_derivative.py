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
from cvxlayers.separable import Places, Separable

Sizes = Float[np.ndarray, " batch"]
Terms = Float[np.ndarray, "#batch terms"]
Items = Int[np.ndarray, " rest"]

# Residuals up to which points count as exact, condition numbers above which systems are for methods that pivot, and how
# far a derivative may be off for both.
_EXACT, _DOUBTFUL, _BLURRED = 1e-12, 1e9, 1e-3


class _Pair(NamedTuple):
    """The pairs of one entropy of each variable: their coordinates, and the coefficients of t and x (−A's entries)."""

    places: Places
    sigma: Terms
    w: Terms
    rho: Terms
    decay: Terms
    head: Terms
    alpha: Terms


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
            dx[self.rest], dy[self.rest], _, found = jvp(self.whole, Data(*(part[self.rest] for part in tangent)))
            _put(info, self.rest, found)
        return dx, dy, info

    def _adjoint(self, x: Vectors, y: Vectors, needs: Needs) -> tuple[Vectors, Vectors, Sizes]:
        force = x[:, self.parts.main_run]
        for pair in self.pairs:
            top = x[:, pair.places.bounded] / -pair.head
            _, second, third = pair.places.rows
            turn = y[:, second] - pair.decay * y[:, third]
            force = force + pair.alpha * ((1.0 - pair.rho) * top - pair.w / pair.sigma * turn)
        lam, mu = np.empty(self.point.x.shape), np.zeros(self.point.y.shape)
        side = y[:, self.parts.coupling[0]] if len(self.parts.coupling) else np.zeros(len(y))
        inside, price, residual = self._solve(force, side)
        lam[:, self.parts.main_run] = inside
        if len(self.parts.coupling):
            mu[:, self.parts.coupling[0]] = price
        for pair in self.pairs:
            first, second, third = pair.places.rows
            one, two, three = y[:, first], y[:, second], y[:, third]
            moved, tilt = pair.alpha * inside, pair.rho - 1.0
            lam[:, pair.places.bounded] = (tilt * (moved + two) - one + pair.decay * three) / pair.head
            if needs.dual:
                top = x[:, pair.places.bounded] / -pair.head
                bent = pair.w / pair.sigma * (two - pair.decay * three + moved)
                mu[:, first], mu[:, second], mu[:, third] = top, -tilt * top - bent, pair.decay * (bent - top)
        return lam, mu, residual

    def _tangent(self, tangent: Data) -> tuple[Vectors, Vectors, Sizes]:
        A, (x, y) = self.program.structure.A, (self.point.x, self.point.y)
        dual, primal = -(A.rmatvec(tangent.A, y) + tangent.q), tangent.b - A.matvec(tangent.A, x)
        force, rises = dual[:, self.parts.main_run], []
        for pair in self.pairs:
            _, second, third = pair.places.rows
            rise = dual[:, pair.places.bounded] / pair.head
            turn = pair.decay * primal[:, third] - primal[:, second]
            force = force + pair.alpha * ((pair.rho - 1.0) * rise + pair.w / pair.sigma * turn)
            rises.append(rise)
        side = primal[:, self.parts.coupling[0]] if len(self.parts.coupling) else np.zeros(len(primal))
        inside, price, residual = self._solve(force, side)
        dx, dy = np.empty(x.shape), np.zeros(y.shape)
        dx[:, self.parts.main_run] = inside
        if len(self.parts.coupling):
            dy[:, self.parts.coupling[0]] = price
        for pair, rise in zip(self.pairs, rises, strict=True):
            first, second, third = pair.places.rows
            grown = primal[:, second] + pair.alpha * inside
            turned = (pair.decay * primal[:, third] - grown) / pair.sigma
            dx[:, pair.places.bounded] = (pair.rho * grown + pair.sigma * turned - primal[:, first]) / pair.head
            dy[:, first], dy[:, second] = -rise, (pair.rho - 1.0) * rise + pair.w * turned
            dy[:, third] = pair.decay * (rise - pair.w * turned)
        return dx, dy, residual

    def _solve(self, force: Vectors, side: Sizes) -> tuple[Vectors, Sizes, Sizes]:
        """Solves D λ + a μ₀ = f, aᵀλ = g; returns λ, μ₀ and the relative residual."""
        loaded = self.h * self.row
        active = self.schur > 0
        side = np.where(active, side, 0.0)
        price = np.where(active, (np.sum(loaded * force, axis=1) - side) / np.where(active, self.schur, 1.0), 0.0)
        inside = self.h * force - loaded * price[:, None]
        gap = largest(force - inside / self.h - self.row * price[:, None])
        gap = np.maximum(gap, np.abs(np.sum(self.row * inside, axis=1) - side))
        scale = np.maximum(largest(force), np.abs(side))
        residual = np.divide(gap, scale, out=np.zeros_like(gap), where=scale > 0)
        return inside, price, np.where(np.isfinite(residual), residual, np.inf)

    def _info(self, residual: Sizes) -> DerivativeInfo:
        no = np.zeros((3, len(residual)), dtype=bool)
        return DerivativeInfo(residual, self.condition.copy(), *no)


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
        pairs = [_pair(program, point, places) for places in parts.places]
        curvature = sum(pair.w * pair.alpha**2 / pair.sigma for pair in pairs)
        h, row = 1.0 / curvature, _active_row(program, point, parts)
        schur = np.sum(row**2 * h, axis=1)
        condition = _condition(curvature, schur, pairs)
        clear = (condition <= _DOUBTFUL) & (point.merit <= _EXACT) & (condition * point.merit <= _BLURRED)
        clear &= _smooth(program, point, parts, pairs, condition)
    rest = np.flatnonzero(~clear)
    return EntropicDerivative(
        program, point, parts, pairs, h, row, schur, condition, rest, whole(rest) if len(rest) else None
    )


def _pair(program: ConeProgram, point: Point, places: Places) -> _Pair:
    first, second, third = places.rows
    sigma, gamma = point.s[:, second], point.s[:, third]
    head, alpha = -program.A[:, places.bounded_entries], -program.A[:, places.entries]
    return _Pair(places, sigma, -point.y[:, first], point.s[:, first] / sigma, sigma / gamma, head, alpha)


def _active_row(program: ConeProgram, point: Point, parts: Separable) -> Vectors:
    if not len(parts.coupling):
        return np.zeros((1, len(parts.main)))
    position = int(parts.coupling[0])
    row = parts.coupling_matrix(program.A)[:, 0, parts.main_run]
    return row if position < program.structure.cone.zero else row * (point.y[:, position] > 0)[:, None]


def _condition(curvature: Vectors, schur: Sizes, pairs: Sequence[_Pair]) -> Sizes:
    row = np.where(schur > 0, schur, np.nan)
    heads = [pair.head for pair in pairs]
    top = np.fmax.reduce([curvature.max(axis=1), row, *(head.max(axis=1) + 0.0 * schur for head in heads)])
    bottom = np.fmin.reduce([curvature.min(axis=1), row, *(head.min(axis=1) + 0.0 * schur for head in heads)])
    return top / bottom


def _smooth(
    program: ConeProgram, point: Point, parts: Separable, pairs: Sequence[_Pair], condition: Sizes
) -> Bool[np.ndarray, " batch"]:
    """Returns which points have no active bound, and are clearly away from every kink."""
    close, smallest, s = reach(program, point, condition), np.inf, point.s
    for pair in pairs:
        coordinates = pair.sigma, s[:, pair.places.rows[2]], pair.w, point.y[:, pair.places.rows[2]]
        smallest = np.minimum(smallest, np.minimum.reduce([part.min(axis=1) for part in coordinates]))
    clear = close.is_smooth(np.asarray(smallest))
    for group in parts.bounds:
        clear &= ~point.y[:, group.rows].any(axis=1)
    inequalities = [group.rows for group in parts.bounds]
    if len(parts.coupling) and parts.coupling[0] >= program.structure.cone.zero:
        inequalities.append(parts.coupling)
    for rows in inequalities:
        clear &= ~close.both_zero(point.y[:, rows], s[:, rows]).any(axis=1)
    return clear
