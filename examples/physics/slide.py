"""A puck that slides on a floor to rest: friction as a second-order cone in every time step, its coefficient inferred.

References: Anitescu, "Optimization-based simulation of nonsmooth rigid multibody dynamics" (2006), whose relaxation
makes Coulomb's law convex, at the price that a sliding body rises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import torch
from jaxtyping import Float

from cvxlayers.torch import CvxpyLayer
from examples.experiment import Context, Experiment, Outcome

Paths = Float[torch.Tensor, "*batch steps 3"]
Coefficients = Float[torch.Tensor, " starts"]

GRAVITY = 9.81
_DIFFERENCE = 1e-6


@dataclass(frozen=True)
class Settings:
    """The slide, what is observed of it, and how the coefficient of friction is sought.

    Attributes:
        steps: of time.
        duration: in seconds.
        speed: at the start; the puck's direction is (3, 4) / 5.
        friction: coefficient to be found.
        noise: standard deviation of the observed positions, in metres.
        starts: first guesses, between a third and three times the coefficient.
        iterations: of Rprop on the logarithm of the coefficient.
        lr: its first step, and its longest.
    """

    steps: int = 100
    duration: float = 1.0
    speed: float = 2.0
    friction: float = 0.3
    noise: float = 0.002
    starts: int = 5
    iterations: int = 30
    lr: float = 0.3


def friction_layer() -> CvxpyLayer:
    """Returns the layer (f, μ) ↦ u that minimises ½ |u − f|² subject to μ |(u₁, u₂)| ≤ u₃.

    With the height above the floor per time step added to the third component of f, the velocity of free flight, the
    same is added to that of u, the velocity after the step. The multiplier of the cone is the contact's impulse: within
    Coulomb's cone, and against the sliding.
    """
    f, mu, u = cp.Parameter(3, name="f"), cp.Parameter(nonneg=True, name="mu"), cp.Variable(3, name="u")
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(u - f)), [mu * cp.norm(u[:2]) <= u[2]])
    return CvxpyLayer(problem, parameters=[f, mu], variables=[u])


def simulate(layer: CvxpyLayer, settings: Settings, friction: Coefficients) -> Paths:
    """Returns the puck's positions at all times, for every coefficient."""
    time_step = settings.duration / settings.steps
    start = torch.tensor([0.6 * settings.speed, 0.8 * settings.speed, 0.0], dtype=friction.dtype)
    velocity = start.expand(*friction.shape, 3)
    position, path = torch.zeros_like(velocity), []
    fall = torch.tensor([0.0, 0.0, -GRAVITY * time_step], dtype=friction.dtype)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=friction.dtype)
    for _ in range(settings.steps):
        height = up * position / time_step
        (lifted,) = layer(velocity + fall + height, friction)
        velocity = lifted - height
        position = position + time_step * velocity
        path.append(position)
    return torch.stack(path, dim=-2)


def coulomb(settings: Settings, friction: Coefficients) -> Paths:
    """Returns the exact positions at the same times: deceleration by μ g until the puck rests."""
    times = torch.arange(1, settings.steps + 1, dtype=friction.dtype) * settings.duration / settings.steps
    deceleration = friction[..., None] * GRAVITY
    moving = torch.minimum(times, settings.speed / deceleration)
    distance = settings.speed * moving - 0.5 * deceleration * moving**2
    return torch.stack([0.6 * distance, 0.8 * distance, torch.zeros_like(distance)], dim=-1)


def run(settings: Settings, context: Context) -> Outcome:
    """Observes an exact slide, and moves all guesses at once until the simulated slides fit."""
    generator = torch.Generator().manual_seed(context.seed)
    layer, true = friction_layer(), torch.tensor([settings.friction], dtype=torch.float64)
    exact = coulomb(settings, true)[0]
    observed = exact + settings.noise * torch.randn(exact.shape, generator=generator, dtype=exact.dtype)
    uniform = torch.rand(settings.starts, generator=generator, dtype=torch.float64)
    logarithm = (true.log() + (2 * uniform - 1) * torch.tensor(3.0).log()).requires_grad_()
    gradient_error = check_gradient(layer, settings, observed, logarithm.detach().exp())
    optimizer = torch.optim.Rprop([logarithm], lr=settings.lr, step_sizes=(1e-9, settings.lr))
    guesses = [logarithm.detach().exp()]
    for _ in context.track(range(settings.iterations), "Rprop"):
        loss = misfit(simulate(layer, settings, logarithm.exp()), observed)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        guesses.append(logarithm.detach().exp())
    history = torch.stack(guesses) / true
    slid = simulate(layer, settings, true)[0]
    metrics = {
        "relative_friction_error": (history[-1] - 1).abs().max().item(),
        "relative_friction_error_before": (history[0] - 1).abs().max().item(),
        "relative_distance_error": (slid[-1, :2].norm() / exact[-1, :2].norm() - 1).abs().item(),
        "height_of_relaxation": slid[:, 2].max().item(),
        "gradient_error": gradient_error,
    }
    return Outcome(metrics, draw=Picture(settings, slid, exact, observed, history).draw)


def misfit(path: Paths, observed: Paths) -> Float[torch.Tensor, "*batch"]:
    """Returns the mean squared distance on the floor: height is what the relaxation gets wrong."""
    return (path - observed)[..., :2].square().sum(dim=-1).mean(dim=-1)


def check_gradient(layer: CvxpyLayer, settings: Settings, observed: Paths, friction: Coefficients) -> float:
    """Returns the largest relative error of the gradient of the misfit against central differences."""
    leaf = friction.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(misfit(simulate(layer, settings, leaf), observed).sum(), leaf)
    with torch.no_grad():
        above, below = (
            misfit(simulate(layer, settings, friction * (1 + sign * _DIFFERENCE)), observed) for sign in (1, -1)
        )
    difference = (above - below) / (2 * _DIFFERENCE * friction)
    return ((gradient - difference).abs() / difference.abs()).max().item()


@dataclass(frozen=True)
class Picture:
    """The slide, simulated, exact and observed, and the guesses on their way."""

    settings: Settings
    slid: Paths
    exact: Paths
    observed: Paths
    history: Float[torch.Tensor, "iterations starts"]

    def draw(self, figure: Any) -> None:
        """Draws distance and height over time, and the coefficients over the iterations."""
        left, middle, right = figure.subplots(1, 3)
        times = torch.linspace(0, self.settings.duration, self.settings.steps + 1)[1:]
        left.plot(times, self.observed[:, :2].norm(dim=-1), ".", color="0.6", label="observed")
        left.plot(times, self.exact[:, :2].norm(dim=-1), "k:", label="exact")
        left.plot(times, self.slid[:, :2].norm(dim=-1), color="tab:blue", label="layer")
        left.set(xlabel="time (s)", ylabel="distance (m)")
        left.legend()
        middle.plot(times, 1e3 * self.slid[:, 2], color="tab:blue")
        middle.set(xlabel="time (s)", ylabel="height (mm)", title="the relaxation's artefact")
        right.semilogy(self.history, color="tab:blue", alpha=0.7)
        right.axhline(1.0, color="0.3", linestyle=":")
        right.set(xlabel="iteration", ylabel="friction, relative to the true one")


EXPERIMENT = Experiment(
    "slide",
    "Infers the friction of a puck from its slide, each step a second-order cone program.",
    run,
    {"ci": Settings(steps=25, starts=3, iterations=15), "full": Settings()},
)
