"""Moves the global minimiser of polynomials of degree six to targets, by gradients through the moment relaxation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

from examples.experiment import Context, Experiment, Outcome
from examples.relaxation.local import global_minimiser, local_minimiser
from examples.relaxation.moments import (
    Coefficients,
    Points,
    eigenvalue_ratio,
    evaluate,
    hankel_matrix,
    moment_layer,
    powers_of,
    sensitivity,
)

DEGREE = 6
_REACHED = 1e-2  # of the target
# While polynomials with several global minimisers are passed, a point on the way there need not be exact.
_PASSING = {"eps": 1e-4}

Minimiser = Callable[[Coefficients], Coefficients]


@dataclass(frozen=True)
class Settings:
    """How many random polynomials, each with a target and a guess for the local solver, and how they are trained.

    Attributes:
        starts: polynomials.
        steps: on the gap.
        refinements: steps on the distance, after those.
        margin: p(x) is to exceed p(target) by margin · (x − target)², so that the target is the only minimiser.
        step: length of a step on the gap, in Polyak's; between 0 and 2.
    """

    starts: int = 20
    steps: int = 60
    refinements: int = 4
    margin: float = 0.5
    step: float = 1.7


@dataclass(frozen=True)
class Training:
    """The coefficients a training ended with, and how far the minimiser is from its target.

    Attributes:
        coefficients: of the polynomials, at the end.
        true: distance of the global minimiser, at each step.
        believed: distance of the minimiser that the solver finds, at the end.
    """

    coefficients: Coefficients
    true: Float[torch.Tensor, "steps starts"]
    believed: Points


def run(settings: Settings, context: Context) -> Outcome:
    """Trains all polynomials at once, with the layer and with a local solver in its place, and counts who arrives."""
    generator = torch.Generator().manual_seed(context.seed)
    start = random_polynomials(settings.starts, generator)
    target, guess = (2 * torch.rand(settings.starts, generator=generator, dtype=torch.float64) - 1 for _ in range(2))
    layer, quick = moment_layer(DEGREE), moment_layer(DEGREE, solver="CLARABEL")  # which asks no second solver

    def exact(a: Coefficients) -> Coefficients:
        return layer(a)[0]

    def passing(a: Coefficients) -> Coefficients:
        return quick(a, solver_args=_PASSING, on_failure="mask")[0]

    def local(a: Coefficients) -> Coefficients:
        return powers_of(local_minimiser(a, guess), DEGREE)

    certified = train(passing, exact, start, target, settings, context)
    trapped = train(local, local, start, target, settings, context)
    ends = start, certified.coefficients
    metrics = {
        "eigenvalue_ratio": max(eigenvalue_ratio(hankel_matrix(exact(a))).max().item() for a in ends),
        "gradient_error": max(gradient_error(exact, a).max().item() for a in ends),
        "success_rate": _success(certified.true[-1]),
        "success_rate_local": _success(trapped.true[-1]),
        "believed_success_rate_local": _success(trapped.believed),
        "largest_distance": certified.true[-1].max().item(),
        "largest_distance_local": trapped.true[-1].max().item(),
    }
    notes = [f"A start succeeds where the polynomial's true global minimiser ends within {_REACHED} of its target."]
    missed = trapped.true[-1]
    shown = int(torch.where(missed > _REACHED, missed, torch.inf).argmin())
    return Outcome(metrics, notes, Picture(start, target, certified, trapped, shown).draw)


def _success(distances: Points) -> float:
    return (distances < _REACHED).double().mean().item()


def random_polynomials(count: int, generator: torch.Generator) -> Coefficients:
    """Returns polynomials of degree six whose derivatives have five random real roots in [−1.5, 1.5]."""
    roots = 3 * torch.rand(count, DEGREE - 1, generator=generator, dtype=torch.float64) - 1.5
    slope = torch.ones(count, 1, dtype=torch.float64)
    for root in roots.T:
        raised = torch.nn.functional.pad(slope, (1, 0))
        slope = raised - root[:, None] * torch.nn.functional.pad(slope, (0, 1))
    powers = torch.arange(1, DEGREE + 1, dtype=torch.float64)
    return torch.nn.functional.pad(DEGREE * slope / powers, (1, 0))


def train(
    passing: Minimiser, exact: Minimiser, start: Coefficients, target: Points, settings: Settings, context: Context
) -> Training:
    """Moves each minimiser to its target: first by the gap, as far as it goes, then by the distance.

    The leading coefficient stays, and keeps p bounded below.
    """
    a, distances = start, []
    for step in context.track(range(settings.steps + settings.refinements), "training"):
        distances.append((global_minimiser(a) - target).abs())
        gap = step < settings.steps
        a = gap_step(passing, a, target, settings) if gap else distance_step(exact, a, target)
    distances.append((global_minimiser(a) - target).abs())
    return Training(a, torch.stack(distances), (exact(a)[..., 1] - target).abs())


def gap_step(minimiser: Minimiser, a: Coefficients, target: Points, settings: Settings) -> Coefficients:
    """Takes Polyak's step on the gap r(t) − min r of r(x) = p(x) − margin (x − t)², which is convex in a.

    It is zero, its least value, where p(x) ≥ p(t) + margin (x − t)² for all x. The gradient of min r is its minimiser's
    powers, by the envelope theorem.
    """
    ones = torch.ones_like(target)
    square = torch.stack([target**2, -2 * target, ones], dim=-1)
    shift = settings.margin * torch.nn.functional.pad(square, (0, a.shape[-1] - 3))
    slope = powers_of(target, DEGREE) - minimiser(a - shift)
    gap = ((a - shift) * slope).sum(dim=-1).clamp(min=0)
    return _move(a, settings.step * gap, slope)


def distance_step(minimiser: Minimiser, a: Coefficients, target: Points) -> Coefficients:
    """Takes the least step that makes x* = t to first order."""
    free = a.clone().requires_grad_()
    gap = minimiser(free)[..., 1] - target
    (slope,) = torch.autograd.grad(gap.sum(), free)
    return _move(a, gap.detach(), slope)


def _move(a: Coefficients, value: Points, slope: Coefficients) -> Coefficients:
    """Takes the step along the slope that lowers a linear function by the value; the leading coefficient stays."""
    slope = torch.nn.functional.pad(slope[..., :-1], (0, 1))
    square = slope.square().sum(dim=-1, keepdim=True).clamp(min=torch.finfo(slope.dtype).tiny)
    return a - value[..., None] / square * slope


def gradient_error(minimiser: Minimiser, coefficients: Coefficients) -> Points:
    """Returns how far each gradient of the minimiser is from −p''⁻¹ dp'/da, relative to that."""
    a = coefficients.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(minimiser(a)[..., 1].sum(), a)
    exact = sensitivity(coefficients, global_minimiser(coefficients))
    return (gradient - exact).norm(dim=-1) / exact.norm(dim=-1)


@dataclass(frozen=True)
class Picture:
    """One polynomial that traps the local solver, and the distances to the targets in training."""

    start: Coefficients
    target: Points
    certified: Training
    trapped: Training
    shown: int

    def draw(self, figure: Any) -> None:
        """Draws the polynomial before and after, and all distances."""
        left, right = figure.subplots(1, 2)
        self._draw_polynomial(left)
        for training, colour, label in self._trainings():
            true = training.true.clamp(min=1e-16)
            right.semilogy(true, color=colour, alpha=0.3, linewidth=0.8)
            right.semilogy(true.max(dim=1).values, color=colour, linewidth=2, label=f"{label}: the worst")
        right.axhline(_REACHED, color="0.3", linestyle=":")
        right.set(xlabel="step", ylabel="distance of the global minimiser to its target")
        right.legend()

    def _trainings(self) -> list[tuple[Training, str, str]]:
        return [(self.certified, "tab:blue", "relaxation"), (self.trapped, "tab:orange", "local solver")]

    def _draw_polynomial(self, axes: Any) -> None:
        x = torch.linspace(-1.7, 1.7, 400, dtype=torch.float64)
        curves = [(self.start, "0.6", "before")]
        curves += [(training.coefficients, colour, label) for training, colour, label in self._trainings()]
        for coefficients, colour, label in curves:
            a = coefficients[self.shown]
            best = global_minimiser(a)
            least = evaluate(a, best)
            axes.plot(x, evaluate(a.expand(len(x), -1), x) - least, color=colour, label=label)
            axes.plot(best, 0.0, "o", color=colour)
        axes.axvline(float(self.target[self.shown]), color="0.3", linestyle=":", label="target")
        axes.set_yscale("symlog", linthresh=0.1)
        axes.set(ylim=(-0.02, 30), xlabel="x", ylabel="p(x) − min p", title="global minimisers (dots)")
        axes.legend()


EXPERIMENT = Experiment(
    "polynomial",
    "Moves the global minimiser of a polynomial by gradients through its moment relaxation.",
    run,
    {"ci": Settings(starts=12, steps=40), "full": Settings()},
)
