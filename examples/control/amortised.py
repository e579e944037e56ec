"""Amortised control: a network distilled from box-constrained MPC, on its own and as the solver's warm start."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvxlayers.sqp import MPC
from examples.experiment import Context, Experiment, Outcome

STATES, CONTROLS, LIMIT = 4, 2, 0.4


@dataclass(frozen=True)
class Settings:
    """The horizon, how many plans to distil and to test on, and the steps of training."""

    horizon: int = 10
    train: int = 5000
    test: int = 200
    steps: int = 3000
    width: int = 64


def plant(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Returns A, of spectral radius one, and B."""
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(STATES, STATES, generator=generator, dtype=torch.float64)
    B = torch.randn(STATES, CONTROLS, generator=generator, dtype=torch.float64)
    return A / torch.linalg.eigvals(A).abs().max(), B


def dynamics(x: Tensor, u: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """A linear plant but for its actuators, which push harder than in proportion: sinh u."""
    return A @ x + B @ torch.sinh(u)


def stage_cost(x: Tensor, u: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """|x|² + |u|²."""
    return (x * x).sum() + (u * u).sum()


def run(settings: Settings, context: Context) -> Outcome:
    """Distils plans into a network; compares its costs, its time, and the iterations that it saves."""
    generator = torch.Generator().manual_seed(context.seed)
    A, B = plant()
    expert = MPC(
        dynamics,
        stage_cost,
        lambda x, A, B: (x * x).sum(),
        horizon=settings.horizon,
        states=STATES,
        controls=CONTROLS,
        u_min=-LIMIT,
        u_max=LIMIT,
        traced=True,
    )
    starts = torch.randn(settings.train + settings.test, STATES, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        chunks = context.track(starts.split(100), "planning", -(-len(starts) // 100))
        controls = torch.cat([expert(chunk, A, B).controls for chunk in chunks])
    torch.manual_seed(context.seed)
    network = distil(starts[: settings.train], controls[: settings.train], settings, context)
    return compare(expert, network, starts[settings.train :], (A, B))


def distil(starts: Tensor, controls: Tensor, settings: Settings, context: Context) -> torch.nn.Module:
    """Fits a network of two hidden layers, its output within the limits, to the expert's controls."""
    width, out = settings.width, controls[0].numel()
    layers = [torch.nn.Linear(STATES, width), torch.nn.ELU(), torch.nn.Linear(width, width), torch.nn.ELU()]
    network = torch.nn.Sequential(*layers, torch.nn.Linear(width, out), torch.nn.Hardtanh(-LIMIT, LIMIT)).double()
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    for _ in context.track(range(settings.steps), "distilling"):
        batch = torch.randint(len(starts), (256,))
        loss = ((network(starts[batch]) - controls[batch].reshape(256, -1)) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
    return network


@torch.no_grad()
def compare(expert: MPC, network: torch.nn.Module, starts: Tensor, theta: tuple[Tensor, Tensor]) -> Outcome:
    """Measures suboptimality, times and iterations, from rest and from the network's plan."""
    begin = time.perf_counter()
    cold = expert(starts, *theta)
    middle = time.perf_counter()
    guess = network(starts).reshape(cold.controls.shape)
    end = time.perf_counter()
    warm = expert(starts, *theta, controls=guess)
    optimal, amortised = rollout_cost(starts, cold.controls, theta), rollout_cost(starts, guess, theta)
    excess = (amortised - optimal) / optimal
    metrics = {
        "suboptimality": float(excess.mean()),
        "suboptimality_untrained": float(((rollout_cost(starts, 0.0 * guess, theta) - optimal) / optimal).mean()),
        "time_ratio": (middle - begin) / (end - middle),
        "iterations_cold": float(cold.result.iterations.mean()),
        "iterations_warm": float(warm.result.iterations.mean()),
        "max_violation": float((guess.abs() - LIMIT).clamp(min=0.0).max()),
    }
    return Outcome(metrics, [], _drawing(cold.controls, guess, excess))


def rollout_cost(x: Tensor, controls: Tensor, theta: tuple[Tensor, Tensor]) -> Tensor:
    """The cost of controls applied from each start."""
    move = torch.func.vmap(dynamics, (0, 0, None, None))
    total = (controls**2).sum((1, 2))
    for t in range(controls.shape[1]):
        total = total + (x * x).sum(1)
        x = move(x, controls[:, t], *theta)
    return total + (x * x).sum(1)


def _drawing(optimal: Tensor, guess: Tensor, excess: Tensor) -> Callable[[Any], None]:
    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        left.scatter(optimal[:, 0].flatten(), guess[:, 0].flatten(), s=8, alpha=0.5)
        left.axline((0.0, 0.0), slope=1.0, color="black", linewidth=0.6)
        left.set_xlabel("first control of the plan")
        left.set_ylabel("of the network")
        right.hist(excess.clamp(min=1e-12).log10(), bins=30)
        right.set_xlabel("log10 of the relative excess cost")
        right.set_ylabel("starts")

    return draw


AMORTISED = Experiment[Settings](
    "amortised",
    "Distils box-constrained plans into a network, and starts the solver where the network ends.",
    run,
    {"ci": Settings(6, 400, 50, 400), "full": Settings()},
)
