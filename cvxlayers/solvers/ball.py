"""Projections onto a ball."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np

from cvxlayers.ball import find_ball, require_ball
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.items import unsolved
from cvxlayers.solvers.solver import Options, Solver


@final
class BallProjection(Solver):
    """One projection onto a ball for all items. Has no options."""

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "BALL"

    def refusal(self, structure: Structure) -> str | None:
        """It takes a diagonal quadratic cost over one bounded norm."""
        if find_ball(structure) is None:
            return "it takes a diagonal quadratic cost over one norm of all variables that is bounded"
        return None

    def native_options(self) -> Mapping[str, type]:
        """It has none."""
        return {}

    @property
    def is_formula(self) -> bool:
        """It is one."""
        return True

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Shrinks s₀ = b + q/(aρ) to the radius; leaves items unsolved that weigh their rows differently."""
        solution, ball = unsolved(program.structure, program.batch), require_ball(program.structure)
        x, y, s, first, tail, b = solution.x, solution.y, solution.s, ball.first, ball.tail, program.b
        with np.errstate(all="ignore"):
            a, rho, sound = ball.coefficients(program)
            slope, head = ball.bounds(program)
            wanted = np.broadcast_to(
                b[:, tail] + program.q[:, ball.columns] / (a * rho[:, None]), x[:, ball.columns].shape
            )
            length = np.sqrt(np.sum(wanted * wanted, axis=1))
            radius = b[:, first] if ball.bound is None else b[:, first] - head * (b[:, 0] / slope)
            active = length >= radius
            share = np.where(active, radius / length, 1.0)[:, None]
            s[:, tail] = wanted * share
            y[:, tail] = rho[:, None] * (s[:, tail] - wanted)
            y[:, first] = np.where(active, rho * (length - radius), 0.0)
            s[:, first] = radius
            x[:, ball.columns] = (b[:, tail] - s[:, tail]) / a
            if ball.bound is not None:
                # Where the ball is not left, t is free, and in the middle it is next to no bound.
                s[:, first] = np.where(active, radius, 0.5 * (radius + length))
                x[:, ball.bound.column] = np.where(active, b[:, 0] / slope, (b[:, first] - s[:, first]) / head)
                y[:, 0] = -y[:, first] * head / slope
                s[:, 0] = np.where(active, 0.0, b[:, 0] - slope * x[:, ball.bound.column])
                sound = sound & (slope > 0) & (head < 0)
            sound = sound & (radius >= 0) & np.isfinite(length)
        solution.iterations[:] = 1
        solution.status[np.broadcast_to(sound, (program.batch,))] = Status.SOLVED
        return solution
