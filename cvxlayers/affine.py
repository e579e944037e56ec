"""Layers whose solution is an affine function of their parameters, found when they are compiled.

Without inequalities, and with parameters in q and b alone, the KKT matrix is a constant: (x, y) = z₀ + Sθ, where z₀ and
the columns of S solve the same system for the constant part of (−q, b) and for the derivative by each parameter. A call
is then one product with the part of S that is asked for, and so is a derivative. The linear-quadratic regulator as a
function of its first state is of this kind.

Each column is polished and certified by the residual map at compile time; the residual of a sum is at most their sum.
That is much beside a sum whose terms cancel: such items are left to be solved one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.batches import Vectors
from cvxlayers.compiled import CompiledProblem
from cvxlayers.derivative import TRUSTED, DerivativeInfo, Point, evaluate, linearise
from cvxlayers.kernel import Kernel
from cvxlayers.program import ConeProgram, Solution, Status
from cvxlayers.solve import CallOptions, solve_programs
from cvxlayers.solvers import Outcome, Plan
from cvxlayers.variable_map import VariableMap

Array = Float[np.ndarray, "..."]
Matrix = Float[np.ndarray, "_rows _columns"]

# Residual of the columns above which calls are solved one by one; smaller ones than the second are rounding.
_EXACT, _ROUNDING = 1e-12, 1e-16
# Terms so many times as large as their sum leave too little of it; fewer do where the columns have a larger error than
# this over that.
_CANCELS, _ACCURATE = 1e6, 1e-8
# Numbers in the matrix of a call's outputs above which factors are cheaper, and columns that are solved for at all.
_LARGEST, _WIDEST = 2**16, 2**12


@dataclass(frozen=True, eq=False)
class Affine:
    """The map from theta to the solution.

    Attributes:
        n: the number of variables x.
        constant: z₀, a row.
        columns: Sᵀ, a row for each column of theta.
        accuracy: the largest relative residual of the columns.
        condition: of the KKT matrix.
    """

    n: int
    constant: Matrix
    columns: Matrix
    accuracy: float
    condition: float
    _outputs: WeakKeyDictionary[VariableMap, _Product] = field(default_factory=WeakKeyDictionary)

    @property
    def _error(self) -> float:
        """About how far the columns are off, relatively."""
        return self.condition * max(self.accuracy, _ROUNDING)

    def __reduce__(self) -> tuple[type[Affine], tuple[object, ...]]:
        """Copies, and pickles, leave out what is remembered of outputs."""
        return Affine, (self.n, self.constant, self.columns, self.accuracy, self.condition)

    def serves(self, map: VariableMap) -> bool:
        """Whether the product is the cheaper way to these outputs."""
        return (map.x.matrix.indptr.size - 1) * len(self.columns) <= _LARGEST

    def outputs(
        self, map: VariableMap, theta: Vectors
    ) -> tuple[list[Array], Int[np.ndarray, " batch"], Int[np.ndarray, " _lost"]]:
        """Returns the outputs of each item, its status, and the items of which an output's terms cancel."""
        product = self._of(map)
        with np.errstate(invalid="ignore", over="ignore"):  # of invalid data
            found = product.constant + _each(theta, product.matrix)
            lost = product.cancels(theta, found, min(_CANCELS, _ACCURATE / self._error))
        failed = np.where(np.isfinite(theta).all(axis=1), int(Status.NUMERICAL_ERROR), int(Status.INVALID_INPUT))
        status = np.where(np.isfinite(found).all(axis=1), int(Status.SOLVED), failed)
        return map.shaped(found), status, np.flatnonzero(lost & (status == Status.SOLVED))

    def outcome(self, status: Int[np.ndarray, " batch"], plan: Plan) -> Outcome:
        """Returns how the items of a call ended."""
        served = np.where(status == Status.INVALID_INPUT, -1, 0)
        nothing = np.zeros((len(status), 0))
        solution = Solution(nothing, nothing, nothing, status, served + 1)
        return Outcome(solution, tuple(solver.name for solver in plan.solvers), served)

    def push(self, map: VariableMap, dtheta: Vectors) -> list[Array]:
        """Returns the tangents of the outputs for a tangent of theta."""
        return map.shaped(_each(dtheta, self._of(map).matrix))

    def pull(self, map: VariableMap, cotangents: Sequence[Array | None], batch: int) -> Matrix:
        """Returns the cotangent of theta for cotangents of the outputs: the adjoint of `push`."""
        return _each(map.stacked(cotangents, batch), self._of(map).matrix.T)

    def point(self, program: ConeProgram, theta: Vectors) -> Point:
        """Returns the solutions, with their residuals."""
        with np.errstate(invalid="ignore", over="ignore"):
            z = self.constant + _each(theta, self.columns)
            return evaluate(program, z[:, : self.n].copy(), z[:, self.n :].copy())

    def info(self, batch: int) -> DerivativeInfo:
        """Returns how far derivatives can be trusted."""
        no = np.zeros(batch, dtype=bool)
        return DerivativeInfo(np.full(batch, self.accuracy), np.full(batch, self.condition), no, no, no)

    def _of(self, map: VariableMap) -> _Product:
        """Returns the product that gives these outputs."""
        known = self._outputs.get(map)
        if known is None:
            constant, matrix = (map.linear(z[:, : self.n], z[:, self.n :]) for z in (self.constant, self.columns))
            known = self._outputs[map] = _Product.of(constant, matrix, map)
        return known


@dataclass(frozen=True, eq=False)
class _Product:
    """Outputs as a product with theta.

    Attributes:
        constant: their constant part.
        matrix: a row for each column of theta.
        starts: where each output begins that has entries.
        reach: the largest entries of the constant, and of each row of the matrix, in each of these outputs.
    """

    constant: Matrix
    matrix: Matrix
    starts: Int[np.ndarray, " _outputs"]
    reach: tuple[Matrix, Matrix]

    @classmethod
    def of(cls, constant: Matrix, matrix: Matrix, map: VariableMap) -> _Product:
        """Prepares what tells whether terms cancel."""
        sizes = np.array([int(np.prod(shape)) for shape in map.shapes], dtype=int)
        starts = (np.cumsum(sizes) - sizes)[sizes > 0]
        reach = _tops(constant, starts), _tops(matrix, starts)
        return cls(constant, matrix, starts, reach)

    def cancels(self, theta: Vectors, found: Matrix, limit: float) -> Bool[np.ndarray, " batch"]:
        """Returns of which items the terms of an output are more than so many times as large as the output."""
        terms = self.reach[0] + _each(np.abs(theta), self.reach[1])
        return np.any(terms > limit * _tops(found, self.starts), axis=1)


def _tops(rows: Matrix, starts: Int[np.ndarray, " _outputs"]) -> Matrix:
    """Returns the largest absolute value in each part of each row."""
    if not len(starts):
        return np.zeros((len(rows), 0))
    return np.maximum.reduceat(np.abs(rows), starts, axis=1)


def find_affine(compiled: CompiledProblem, kernel: Kernel, options: CallOptions) -> Affine | None:
    """Returns the map of a problem whose solution is an affine function of its parameters; None for others."""
    fixed = compiled.P.constant_values is not None and compiled.A.constant_values is not None
    width = compiled.parameters.width
    if not fixed or compiled.gp or options.plan.primary.name != "DIRECT" or not 0 < width <= _WIDEST:
        return None
    programs = _programs(compiled)
    outcome, point, _ = solve_programs(kernel, programs, kernel.reduce(programs), options, None)
    accuracy = float(np.max(point.accuracy(programs)))
    if (outcome.solution.status != Status.SOLVED).any() or not accuracy <= _EXACT:
        return None
    first = np.arange(1)
    rank = linearise(programs.item(first), point.item(first), kernel.factoriser(1)).rank
    condition = float(rank.condition[0])
    if rank.not_unique.any() or rank.dependent.any() or not condition * max(accuracy, _ROUNDING) <= TRUSTED:
        return None
    z = np.concatenate([point.x, point.y], axis=1)
    return Affine(compiled.structure.n, z[:1], np.ascontiguousarray(z[1:]), accuracy, condition)


def _programs(compiled: CompiledProblem) -> ConeProgram:
    """Returns the program at θ = 0, and for each parameter's entry the program of its derivative."""
    q, b = (np.concatenate([part.constant[None], part.linear.matrix.T.toarray()]) for part in (compiled.q, compiled.b))
    return ConeProgram(compiled.structure, len(q), compiled.P.constant[None], q, compiled.A.constant[None], b)


def _each(rows: Matrix, matrix: Matrix) -> Matrix:
    """Returns each row's product with the matrix, one by one, so that no row's rounding depends on the others."""
    return np.matmul(rows[:, None, :], matrix)[:, 0, :]
