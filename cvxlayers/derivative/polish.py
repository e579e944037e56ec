"""Safeguarded semismooth Newton on the residual map: brings a solver's point to machine precision.

An interior-point solver bounds the gap, and so leaves x wrong by up to the square root of its tolerance. One or two
steps z ← z − t J⁻¹R on the Jacobian that the derivative needs anyway remove that error. A step is taken only where it
lowers the residual; where the full step does not, it is shortened, so a point never gets worse. Where no Newton step
helps, as next to solutions that are not unique, a damped one is tried.

References: Busseti, Moursi, Boyd (2019); Qi, Sun, "A nonsmooth version of Newton's method" (1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Bool

from cvxlayers.batches import Vectors
from cvxlayers.cones import Cone, Derivative, Product, derivative_dual
from cvxlayers.derivative.damped import LARGEST, damped_solve
from cvxlayers.derivative.system import Factorisation, Factorise, System
from cvxlayers.program import ConeProgram
from cvxlayers.residual import EXACT, Point, evaluate, relative

# Below this a step that gains less than half is rounding.
_ENOUGH = 1e-11
# What a full step that solves the linear equations leaves of the residual at most.
_GAIN = 1e-4
_STEPS = (1.0, 0.5, 0.25, 0.0625, 0.015625)


def polish(
    program: ConeProgram,
    x: Vectors,
    v: Vectors,
    factorise: Factorise,
    max_steps: int = 12,
    cone: Cone | None = None,
    near: Vectors | None = None,
) -> Point:
    """Returns the polished points. Items that are not finite, or that no step improves, come back as they were.

    Args:
        program: the programs.
        x: where to start.
        v: where to start.
        factorise: how the systems are factorised, given which items they belong to.
        max_steps: the largest number of steps.
        cone: a smoothed cone, whose residual map vanishes on the central path; the program's own by default.
        near: what s is likely to be near.
    """
    return improve(program, evaluate(program, x, v, cone, near), factorise, max_steps, cone)


def improve(
    program: ConeProgram, best: Point, factorise: Factorise, max_steps: int = 12, cone: Cone | None = None
) -> Point:
    """As `polish`, from points where the residual map is known."""
    if best.is_exact:
        return best
    cone = program.structure.cone if cone is None else cone
    pending = ((best.merit > EXACT) & np.isfinite(best.merit)).nonzero()[0]
    for _ in range(max_steps):
        if not len(pending) or best.is_exact:
            break
        items = program if len(pending) == program.batch else program.item(pending)
        start = best.item(pending)
        candidate, improved = _newton_step(items, cone, start, partial(factorise, items=pending))
        taken = pending[improved]
        best = best.put(taken, candidate.item(improved.nonzero()[0]))
        before, merit = start.merit[improved], candidate.merit[improved]
        pending = taken[(merit > EXACT) & ((merit < 0.5 * before) | (merit > _ENOUGH))]
    return best


def _newton_step(
    program: ConeProgram, cone: Cone, start: Point, factorise: Factorise
) -> tuple[Point, Bool[np.ndarray, " batch"]]:
    """Returns the best shortened step of each item, Newton's or a damped one, and whether it lowers the residual."""
    system = System(program, _derivative(cone, start))
    rhs, factors = (-start.dual, -system.to_eigen(start.primal)), factorise(system)
    best, improved = start, np.zeros(program.batch, dtype=bool)
    if _is_flat(program, cone):
        best, improved = _full_step(system, cone, start, factors.once(*rhs))
    left = (~improved).nonzero()[0]
    if len(left):
        solve = factors.solve(*rhs)
        step = solve.first[left], solve.second[left]
        found, improved[left] = _search(system.item(left), cone, start.item(left), step)
        best = best.put(left, found)
    best = _again(system, cone, factors, start, best, improved)
    left = (~improved & (start.merit > _ENOUGH)).nonzero()[0]
    if not len(left) or program.structure.n + program.structure.m > LARGEST:
        return best, improved
    stuck = system.item(left)
    step = damped_solve(stuck, rhs[0][left], rhs[1][left], start.merit[left])
    again, helped = _search(stuck, cone, start.item(left), step)
    improved[left] = helped
    return best.put(left, again), improved


def _is_flat(program: ConeProgram, cone: Cone) -> bool:
    """Whether the residual map is linear on each face, so that one full step solves the programs as a rule."""
    return cone is program.structure.cone and program.structure.cone.polyhedral


def _full_step(
    system: System, cone: Cone, start: Point, direction: tuple[Vectors, Vectors]
) -> tuple[Point, Bool[np.ndarray, " batch"]]:
    """Returns the points a full step away where it has solved the programs, or nearly so, and where that is."""
    program, (dx, z) = system.program, direction
    dv = program.structure.A.matvec(program.A, dx) + system.from_eigen(z) + start.primal
    with np.errstate(invalid="ignore", over="ignore"):  # of items that are singular
        found = evaluate(program, start.x + dx, start.v + dv, cone, start.s)
        merit = relative(found.dual, found.primal, start.dual_scale, start.primal_scale)
    near = merit <= np.maximum(_GAIN * start.merit, EXACT)
    items = near.nonzero()[0]
    return start.put(items, found.item(items)), near


def _again(
    system: System,
    cone: Cone,
    factors: Factorisation,
    start: Point,
    best: Point,
    improved: Bool[np.ndarray, " batch"],
) -> Point:
    """Returns the points after a second step by the same factors, where that is likely to be the last one needed.

    It gains what the first one did: the Jacobian is off by as much as the residual was there.
    """
    if best.is_exact:
        return best
    items = (improved & (best.merit > EXACT) & (best.merit**2 <= EXACT * start.merit)).nonzero()[0]
    if not len(items):
        return best
    solve = factors.solve(-best.dual, -system.to_eigen(best.primal))
    step = solve.first[items], solve.second[items]
    return best.put(items, _search(system.item(items), cone, best.item(items), step, (1.0,))[0])


def _derivative(cone: Cone, start: Point) -> Derivative:
    """Returns DΠ(v) of the dual cone; where s, the projection, is known, it need not be searched for."""
    if isinstance(cone, Product):
        return cone.derivative(-start.v, start.s).complement()
    return derivative_dual(cone, start.v)


def _search(
    system: System,
    cone: Cone,
    start: Point,
    direction: tuple[Vectors, Vectors],
    steps: Sequence[float] = _STEPS,
) -> tuple[Point, Bool[np.ndarray, " batch"]]:
    """Returns the point of each item along its direction that lowers the residual, and whether there is one."""
    program, (dx, z) = system.program, direction
    dv = program.structure.A.matvec(program.A, dx) + system.from_eigen(z) + start.primal
    usable = np.isfinite(dx).all(axis=1) & np.isfinite(dv).all(axis=1)
    best, improved = start, np.zeros(len(dx), dtype=bool)
    pending = np.flatnonzero(usable)
    for step in steps:
        if not len(pending):
            break
        some = start.item(pending)
        trial = evaluate(program.item(pending), some.x + step * dx[pending], some.v + step * dv[pending], cone, some.s)
        # On the start's scale a step gains nothing by inflating the terms that cancel, and loses nothing if all vanish.
        merit = relative(trial.dual, trial.primal, some.dual_scale, some.primal_scale)
        lower = merit < (1.0 - 0.1 * step) * some.merit
        best = best.put(pending[lower], trial.item(np.flatnonzero(lower)))
        improved[pending[lower]] = True
        pending = pending[~lower]
    return best, improved
