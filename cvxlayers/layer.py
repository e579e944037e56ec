"""The layer below every framework: parameters → cone program → solution → variables, and the same four steps back.

Everything here is a batch of float64 numpy arrays. A call changes nothing: what a derivative needs travels in the
`Forward` that the call returns.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from cvxlayers import affine_call, conic_call, envelope, lean_call, report
from cvxlayers.affine import Affine
from cvxlayers.batches import Vectors, some
from cvxlayers.blas import one_thread
from cvxlayers.compiled import CompiledProblem
from cvxlayers.derivative import DerivativeInfo
from cvxlayers.differentiation import Differentiation
from cvxlayers.errors import CvxlayersWarning, DerivativeWarning, SolverError
from cvxlayers.forward import Answer, Array, Forward, Found, doubt, final_status, join, masked, split, without_overflow
from cvxlayers.kernel import Kernel
from cvxlayers.lean import Lean
from cvxlayers.parameter_map import Theta
from cvxlayers.program import Status, is_usable
from cvxlayers.result import LayerResult, LeafValues, SolveInfo, WarmStart
from cvxlayers.solution_maps import SolutionMaps, differentiated_point
from cvxlayers.solve import CallOptions, solve_programs
from cvxlayers.variable_map import VariableMap

# The linear programs of which it has been said that their solutions do not move with their costs.
_WARNED: weakref.WeakSet[CompiledProblem] = weakref.WeakSet()


@dataclass(frozen=True, eq=False)
class Layer:
    """A compiled problem with the methods chosen for it.

    Attributes:
        compiled: the maps between the user's arrays and the cone program.
        kernel: how its programs are solved and differentiated.
        options: what a call asks for unless it says otherwise.
        strict: whether doubtful results raise instead of warning.
        check: whether values are checked against the attributes of their parameters.
        differentiation: how it is differentiated, and the ridge that the compiled problem has been given.
        affine: the map from theta to the solution, where that is an affine function.
        lean: the problem without copies, for calls that ask for no more.
    """

    compiled: CompiledProblem
    kernel: Kernel
    options: CallOptions
    strict: bool
    check: bool = True
    differentiation: Differentiation = field(default_factory=Differentiation)
    affine: Affine | None = None
    lean: Lean | None = None

    @property
    def recognises(self) -> bool:
        """Whether it uses that the program has a recognised form."""
        kernel = self.kernel
        return kernel.method.is_structured or kernel.closed is not None or self.affine is not None

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
        with one_thread(self.kernel.limits_blas(theta.batch)):
            return self._forward(values, theta, batch_shape, options, warm_start, outputs)

    def _forward(
        self,
        values: Sequence[Array],
        theta: Theta,
        batch_shape: tuple[int, ...],
        options: CallOptions,
        warm_start: WarmStart | None,
        outputs: VariableMap | None,
    ) -> Forward:
        left_to_solver = self._left_to_solver(options)
        if self.check:
            self.compiled.parameters.check(values, left_to_solver)
        if any(self.compiled.parameters.logs):
            # The derivative of a logarithm needs the value of this call, whatever the caller writes to it later.
            values = [value.copy() for value in values]
        chosen = self.compiled.variables if outputs is None else outputs
        affine = None if warm_start is not None else self.affine_for(chosen, options)
        if affine is not None:
            answer = affine_call.solve(affine, self.compiled, self.kernel, theta, chosen, options)
        else:
            answer = self._solve(theta, options, warm_start, chosen)
            if self.check and left_to_solver and not answer.outcome.is_first_choice:
                self.compiled.parameters.check(values)
        found = answer.outputs()
        if any(chosen.exps):
            answer = without_overflow(answer, found)
        if some(answer.status):
            self._report(values, answer, options)
        found = [array.reshape(batch_shape + array.shape[1:]) for array in masked(found, answer.status, options)]
        return Forward(values, batch_shape, answer.status, found, chosen, options, answer.find, affine, answer.lean)

    def _solve(self, theta: Theta, options: CallOptions, warm_start: WarmStart | None, outputs: VariableMap) -> Answer:
        """Solves the cone program of every item."""
        lean, exact = self.lean, self.differentiation.kind == "exact"
        if lean is not None and exact and warm_start is None and outputs is self.compiled.variables:
            answer = lean_call.solve(lean, self.compiled, theta, options)
            if answer is not None:
                return answer
        program, offset = self.compiled.program(theta), self.compiled.offset.apply(theta)[:, 0]
        reduced = self.kernel.reduce(program)
        outcome, point, known = solve_programs(self.kernel, program, reduced, options, warm_start)
        accuracy = point.accuracy(program)
        status = final_status(outcome.solution.status, accuracy, options.solver.eps)
        status, accuracy = doubt(status, accuracy, options.solver.eps, program, point)
        found = Found(program, offset, reduced, known, point, outcome)
        return Answer(lambda: outputs.recover(point.x, point.y), status, accuracy, outcome, lambda: found)

    def affine_for(self, outputs: VariableMap, options: CallOptions) -> Affine | None:
        """Returns the map by which outputs are one product; None where programs are solved one by one."""
        affine, exact = self.affine, self.differentiation.kind == "exact"
        serves = exact and options.plan.primary.name == "DIRECT" and affine is not None and affine.serves(outputs)
        serves = serves and not self.kernel.shares(outputs)
        return affine if serves else None

    def vjp(
        self, forward: Forward, cotangents: Sequence[Array | None], objective: Array | None = None, directions: int = 0
    ) -> tuple[list[Array], DerivativeInfo]:
        """Pulls cotangents of the variables, and of the optimal value, back to the parameters.

        Args:
            forward: what the call returned.
            cotangents: one per variable, of shape (*batch, *variable.shape); None is zero.
            objective: cotangent of the optimal value, of shape batch; None is zero.
            directions: how many axes stand before those shapes: cotangents that share one factorisation.

        Returns:
            One cotangent per parameter, of the shape of the value the caller passed, and how far to trust them.
        """
        lead, rows = split([*cotangents, objective], directions, forward.fold)
        self._warn_of_zeros(cotangents)
        parameters = self.compiled.parameters
        if forward.affine is None:
            found, info = conic_call.pull(*self._maps(forward), [row[:-1] for row in rows])
        else:
            found, info = affine_call.pull(forward.affine, self.compiled, forward, [row[:-1] for row in rows])
        gradients, count = [], len(parameters.names)
        for k, row in enumerate(rows):
            total = found[k * count : (k + 1) * count]
            if row[-1] is not None:
                direct = parameters.split(envelope.adjoint(self.compiled, forward, row[-1]))
                total = [one + other for one, other in zip(total, direct, strict=True)]
            gradients.append(parameters.adjoint(forward.values, total, forward.batch_shape))
        return join(gradients, lead), info

    def jvp(
        self, forward: Forward, tangents: Sequence[Array | None], directions: int = 0
    ) -> tuple[list[Array], DerivativeInfo]:
        """Pushes tangents of the parameters forward to the variables: the adjoint of `vjp`.

        Args:
            forward: what the call returned.
            tangents: one per parameter, of a shape that broadcasts to (*batch, *parameter.shape); None is zero.
            directions: how many axes stand before those shapes: tangents that share one factorisation.

        Returns:
            One tangent per variable, of shape (*batch, *variable.shape), and how far to trust them.
        """
        lead, dthetas = self.theta_tangents(forward, tangents, directions)
        self._warn_of_zeros(tangents)
        if forward.affine is None:
            pushed, info = conic_call.push(*self._maps(forward), dthetas)
        else:
            pushed, info = affine_call.push(forward.affine, forward, dthetas)
        return join([forward.unfold(outputs) for outputs in pushed], lead), info

    def theta_tangents(
        self, forward: Forward, tangents: Sequence[Array | None], directions: int
    ) -> tuple[tuple[int, ...], list[Vectors]]:
        """Returns the shape of the directions, and for each the tangent of theta."""
        lead, rows = split(tangents, directions)
        parameters = self.compiled.parameters
        return lead, [parameters.tangent(forward.values, row, forward.batch_shape) for row in rows]

    def objective(self, forward: Forward) -> Float[np.ndarray, "*batch"]:
        """Returns the optimal value of each item, as CVXPY's `problem.value`; NaN where an item has no solution."""
        return envelope.value(self.compiled, forward)

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
        kept, shape, outcome = self.compiled.leaves, forward.batch_shape, forward.found.outcome
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

    def _left_to_solver(self, options: CallOptions) -> Collection[int]:
        """The parameters whose definiteness the first solver proves by solving: checking it takes as long again."""
        proves = self.kernel.reduction is None and options.plan.primary.proves_convexity(options.solver)
        return self.compiled.blocks_of_P if proves else ()

    def solution_maps(self, forward: Forward) -> SolutionMaps:
        """Returns the solution maps of a call, as they are differentiated."""
        how, width = self.differentiation, self.compiled.parameters.width
        at = differentiated_point(self.kernel, how, forward)
        return SolutionMaps(self.kernel, how, at, self.strict, width)

    def _maps(self, forward: Forward) -> tuple[SolutionMaps, CompiledProblem]:
        """Returns the solution maps of a call, and of what problem they are: of the lean one where that answered."""
        full, lean, found = self.solution_maps(forward), self.lean, forward.lean
        if lean is None or found is None:
            return full, self.compiled
        at = replace(forward, map=lean.compiled.variables, find=lambda: found)
        within = full, lean.reduction.kept
        return SolutionMaps(lean.kernel, full.how, at, self.strict, full.width, within), lean.compiled

    def _warn_of_zeros(self, directions: Sequence[Array | None]) -> None:
        """Warns, once for each problem, that a linear program's solution does not move with its costs."""
        compiled, exact = self.compiled, self.differentiation.kind == "exact"
        linear = not compiled.structure.P.nnz and compiled.structure.cone.polyhedral and any(compiled.q.depends)
        if not (exact and linear) or compiled in _WARNED:
            return
        if any(direction is not None and np.any(direction) for direction in directions):
            _WARNED.add(compiled)
            warnings.warn(report.constant_in_costs(compiled.names_in_costs), DerivativeWarning, stacklevel=4)

    def _report(self, values: Sequence[Array], answer: Answer, options: CallOptions) -> None:
        status, accuracy, outcome = answer.status, answer.accuracy, answer.outcome
        failed = np.flatnonzero(~is_usable(status))
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
