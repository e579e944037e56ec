"""Projections: of matrices on the positive semidefinite ones, of vectors on second-order cones and on balls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np
from jaxtyping import Bool

from cvxlayers.batches import Vectors
from cvxlayers.idioms.isotropic import Isotropic, find_isotropic, require_isotropic
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.solver import Options, Solver

# x, y and s.
_Found = tuple[Vectors, Vectors, Vectors]


@final
class Projection(Solver):
    """One projection for all items. Has no options."""

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "PROJECTION"

    def refusal(self, structure: Structure) -> str | None:
        """It takes a diagonal quadratic cost and one variable for each row of the cones, or one bounded norm."""
        if find_isotropic(structure) is None:
            return "it takes a diagonal quadratic cost over cones with one variable in each row, or over a bounded norm"
        return None

    def native_options(self) -> Mapping[str, type]:
        """It has none."""
        return {}

    @property
    def is_formula(self) -> bool:
        """It is one."""
        return True

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Projects s₀ = b + a q/p; leaves items unsolved whose costs weigh the rows of a cone differently."""
        structure, batch, form = program.structure, program.batch, require_isotropic(program.structure)
        x, y, s = (np.empty((batch, size)) for size in (structure.n, structure.m, structure.m))
        rows, b = form.rows, program.b[:, form.rows]
        with np.errstate(all="ignore"):
            a, rho = form.coefficients(program)
            wanted = program.q[:, form.columns] / (a * rho) + b
            if len(wanted) < batch:
                wanted = np.broadcast_to(wanted, (batch, rows.stop - rows.start))
            project = _project_on_ball if form.is_ball else _project_on_cones
            usable = project(program, form, wanted, rho, (x, y, s))
            moved = b - s[:, rows]
            moved /= a
            x[:, form.columns] = moved
        status = np.where(usable, int(Status.SOLVED), int(Status.NUMERICAL_ERROR))
        return Solution(x, y, s, status, np.ones(batch, dtype=np.int64))


def _project_on_cones(
    program: ConeProgram, form: Isotropic, wanted: Vectors, rho: Vectors, out: _Found
) -> Bool[np.ndarray, " batch"]:
    """Projects s₀; where it cannot, s and y are NaN."""
    _, y, s = out
    usable = form.holds(rho) & np.isfinite(wanted).all(axis=1)
    s[:] = np.nan
    s[usable] = program.structure.cone.project(wanted[usable])
    np.multiply(s - wanted, rho, out=y)
    return usable


def _project_on_ball(
    program: ConeProgram, form: Isotropic, wanted: Vectors, rho: Vectors, out: _Found
) -> Bool[np.ndarray, " batch"]:
    """Shrinks s₀ to the radius, and sets the rows before it, and t, too."""
    (x, y, s), b, top, sole, (slope, head) = out, program.b, form.top, rho[:, 0], form.bounds(program)
    length = np.sqrt(np.einsum("bn,bn->b", wanted, wanted))
    radius = b[:, top] - head * (b[:, 0] / slope)
    active = length >= radius
    share = np.where(active, radius / length, 1.0)
    np.multiply(wanted, share[:, None], out=s[:, form.rows])
    np.multiply(wanted, (sole * (share - 1.0))[:, None], out=y[:, form.rows])
    y[:, top], s[:, top] = np.where(active, sole * (length - radius), 0.0), radius
    if form.bound is not None:
        # Where the ball is not left, t is free, and in the middle it is next to no bound.
        s[:, top] = np.where(active, radius, 0.5 * (radius + length))
        x[:, form.bound.column] = np.where(active, b[:, 0] / slope, (b[:, top] - s[:, top]) / head)
        y[:, 0] = -y[:, top] * head / slope
        s[:, 0] = np.where(active, 0.0, b[:, 0] - slope * x[:, form.bound.column])
    return form.holds(rho) & np.isfinite(length)
