"""Sequential quadratic programming on a batch, with a line search on the l1 merit function.

Each item has its own penalty, step length and end; items that are finished stay where they are. Bounds hold at every
iterate. References: Nocedal, Wright, "Numerical Optimization" (2006), chapter 18; Powell (1978) for the penalty.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.program import Status
from cvxlayers.sqp.model import Functions, Layout, Model, Multipliers, Oracle, Sizes
from cvxlayers.sqp.options import Options, Record
from cvxlayers.sqp.pattern import Vectors
from cvxlayers.sqp.subproblem import Step, corrected, solve

_STEPS = 0.5 ** np.arange(14)
_ARMIJO, _ROUNDING = 1e-4, 1e-13
# A line search that fails this close to a solution has met rounding; the item is inaccurate, not lost.
_USABLE = 1e-5


@dataclass(frozen=True, eq=False)
class Tape:
    """One iteration of some items, as a backward pass needs it; z is that of all items."""

    items: Int[np.ndarray, " k"]
    z: Float[np.ndarray, "batch n"]
    before: Multipliers
    after: Multipliers
    model: Model
    curvature: Float[np.ndarray, "k nnz"]
    d: Float[np.ndarray, "k n"]
    length: Float[np.ndarray, " k"]
    elastic: Bool[np.ndarray, " k"]


@dataclass(frozen=True, eq=False)
class Run:
    """Where a batch ended: points, multipliers, statuses, iterations, residuals, the log, and the iterations' tapes."""

    z: Vectors
    multipliers: Multipliers
    status: Int[np.ndarray, " batch"]
    iterations: Int[np.ndarray, " batch"]
    residual: Sizes
    violation: Sizes
    objective: Sizes
    log: tuple[Record, ...]
    tapes: tuple[Tape, ...]


@dataclass(frozen=True, eq=False)
class _State:
    z: Vectors
    multipliers: Multipliers
    penalty: Sizes
    status: Int[np.ndarray, " batch"]


def run(oracle: Oracle, start: Vectors, multipliers: Multipliers, options: Options, *, taped: bool = False) -> Run:
    """Minimises from a start, which is moved inside the bounds.

    Args:
        oracle: the problem.
        start: where each item starts.
        multipliers: their multipliers there; zero if nothing is known.
        options: when to end.
        taped: whether the iterations are returned on tape.
    """
    layout, batch = oracle.layout, len(start)
    running = np.full(batch, int(Status.ITERATION_LIMIT))
    state = _State(np.clip(start, layout.lower, layout.upper), multipliers, np.ones(batch), running)
    iterations, log, tapes = np.zeros(batch, dtype=int), [], []
    residual = violation = np.full(batch, np.inf)
    for iteration in range(options.max_iters + 1):
        model = oracle.model(state.z, state.multipliers, options.hessian)
        residual, violation = optimality(layout, state.z, model, state.multipliers)
        pending = state.status == Status.ITERATION_LIMIT
        state = replace(state, status=np.where(pending & (residual <= options.eps), int(Status.SOLVED), state.status))
        lost = pending & ~np.isfinite(residual)
        state = replace(state, status=np.where(lost, int(Status.NUMERICAL_ERROR), state.status))
        items = np.flatnonzero(state.status == Status.ITERATION_LIMIT)
        if not len(items) or iteration == options.max_iters:
            break
        iterations[items] += 1
        before = state
        step = solve(
            layout, state.z[items], model.item(items), _prices(state.penalty[items], model, items), options.solver
        )
        state, lengths, corrections = _advance(oracle, state, model, items, step, residual, options)
        if taped:
            at = before.multipliers.item(items)
            tape = Tape(
                items, before.z, at, step.multipliers, model.item(items), step.curvature, step.d, lengths, step.elastic
            )
            tapes.append(tape)
        worst = float(residual[items].max()), float(violation[items].max()), float(lengths.min())
        log.append(Record(iteration, len(items), *worst, int(step.elastic.sum()), corrections))
        if options.progress is not None:
            options.progress(log[-1])
    near = (state.status == Status.ITERATION_LIMIT) & (residual <= _USABLE)
    status = np.where(near, int(Status.INACCURATE), state.status)
    objective = oracle.values(state.z[None]).f[0]
    return Run(state.z, state.multipliers, status, iterations, residual, violation, objective, tuple(log), tuple(tapes))


def optimality(layout: Layout, z: Vectors, model: Model, at: Multipliers) -> tuple[Sizes, Sizes]:
    """Returns of each item the relative KKT residual, and the largest violation of a constraint."""
    pulls = layout.A.rmatvec(model.A, at.g), layout.G.rmatvec(model.G, at.h)
    stationarity = _largest(model.gradient + pulls[0] + pulls[1] + at.box)
    scale = np.maximum(1.0, np.maximum(_largest(model.gradient), np.maximum(_largest(pulls[0]), _largest(pulls[1]))))
    violation = np.maximum(_largest(model.g), _largest(np.maximum(model.h, 0.0)))
    price = np.maximum(1.0, np.maximum(_largest(at.h), _largest(at.box)))
    slack = np.where(at.box > 0, layout.upper - z, np.where(at.box < 0, z - layout.lower, 0.0))
    gaps = np.maximum(_largest(np.minimum(-model.h, at.h) * (model.h < 0)), _largest(np.minimum(slack, np.abs(at.box))))
    return np.maximum(stationarity / scale, np.maximum(violation, gaps / price)), violation


def _advance(
    oracle: Oracle, state: _State, model: Model, items: np.ndarray, step: Step, residual: Sizes, options: Options
) -> tuple[_State, np.ndarray, int]:
    """Moves the items along their steps. Returns their state, the lengths taken, and the number of corrections."""
    layout, z = oracle.layout, state.z
    search = _line_search(oracle, state, model.item(items), items, step)
    lengths = search.lengths.copy()
    move = lengths[:, None] * step.d
    served, corrections = _second_order(oracle, state, model.item(items), items, step, search, options.solver)
    move[served], lengths[served] = corrections, 1.0
    moved, penalties = z.copy(), state.penalty.copy()
    moved[items] = np.clip(z[items] + move, layout.lower, layout.upper)
    penalties[items] = search.penalty
    status = state.status.copy()
    stuck = items[lengths == 0.0]
    status[stuck] = np.where(residual[stuck] <= _USABLE, int(Status.INACCURATE), int(Status.NUMERICAL_ERROR))
    still = step.elastic & (_largest(move) <= 1e-10 * (1.0 + _largest(z[items])))
    status[items[still & (search.violation[0] > _USABLE)]] = int(Status.INFEASIBLE)
    multipliers = state.multipliers.moved(items, step.multipliers, lengths)
    return _State(moved, multipliers, penalties, status), lengths, len(served)


@dataclass(frozen=True, eq=False)
class _Search:
    """What a line search found, of the items it was for.

    Attributes:
        penalty: of a unit of violation, in the merit function.
        bound: what the merit of a full step may be.
        lengths: the longest that lower the merit enough; 0 where none does.
        violation: here, and after a full step.
        g: the equalities' values after a full step.
        h: the inequalities' values after a full step.
    """

    penalty: np.ndarray
    bound: np.ndarray
    lengths: np.ndarray
    violation: tuple[np.ndarray, np.ndarray]
    g: np.ndarray
    h: np.ndarray


def _line_search(oracle: Oracle, state: _State, here: Model, items: np.ndarray, step: Step) -> _Search:
    """Tries all lengths at once, on the l1 merit function f + ν(|g|₁ + |max(h, 0)|₁)."""
    largest = np.maximum(_largest(step.multipliers.g), _largest(step.multipliers.h))
    penalty = np.maximum(1.1 * largest, 0.5 * (state.penalty[items] + 1.1 * largest)) + 1e-8
    d = np.zeros_like(state.z)
    d[items] = step.d
    points = np.concatenate([state.z[None], state.z + _STEPS[:, None, None] * d])
    trials = oracle.values(np.clip(points, oracle.layout.lower, oracle.layout.upper))
    violations = _violations(trials)[:, items]
    merits = trials.f[:, items] + penalty * violations
    slope = (here.gradient * step.d).sum(axis=1) - penalty * _promised(oracle.layout, here, step.d)
    tolerance = 10.0 * _ROUNDING * (np.abs(trials.f[0, items]) + penalty * (1.0 + violations[0]))
    bound = merits[0] + _ARMIJO * _STEPS[:, None] * np.minimum(slope, 0.0) + tolerance
    good = (merits[1:] <= bound) & step.solved
    lengths = np.where(good.any(axis=0), _STEPS[good.argmax(axis=0)], 0.0)
    return _Search(penalty, bound[0], lengths, (violations[0], violations[1]), trials.g[1, items], trials.h[1, items])


def _second_order(
    oracle: Oracle, state: _State, here: Model, items: np.ndarray, step: Step, search: _Search, solver: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns which items a full step with a second-order correction serves, and these steps."""
    before, after = search.violation
    curved = np.flatnonzero(step.solved & (search.lengths < 1.0) & (after >= before) & (after > 0.0))
    if not len(curved):
        return curved, np.zeros((0, oracle.layout.n))
    chosen = items[curved]
    g, h = search.g[curved], search.h[curved]
    fixed = corrected(oracle.layout, state.z[chosen], step.d[curved], here.item(curved), g, h, solver)
    trial = state.z.copy()
    trial[chosen] = np.clip(trial[chosen] + fixed.d, oracle.layout.lower, oracle.layout.upper)
    found = oracle.values(trial[None])
    merit = found.f[0, chosen] + search.penalty[curved] * _violations(found)[0, chosen]
    good = fixed.solved & (merit <= search.bound[curved])
    return curved[good], fixed.d[good]


def _prices(penalty: Sizes, model: Model, items: np.ndarray) -> Sizes:
    """Returns what a unit of violation costs in the elastic form."""
    return np.maximum(10.0 * penalty, 100.0 * (1.0 + _largest(model.gradient[items])))


def _promised(layout: Layout, model: Model, d: Vectors) -> Sizes:
    """Returns by how much the linearised constraints let the violation fall."""
    g = np.abs(model.g + layout.A.matvec(model.A, d)).sum(axis=1)
    h = np.maximum(model.h + layout.G.matvec(model.G, d), 0.0).sum(axis=1)
    return np.abs(model.g).sum(axis=1) + np.maximum(model.h, 0.0).sum(axis=1) - g - h


def _violations(values: Functions) -> np.ndarray:
    return np.abs(values.g).sum(axis=-1) + np.maximum(values.h, 0.0).sum(axis=-1)


def _largest(vectors: Vectors) -> Sizes:
    return np.abs(vectors).max(axis=1, initial=0.0)
