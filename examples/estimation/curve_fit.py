"""Fits curves to points, and differentiates the fit in the points: the four modes against central differences."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

from examples.estimation.gauss_newton import MODES, Backward, Solver, gauss_newton_layer, newton_layer
from examples.experiment import Context, Experiment, Outcome

Points = Float[torch.Tensor, " points"]
_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Settings:
    """How many points are fitted, with how much noise, and how the fit is differentiated."""

    points: int = 10
    noise: float = 0.01
    iterations: int = 15
    truncation: int = 5
    epsilon: float = 1e-7
    repetitions: int = 10


@dataclass(frozen=True)
class Curve:
    """A family of curves: the residuals of one fit, the unknowns behind the data, and where the solver starts."""

    residual: Callable[[torch.Tensor, Points, Points], Points]
    truth: tuple[float, ...]
    start: tuple[float, ...]
    stretch: float  # of the points, which are uniform on [0, 1]


def _parabola(z: torch.Tensor, x: Points, y: Points) -> Points:
    return y - (z[0] * x**2 + z[1])


def _decay(z: torch.Tensor, x: Points, y: Points) -> Points:
    return y - z[0] * torch.exp(-z[1] * x) - z[2]


PARABOLA = Curve(_parabola, truth=(1.0, 0.5), start=(2.0, 1.0), stretch=1.0)
DECAY = Curve(_decay, truth=(1.0, 1.5, 0.3), start=(0.7, 1.0, 0.0), stretch=3.0)


def run_on(curve: Curve, settings: Settings, context: Context) -> Outcome:
    """Differentiates the first unknown of the fit in the points' abscissae, by each mode."""
    solver = solver_of(curve, settings)
    x, y = sample(curve, settings, context.seed)
    differences = central_difference(solver, curve, x, y)
    metrics, gradients = {}, {}
    for mode in context.track(MODES, "modes"):
        gradients[mode], forward, backward = differentiate(solver, curve, x, y, mode, settings.repetitions)
        metrics[f"error_{mode}"] = (gradients[mode] - differences).abs().max().item()
        metrics[f"forward_milliseconds_{mode}"] = 1e3 * forward
        metrics[f"backward_milliseconds_{mode}"] = 1e3 * backward
    z = fit(solver, curve, x, y, "implicit")
    notes = ["errors: largest deviation of d z₀ / d x from central differences; times: the median of several runs"]
    return Outcome(metrics, notes, Picture(curve, x, y, z.detach(), differences, gradients).draw)


def solver_of(curve: Curve, settings: Settings) -> Solver:
    """Returns Gauss and Newton's method for a family of curves."""
    unknowns = len(curve.start)
    layers = gauss_newton_layer(settings.points, unknowns), newton_layer(unknowns)
    return Solver(curve.residual, *layers, settings.iterations, settings.truncation, settings.epsilon)


def sample(curve: Curve, settings: Settings, seed: int) -> tuple[Points, Points]:
    """Returns random points near the true curve."""
    generator = torch.Generator().manual_seed(seed)
    x = curve.stretch * torch.rand(settings.points, generator=generator, dtype=torch.float64)
    noise = torch.randn(settings.points, generator=generator, dtype=torch.float64)
    return x, settings.noise * noise - curve.residual(torch.tensor(curve.truth), x, torch.zeros_like(x))


def fit(solver: Solver, curve: Curve, x: Points, y: Points, mode: Backward) -> torch.Tensor:
    """Returns the unknowns of each fit; x and y may have a leading batch axis."""
    x, y = torch.atleast_2d(x), torch.atleast_2d(y)
    start = torch.tensor(curve.start, dtype=x.dtype).expand(len(x), -1)
    return solver.solve(start, [x, y.expand_as(x)], mode)


def central_difference(solver: Solver, curve: Curve, x: Points, y: Points) -> Points:
    """Returns the derivative of the first unknown in x by differences: all points moved both ways, in one batch."""
    moves = _DIFFERENCE * torch.eye(len(x), dtype=x.dtype)
    with torch.no_grad():
        z = fit(solver, curve, torch.cat([x + moves, x - moves]), y, "unroll")[:, 0]
    return (z[: len(x)] - z[len(x) :]) / (2 * _DIFFERENCE)


def differentiate(
    solver: Solver, curve: Curve, x: Points, y: Points, mode: Backward, repetitions: int
) -> tuple[Points, float, float]:
    """Returns the derivative of the first unknown in x by a mode, and the median seconds of its two passes."""
    gradient, forward, backward = torch.zeros_like(x), [], []
    for _ in range(repetitions):
        leaf = x.clone().requires_grad_()
        times = [time.perf_counter()]
        z = fit(solver, curve, leaf, y, mode)
        times.append(time.perf_counter())
        (gradient,) = torch.autograd.grad(z[0, 0], leaf)
        times.append(time.perf_counter())
        forward.append(times[1] - times[0])
        backward.append(times[2] - times[1])
    return gradient, _median(forward), _median(backward)


def _median(values: Sequence[float]) -> float:
    return torch.tensor(values, dtype=torch.float64).median().item()


@dataclass(frozen=True)
class Picture:
    """The fit, and the derivative of its first unknown by each mode."""

    curve: Curve
    x: Points
    y: Points
    z: torch.Tensor
    differences: Points
    gradients: dict[Backward, Points]

    def draw(self, figure: Any) -> None:
        """Draws the points with the curve, and the error of each mode at each point."""
        left, right = figure.subplots(1, 2)
        grid = torch.linspace(0, self.curve.stretch, 200, dtype=torch.float64)
        left.plot(grid, -self.curve.residual(self.z[0], grid, torch.zeros_like(grid)), color="tab:blue", label="fit")
        slope = self.differences / self.differences.abs().max()
        shown = left.scatter(self.x, self.y, c=slope, cmap="coolwarm", vmin=-1, vmax=1, zorder=3, edgecolor="0.3")
        figure.colorbar(shown, ax=left, label="influence of a point's x on z₀ (relative)")
        left.set(xlabel="x", ylabel="y")
        left.legend()
        order = self.x.argsort()
        for mode, gradient in self.gradients.items():
            error = (gradient - self.differences).abs().clamp(min=1e-16)
            right.semilogy(self.x[order], error[order], "o-", label=mode, markersize=4)
        right.set(xlabel="x of the point", ylabel="deviation from central differences")
        right.legend()


EXPERIMENT = Experiment(
    "curve-fit",
    "Differentiates the fit of y = a x² + b in four ways, against central differences.",
    lambda settings, context: run_on(PARABOLA, settings, context),
    {"ci": Settings(repetitions=3), "full": Settings()},
)

DECAY_EXPERIMENT = Experiment(
    "decay-fit",
    "The same for y = a exp(−b x) + c with large residuals, where the four ways differ.",
    lambda settings, context: run_on(DECAY, settings, context),
    {"ci": Settings(noise=0.1, repetitions=3), "full": Settings(noise=0.1)},
)
