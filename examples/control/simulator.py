"""Worlds to act in: where they start, what disturbs them, how they move on, and what a policy costs in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Tensor = torch.Tensor
Policy = Callable[[Tensor], Tensor]
Sample = Callable[[torch.Generator, int], Tensor]
Cost = Callable[[Tensor, Tensor, Tensor], Tensor]  # of (x, u, next x), one number for each rollout


@dataclass(frozen=True)
class Simulator:
    """A world to act in; all of it takes a batch of rollouts at once.

    Attributes:
        start: (generator, batch) → the states in which rollouts begin, of shape (batch, n).
        disturb: (generator, batch) → what disturbs one step, of shape (batch, w).
        step: (x, u, w) → the next states.
    """

    start: Sample
    disturb: Sample
    step: Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Draws:
    """All that is random in a batch of rollouts: starts (batch, n) and disturbances (horizon, batch, w)."""

    start: Tensor
    disturbances: Tensor


@dataclass(frozen=True)
class Rollout:
    """What happened: states (horizon + 1, batch, n), controls (horizon, batch, m), costs (horizon, batch)."""

    states: Tensor
    controls: Tensor
    costs: Tensor


def draw(simulator: Simulator, seed: int, batch: int, horizon: int) -> Draws:
    """Draws a batch of rollouts from one stream: first the starts, then the disturbances step by step."""
    generator = torch.Generator().manual_seed(seed)
    start = simulator.start(generator, batch)
    return Draws(start, torch.stack([simulator.disturb(generator, batch) for _ in range(horizon)]))


def draw_each(simulator: Simulator, seeds: Sequence[int], horizon: int) -> Draws:
    """Draws one rollout from the stream of each seed, so that each can be repeated alone."""
    single = [draw(simulator, seed, 1, horizon) for seed in seeds]
    return Draws(torch.cat([one.start for one in single]), torch.cat([one.disturbances for one in single], dim=1))


def rollout(policy: Policy, simulator: Simulator, cost: Cost, draws: Draws) -> Rollout:
    """Lets the policy act; gradients flow through the controls, the states and the costs."""
    states, controls, costs = [draws.start], [], []
    for w in draws.disturbances:
        x = states[-1]
        u = policy(x)
        after = simulator.step(x, u, w)
        costs.append(cost(x, u, after))
        controls.append(u)
        states.append(after)
    return Rollout(torch.stack(states), torch.stack(controls), torch.stack(costs))
