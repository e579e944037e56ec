"""Model predictive control: an optimal control problem as a differentiable layer, and its receding horizon."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cvxlayers.errors import InputError, ShapeError
from cvxlayers.sqp.autodiff import Function, Numbers
from cvxlayers.sqp.frameworks import autodiff_of
from cvxlayers.sqp.functions import Bound
from cvxlayers.sqp.model import Layout, Multipliers
from cvxlayers.sqp.options import Options, Record
from cvxlayers.sqp.sqp import Solver, SQPResult, check_closures
from cvxlayers.sqp.stages import Sizes, Stages

# Dense active-set solves beat sparse interior-point ones up to so many variables.
_DAQP_UP_TO = 130


@dataclass(frozen=True, eq=False)
class Plan:
    """Planned trajectories.

    Attributes:
        states: of shape (*batch, T + 1, nx), the present one first.
        controls: of shape (*batch, T, nu).
        result: how each item ended, and the multipliers.
    """

    states: Any
    controls: Any
    result: SQPResult


@dataclass(frozen=True, eq=False)
class Guess:
    """Where a plan may start: trajectories in the order of the variables, and multipliers."""

    z: np.ndarray
    multipliers: Multipliers

    @classmethod
    def of(cls, plan: Plan) -> Guess:
        """Returns a plan as it is."""
        return cls(plan.result.point, plan.result.multipliers)


class MPC:
    """A layer that plans: minimise Σ stage_cost(x_t, u_t) + terminal_cost(x_T) subject to x_{t+1} = dynamics(x_t, u_t).

        mpc = MPC(dynamics, stage_cost, horizon=20, states=2, controls=1, u_min=-2.0, u_max=2.0)
        plan = mpc(x0, theta)  # plan.controls of shape (batch, 20, 1), differentiable in x0 and theta

    The functions are written for one stage of one item, as `dynamics(x, u, *theta)`. States and controls of all stages
    are variables (multiple shooting), and the sub-problems are block-banded.

    Args:
        dynamics: the next state.
        stage_cost: a scalar.
        terminal_cost: a scalar of (x, *theta); None for none.
        horizon: T, the number of controls.
        states: nx.
        controls: nu.
        u_min: bounds of the controls, numbers or of shape (nu,). They hold at every iterate.
        u_max: likewise.
        x_min: bounds of the planned states, the present one excepted.
        x_max: likewise.
        slew: the largest change of a control from stage to stage; calls then need `previous`.
        framework: "torch" or "jax".
        traced: as of `SQP`.
        in_axes: 0 or None for each parameter: whether it has a leading batch axis, or is shared (the default).
        hessian: "gauss_newton" leaves the curvature of the dynamics out; "exact" has it.
        backward: as of `SQP`.
        eps: as of `SQP`.
        max_iters: as of `SQP`.
        on_failure: as of `SQP`.
        solver: as of `SQP`.
        dlm_epsilon: as of `SQP`.
        progress: as of `SQP`.

    Raises:
        OptionError: if an option is unknown.

    References:
        Amos, Rodriguez, Sacks, Boots, Kolter, "Differentiable MPC for end-to-end planning and control" (2018).
    """

    def __init__(
        self,
        dynamics: Function,
        stage_cost: Function,
        terminal_cost: Function | None = None,
        *,
        horizon: int,
        states: int,
        controls: int,
        u_min: Numbers = -np.inf,
        u_max: Numbers = np.inf,
        x_min: Numbers = -np.inf,
        x_max: Numbers = np.inf,
        slew: Numbers | None = None,
        framework: str = "torch",
        traced: bool = False,
        in_axes: Sequence[int | None] | None = None,
        hessian: str = "gauss_newton",
        backward: str = "implicit",
        eps: float = 1e-8,
        max_iters: int = 100,
        on_failure: str = "raise",
        solver: str | None = None,
        dlm_epsilon: float = 1e-4,
        progress: Callable[[Record], object] | None = None,
    ) -> None:
        self.sizes = Sizes(horizon, states, controls)
        n = horizon * self.sizes.stage + states
        solver = "DAQP" if solver is None and n <= _DAQP_UP_TO else solver
        options = Options(hessian, backward, eps, max_iters, on_failure, solver, dlm_epsilon, progress)
        limit = None if slew is None else np.broadcast_to(np.asarray(slew, dtype=float), (controls,))
        autodiff = autodiff_of(framework, traced)
        self._stages = Stages(autodiff, self.sizes, dynamics, stage_cost, terminal_cost, limit)
        self._layout = self._stages.layout(self._row(x_min, u_min, -np.inf), self._row(x_max, u_max, np.inf))
        self._solver = Solver(autodiff, self._stages, options)
        self._in_axes = None if in_axes is None else tuple(in_axes)

    def _row(self, x: Numbers, u: Numbers, free: float) -> np.ndarray:
        """Returns the bounds of z; the present state has none."""
        T, nx, nu = self.sizes.horizon, self.sizes.states, self.sizes.controls
        state, control = np.broadcast_to(np.asarray(x, float), (nx,)), np.broadcast_to(np.asarray(u, float), (nu,))
        states = np.concatenate([np.full((1, nx), free), np.tile(state, (T, 1))])
        return self.sizes.joined(states[None], np.tile(control, (1, T, 1)))[0]

    def __call__(
        self,
        x0: Any,
        *theta: Any,
        controls: Any = None,
        previous: Any = None,
        warm_start: Plan | Guess | None = None,
        max_iters: int | None = None,
        on_failure: str | None = None,
    ) -> Plan:
        """Plans from each state.

        Args:
            x0: the present states, of shape (batch, nx).
            theta: the parameters.
            controls: a guess, of shape (batch, T, nu); by default zero, or the warm start's.
            previous: the controls applied before, of shape (batch, nu), where the slew is limited.
            warm_start: an earlier plan: its trajectories and multipliers are where this one starts.
            max_iters: for this call: one iteration makes a real-time step.
            on_failure: for this call.

        Raises:
            SolverError: if items are not solved.
        """
        autodiff, sizes = self._solver.autodiff, self.sizes
        if x0.ndim != 2 or x0.shape[1] != sizes.states:
            raise ShapeError(f"x0 has shape {tuple(x0.shape)}, expected (batch, {sizes.states})")
        axes = self._in_axes or (None,) * len(theta)
        given, given_axes = (x0,), (0,)
        if self._stages.slew is not None:
            if previous is None:
                raise InputError("the slew is limited: pass previous, the controls applied before, (batch, nu)")
            given, given_axes = (x0, previous), (0, 0)
        options = replace(
            self._solver.options,
            max_iters=max_iters or self._solver.options.max_iters,
            on_failure=on_failure or self._solver.options.on_failure,
        )
        batch, every = len(x0), (*given_axes, *axes)

        def begin(bound: Bound) -> tuple[Layout, np.ndarray, Multipliers | None]:
            guess = warm_start if warm_start is None or isinstance(warm_start, Guess) else Guess.of(warm_start)
            if controls is not None or guess is None:
                return self._layout, self._cold(bound, batch, controls, axes), None
            now, z = autodiff.numpy(bound.arguments.leaves[0]), guess.z.copy()
            z[:, : sizes.states] = now
            return self._layout, z, guess.multipliers

        check_closures(autodiff, self._stages.values, np.zeros(self._layout.n), (*given, *theta), every)
        found = self._solver.solve(begin, batch, (*given, *theta), every, options)
        (states, last), planned = sizes.split(found.z)
        trajectory = autodiff.concatenate([states.reshape(batch, -1), last])
        return Plan(trajectory.reshape(batch, sizes.horizon + 1, sizes.states), planned, found)

    def shifted(self, plan: Plan, by: int = 1) -> Guess:
        """Returns the plan as it looks some stages later: the last stage is repeated, and so are its multipliers."""
        sizes, at = self.sizes, plan.result.multipliers
        z, batch = plan.result.point, len(plan.result.point)
        (_, controls), states = sizes.split(z), sizes.states_of(z)
        states, controls, y = (
            _later(part, by) for part in (states, controls, at.g.reshape(batch, sizes.horizon + 1, sizes.states))
        )
        box = np.concatenate([at.box[:, by * sizes.stage :], np.zeros((batch, by * sizes.stage))], axis=1)
        return Guess(sizes.joined(states, controls), Multipliers(y.reshape(batch, -1), np.zeros_like(at.h), box))

    def _cold(self, bound: Bound, batch: int, controls: Any, axes: Sequence[int | None]) -> np.ndarray:
        """Returns the trajectories of guessed controls, zero without a guess."""
        sizes = self.sizes
        shape = (batch, sizes.horizon, sizes.controls)
        if controls is not None and not isinstance(controls, np.ndarray):
            controls = self._solver.autodiff.numpy(controls)
        guess = np.zeros(shape) if controls is None else np.asarray(controls, dtype=float)
        if guess.shape != shape:
            raise ShapeError(f"controls has shape {guess.shape}, expected {shape}")
        place = slice(sizes.states, sizes.stage)
        guess = np.clip(guess, self._layout.lower[place], self._layout.upper[place])
        return sizes.joined(self._rollout(bound, guess, axes), guess)

    def _rollout(self, bound: Bound, controls: np.ndarray, axes: Sequence[int | None]) -> np.ndarray:
        autodiff, arguments = self._solver.autodiff, bound.arguments
        step = autodiff.vmap(self._stages.dynamics, (0, 0, *axes))
        with autodiff.scope():
            x0, *rest = arguments.rebuild(arguments.leaves)
            theta = rest if self._stages.slew is None else rest[1:]
            states = [x0]
            for t in range(self.sizes.horizon):
                states.append(step(states[-1], autodiff.array(controls[:, t]), *theta))
            return np.stack([autodiff.numpy(state) for state in states], axis=1)


def _later(part: np.ndarray, by: int) -> np.ndarray:
    return np.concatenate([part[:, by:], part[:, -1:].repeat(by, axis=1)], axis=1)


def receding_horizon(
    mpc: MPC,
    plant: Callable[[Any, Any], Any],
    x0: Any,
    *theta: Any,
    steps: int,
    controls: Any = None,
    previous: Any = None,
    max_iters: int | None = None,
) -> Iterator[tuple[Any, Any, Plan]]:
    """Plans, applies the first control, and plans again from where the plant went, each plan starting at the last one.

    Args:
        mpc: the planner; its plans that are not solved are applied as they are, and say so in their status.
        plant: the next states of a batch, of (states, controls).
        x0: where it starts, of shape (batch, nx).
        theta: the planner's parameters.
        steps: how many controls to apply.
        controls: a guess for the first plan.
        previous: the controls applied before the first.
        max_iters: iterations of each plan but the first, which has as many as the planner.

    Yields:
        The states before, the controls applied, and the plan, of each step.

    Raises:
        InputError: if states, parameters or guesses do not fit the planner.
    """
    state, plan = x0, None
    for _ in range(steps):
        warm = None if plan is None else mpc.shifted(plan)
        budget = None if plan is None else max_iters
        guess = controls if plan is None else None
        plan = mpc(
            state, *theta, controls=guess, previous=previous, warm_start=warm, max_iters=budget, on_failure="mask"
        )
        applied = plan.controls[:, 0]
        yield state, applied, plan
        state, previous = plant(state, applied), applied
