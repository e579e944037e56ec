"""Exponential cones on a path to their boundary, which one scalar equation finds.

The cone is {g ≥ 0} with the concave g(s) = s₂ log(s₃/s₂) − s₁. On the path y = λ∇g(s) with λ g(s) = μ, the central
path of the barrier −log g. With ρ = log(s₃/s₂) the gradient is ∇g = (−1, ρ − 1, e^−ρ), so that s = y + p, p given, is

    s = (p₁ − λ, p₂ + λ(ρ − 1), p₃ + λ e^−ρ),    λ² (ρ² − ρ + 1) − λ (p₁ − ρ p₂) = μ,

and ρ is the root of ρ = log(s₃/s₂). As μ → 0, s is the projection of p, unless that is zero: y is on the boundary of
the dual cone all along, and to its inside, where s = 0, there is no path. Along the path dy = −H ds with

    H = λ²/μ ∇g ∇gᵀ − λ ∇²g = λ²/μ ∇g ∇gᵀ + λ/s₂ u uᵀ,    u = (0, 1, −e^−ρ).

References: Friberg, "Projection onto the exponential cone: a univariate root-finding problem" (2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from cvxlayers.cones.cone import Vector
from cvxlayers.cones.metric import Array, Strength

Columns = Float[np.ndarray, "batch count"]

# One Newton step changes ρ by so much at most: beyond, s₂ and s₃ have nothing to do with where they were.
_FARTHEST = 3.0
_TINY = np.finfo(float).tiny


@final
@dataclass(frozen=True, eq=False)
class CurvePoints:
    """Points of the path, by ρ, λ and s₂; e^−ρ, and the weights of ∇g ∇gᵀ and of u uᵀ in H."""

    y: Vector
    s: Vector
    rho: Columns
    lam: Columns
    decay: Columns
    steep: Columns
    bent: Columns

    @classmethod
    def near(cls, v: Vector, rho: Columns, mu: Strength, steps: int = 2) -> CurvePoints:
        """Returns points of the path whose y − s is close to v, and the closer, the closer their ρ is to a guess.

        A point of the path is found from any ρ: some Newton steps towards that of v make do.
        """
        line = _Line.of(v, mu)
        for _ in range(steps - 1):
            rho = rho + _near(line.newton(rho)[2])
        lam, change, move = line.newton(rho)
        move = _near(move)
        rho, lam = rho + move, np.maximum(lam + change * move, 0.5 * lam)
        decay, tilt = np.exp(-rho), rho - 1.0
        # s₂ is both, and rounding may be all that is left of one.
        width = np.maximum(np.maximum(line.p2 + lam * tilt, (line.p3 + lam * decay) * decay), _TINY)
        y, s = np.empty(v.shape), np.empty(v.shape)
        y[:, 0::3], y[:, 1::3], y[:, 2::3] = -lam, lam * tilt, lam * decay
        s[:, 0::3], s[:, 1::3], s[:, 2::3] = width * rho - mu / lam, width, width / decay
        return cls(y, s, rho, lam, decay, lam * lam / mu, lam / width)

    def moved(self, dy: Vector, share: float) -> Columns:
        """Returns what ρ is, to first order, where y moves by a share of some way."""
        way = (share / self.lam) * (dy[:, 1::3] + (self.rho - 1.0) * dy[:, 0::3])
        return self.rho + _near(way)

    @property
    def count(self) -> int:
        """The number of cones."""
        return self.rho.shape[1]

    def products(self, first: Array, second: Array, third: Array) -> tuple[Array, Array]:
        """Returns the products of coordinates with ∇g and with u."""
        axes = (1,) * (first.ndim - 2)
        rho, decay = self.rho.reshape(self.rho.shape + axes), self.decay.reshape(self.rho.shape + axes)
        shrunk = decay * third
        return (rho - 1.0) * second + shrunk - first, second - shrunk

    def add(self, along: Columns, across: Columns, out: Vector) -> None:
        """Adds multiples of ∇g and of u to the coordinates of cones."""
        out[:, 0::3] -= along
        out[:, 1::3] += along * (self.rho - 1.0) + across
        out[:, 2::3] += (along - across) * self.decay


@dataclass(frozen=True, eq=False)
class _Line:
    """The equation of ρ: p, the positive and the negative parts of p₂ and p₃, and 4μ."""

    p1: Columns
    p2: Columns
    p3: Columns
    wide: Columns
    narrow: Columns
    high: Columns
    low: Columns
    four_mu: Strength

    @classmethod
    def of(cls, v: Vector, mu: Strength) -> _Line:
        p1, p2, p3 = (np.negative(v[:, k::3], order="C") for k in range(3))
        wide, high = np.maximum(p2, 0.0), np.maximum(p3, 0.0)
        return cls(p1, p2, p3, wide, wide - p2, high, high - p3, 4.0 * mu)

    def newton(self, rho: Columns) -> tuple[Columns, Columns, Columns]:
        """Returns λ, its slope, and Newton's step for log(s₂) = log(s₃ e^−ρ).

        What is negative on one side is moved to the other first: the logarithms of sums of positive terms are nearly
        straight, and defined everywhere.
        """
        decay, tilt = np.exp(-rho), rho - 1.0
        size, c = rho * tilt + 1.0, self.p1 - rho * self.p2
        root = np.sqrt(c * c + self.four_mu * size)
        larger = 0.5 * (np.abs(c) + root)
        lam = np.where(c >= 0, larger / size, 0.25 * self.four_mu / larger)
        change = -lam * (self.p2 + lam * (rho + tilt)) / root
        up, right, twice = np.maximum(tilt, 0.0), tilt > 0, decay * decay
        down, shrunk = up - tilt, lam * twice
        pulled, pushed = decay * self.low, decay * self.high
        left_side = self.wide + lam * up + pulled
        right_side = self.narrow + lam * down + pushed + shrunk
        rise = change * up + lam * right - pulled
        fall = change * down - lam * ~right - pushed + change * twice - 2.0 * shrunk
        move = np.log(right_side / left_side) / (rise / left_side - fall / right_side)
        return lam, change, move


def _near(move: Columns) -> Columns:
    """Returns a move of ρ, cut to the farthest."""
    return np.minimum(np.maximum(move, -_FARTHEST), _FARTHEST)
