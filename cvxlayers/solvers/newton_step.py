"""Newton steps of the smoothed residual map: one small dense system for each item.

With r = (Px + Aᵀy + q ; Ax + s − b) on the central path of the conic rows C and the equalities E, and H the metric of
the path, dy_C = H (A_C dx + r_C) + p and

    [[P + A_Cᵀ H A_C, A_Eᵀ], [A_E, 0]] [dx; dy_E] = −[r_x + A_Cᵀ (H r_C + p) ; r_E],

where p is the gain of y as the barrier parameter changes, and s does not.

Where the variables are coordinates of cones, w = A_C dx satisfies (ρ + H) w + Gᵀν = g with few rows G w = h, and ν
solves G (ρ + H)⁻¹ Gᵀ ν = G (ρ + H)⁻¹ g − h.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Float, Int

from cvxlayers.batches import Vectors, largest
from cvxlayers.cones.metric import Metric
from cvxlayers.idioms.coordinates import Coordinates, turn
from cvxlayers.program import ConeProgram

Index = Int[np.ndarray, " _count"]
Sizes = Float[np.ndarray, " batch"]

# Relative to the largest entry of a diagonal.
_SHIFT = 1e-15


@dataclass(frozen=True, eq=False)
class Residual:
    """The residual map: Px + Aᵀy + q, and Ax + s − b of the equalities and of the conic rows."""

    dual: Vectors
    equal: Vectors
    conic: Vectors

    def item(self, index: Index) -> Residual:
        """Returns that of some items."""
        return Residual(self.dual[index], self.equal[index], self.conic[index])

    def put(self, index: Index, values: Residual) -> Residual:
        """Returns the residual with that of some items replaced."""
        parts = self.dual.copy(), self.equal.copy(), self.conic.copy()
        for part, other in zip(parts, (values.dual, values.equal, values.conic), strict=True):
            part[index] = other
        return Residual(*parts)


class Step(ABC):
    """The Newton steps of a batch of programs, in units in which they are solved."""

    @abstractmethod
    def linear(self, x: Vectors, equal: Vectors) -> Residual:
        """Returns what x, and y of the equalities, contribute to the residual map, and the constants in it."""

    @abstractmethod
    def residual(self, linear: Residual, y: Vectors, s: Vectors) -> Residual:
        """Returns the residual map, with y, s of the conic rows."""

    @abstractmethod
    def direction(self, metric: Metric, residual: Residual, gain: Vectors) -> tuple[Vectors, Vectors, Vectors]:
        """Returns (dx, dy of the equalities, dv of the conic rows), given how y would change alone."""

    @abstractmethod
    def size(self, residual: Residual) -> Sizes:
        """Returns the size of a residual: that of the dual one relative to the widths of the columns."""

    @abstractmethod
    def item(self, index: Index) -> Step:
        """Returns the steps of some items."""


@final
@dataclass(frozen=True, eq=False)
class DenseStep(Step):
    """Steps by the condensed matrix of x, dense."""

    P: Float[np.ndarray, "#batch n n"]
    q: Float[np.ndarray, "#batch n"]
    E: Float[np.ndarray, "#batch equal n"]
    A: Float[np.ndarray, "#batch conic n"]
    b: Float[np.ndarray, "#batch m"]
    widths: Float[np.ndarray, "#batch n"]

    @classmethod
    def of(cls, program: ConeProgram, widths: Vectors) -> DenseStep:
        """Returns the steps of a batch of programs."""
        structure = program.structure
        # In one memory order, whatever the batch: it decides how products are rounded.
        A, zero = np.ascontiguousarray(structure.A.dense(program.A)), structure.cone.zero
        return cls(structure.P.dense(program.P), program.q, A[:, :zero], A[:, zero:], program.b, widths)

    def linear(self, x: Vectors, equal: Vectors) -> Residual:
        """Returns the part without y and s of the conic rows."""
        zero, dual = equal.shape[1], np.broadcast_to(self.q, x.shape)
        if self.curved:
            dual = dual + dot(self.P, x)
        if not zero:
            return Residual(dual, equal, dot(self.A, x) - self.b)
        dual = dual + dot(self.E.swapaxes(1, 2), equal)
        return Residual(dual, dot(self.E, x) - self.b[:, :zero], dot(self.A, x) - self.b[:, zero:])

    def residual(self, linear: Residual, y: Vectors, s: Vectors) -> Residual:
        """Returns the residual map."""
        return Residual(dot(self.A.swapaxes(1, 2), y) + linear.dual, linear.equal, linear.conic + s)

    def direction(self, metric: Metric, residual: Residual, gain: Vectors) -> tuple[Vectors, Vectors, Vectors]:
        """Solves the condensed systems."""
        weights, extra = metric.factor(self.A)
        At = self.A.swapaxes(1, 2)
        M = np.matmul(At, self.A * weights[..., None])
        M += np.matmul(extra.swapaxes(1, 2), extra)
        dx, equal = self.solve(M, -residual.dual - dot(At, metric.apply(residual.conic) + gain), residual.equal)
        moved = dot(self.A, dx) + residual.conic
        return dx, equal, metric.apply(moved) + moved + gain

    def solve(self, M: Float[np.ndarray, "batch n n"], rhs: Vectors, equal: Vectors) -> tuple[Vectors, Vectors]:
        """Solves (P + M) dx + Eᵀ dy = rhs and E dx = −equal; M may be written to."""
        n, zero = self.A.shape[2], self.E.shape[1]
        if self.curved:
            M += self.P
        if not zero:
            return _solve(M, rhs, n), equal
        K = np.zeros((len(M), n + zero, n + zero))
        K[:, :n, :n], K[:, n:, :n], K[:, :n, n:] = M, self.E, self.E.swapaxes(1, 2)
        u = _solve(K, np.concatenate([rhs, -equal], axis=1), n)
        return np.ascontiguousarray(u[:, :n]), u[:, n:]

    def size(self, residual: Residual) -> Sizes:
        """Returns the size of a residual."""
        return _size(residual, self.widths)

    def item(self, index: Index) -> DenseStep:
        """Returns the steps of some items."""
        return DenseStep(*(_items(part, index) for part in (self.P, self.q, self.E, self.A, self.b, self.widths)))

    @cached_property
    def curved(self) -> bool:
        """Whether there is a P."""
        return bool(self.P.any())


@final
@dataclass(frozen=True, eq=False)
class CoordinateStep(Step):
    """Steps of programs over the coordinates of cones."""

    program: ConeProgram
    form: Coordinates
    a: Float[np.ndarray, "#batch n"]
    rho: Float[np.ndarray, "#batch conic"]
    equalities: Float[np.ndarray, "#batch zero conic"]
    widths: Float[np.ndarray, "#batch n"]

    @classmethod
    def of(cls, program: ConeProgram, widths: Vectors, form: Coordinates) -> CoordinateStep:
        """Returns the steps of a batch of programs."""
        a = form.coefficients(program)
        return cls(program, form, a, form.curvature(program, a)[0], form.equalities(program, a), widths)

    def linear(self, x: Vectors, equal: Vectors) -> Residual:
        """Returns the part without y and s of the conic rows."""
        program, zero = self.program, equal.shape[1]
        P, A = program.structure.P, program.structure.A
        dual = np.broadcast_to(program.q, x.shape)
        if P.nnz:
            dual = dual + P.matvec(program.P, x)
        if zero:
            dual = dual + A.rmatvec(program.A, np.concatenate([equal, np.zeros((len(x), A.shape[0] - zero))], axis=1))
        primal = A.matvec(program.A, x) - program.b
        return Residual(dual, primal[:, :zero], primal[:, zero:])

    def residual(self, linear: Residual, y: Vectors, s: Vectors) -> Residual:
        """Returns the residual map."""
        return Residual(linear.dual + self.a * y.take(self.form.rows, axis=1), linear.equal, linear.conic + s)

    def direction(self, metric: Metric, residual: Residual, gain: Vectors) -> tuple[Vectors, Vectors, Vectors]:
        """Solves the small systems of ν in the eigenbasis of H, and what is linear in the coordinates themselves."""
        form, zero = self.form, residual.equal.shape[1]
        h, basis = metric.spectrum()
        share = 1.0 / (self.rho + h)
        force = -gain
        force[:, form.rows] -= residual.dual / self.a
        turned = basis.rotate(np.stack([force, residual.conic], axis=-1))
        G, g = turn(self.equalities, form.bare, basis, len(h)), turned[..., 0] - h * turned[..., 1]
        scaled = G * share[:, None]
        rhs = dot(scaled, g)
        rhs[:, :zero] += residual.equal
        nu = _solve(np.matmul(scaled, G.swapaxes(1, 2)), rhs, form.few)
        w = basis.unrotate((share * (g - dot(G.swapaxes(1, 2), nu)))[..., None])[..., 0]
        # dy = H (w + r) + gain = f − ρ w − Gᵀν, and dv = dy + w + r.
        dv = force + gain + residual.conic + (1.0 - self.rho) * w
        dv[:, form.bare] -= nu[:, zero:]
        if zero:
            dv -= dot(self.equalities.swapaxes(1, 2), nu[:, :zero])
        return w[:, form.rows] / self.a, nu[:, :zero], dv

    def size(self, residual: Residual) -> Sizes:
        """Returns the size of a residual."""
        return _size(residual, self.widths)

    def item(self, index: Index) -> CoordinateStep:
        """Returns the steps of some items."""
        parts = (_items(part, index) for part in (self.a, self.rho, self.equalities, self.widths))
        return CoordinateStep(self.program.item(index), self.form, *parts)


def widths_of(program: ConeProgram) -> Float[np.ndarray, "leading n"]:
    """Returns the largest coefficient of each variable in A; one where there is none."""
    A = program.structure.A
    filled, found = np.flatnonzero(np.diff(A.indptr)), np.ones((len(program.A), A.shape[1]))
    if len(filled):
        largest_of = np.maximum.reduceat(np.abs(program.A), A.indptr[filled], axis=1)
        found[:, filled] = np.where(largest_of > 0, largest_of, 1.0)
    return found


def _size(residual: Residual, widths: Float[np.ndarray, "#batch n"]) -> Sizes:
    size = np.maximum(largest(residual.dual / widths), largest(residual.conic))
    return np.maximum(size, largest(residual.equal)) if residual.equal.shape[1] else size


def _solve(K: Float[np.ndarray, "batch size size"], rhs: Vectors, positive: int) -> Vectors:
    """Solves K u = rhs, with the least shift that keeps K regular: I on the first rows, −I on the others."""
    diagonal = K.reshape(len(K), -1)[:, :: K.shape[1] + 1]  # a view
    shift = _SHIFT * np.maximum.reduce(np.abs(diagonal), axis=1, initial=0.0, keepdims=True)
    diagonal[:, :positive] += shift
    diagonal[:, positive:] -= shift
    return np.linalg.solve(K, rhs[..., None])[..., 0]


def dot(M: Float[np.ndarray, "#batch rows cols"], w: Vectors) -> Vectors:
    """Returns the product of each matrix with its vector."""
    return np.matmul(M, w[..., None])[..., 0]


def _items(part: Float[np.ndarray, "leading ..."], index: Index) -> Float[np.ndarray, "..."]:
    return part if len(part) == 1 else part[index]
