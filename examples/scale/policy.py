"""The policy that all of these train: a convex program that looks one step ahead, with limited inputs.

minimise ‖u‖² + ‖P½ x⁺‖² + qᵀx⁺ over u and x⁺, subject to x⁺ = Ax + Bu and |u| ≤ limit. Parameters are the state x,
the square root P½ and the slope q of the value function, and the limit; quadratic objective, zero and nonnegative cone.
Agrawal, Barratt, Boyd, Stellato: Learning Convex Optimization Control Policies (2020), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import cvxpy as cp
import numpy as np
from jaxtyping import Float

STATES, INPUTS = 4, 2


@dataclass(frozen=True)
class Plant:
    """A linear system on the edge of stability, xₜ₊₁ = A xₜ + B uₜ + wₜ."""

    A: Float[np.ndarray, "states states"]
    B: Float[np.ndarray, "states inputs"]


@dataclass(frozen=True)
class Rollouts:
    """Where rollouts start and what disturbs them."""

    starts: Float[np.ndarray, "batch states"]
    noise: Float[np.ndarray, "steps batch states"]


def plant(seed: int = 0) -> Plant:
    """Draws a system whose spectral radius is one."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(STATES, STATES))
    return Plant(A / np.abs(np.linalg.eigvals(A)).max(), rng.normal(size=(STATES, INPUTS)))


def rollouts(batch: int, steps: int, seed: int = 0) -> Rollouts:
    """Draws starts and noise."""
    rng = np.random.default_rng([seed, 1])
    return Rollouts(rng.normal(size=(batch, STATES)), 0.3 * rng.normal(size=(steps, batch, STATES)))


def problem(system: Plant) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
    """Returns the policy's problem, its parameters (x, P½, q, limit) and its variable u."""
    u, ahead = cp.Variable(INPUTS), cp.Variable(STATES)
    x, root, slope = cp.Parameter(STATES), cp.Parameter((STATES, STATES)), cp.Parameter(STATES)
    limit = cp.Parameter(nonneg=True)
    cost = cp.sum_squares(u) + cp.sum_squares(root @ ahead) + slope @ ahead
    constraints = [ahead == system.A @ x + system.B @ u, u <= limit, -u <= limit]
    return cp.Problem(cp.Minimize(cost), constraints), [x, root, slope, limit], [u]
