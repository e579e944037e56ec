"""The differentiable cross-entropy method: its choice of the best samples is a soft top-k, a convex program.

Each iteration draws samples from a normal distribution and moves its mean and deviation to those of the best k. The
choice argmax xᵀy + H(y) over 0 ≤ y ≤ 1, Σy = k (limited multi-label projection) makes the result differentiable.
Reference: Amos, Yarats, "The differentiable cross-entropy method" (2020), https://github.com/facebookresearch/dcem
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import torch
from torch import Tensor

from cvxlayers.torch import CvxpyLayer
from examples.control import plants
from examples.experiment import Context, Experiment, Outcome


@dataclass(frozen=True)
class Settings:
    """The horizon, the decoder's width and steps of training, and the samples, elite and iterations of the searches."""

    horizon: int = 20
    width: int = 64
    steps: int = 150
    batch: int = 4
    samples: int = 20
    elite: int = 4
    iterations: int = 4
    baseline_samples: int = 100
    baseline_iterations: int = 30
    tests: int = 20


def soft_top_k(count: int, k: int) -> CvxpyLayer:
    """Returns the layer scores ↦ weights in [0, 1] that sum to k."""
    scores, y = cp.Parameter(count), cp.Variable(count)
    objective = cp.Maximize(scores @ y + cp.sum(cp.entr(y)) + cp.sum(cp.entr(1 - y)))
    return CvxpyLayer(cp.Problem(objective, [cp.Zero(cp.sum(y) - k)]), [scores], [y])


def minimise(
    cost: Callable[[Tensor], Tensor],
    mean: Tensor,
    deviation: Tensor,
    choose: CvxpyLayer,
    k: int,
    noises: Tensor,
    temperature: float = 1.0,
) -> Tensor:
    """Returns the last mean, differentiable in whatever the cost is.

    Args:
        cost: of samples (batch, samples, size); of shape (batch, samples).
        mean: of shape (batch, size).
        deviation: likewise.
        choose: the soft top-k of so many samples.
        k: how many are best.
        noises: standard normal, of shape (iterations, batch, samples, size).
        temperature: towards zero, the choice becomes hard.
    """
    for noise in noises:
        samples = mean[:, None] + deviation[:, None] * noise
        values = cost(samples)
        scale = values.std(1, keepdim=True) + 1e-9
        (weights,) = choose(-(values - values.mean(1, keepdim=True)) / scale / temperature)
        weights = weights[..., None] / k
        mean = (weights * samples).sum(1)
        deviation = ((weights * (samples - mean[:, None]) ** 2).sum(1) + 1e-12).sqrt()
    return mean


def control_cost(starts: Tensor, controls: Tensor) -> Tensor:
    """Minus the reward cos θ − 0.1 x² − 10⁻⁵ u², summed along the cart-pole's motion.

    Args:
        starts: of shape (batch, 4).
        controls: of shape (batch, samples, horizon).
    """
    theta = torch.tensor(plants.CARTPOLE, dtype=torch.float64)
    x = starts[:, None].expand(*controls.shape[:2], 4).reshape(-1, 4)
    flat, move = controls.reshape(len(x), -1), torch.func.vmap(plants.cartpole, (0, 0, None))
    total = 1e-5 * (flat**2).sum(1)
    for t in range(flat.shape[1]):
        x = move(x, flat[:, t, None], theta)
        total = total - x[:, 2].cos() + 0.1 * x[:, 0] ** 2
    return total.reshape(controls.shape[:2])


class Decoder(torch.nn.Module):
    """Controls of a whole plan, within the limits, from a latent of two numbers and the state."""

    def __init__(self, horizon: int, width: int) -> None:
        super().__init__()
        layers = [torch.nn.Linear(7, width), torch.nn.ELU(), torch.nn.Linear(width, width), torch.nn.ELU()]
        self.layers = torch.nn.Sequential(*layers, torch.nn.Linear(width, horizon)).double()

    def forward(self, latent: Tensor, starts: Tensor) -> Tensor:
        """Decodes latents (batch, samples, 2) at states (batch, 4)."""
        angle = starts[:, 2]
        seen = torch.stack([starts[:, 0], starts[:, 1], angle.cos(), angle.sin(), starts[:, 3]], 1)
        seen = seen[:, None].expand(*latent.shape[:2], 5)
        return plants.FORCE * torch.tanh(self.layers(torch.cat([latent, seen], -1)) / 5.0)


def run(settings: Settings, context: Context) -> Outcome:
    """Learns a latent space to search in, and compares it with searches among the controls."""
    generator = torch.Generator().manual_seed(context.seed)
    torch.manual_seed(context.seed)
    decoder = Decoder(settings.horizon, settings.width)
    choose = soft_top_k(settings.samples, settings.elite)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=2e-3)
    tests = plants.random_cartpole(settings.tests, generator)
    untrained = float(_latent(decoder, tests, choose, settings, generator).mean().detach())
    curve = []
    for _ in context.track(range(settings.steps), "learning the latent space"):
        starts = plants.random_cartpole(settings.batch, generator)
        loss = _latent(decoder, starts, choose, settings, generator).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        curve.append(float(loss.detach()))
    with torch.no_grad():
        latent = float(_latent(decoder, tests, choose, settings, generator).mean())
        few = _among_controls(tests, choose, settings, settings.samples, settings.elite, settings.iterations, generator)
        many_of = settings.baseline_samples, max(settings.baseline_samples // 10, 1), settings.baseline_iterations
        many = _among_controls(tests, soft_top_k(*many_of[:2]), settings, *many_of, generator)
    metrics = {
        "cost_latent": latent,
        "cost_latent_untrained": untrained,
        "cost_controls": float(few.mean()),
        "cost_controls_many_samples": float(many.mean()),
        "samples_latent": float(settings.samples * settings.iterations),
        "samples_many": float(settings.baseline_samples * settings.baseline_iterations),
    }
    return Outcome(metrics, [], _drawing(curve, metrics))


def _latent(
    decoder: Decoder, starts: Tensor, choose: CvxpyLayer, settings: Settings, generator: torch.Generator
) -> Tensor:
    """The cost of the plan that a search in the latent space finds."""
    size = settings.iterations, len(starts), settings.samples, 2
    noises = torch.randn(size, generator=generator, dtype=torch.float64)
    zeros = torch.zeros(len(starts), 2, dtype=torch.float64)

    def cost(latent: Tensor) -> Tensor:
        return control_cost(starts, decoder(latent, starts))

    found = minimise(cost, zeros, zeros + 1.0, choose, settings.elite, noises)
    return cost(found[:, None])[:, 0]


def _among_controls(
    starts: Tensor,
    choose: CvxpyLayer,
    settings: Settings,
    samples: int,
    elite: int,
    iterations: int,
    generator: torch.Generator,
) -> Tensor:
    """The cost of the plan that a search among the controls themselves finds."""
    size = iterations, len(starts), samples, settings.horizon
    noises = torch.randn(size, generator=generator, dtype=torch.float64)
    zeros = torch.zeros(len(starts), settings.horizon, dtype=torch.float64)

    def cost(controls: Tensor) -> Tensor:
        return control_cost(starts, controls.clamp(-plants.FORCE, plants.FORCE))

    found = minimise(cost, zeros, zeros + 20.0, choose, elite, noises)
    return cost(found[:, None])[:, 0]


def _drawing(curve: list[float], metrics: dict[str, float]) -> Callable[[Any], None]:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        window = max(len(curve) // 8, 1)
        smooth = torch.tensor(curve).unfold(0, window, 1).mean(1)
        axes.plot(curve, linewidth=0.6, alpha=0.5, label="training: other starts at every step")
        axes.plot(torch.arange(window - 1, len(curve)), smooth, label=f"its mean over {window} steps")
        for name, style in (("cost_controls", ":"), ("cost_controls_many_samples", "--"), ("cost_latent", "-")):
            axes.axhline(metrics[name], color="black", linewidth=0.8, linestyle=style, label=name.replace("_", " "))
        axes.set_xlabel("step")
        axes.set_ylabel("cost of a plan")
        axes.legend()

    return draw


DCEM = Experiment[Settings](
    "dcem",
    "Learns a latent space of two dimensions in which a cross-entropy search plans for a cart-pole.",
    run,
    {"ci": Settings(10, 16, 10, 2, 10, 3, 2, 20, 4, 4), "full": Settings()},
)
