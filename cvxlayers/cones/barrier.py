"""Barriers of the exponential and the power cone, and the proximal map of a barrier by Newton's method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

Points = Float[np.ndarray, "k 3"]
Scalars = Float[np.ndarray, " k"]
Matrices = Float[np.ndarray, "k 3 3"]
Rows = Int[np.ndarray, " k"]

_STEPS, _HALVINGS = 200, 60
# Newton decrements below which full steps converge quadratically, and are done.
_QUADRATIC, _CONVERGED = 0.25, 1e-7
# The weakest barrier, for points of size one: below it, how far inside the cone they are is rounding.
_WEAKEST = 1e-12


class Expansion(NamedTuple):
    """A barrier at some points: its value, infinite outside the cone, its gradient and its Hessian."""

    value: Scalars
    gradient: Points
    hessian: Matrices


# The barriers of some of the cones, at one point of each.
Barrier = Callable[[Points, Rows], Expansion]


def exponential_barrier(s: Points, rows: Rows) -> Expansion:
    """F = −log ψ − log y − log z with ψ = y log(z/y) − x."""
    del rows
    inside = (s[:, 1] > 0) & (s[:, 2] > 0)
    x, y, z = np.where(inside[:, None], s, 1.0).T
    log = np.log(z / y)
    psi = y * log - x
    inside &= psi > 0
    psi, zero = np.where(inside, psi, 1.0), np.zeros(len(s))
    slope = np.stack([zero - 1.0, log - 1.0, y / z], axis=-1)
    bend = _symmetric({(1, 1): -1.0 / y, (1, 2): 1.0 / z, (2, 2): -y / z**2}, len(s))
    legs = np.stack([zero, 1.0 / y, 1.0 / z], axis=-1)
    return _minus_log(psi, slope, bend, (legs, np.ones((len(s), 3))), np.log(y) + np.log(z), inside)


def power_barrier(alphas: Scalars) -> Barrier:
    """F = −log ψ − (1 − α) log x − α log y with ψ = x^2α y^2(1−α) − z²."""

    def barrier(s: Points, rows: Rows) -> Expansion:
        alpha = alphas[rows]
        beta = 1.0 - alpha
        inside = (s[:, 0] > 0) & (s[:, 1] > 0)
        x, y, z = np.where(inside[:, None], s, 1.0).T
        phi = x ** (2 * alpha) * y ** (2 * beta)
        psi = phi - z**2
        inside &= psi > 0
        psi, zero = np.where(inside, psi, 1.0), np.zeros(len(s))
        slope = np.stack([2 * alpha * phi / x, 2 * beta * phi / y, -2 * z], axis=-1)
        corner = {
            (0, 0): 2 * alpha * (2 * alpha - 1) * phi / x**2,
            (0, 1): 4 * alpha * beta * phi / (x * y),
            (1, 1): 2 * beta * (2 * beta - 1) * phi / y**2,
            (2, 2): zero - 2.0,
        }
        legs, weights = np.stack([1 / x, 1 / y, zero], axis=-1), np.stack([beta, alpha, zero], axis=-1)
        logs = beta * np.log(x) + alpha * np.log(y)
        return _minus_log(psi, slope, _symmetric(corner, len(s)), (legs, weights), logs, inside)

    return barrier


def proximal_point(
    barrier: Barrier, start: Points, v: Points, mu: float, inside: Sequence[float]
) -> tuple[Points, Matrices]:
    """Returns s minimising ½‖s − v‖² + μ F(s), and F's Hessian there, by Newton's method with backtracking.

    Args:
        barrier: the barrier F.
        start: points of the cones, as the projections.
        v: the points to map.
        mu: the barrier parameter.
        inside: a point inside each cone.
    """
    scale = np.maximum(np.max(np.abs(v), axis=-1), np.sqrt(mu))
    pending = np.flatnonzero(np.isfinite(scale))
    scale = np.where(np.isfinite(scale), scale, 1.0)
    # F is logarithmic in the scale, so that points of size one can be mapped, with the parameter by the square.
    strength = np.maximum(mu / scale**2, _WEAKEST)
    target = v / scale[:, None]
    found = start / scale[:, None] + np.sqrt(strength)[:, None] * np.asarray(inside)
    for _ in range(_STEPS):
        if not len(pending):
            break
        line = found[pending], target[pending], strength[pending]
        step, decrement = _newton_step(barrier, pending, *line)
        length = _backtrack(barrier, pending, line, step, decrement)
        found[pending] += length[:, None] * step
        # In the region of quadratic convergence the decrement after the step is below the square of that before it.
        pending = pending[(decrement > _CONVERGED) & (length > 0)]
    hessian = barrier(found, np.arange(len(v))).hessian * (strength / mu)[:, None, None]
    return np.where(np.isfinite(v), found * scale[:, None], np.nan), hessian


def _newton_step(barrier: Barrier, rows: Rows, at: Points, target: Points, strength: Scalars) -> tuple[Points, Scalars]:
    """Returns the Newton step, and the Newton decrement of the function divided by μ, which is self-concordant."""
    here = barrier(at, rows)
    gradient = at - target + strength[:, None] * here.gradient
    matrix = np.eye(3) + strength[:, None, None] * here.hessian
    try:
        step = -np.linalg.solve(matrix, gradient[..., None])[..., 0]
    except np.linalg.LinAlgError:  # to rounding, where a point all but touches the boundary
        step = -(np.linalg.pinv(np.nan_to_num(matrix), hermitian=True) @ gradient[..., None])[..., 0]
    return step, np.sqrt(np.maximum(-np.sum(gradient * step, axis=-1), 0.0) / strength)


def _backtrack(
    barrier: Barrier, rows: Rows, line: tuple[Points, Points, Scalars], step: Points, decrement: Scalars
) -> Scalars:
    """Returns the first of 1, ½, ¼, … that lowers the function enough; 1 where a small decrement vouches for it."""
    at, target, strength = line
    length = np.ones(len(rows))
    undone = np.flatnonzero(decrement > _QUADRATIC)
    before = _merit(barrier, rows, at, target, strength)
    for _ in range(_HALVINGS):
        if not len(undone):
            return length
        trial = at[undone] + length[undone, None] * step[undone]
        after = _merit(barrier, rows[undone], trial, target[undone], strength[undone])
        decrease = 0.1 * length[undone] * decrement[undone] ** 2
        undone = undone[~(after <= before[undone] - decrease)]
        length[undone] *= 0.5
    length[undone] = 0.0
    return length


def _merit(barrier: Barrier, rows: Rows, s: Points, target: Points, strength: Scalars) -> Scalars:
    return 0.5 * np.sum((s - target) ** 2, axis=-1) / strength + barrier(s, rows).value


def _symmetric(entries: dict[tuple[int, int], Scalars], count: int) -> Matrices:
    matrix = np.zeros((count, 3, 3))
    for (i, j), value in entries.items():
        matrix[:, i, j] = matrix[:, j, i] = value
    return matrix


def _minus_log(
    psi: Scalars,
    slope: Points,
    bend: Matrices,
    legs: tuple[Points, Points],
    logs: Scalars,
    inside: Bool[np.ndarray, " k"],
) -> Expansion:
    """−log ψ − Σ weight·log leg, from ψ's expansion and from the reciprocals of the legs with their weights."""
    reciprocal, weight = legs
    value = np.where(inside, -np.log(psi) - logs, np.inf)
    gradient = -slope / psi[:, None] - weight * reciprocal
    hessian = slope[:, :, None] * slope[:, None, :] / (psi**2)[:, None, None] - bend / psi[:, None, None]
    diagonal = np.arange(3)
    hessian[:, diagonal, diagonal] += weight * reciprocal**2
    return Expansion(value, gradient, hessian)
