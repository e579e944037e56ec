"""The layer: a non-linear program whose solution is differentiable in its parameters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cvxlayers.errors import CvxlayersWarning, ShapeError, SolverError
from cvxlayers.program import Status
from cvxlayers.sqp.autodiff import Arguments, Autodiff, Function, Numbers, Pullback
from cvxlayers.sqp.backward import pullback
from cvxlayers.sqp.frameworks import autodiff_of
from cvxlayers.sqp.functions import Bound, Compiled, Dense, Formulas, dense_layout
from cvxlayers.sqp.iterate import Run, run
from cvxlayers.sqp.model import Layout, Multipliers
from cvxlayers.sqp.options import Options, Record, unrolled


@dataclass(frozen=True, eq=False)
class SQPResult:
    """The solution of a batch of non-linear programs.

    Attributes:
        z: the points, with gradients to the parameters; of shape (*batch, n).
        point: the same, last iterates of failed items included, as a numpy array of shape (batch, n).
        multipliers: of g, of h, and of the bounds, as numpy arrays.
        status: how each item ended.
        iterations: how many each took.
        residual: the relative KKT residual of each.
        violation: the largest violation of a constraint by each.
        objective: the value of f of each.
        log: the iterations, one record each; print them for a table.
    """

    z: Any
    point: np.ndarray
    multipliers: Multipliers
    status: np.ndarray
    iterations: np.ndarray
    residual: np.ndarray
    violation: np.ndarray
    objective: np.ndarray
    log: tuple[Record, ...]

    @property
    def ok(self) -> np.ndarray:
        """Which items are solved."""
        return (self.status == Status.SOLVED) | (self.status == Status.INACCURATE)


@dataclass(frozen=True, eq=False)
class Solver:
    """A program's formulas with how to solve it: what `SQP` and `MPC` share."""

    autodiff: Autodiff
    formulas: Formulas
    options: Options
    compiled: dict[Any, Compiled] = field(default_factory=dict)

    def solve(
        self,
        begin: Callable[[Bound], tuple[Layout, np.ndarray, Multipliers | None]],
        batch: int,
        theta: Sequence[Any],
        axes: Sequence[int | None],
        options: Options | None = None,
    ) -> SQPResult:
        """Solves a batch; `begin` gives the layout, the starts of shape (batch, n), and a guess of multipliers."""
        options = options or self.options
        leaves, batched, rebuild, key = self._leaves(theta, axes, batch)
        kept: dict[str, Run] = {}

        def solve(values: list[np.ndarray]) -> tuple[np.ndarray, Pullback]:
            bound = self._bound(values, batched, rebuild, key)
            layout, start, guess = begin(bound)
            oracle = replace(bound, layout=layout)
            guess = guess or Multipliers.zeros(layout, batch)
            found = run(oracle, start, guess, options, taped=unrolled(options.backward) > 0)
            kept["run"] = found
            return _answer(found, options.on_failure), lambda dz: pullback(oracle, found, options, dz)

        z = self.autodiff.join(leaves, solve)
        found = kept["run"]
        ends = found.status, found.iterations, found.residual, found.violation, found.objective
        return SQPResult(z, found.z, found.multipliers, *ends, found.log)

    def _leaves(
        self, theta: Sequence[Any], axes: Sequence[int | None], batch: int
    ) -> tuple[list[Any], tuple[bool, ...], Callable[[Sequence[Any]], tuple[Any, ...]], Any]:
        trees = [self.autodiff.flatten(tree) for tree in theta]
        sizes = [len(leaves) for leaves, _ in trees]
        batched = tuple(axis == 0 for axis, size in zip(axes, sizes, strict=True) for _ in range(size))
        leaves = [leaf for found, _ in trees for leaf in found]
        for index, (leaf, has_batch) in enumerate(zip(leaves, batched, strict=True)):
            if has_batch and (not leaf.ndim or leaf.shape[0] != batch):
                raise ShapeError(
                    f"parameter leaf #{index} has shape {tuple(leaf.shape)} where {batch} items want ({batch}, ...); "
                    "in_axes=None for this parameter shares it"
                )
        ends = np.cumsum([0, *sizes])

        def rebuild(new: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(make(new[a:b]) for (_, make), a, b in zip(trees, ends[:-1], ends[1:], strict=True))

        # Trees of one shape share their compiled functions.
        key = (batched, tuple(sizes), str([_shape_of(tree) for tree in theta]))
        return leaves, batched, rebuild, key

    def _bound(
        self,
        values: Sequence[np.ndarray],
        batched: tuple[bool, ...],
        rebuild: Callable[[Sequence[Any]], tuple[Any, ...]],
        key: Any,
    ) -> Bound:
        with self.autodiff.scope():
            leaves = tuple(self.autodiff.array(value) for value in values)
        arguments = Arguments(leaves, batched, rebuild)
        if key not in self.compiled:
            self.compiled[key] = Compiled(self.autodiff, self.formulas, arguments.axes, rebuild)
        return Bound(dense_layout(np.zeros(0), np.zeros(0), 0, 0), self.compiled[key], arguments)


class SQP:
    """A layer that solves minimise f(z, θ) subject to g(z, θ) = 0, h(z, θ) ≤ 0, lower ≤ z ≤ upper.

        solver = SQP(objective, inequalities=disc, framework="torch")
        z = solver(start, theta)  # of shape (batch, n), differentiable in theta

    The functions are written for one item, in PyTorch or JAX, as `function(z, *theta)` with z of shape (n,); they are
    mapped over the batch. Parameters may be trees of arrays. Each iteration solves a convex quadratic program; an
    infeasible linearisation is relaxed (elastic mode), and full steps that curvature spoils are corrected to second
    order.

    Args:
        objective: f, a scalar; or a vector r of residuals, whose ½|r|² is minimised.
        equalities: g, a vector; None without any.
        inequalities: h, a vector; None without any.
        lower: bounds of z, numbers or of shape (n,). They hold at every iterate.
        upper: likewise.
        framework: "torch" or "jax".
        traced: in PyTorch, whether the functions are traced once, which is several times faster; they may then depend
            on their arguments alone. In JAX they are compiled always.
        in_axes: 0 or None for each parameter: whether it has a leading batch axis, or is shared; by default all have.
        hessian: "exact", the Lagrangian's, made definite where it is not; or "gauss_newton", of the objective alone,
            and of ½|r|² without the curvature of r.
        backward: "implicit", exact: the KKT system with the Lagrangian's Hessian; "gauss_newton", the last convex
            approximation's, biased; "unroll" and "truncated(k)", through the iterations (second-order corrections count
            as constants); "dlm", differences of tilted solutions.
        eps: the relative KKT residual up to which an item is solved.
        max_iters: iterations until an item has failed.
        on_failure: "raise" `SolverError`; "nan"; or "mask", return the last iterate, with no gradient.
        solver: of the sub-problems, by name.
        dlm_epsilon: the tilt of "dlm".
        progress: called with the `Record` of each iteration, as `print`.

    Raises:
        OptionError: if an option is unknown.

    References:
        Nocedal, Wright, "Numerical optimization" (2006), chapter 18; the implicit derivative is that of the
        optimality conditions, Fiacco, "Introduction to sensitivity and stability analysis" (1983).
    """

    def __init__(
        self,
        objective: Function,
        *,
        equalities: Function | None = None,
        inequalities: Function | None = None,
        lower: Numbers = -np.inf,
        upper: Numbers = np.inf,
        framework: str = "torch",
        traced: bool = False,
        in_axes: Sequence[int | None] | None = None,
        hessian: str = "exact",
        backward: str = "implicit",
        eps: float = 1e-8,
        max_iters: int = 100,
        on_failure: str = "raise",
        solver: str | None = None,
        dlm_epsilon: float = 1e-4,
        progress: Callable[[Record], object] | None = None,
    ) -> None:
        options = Options(hessian, backward, eps, max_iters, on_failure, solver, dlm_epsilon, progress)
        autodiff = autodiff_of(framework, traced)
        self._solver = Solver(autodiff, Dense(autodiff, objective, equalities, inequalities), options)
        self._bounds = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
        self._in_axes = None if in_axes is None else tuple(in_axes)

    def __call__(self, start: Any, *theta: Any, warm_start: SQPResult | None = None) -> Any:
        """Returns the solutions; `solve` says more.

        Raises:
            SolverError: if items are not solved.
        """
        return self.solve(start, *theta, warm_start=warm_start).z

    def solve(self, start: Any, *theta: Any, warm_start: SQPResult | None = None) -> SQPResult:
        """Solves from starts of shape (batch, n), or (n,) for a single item whose parameters have no batch axis.

        Args:
            start: where to start; no gradient flows to it.
            theta: the parameters.
            warm_start: an earlier result whose multipliers are a guess.
        """
        autodiff = self._solver.autodiff
        points = autodiff.numpy(start)
        axes = self._in_axes or (0,) * len(theta)
        single = points.ndim == 1
        if points.ndim not in (1, 2):
            raise ShapeError(f"start has shape {points.shape}, expected (batch, n) or (n,)")
        if single:
            axes = (None,) * len(theta)
        lower, upper = (np.broadcast_to(bound, points.shape[-1:]).astype(float) for bound in self._bounds)
        points = np.atleast_2d(points)

        def begin(bound: Bound) -> tuple[Layout, np.ndarray, Multipliers | None]:
            values = bound.values(points[None])
            layout = dense_layout(lower, upper, values.g.shape[-1], values.h.shape[-1])
            return layout, points, None if warm_start is None else warm_start.multipliers

        check_closures(autodiff, self._solver.formulas.values, points[0], theta, axes)
        found = self._solver.solve(begin, len(points), theta, axes)
        return replace(found, z=found.z[0]) if single else found


def check_closures(
    autodiff: Autodiff, function: Function, point: np.ndarray, theta: Sequence[Any], axes: Sequence[int | None]
) -> None:
    """Raises if a function holds tensors that require gradients, evaluating it for the first item, or if axes lack."""
    if len(axes) != len(theta):
        raise ShapeError(f"in_axes has {len(axes)} entries for {len(theta)} parameters: 0 batched, None shared")
    items = [_first(autodiff, tree, axis) for tree, axis in zip(theta, axes, strict=True)]
    autodiff.check(function, point, items)


def _first(autodiff: Autodiff, tree: Any, axis: int | None) -> Any:
    leaves, make = autodiff.flatten(tree)
    return make([leaf[0] if axis == 0 else leaf for leaf in leaves])


def _shape_of(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _shape_of(branch) for name, branch in tree.items()}
    if isinstance(tree, list | tuple):
        return [_shape_of(branch) for branch in tree]
    return "leaf"


def _answer(found: Run, on_failure: str) -> np.ndarray:
    """Returns the points, having said what is wrong with them."""
    inaccurate = np.flatnonzero(found.status == Status.INACCURATE)
    failed = np.flatnonzero((found.status != Status.SOLVED) & (found.status != Status.INACCURATE))
    if len(failed) and on_failure == "raise":
        lines = ", ".join(
            f"item {item}: {Status(int(found.status[item])).name.lower().replace('_', ' ')} (residual "
            f"{found.residual[item]:.1e}, violation {found.violation[item]:.1e})"
            for item in failed[:5]
        )
        raise SolverError(
            f"{len(failed)} of {len(found.z)} non-linear programs were not solved: {lines}; try another start, more "
            "max_iters, or on_failure='mask'",
            items=failed.tolist(),
            statuses=found.status[failed].tolist(),
        )
    if len(inaccurate):
        warnings.warn(
            f"items {inaccurate.tolist()} are inaccurate: relative KKT residual up to "
            f"{found.residual[inaccurate].max():.1e}",
            CvxlayersWarning,
            stacklevel=2,
        )
    if on_failure == "nan":
        return np.where(np.isin(np.arange(len(found.z)), failed)[:, None], np.nan, found.z)
    return found.z
