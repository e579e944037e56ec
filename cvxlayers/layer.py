"""The layer below every framework: parameters → cone program → solution → variables, and the same four steps back.

Everything here is a batch of float64 numpy arrays. A call changes nothing: what a derivative needs travels in the
`Forward` that the call returns.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers import report
from cvxlayers.compiled import CompiledProblem, VariableMap
from cvxlayers.derivative import (
    Data,
    DerivativeInfo,
    Linearisation,
    Point,
    jvp,
    linearise,
    microseconds,
    residuals,
    vjp,
)
from cvxlayers.errors import CvxlayersWarning, DerivativeError, DerivativeWarning, SolverError
from cvxlayers.kernel import CallOptions, Kernel
from cvxlayers.parallel import chunks, map_chunks, worthwhile_chunks
from cvxlayers.program import ConeProgram, Residuals, Status
from cvxlayers.reduction import Reduced
from cvxlayers.result import LayerResult, LeafValues, SolveInfo, WarmStart
from cvxlayers.solvers import Outcome

Array = Float[np.ndarray, "..."]
Items = Int[np.ndarray, " items"]
Sizes = Float[np.ndarray, " batch"]

# Relative KKT residuals of the returned point up to which it counts as solved, and as usable (with a warning), unless
# the caller asked for less. A derivative is reported where its linear solve has a larger residual than the last.
_SOLVED, _USABLE, _TRUSTED = 1e-8, 1e-5, 1e-6
# Bytes of matrices that one piece of a batch may fill.
_CACHE = 2**21


@dataclass(frozen=True, eq=False)
class Forward:
    """What one call computed: all that its derivatives need."""

    values: Sequence[Array]
    batch_shape: tuple[int, ...]
    offset: Float[np.ndarray, "#batch"]
    program: ConeProgram
    reduced: Reduced | None
    point: Point
    outcome: Outcome
    status: Int[np.ndarray, " batch"]
    outputs: Sequence[Array]
    map: VariableMap
    options: CallOptions

    @property
    def ok(self) -> Bool[np.ndarray, " batch"]:
        """Which items have a solution: SOLVED, or INACCURATE, of which the call has warned."""
        return self.status <= Status.INACCURATE

    @cached_property
    def residuals(self) -> Residuals:
        """The relative KKT residuals of the returned points."""
        return residuals(self.program, self.point)


@dataclass(frozen=True, eq=False)
class Layer:
    """A compiled problem with the methods chosen for it.

    Attributes:
        compiled: the maps between the user's arrays and the cone program.
        kernel: how its programs are solved and differentiated.
        options: what a call asks for unless it says otherwise.
        strict: whether doubtful results raise instead of warning.
        check: whether values are checked against the attributes of their parameters.
    """

    compiled: CompiledProblem
    kernel: Kernel
    options: CallOptions
    strict: bool
    check: bool = True

    def forward(
        self,
        values: Sequence[Array],
        options: CallOptions,
        warm_start: WarmStart | None = None,
        outputs: VariableMap | None = None,
    ) -> Forward:
        """Solves the program of every item.

        Args:
            values: one array per parameter, of shape (*batch, *parameter.shape).
            options: what the call asks for.
            warm_start: a point near the solutions: items that Newton's method solves from there need no solver.
            outputs: what to return; the layer's variables by default.

        Raises:
            InputError: if the values do not fit the parameters.
            SolverError: if items are not solved and `options.on_failure` is "raise".
        """
        theta, batch_shape = self.compiled.parameters.flatten(values)
        if self.check:
            self.compiled.parameters.check(values)
        if any(self.compiled.parameters.logs):
            # The derivative of a logarithm needs the value of this call, whatever the caller writes to it later.
            values = [value.copy() for value in values]
        program, offset = self.compiled.program(theta), self.compiled.offset.apply(theta)[:, 0]
        del theta  # its memory serves what follows
        reduced = self.kernel.reduce(program)
        outcome, point = self.kernel.solve(program, reduced, options, warm_start)
        accuracy = point.accuracy(program)
        status = _final_status(outcome.solution.status, accuracy, options.solver.eps)
        self._report(values, status, accuracy, outcome, options)
        chosen = self.compiled.variables if outputs is None else outputs
        found = chosen.recover(point.x, point.y)
        failed = status > Status.INACCURATE
        if failed.any():
            found = [_replace_failed(output, failed, options.on_failure) for output in found]
        found = [_unfold(output, batch_shape) for output in found]
        return Forward(values, batch_shape, offset, program, reduced, point, outcome, status, found, chosen, options)

    def vjp(
        self, forward: Forward, cotangents: Sequence[Array | None], objective: Array | None = None
    ) -> tuple[list[Array], DerivativeInfo]:
        """Pulls cotangents of the variables, and of the optimal value, back to the parameters.

        Args:
            forward: what the call returned.
            cotangents: one per variable, of shape (*batch, *variable.shape); None is zero.
            objective: cotangent of the optimal value, of shape batch; None is zero.

        Returns:
            One cotangent per parameter, of the shape of the value the caller passed, and how far to trust them.
        """
        batch, point = forward.program.batch, forward.point
        folded = [None if cotangent is None else _fold(cotangent, forward.batch_shape) for cotangent in cotangents]
        x, y = forward.map.adjoint(point.x, point.y, folded)
        x, y = _rows(x, batch), _rows(y, batch)

        def pull(lin: Linearisation, items: Items, out: Sequence[Array]) -> DerivativeInfo:
            data, info = vjp(lin, x[items], y[items], np.zeros((len(items), y.shape[1])))
            self.compiled.adjoint(*data, out=out[0])
            return info

        (dtheta,), info = self._over_solved(forward, pull, [self.compiled.parameters.width])
        if objective is not None:
            dtheta = dtheta + self._objective_adjoint(forward, objective.reshape(batch))
        return self.compiled.parameters.adjoint(forward.values, dtheta, forward.batch_shape), info

    def jvp(self, forward: Forward, tangents: Sequence[Array | None]) -> tuple[list[Array], DerivativeInfo]:
        """Pushes tangents of the parameters forward to the variables: the adjoint of `vjp`.

        Args:
            forward: what the call returned.
            tangents: one per parameter, of the shape of the value the caller passed; None is zero.

        Returns:
            One tangent per variable, of shape (*batch, *variable.shape), and how far to trust them.
        """
        point = forward.point
        dtheta = self.compiled.parameters.tangent(forward.values, tangents, forward.batch_shape)

        def push(lin: Linearisation, items: Items, out: Sequence[Array]) -> DerivativeInfo:
            out[0][:], out[1][:], _, info = jvp(lin, Data(*self.compiled.tangent(dtheta[items])))
            return info

        structure = forward.program.structure
        (dx, dy), info = self._over_solved(forward, push, [structure.n, structure.m])
        outputs = forward.map.tangent(point.x, point.y, dx, dy)
        return [_unfold(output, forward.batch_shape) for output in outputs], info

    def objective(self, forward: Forward) -> Float[np.ndarray, "*batch"]:
        """Returns the optimal value of each item, as CVXPY's `problem.value`; NaN where an item has no solution."""
        value = forward.program.objective(forward.point.x) + forward.offset
        value = -value if self.compiled.maximise else value
        value = np.exp(value) if self.compiled.gp else value
        return np.where(forward.ok, value, np.nan).reshape(forward.batch_shape)

    def result(
        self, forward: Forward, leaves: Sequence[Any], objective: Any, convert: Callable[[np.ndarray], Any]
    ) -> LayerResult:
        """Collects what a call with all leaves as outputs found out.

        Args:
            forward: what the call returned.
            leaves: its outputs, as arrays of the caller's kind.
            objective: the optimal value, likewise.
            convert: makes such an array of a numpy array.
        """
        kept, shape, outcome = self.compiled.leaves, forward.batch_shape, forward.outcome
        pairs = list(zip(kept.owners, leaves, strict=True))
        primal, dual = ([pair for pair in pairs if pair[0].dual == wanted] for wanted in (False, True))
        gaps = forward.residuals
        info = SolveInfo(
            iterations=outcome.solution.iterations.reshape(shape),
            primal=gaps.primal.reshape(shape),
            dual=gaps.dual.reshape(shape),
            gap=gaps.gap.reshape(shape),
            solver=np.array(outcome.solvers, dtype=object).reshape(shape),
            fell_back=outcome.fell_back.reshape(shape),
        )
        return LayerResult(
            variables=tuple(leaves[position] for position in kept.listed),
            primal=LeafValues(*zip(*primal, strict=True)),
            dual=LeafValues(*zip(*dual, strict=True)) if dual else LeafValues((), ()),
            objective=objective,
            status=convert(forward.status.reshape(shape)),
            ok=convert(forward.ok.reshape(shape)),
            info=info,
            warm_start=WarmStart(forward.point.x, forward.point.v),
        )

    def _objective_adjoint(self, forward: Forward, cotangent: Float[np.ndarray, " batch"]) -> Array:
        """The envelope theorem: the optimal value's derivative is the Lagrangian's at fixed x and y.

        It is exact where the solution map is not even a function, and needs no linear solve.
        """
        weight = cotangent * self.objective(forward).reshape(-1) if self.compiled.gp else cotangent
        weight = (-weight if self.compiled.maximise else weight)[:, None]
        structure, x, y = forward.program.structure, forward.point.x, forward.point.y
        data = Data(
            P=0.5 * structure.P.outer(weight * x, x),
            q=weight * x,
            A=structure.A.outer(weight * y, x),
            b=-weight * y,
        )
        solved = np.flatnonzero(forward.ok)
        dtheta = self.compiled.adjoint(*data) + self.compiled.offset.adjoint(weight)
        return _spread([dtheta[solved]], solved, forward)[0]

    def _over_solved(
        self,
        forward: Forward,
        differentiate: Callable[[Linearisation, Items, Sequence[Array]], DerivativeInfo],
        widths: Sequence[int],
    ) -> tuple[list[Array], DerivativeInfo]:
        """Differentiates the solution maps of the solved items, in pieces that fit the processor's cache.

        Args:
            forward: what the call returned.
            differentiate: adds what it computes for some items to arrays of zeros.
            widths: the widths of these arrays.

        Returns:
            The arrays for the whole batch; items without a solution are zero, or NaN where the call asked for NaN.
        """
        solved = np.flatnonzero(forward.ok)
        everything = len(solved) == forward.program.batch
        order = self.kernel.structure.n + self.kernel.structure.m
        threads = len(worthwhile_chunks(len(solved), forward.options.threads, microseconds(order)))
        footprint = 8 * (2 * order * order + self.compiled.parameters.width)
        count = max(threads, len(solved) * footprint // _CACHE)
        arrays = [np.zeros((len(solved), width)) for width in widths]

        def piece_of(piece: slice) -> DerivativeInfo:
            index = piece if everything else solved[piece]
            program, point = forward.program.item(index), forward.point.item(index)
            reduced = None if forward.reduced is None else forward.reduced.item(index)
            lin = linearise(program, point, self.kernel.factoriser(1, reduced))
            return differentiate(lin, solved[piece], [array[piece] for array in arrays])

        infos = map_chunks(piece_of, chunks(len(solved), count, smallest=8), threads)
        info = DerivativeInfo(
            *(np.concatenate([getattr(i, field.name) for i in infos]) for field in fields(DerivativeInfo))
        )
        self._check(info, solved)
        return _spread(arrays, solved, forward), _spread_info(info, solved, forward)

    def _report(
        self,
        values: Sequence[Array],
        status: Int[np.ndarray, " batch"],
        accuracy: Sizes,
        outcome: Outcome,
        options: CallOptions,
    ) -> None:
        failed = np.flatnonzero(status > Status.INACCURATE)
        if len(failed) and options.on_failure == "raise":
            names = self.compiled.parameters.names
            culprits = [name for name, value in zip(names, values, strict=True) if not np.isfinite(value).all()]
            message = report.failures(failed, status, accuracy, outcome.solvers, outcome.solution.iterations, culprits)
            raise SolverError(message, failed.tolist(), status[failed].tolist())
        rough = np.flatnonzero(status == Status.INACCURATE)
        if len(rough):
            message = report.inaccurate(rough, accuracy)
            if self.strict:
                raise SolverError(message, rough.tolist(), status[rough].tolist())
            warnings.warn(message, CvxlayersWarning, stacklevel=4)

    def _check(self, info: DerivativeInfo, solved: Items) -> None:
        rough = np.flatnonzero(info.residual > _TRUSTED)
        if len(rough):
            message = report.doubtful(solved[rough], len(solved), info.residual[rough])
            if self.strict:
                raise DerivativeError(message)
            warnings.warn(message, DerivativeWarning, stacklevel=4)


def _final_status(status: Int[np.ndarray, " batch"], accuracy: Sizes, eps: float) -> Int[np.ndarray, " batch"]:
    """The solver's word on failures; for the rest, what the residual of the returned point says."""
    judged = np.where(accuracy <= max(eps, _SOLVED), Status.SOLVED, Status.INACCURATE)
    judged = np.where(accuracy <= max(eps, _USABLE), judged, Status.NUMERICAL_ERROR)
    return np.where(status <= Status.INACCURATE, judged, status)


def _fold(array: Array, batch_shape: tuple[int, ...]) -> Array:
    """Makes one batch axis of all."""
    return array.reshape((int(np.prod(batch_shape)), *array.shape[len(batch_shape) :]))


def _unfold(array: Array, batch_shape: tuple[int, ...]) -> Array:
    return array.reshape(batch_shape + array.shape[1:])


def _rows(array: Array, batch: int) -> Array:
    return np.broadcast_to(array, (batch, array.shape[1]))


def _spread(arrays: Sequence[Array], solved: Items, forward: Forward) -> list[Array]:
    """Spreads what the solved items have over the batch: the rest is zero, or NaN where the call asked for NaN."""
    batch = forward.program.batch
    if len(solved) == batch:
        return list(arrays)
    fill = np.nan if forward.options.on_failure == "nan" else 0.0
    full = [np.full((batch, array.shape[1]), fill) for array in arrays]
    for target, array in zip(full, arrays, strict=True):
        target[solved] = array
    return full


def _spread_info(info: DerivativeInfo, solved: Items, forward: Forward) -> DerivativeInfo:
    """Spreads over the batch, in its shape; items without a solution have no residual: NaN."""
    shape, batch = forward.batch_shape, forward.program.batch
    residual = np.full(batch, np.nan)
    degenerate, weakly_active = np.zeros(batch, dtype=bool), np.zeros(batch, dtype=bool)
    residual[solved], degenerate[solved], weakly_active[solved] = info.residual, info.degenerate, info.weakly_active
    return DerivativeInfo(residual.reshape(shape), degenerate.reshape(shape), weakly_active.reshape(shape))


def _replace_failed(output: Array, failed: Bool[np.ndarray, " batch"], on_failure: str) -> Array:
    """NaN in the failed items; under "mask" their last iterate where it is finite, else zeros."""
    rows = failed.reshape((-1,) + (1,) * (output.ndim - 1))
    if on_failure == "nan":
        return np.where(rows, np.nan, output)
    finite = np.isfinite(output).all(axis=tuple(range(1, output.ndim)), keepdims=True)
    return np.where(rows & ~finite, 0.0, output)
