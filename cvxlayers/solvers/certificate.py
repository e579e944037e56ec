"""Certificates that a program has no solution, checked on the data as given.

    infeasible: y ∈ K* with Aᵀy = 0, bᵀy < 0:       every x with b − Ax ∈ K would give 0 ≤ yᵀ(b − Ax) = bᵀy < 0.
    unbounded:  x with Px = 0, −Ax ∈ K, qᵀx < 0:     along x the objective falls for ever, and no dual point exists.

A certificate from a computer misses its equations by a little, δ = Aᵀy, and then excludes only the x with |δᵀx| < −bᵀy;
a ray with δ = Ax + s excludes only the optimal (x*, y*) with |Px|ᵀ|x*| + |δ|ᵀ|y*| < −qᵀx. It counts where that is
everything up to a million times the natural size of the program's variables. Sizes are natural in units of x in which
the columns, and of the rows in which the rows, of the program's matrices have one size: the user's units, which may
differ from variable to variable by many powers of ten, must not decide.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from cvxlayers.batches import Vectors, largest
from cvxlayers.cones import project_dual
from cvxlayers.program import ConeProgram, Solution, Status
from cvxlayers.solvers.units import column_units, heights_of

_DEFECT = 1e-6
# Below this share of the terms that cancel in it, the sign of bᵀy is rounding.
_ROUNDING = 1e-13


def certify(program: ConeProgram, solution: Solution) -> Solution:
    """Returns the solution with the status of each item set by its certificate, where it has one.

    An item that claims to be INFEASIBLE or UNBOUNDED and has none becomes a NUMERICAL_ERROR. The certificate of an
    infeasible item stands in y, and that of an unbounded one in x and s.
    """
    status = solution.status.copy()
    status[(status == Status.INFEASIBLE) | (status == Status.UNBOUNDED)] = Status.NUMERICAL_ERROR
    x, y, s = solution.x.copy(), solution.y.copy(), solution.s.copy()
    ray, slack, unbounded = unbounded_ray(program, x)
    x[unbounded], s[unbounded], status[unbounded] = ray[unbounded], slack[unbounded], Status.UNBOUNDED
    multiplier, infeasible = infeasible_multiplier(program, y)
    y[infeasible], status[infeasible] = multiplier[infeasible], Status.INFEASIBLE
    return replace(solution, x=x, y=y, s=s, status=status)


def infeasible_multiplier(program: ConeProgram, y: Vectors) -> tuple[Vectors, Bool[np.ndarray, "#batch"]]:
    """Returns y projected on K* and scaled to about one, and whether it certifies infeasibility.

    Where a row without entries contradicts itself, that is y: one of a solver may be that, up to noise in other rows.
    """
    structure, units = program.structure, column_units(program)
    heights, dust = heights_of(program, units)
    with np.errstate(all="ignore"):
        y = project_dual(structure.cone, np.where(np.isfinite(y), y, 0.0))
        contradiction = _contradiction(program)
        y = np.where(contradiction.any(axis=1, keepdims=True), contradiction, y)
        y = y / _positive(np.max(y * heights, axis=1, initial=0.0, where=y > 0, keepdims=True), -y * heights)
        defect = np.abs(structure.A.rmatvec(program.A, y))
        columns = structure.A.rmatvec(np.abs(program.A), 1.0 / np.where(heights > 0, heights, np.inf))
        # A row that is mere rounding says 0 = b, which means nothing where b is rounding too.
        sides = np.where(dust, 0.0, np.abs(program.b)) / np.where(heights > 0, heights, np.inf)
        noise = np.where(dust, heights * np.max(sides, axis=1, initial=0.0, keepdims=True), 0.0)
        terms, sizes = -program.b * y, np.maximum(np.abs(program.b), noise) * np.abs(y)
        return y, _holds(terms, sizes, np.max(_relative(defect, columns), axis=1, initial=0.0))


def _contradiction(program: ConeProgram) -> Vectors:
    """Returns what multiplies the rows 0·x = b and 0·x ≤ b that do not hold, beyond rounding of other sides."""
    structure, b, position = program.structure, program.b, np.arange(program.structure.m)
    empty = structure.A.matvec(np.abs(program.A), np.ones((len(program.A), structure.n))) == 0.0
    wrong = np.where(position < structure.cone.zero, b != 0.0, b < 0.0) & (np.abs(b) > _DEFECT * largest(b)[:, None])
    linear = position < structure.cone.zero + structure.cone.nonnegative
    return np.where(linear & empty & wrong, -np.sign(b), 0.0)


def unbounded_ray(program: ConeProgram, x: Vectors) -> tuple[Vectors, Vectors, Bool[np.ndarray, "#batch"]]:
    """Returns x scaled to one, the s ∈ K next to −Ax, and whether they certify unboundedness."""
    structure, units = program.structure, column_units(program)
    heights, _ = heights_of(program, units)
    with np.errstate(all="ignore"):
        x = np.where(np.isfinite(x), x, 0.0)
        x = x / _positive(np.max(np.abs(x), axis=1, initial=0.0, keepdims=True))
        length = np.max(np.abs(x) / units, axis=1, initial=0.0, keepdims=True)
        slack = -structure.A.matvec(program.A, x)
        s = structure.cone.project(slack)
        steepest = structure.P.matvec(np.abs(program.P), units)
        curvature = _relative(np.abs(structure.P.matvec(program.P, x)), length * steepest)
        outside = _relative(np.abs(slack - s), length * heights)
        defect = np.maximum(np.max(curvature, axis=1, initial=0.0), np.max(outside, axis=1, initial=0.0))
        terms = -program.q * x
        return x, s, _holds(terms, np.abs(terms), defect)


def _holds(terms: Vectors, sizes: Vectors, defect: Float[np.ndarray, "#batch"]) -> Bool[np.ndarray, "#batch"]:
    """Whether the sum of the terms is positive beyond rounding, and the defect small against it."""
    gain = np.sum(terms, axis=1) / _positive(np.sum(sizes, axis=1))
    return (gain > _ROUNDING) & (defect <= _DEFECT * gain)


def _relative(size: Vectors, unit: Vectors) -> Vectors:
    """Returns size / unit with 0 / 0 = 0."""
    return np.where(size == 0, 0.0, size / unit)


def _positive(size: Float[np.ndarray, "..."], *others: Vectors) -> Float[np.ndarray, "..."]:
    largest = np.max([size, *(np.max(other, axis=1, initial=0.0, keepdims=True) for other in others)], axis=0)
    return np.where(largest > 0, largest, 1.0)
