"""The formulas of an optimal control problem: derivatives stage by stage, and matrices that are block-banded.

z = (x₀, u₀, x₁, u₁, …, x_T). The equalities are x₀ = x(0) and x_{t+1} = F(x_t, u_t); the Hessian is block-diagonal, as
each cost, and each λᵀF, has the state and control of one stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from cvxlayers.sqp.autodiff import Array, Autodiff, Function
from cvxlayers.sqp.model import Layout
from cvxlayers.sqp.pattern import Pattern


@dataclass(frozen=True, eq=False)
class Sizes:
    """The sizes of an optimal control problem."""

    horizon: int
    states: int
    controls: int

    @property
    def stage(self) -> int:
        """The size of one stage: a state and a control."""
        return self.states + self.controls

    def split(self, z: Any) -> tuple[Any, Any]:
        """Returns the states, of shape (*batch, T + 1, nx), and the controls (*batch, T, nu)."""
        T, nx, stage = self.horizon, self.states, self.stage
        stages = z[..., : T * stage].reshape(*z.shape[:-1], T, stage)
        return (stages[..., :nx], z[..., T * stage :]), stages[..., nx:]

    def states_of(self, z: np.ndarray) -> np.ndarray:
        """Returns the states of a numpy batch, the last one included."""
        (states, last), _ = self.split(z)
        return np.concatenate([states, last[..., None, :]], axis=-2)

    def joined(self, states: np.ndarray, controls: np.ndarray) -> np.ndarray:
        """Returns z of states (batch, T + 1, nx) and controls (batch, T, nu)."""
        stages = np.concatenate([states[:, :-1], controls], axis=-1)
        return np.concatenate([stages.reshape(len(states), -1), states[:, -1]], axis=-1)


@dataclass(frozen=True, eq=False)
class Stages:
    """One item's formulas; the parameters are x(0), the control before (with a slew limit), and the user's own.

    Attributes:
        autodiff: the framework.
        sizes: the horizon, and the sizes of states and controls.
        dynamics: F(x, u, *theta).
        stage_cost: of (x, u, *theta).
        terminal_cost: of (x, *theta), or None.
        slew: the largest change of each control between stages, or None.
    """

    autodiff: Autodiff
    sizes: Sizes
    dynamics: Function
    stage_cost: Function
    terminal_cost: Function | None
    slew: Float[np.ndarray, " nu"] | None

    def values(self, z: Array, *theta: Any) -> tuple[Array, Array, Array]:
        """Returns the cost, the defects of the dynamics, and the violations of the slew limits."""
        (states, last), controls = self.sizes.split(z)
        rest = self._rest(theta)
        shared = (None,) * len(rest)
        vmap, join = self.autodiff.vmap, self.autodiff.concatenate
        cost = vmap(self.stage_cost, (0, 0, *shared))(states, controls, *rest).sum()
        if self.terminal_cost is not None:
            cost = cost + self.terminal_cost(last, *rest)
        moved = vmap(self.dynamics, (0, 0, *shared))(states, controls, *rest)
        later = join([states[1:].reshape(-1), last])
        g = join([states[0] - theta[0], later - moved.reshape(-1)])
        return cost, g, self._slew(controls, theta)

    def model(self, hessian: str) -> Function:
        """Returns the model, assembled from the stages' derivatives."""
        autodiff, sizes, nx = self.autodiff, self.sizes, self.sizes.states
        exact = hessian == "exact"

        def cost(tau: Array, *rest: Any) -> Array:
            return self.stage_cost(tau[:nx], tau[nx:], *rest)

        def dynamics(tau: Array, *rest: Any) -> Array:
            return self.dynamics(tau[:nx], tau[nx:], *rest)

        def lagrangian(tau: Array, y: Array, *rest: Any) -> Array:
            return cost(tau, *rest) - (y * dynamics(tau, *rest)).sum() if exact else cost(tau, *rest)

        def model(z: Array, y: Array, w: Array, *theta: Any) -> tuple[Any, ...]:
            rest = self._rest(theta)
            shared = (None,) * len(rest)
            taus, last = z[:-nx].reshape(sizes.horizon, sizes.stage), z[-nx:]
            later = y[nx:].reshape(sizes.horizon, nx)
            _, g, h = self.values(z, *theta)
            slopes = autodiff.vmap(autodiff.grad(cost), (0, *shared))(taus, *rest).reshape(-1)
            J = autodiff.vmap(autodiff.jacobian(dynamics), (0, *shared))(taus, *rest)
            H = autodiff.vmap(autodiff.hessian(lagrangian), (0, 0, *shared))(taus, later, *rest)
            end_slope, end_H = last * 0.0, (last[:, None] * last) * 0.0
            if self.terminal_cost is not None:
                end_slope = autodiff.grad(self.terminal_cost)(last, *rest)
                end_H = autodiff.hessian(self.terminal_cost)(last, *rest)
            A = autodiff.concatenate([z[:nx] * 0.0 + 1.0, _beside_ones(autodiff, -J).reshape(-1)])
            G = (z[:0] if w.shape[0] == 0 else z[:1] * 0.0) + autodiff.array(self._slew_entries())
            return autodiff.concatenate([slopes, end_slope]), g, h, A, G, (H, end_H[None])

        return model

    def layout(self, lower: np.ndarray, upper: np.ndarray) -> Layout:
        """Returns where the entries of A, G and the Hessian are."""
        sizes, T, nx = self.sizes, self.sizes.horizon, self.sizes.states
        n = T * sizes.stage + nx
        rows, cols = [np.arange(nx)], [np.arange(nx)]
        for t in range(T):
            for row in range(nx):
                place = np.append(t * sizes.stage + np.arange(sizes.stage), (t + 1) * sizes.stage + row)
                cols.append(place)
                rows.append(np.full(len(place), (t + 1) * nx + row))
        A = Pattern(((T + 1) * nx, n), np.concatenate(rows), np.concatenate(cols))
        return Layout(lower, upper, A, self._slew_pattern(n), ((T, sizes.stage), (1, nx)))

    def _rest(self, theta: tuple[Any, ...]) -> tuple[Any, ...]:
        return theta[1:] if self.slew is None else theta[2:]

    def _slew(self, controls: Array, theta: tuple[Any, ...]) -> Array:
        if self.slew is None:
            return controls.reshape(-1)[:0]
        flat, nu = controls.reshape(-1), self.sizes.controls
        change = flat - self.autodiff.concatenate([theta[1], flat[:-nu]])
        limit = self.autodiff.array(np.tile(self.slew, self.sizes.horizon))
        return self.autodiff.concatenate([change - limit, -change - limit])

    def _slew_pattern(self, n: int) -> Pattern:
        if self.slew is None:
            return Pattern.full(0, n)
        T, nu, nx, stage = self.sizes.horizon, self.sizes.controls, self.sizes.states, self.sizes.stage
        places = (np.arange(T)[:, None] * stage + nx + np.arange(nu)).reshape(-1)
        count = T * nu
        rows = np.concatenate([np.arange(nu), np.repeat(np.arange(nu, count), 2)])
        cols = np.concatenate([places[:nu], np.stack([places[:-nu], places[nu:]], axis=1).reshape(-1)])
        return Pattern((2 * count, n), np.concatenate([rows, count + rows]), np.concatenate([cols, cols]))

    def _slew_entries(self) -> np.ndarray:
        if self.slew is None:
            return np.zeros(0)
        T, nu = self.sizes.horizon, self.sizes.controls
        once = np.concatenate([np.ones(nu), np.tile([-1.0, 1.0], (T - 1) * nu)])
        return np.concatenate([once, -once])


def _beside_ones(autodiff: Autodiff, J: Array) -> Array:
    """Puts a one after each row: the coefficient of the next state."""
    return autodiff.concatenate([J, J[..., :1] * 0.0 + 1.0])
