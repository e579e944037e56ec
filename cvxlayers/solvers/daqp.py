"""DAQP: a dual active-set method for dense, strictly convex quadratic programs; exact to rounding.

References: Arnström, Bemporad, Axehill, "A dual active-set solver for embedded quadratic programming" (2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.batches import Vectors, every, some, spread_rows
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.boxes import Boxes, find_boxes
from cvxlayers.solvers.items import each, unsolved
from cvxlayers.solvers.solver import Options, Solver

_LARGEST = 1000
_EQUALITY = 5
_NO_BOUND = -1e30
_SMALL = 1e-3
# Flags for cycling, and for a P that is not positive definite, are missing here: nothing is known of such an item.
_SOLVED = 1
_STATUS = {
    _SOLVED: Status.SOLVED,
    -1: Status.INFEASIBLE,
    -3: Status.UNBOUNDED,
    -4: Status.ITERATION_LIMIT,
    -6: Status.INFEASIBLE,
    -7: Status.TIME_LIMIT,
}


@final
class DAQP(Solver):
    """Dense quadratic programs with positive definite P. It gives no certificates and keeps no log. Frees the GIL."""

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "DAQP"

    def refusal(self, structure: Structure) -> str | None:
        """Refuses curved cones, and objectives that cannot be strictly convex."""
        if not structure.cone.polyhedral:
            return "it takes linear constraints only"
        if not structure.has_full_diagonal:
            return "it needs a strictly convex objective, and some variables have no quadratic term"
        if structure.n > _LARGEST:
            return f"it works on dense matrices, of at most {_LARGEST} variables"
        return None

    def dense_bytes(self, structure: Structure) -> int:
        """P and A, one row after the other."""
        return 16 * structure.n * (structure.n + structure.m)

    def proves_convexity(self, options: Options) -> bool:
        """It factorises P, and fails where that fails, unless it was told to regularise."""
        return options.native.get("eps_prox", 0.0) == 0.0

    def native_options(self) -> Mapping[str, type]:
        """The settings that bear on these programs."""
        reals = ("primal_tol", "dual_tol", "zero_tol", "pivot_tol", "progress_tol", "fval_bound", "eps_prox")
        reals += ("eta_prox", "sing_tol", "refactor_tol")
        wholes = ("cycle_tol", "iter_limit", "eq_reduction")
        return {**dict.fromkeys(reals, float), **dict.fromkeys(wholes, int)}

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Solves item by item."""
        settings, groups = _settings(options), find_boxes(program)
        answers = [_solve(boxes, settings) for boxes in groups]
        if len(answers) == 1 and answers[0].all_solved:
            return answers[0].solution()
        solution = unsolved(program.structure, program.batch)
        for answer in answers:
            answer.put(solution)
        return solution


@dataclass(frozen=True, eq=False)
class _Data:
    """The programs as DAQP takes them: min ½xᵀPx + qᵀx, lower ≤ (x, Ax) ≤ upper, P and the rows of A of ordinary size.

    The bounds are those of the first variables, as many as have any, and then those of the rows.

    Attributes:
        cost: what the objective was multiplied by.
        rows: what the rows of A were multiplied by.
    """

    P: Float[np.ndarray, "#leading n n"]
    q: Float[np.ndarray, "#leading n"]
    A: Float[np.ndarray, "#leading m n"]
    upper: Float[np.ndarray, "#leading bounds"]
    lower: Float[np.ndarray, "#leading bounds"]
    sense: Int[np.ndarray, " bounds"]
    cost: Float[np.ndarray, "#leading 1"]
    rows: Float[np.ndarray, "#leading m"]


def _data(boxes: Boxes) -> _Data:
    """DAQP's tolerances for pivots are absolute: it takes small rows for zero, and a small P for a singular one."""
    program, count = boxes.program, boxes.bounded
    structure = program.structure
    equation = boxes.kept < structure.cone.zero
    cost = _unit(program.sizes.P)[:, None]
    P, q = (program.P, program.q) if every(cost == 1.0) else (program.P * cost, program.q * cost)
    # P is symmetric: its transpose is stored row by row, as DAQP wants it.
    P = np.ascontiguousarray(structure.P.dense(P).transpose(0, 2, 1))
    A, upper = structure.A.dense(program.A), program.b
    if len(boxes.kept) < structure.m:
        A, upper = A[:, boxes.kept], upper[:, boxes.kept]
    A = np.ascontiguousarray(A)
    rows = _unit(np.matmul(np.abs(A), np.ones(structure.n)))
    if some(rows != 1.0):
        A, upper = A * rows[:, :, None], upper * rows
    lower, sense = np.where(equation, upper, _NO_BOUND), np.where(equation, _EQUALITY, 0).astype(np.int32)
    if count:
        least, most = (np.clip(bound[:, :count], _NO_BOUND, -_NO_BOUND) for bound in boxes.bounds())
        lower, upper = _beside(least, lower), _beside(most, upper)
        sense = np.concatenate([np.zeros(count, dtype=np.int32), sense])
    return _Data(P, q, A, upper, lower, sense, cost, rows)


def _beside(bounds: Vectors, rows: Vectors) -> Vectors:
    length = max(len(bounds), len(rows)) if len(bounds) and len(rows) else 0
    return np.concatenate([spread_rows(part, length) for part in (bounds, rows)], axis=1)


def _unit(size: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Returns the power of two that brings a small size to one, so that scaling rounds nothing; one for others."""
    if not some(size < _SMALL):
        return np.ones(size.shape)
    return np.where((size > 0) & (size < _SMALL), np.ldexp(1.0, -np.maximum(np.frexp(size)[1], -500)), 1.0)


def _solve(boxes: Boxes, settings: dict[str, Any]) -> _Answers:
    """Solves item by item."""
    data, batch = _data(boxes), len(boxes.items)
    # Its models refuse programs without variables.
    shared = boxes.program.shares_matrices and data.P.shape[1] > 0
    solve = _shared_solver(data, settings) if shared else _solver(data, settings)
    rows = zip(*(each(array, batch) for array in (data.P, data.q, data.A, data.upper, data.lower)), strict=True)
    return _Answers(boxes, data, [solve(P, q, A, upper, lower) for P, q, A, upper, lower in rows])


class Nearest(NamedTuple):
    """Which rows are active at the points nearest to zero, and which items have such a point."""

    active: Bool[np.ndarray, "batch k"]
    solved: Bool[np.ndarray, " batch"]
    iterations: Int[np.ndarray, " batch"]


def nearest(W: Float[np.ndarray, "leading k k"], t: Float[np.ndarray, "batch k"], options: Options) -> Nearest:
    """Minimises ½|p|² subject to Wp ≤ t, item by item, of rows of size one and t up to one."""
    import daqp

    k, solve, limits = t.shape[1], daqp.solve, _limits(options)
    unit, none, free, sense = np.eye(k), np.zeros(k), np.full(k, _NO_BOUND), np.zeros(k, dtype=np.int32)
    pairs = zip(each(W, len(t)), t, strict=len(W) == len(t))
    found = [solve(unit, none, rows, upper, free, sense, **limits) for rows, upper in pairs]
    _, _, flags, more = zip(*found, strict=True)
    active = np.concatenate([item["lam"] for item in more]).reshape(t.shape) > 0
    iterations = np.array([item["iterations"] for item in more], dtype=np.int64)
    return Nearest(active, np.array(flags) == _SOLVED, iterations)


def _settings(options: Options) -> dict[str, Any]:
    """Proximal iterations are off: they leave x wrong by their own tolerance, and a singular P has better solvers.

    So is the elimination of equations, which is not faster and makes results depend on how a program is set up.
    """
    return {**_limits(options), "eps_prox": 0.0, "eq_reduction": -1, **options.native}


def _limits(options: Options) -> dict[str, Any]:
    """The settings that are options of every solver."""
    limits: dict[str, Any] = {"primal_tol": min(options.eps, 1e-6)}
    if options.max_iters is not None:
        limits["iter_limit"] = options.max_iters
    if options.time_limit is not None:
        limits["time_limit"] = options.time_limit
    return limits


def _solver(data: _Data, settings: dict[str, Any]) -> Callable[..., Any]:
    """Returns what solves each item from scratch."""
    import daqp

    solve, sense = daqp.solve, data.sense
    return lambda P, q, A, upper, lower: solve(P, q, A, upper, lower, sense, **settings)


def _shared_solver(data: _Data, settings: dict[str, Any]) -> Callable[..., Any]:
    """Returns what solves items that share P and A, factorised once, or where their units differ, each time.

    No item's result depends on the others, to the bit.
    """
    if len(data.P) == len(data.A) == 1:
        solve = _model(data.P[0], data.A[0], data.sense, settings)
        return lambda _P, q, _A, upper, lower: solve(q, upper, lower)
    return lambda P, q, A, upper, lower: _model(P, A, data.sense, settings)(q, upper, lower)


def _model(P: np.ndarray, A: np.ndarray, sense: np.ndarray, settings: dict[str, Any]) -> Callable[..., Any]:
    """Factorises P, and returns what solves programs with it.

    The set-up uses the program with q = 0 and b = 0, which is feasible; passing `sense` clears the working set.
    """
    import daqp

    model = daqp.Model()
    model.settings = settings
    nothing = np.zeros(len(sense))
    free = np.where(sense == _EQUALITY, 0.0, _NO_BOUND)
    flag, _ = model.setup(P, np.zeros(P.shape[1]), A, nothing, free, sense)
    if flag < 0:
        return lambda *_: None

    def solve(q: Any, upper: Any, lower: Any) -> Any:
        model.update(f=q, bupper=upper, blower=lower, sense=sense)
        return model.solve()

    return solve


@dataclass(frozen=True, eq=False)
class _Answers:
    """What DAQP says of each item: x, the objective, how it ended, and more by name; nothing of a set-up that failed.

    Where it failed, it has no iterate.
    """

    boxes: Boxes
    data: _Data
    results: list[Any]

    @property
    def all_solved(self) -> bool:
        """Whether every item is."""
        return bool(self.results) and all(result is not None and result[2] == _SOLVED for result in self.results)

    def solution(self) -> Solution:
        """Returns the points of items that are all solved."""
        x, y, s = self._points(self.boxes.program, self.results, slice(None))
        iterations = np.array([result[3]["iterations"] for result in self.results], dtype=np.int64)
        return Solution(x, y, s, np.zeros(len(x), dtype=np.int64), iterations)

    def put(self, solution: Solution) -> None:
        """Puts what is known of the items in place."""
        answered = [item for item, result in enumerate(self.results) if result is not None]
        items = self.boxes.items[answered]
        flags = [self.results[item][2] for item in answered]
        solution.status[items] = [int(_STATUS.get(flag, Status.NUMERICAL_ERROR)) for flag in flags]
        solution.iterations[items] = [self.results[item][3]["iterations"] for item in answered]
        solved = [item for item, flag in zip(answered, flags, strict=True) if flag == _SOLVED]
        if solved:
            items, program = self.boxes.items[solved], self.boxes.program.item(np.array(solved))
            results = [self.results[item] for item in solved]
            solution.x[items], solution.y[items], solution.s[items] = self._points(program, results, solved)

    def _points(
        self, program: ConeProgram, results: list[Any], solved: list[int] | slice
    ) -> tuple[Vectors, Vectors, Vectors]:
        """Returns x, y and s = b − Ax, zero where y is not."""
        boxes, data, structure = self.boxes, self.data, program.structure
        x = np.array([result[0] for result in results])
        multipliers = np.array([result[3]["lam"] for result in results]) / _of(data.cost, solved)
        y = np.zeros((len(x), structure.m))
        y[:, boxes.kept] = multipliers[:, boxes.bounded :] * _of(data.rows, solved)
        for side, sign in ((boxes.upper, 1.0), (boxes.lower, -1.0)):
            if len(side.rows):
                mine = np.maximum(sign * multipliers[:, side.columns], 0.0)
                y[:, side.rows] = mine / _of(side.sizes, solved)
        s = np.maximum(program.b - structure.A.matvec(program.A, x), 0.0)
        s[y != 0] = 0.0
        s[:, : structure.cone.zero] = 0.0
        return x, y, s


def _of(array: Float[np.ndarray, "_leading size"], items: list[int] | slice) -> Float[np.ndarray, "_items size"]:
    return array if len(array) == 1 else array[items]
