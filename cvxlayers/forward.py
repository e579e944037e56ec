"""What one call computed, and how arrays of its batch are folded for the core and unfolded for the caller."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.affine import Affine
from cvxlayers.batches import every, some
from cvxlayers.derivative import DerivativeInfo, Known, Point, residuals
from cvxlayers.program import ConeProgram, Residuals, Status, is_usable
from cvxlayers.reduction import Reduced
from cvxlayers.residual import gap, lopsided
from cvxlayers.solve import CallOptions
from cvxlayers.solvers import Outcome
from cvxlayers.variable_map import VariableMap

Array = Float[np.ndarray, "..."]
Items = Int[np.ndarray, " items"]

# Relative KKT residuals of the returned point up to which it counts as solved, and as usable (with a warning), unless
# the caller asked for less.
_SOLVED, _USABLE = 1e-8, 1e-5
# A smaller residual is one of no condition, unless units of rows are very different.
_CLEAR = 1e-12
# The duality gap adds up the residuals of all conditions: as many times `eps` may be no doing of the multipliers.
_ADDED = 10.0


@dataclass(frozen=True, eq=False)
class Found:
    """The programs of a call, and their solutions.

    Attributes:
        program: the programs.
        offset: the constants in their objectives.
        reduced: the programs, reduced.
        known: factors that polished the points, where they are kept.
        point: the polished points.
        outcome: how the solves ended.
    """

    program: ConeProgram
    offset: Float[np.ndarray, "#batch"]
    reduced: Reduced | None
    known: Known | None
    point: Point
    outcome: Outcome


class Answer(NamedTuple):
    """What a call found out.

    Attributes:
        outputs: returns the values of the outputs, one row an item.
        status: of each item.
        accuracy: the relative residuals by which the status was judged.
        outcome: how the solves ended.
        find: returns the programs and their solutions.
        lean: the lean programs and their solutions, where these answer.
    """

    outputs: Callable[[], list[Array]]
    status: Int[np.ndarray, " batch"]
    accuracy: Float[np.ndarray, " batch"]
    outcome: Outcome
    find: Callable[[], Found]
    lean: Found | None = None


@dataclass(frozen=True, eq=False)
class Forward:
    """What one call computed: all that its derivatives need.

    Attributes:
        values: the values of the parameters.
        batch_shape: the axes of the call's batch.
        status: of each item.
        outputs: what the call returned.
        map: which variables these are.
        options: what the call asked for.
        find: returns the programs and their solutions; where outputs are a product, or lean programs give them, they
            are found only if asked for.
        affine: the map of which the outputs are such a product.
        lean: the lean programs and their solutions.
    """

    values: Sequence[Array]
    batch_shape: tuple[int, ...]
    status: Int[np.ndarray, " batch"]
    outputs: Sequence[Array]
    map: VariableMap
    options: CallOptions
    find: Callable[[], Found]
    affine: Affine | None = None
    lean: Found | None = None

    @cached_property
    def found(self) -> Found:
        """The programs and their solutions."""
        return self.find()

    @property
    def program(self) -> ConeProgram:
        """The programs."""
        return self.found.program

    @property
    def point(self) -> Point:
        """Their solutions."""
        return self.found.point

    def at(self, point: Point) -> Forward:
        """Returns the call as if it had ended at other points."""
        return replace(self, find=lambda: replace(self.found, point=point))

    @property
    def ok(self) -> Bool[np.ndarray, " batch"]:
        """Which items have a solution: SOLVED, or INACCURATE, of which the call has warned."""
        return is_usable(self.status)

    @cached_property
    def residuals(self) -> Residuals:
        """The relative KKT residuals of the returned points."""
        return residuals(self.program, self.point)

    @property
    def everything(self) -> tuple[ConeProgram, Point, Reduced | None]:
        """The programs, their solutions, and the reduced programs."""
        return self.program, self.point, self.found.reduced

    def item(self, index: slice | Items) -> tuple[ConeProgram, Point, Reduced | None]:
        """Returns those of some items."""
        program, point, reduced = self.everything
        return program.item(index), point.item(index), None if reduced is None else reduced.item(index)

    def fold(self, array: Array) -> Array:
        """Makes one axis of the axes of the call's batch."""
        return array.reshape((len(self.status), *array.shape[len(self.batch_shape) :]))

    def unfold(self, arrays: Sequence[Array]) -> list[Array]:
        """Gives arrays of one batch axis the axes of the call's batch."""
        return [array.reshape(self.batch_shape + array.shape[1:]) for array in arrays]


def split(
    arrays: Sequence[Array | None], directions: int, fold: Callable[[Array], Array] = np.asarray
) -> tuple[tuple[int, ...], list[list[Array | None]]]:
    """Takes tangents or cotangents apart: the shape of their directions, and the arrays of each, folded."""
    lead = next((array.shape[:directions] for array in arrays if array is not None), (1,) * directions)
    count = math.prod(lead)
    flat = [None if array is None else array.reshape((count, *array.shape[directions:])) for array in arrays]
    return lead, [[None if array is None else fold(array[k, ...]) for array in flat] for k in range(count)]


def join(rows: Sequence[Sequence[Array]], lead: tuple[int, ...]) -> list[Array]:
    """Puts the arrays of all directions together: the inverse of `split`."""
    if not lead:
        return list(rows[0])
    return [np.stack(column).reshape(lead + column[0].shape) for column in zip(*rows, strict=True)]


def spread(arrays: Sequence[Array], solved: Items, forward: Forward) -> list[Array]:
    """Spreads what the solved items have over the batch: the rest is zero, or NaN where the call asked for NaN."""
    batch = len(forward.status)
    if len(solved) == batch:
        return list(arrays)
    fill = np.nan if forward.options.on_failure == "nan" else 0.0
    full = [np.full((batch, array.shape[1]), fill) for array in arrays]
    for target, array in zip(full, arrays, strict=True):
        target[solved] = array
    return full


def spread_info(info: DerivativeInfo, solved: Items, forward: Forward) -> DerivativeInfo:
    """Spreads over the batch, in its shape; items without a solution have no residual and no condition: NaN."""
    if len(solved) == len(forward.status) and forward.batch_shape == (len(solved),):
        return info
    columns, everything = [], len(solved) == len(forward.status)
    for field in fields(DerivativeInfo):
        found = getattr(info, field.name)
        if everything:
            columns.append(found.reshape(forward.batch_shape))
            continue
        column = np.full(len(forward.status), np.nan if found.dtype == np.float64 else False, found.dtype)
        column[solved] = found
        columns.append(column.reshape(forward.batch_shape))
    return DerivativeInfo(*columns)


def put_on_path(point: Point, solved: Items, found: Point) -> Point:
    """Returns solutions with those of the solved items replaced by points of the central path, and their residuals."""
    columns = {name: np.array(getattr(point, name)) for name in ("x", "v", "y", "s")}
    for name, column in columns.items():
        column[solved] = getattr(found, name)
    merit = np.zeros(len(point.x))
    merit[solved] = found.merit
    none, scale = np.zeros((len(merit), 0)), np.ones(len(merit))
    return Point(**columns, dual=merit[:, None], primal=none, dual_scale=scale, primal_scale=scale, merit=merit)


def doubt(
    status: Int[np.ndarray, " batch"],
    accuracy: Float[np.ndarray, " batch"],
    eps: float,
    program: ConeProgram,
    point: Point,
) -> tuple[Int[np.ndarray, " batch"], Float[np.ndarray, " batch"]]:
    """Returns statuses and residuals where solved items are inaccurate that are so in other measures.

    A condition may be violated in its own units; and multipliers may be so large that small residuals change the
    optimal value, as next to where a program has no interior.
    """
    items = ((status == Status.SOLVED) & (accuracy > _clear(program))).nonzero()[0]
    if not len(items):
        return status, accuracy
    programs, found = program.item(items), point.item(items)
    with np.errstate(invalid="ignore", over="ignore"):  # an objective beyond the largest number: nothing is known of it
        own, amplified = lopsided(programs, found), gap(programs, found)
    rough = ~((own <= max(eps, _USABLE)) & (amplified <= max(_ADDED * eps, _USABLE)))
    own = np.fmax(own, np.where(np.isnan(amplified), np.inf, amplified))
    status, accuracy = status.copy(), accuracy.copy()
    status[items[rough]], accuracy[items[rough]] = Status.INACCURATE, own[rough]
    return status, accuracy


def _clear(program: ConeProgram) -> Float[np.ndarray, "#batch"]:
    """Returns the residual below which no row is violated in its own units: these differ at most as entries of A."""
    A = np.abs(program.A)
    least = np.min(A, axis=1, initial=np.inf, where=A > 0)
    with np.errstate(all="ignore"):  # no entries, or invalid ones
        return np.fmin(_CLEAR, _USABLE / (max(program.structure.n, 1) * program.sizes.A / least))


def final_status(
    status: Int[np.ndarray, " batch"], accuracy: Float[np.ndarray, " batch"], eps: float
) -> Int[np.ndarray, " batch"]:
    """Returns the solver's word on failures; for the rest, what the residual of the returned point says."""
    if not some(status) and every(accuracy <= _SOLVED):
        return status
    judged = np.where(accuracy <= max(eps, _SOLVED), Status.SOLVED, Status.INACCURATE)
    judged = np.where(accuracy <= max(eps, _USABLE), judged, Status.NUMERICAL_ERROR)
    return np.where(is_usable(status), judged, status)


def without_overflow(answer: Answer, outputs: Sequence[Array]) -> Answer:
    """Returns the answer where items are failures of which an output, as an exponential, is no finite number."""
    if all(every(np.isfinite(output)) for output in outputs):
        return answer
    finite = np.all([np.isfinite(output.reshape((len(output), -1))).all(axis=1) for output in outputs], axis=0)
    lost = ~finite & is_usable(answer.status)
    status, accuracy = np.where(lost, Status.NUMERICAL_ERROR, answer.status), np.where(lost, np.inf, answer.accuracy)
    return answer._replace(status=status, accuracy=accuracy)


def masked(outputs: Sequence[Array], status: Int[np.ndarray, " batch"], options: CallOptions) -> Sequence[Array]:
    """Gives failed items what the call asked for: NaN, or their last iterate where it is finite, else zeros."""
    failed = ~is_usable(status)
    return [_replaced(output, failed, options.on_failure) for output in outputs] if some(failed) else outputs


def _replaced(output: Array, failed: Bool[np.ndarray, " batch"], on_failure: str) -> Array:
    rows = failed.reshape((-1,) + (1,) * (output.ndim - 1))
    if on_failure == "nan":
        return np.where(rows, np.nan, output)
    finite = np.isfinite(output).all(axis=tuple(range(1, output.ndim)), keepdims=True)
    return np.where(rows & ~finite, 0.0, output)
