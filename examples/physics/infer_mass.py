"""Infers the mass of a chain from its trajectory after a ball has hit it, by gradients through all time steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

from examples.experiment import Context, Experiment, Outcome
from examples.physics.chain import Bodies, Scene, simulate, step_layer

_DIFFERENCE = 1e-6
_TOUCHING = 1e-6


@dataclass(frozen=True)
class Settings:
    """The chain, what is observed of it, and how its mass is sought.

    Attributes:
        links: masses of the chain.
        steps: of time.
        total_mass: of the chain, to be found.
        noise: standard deviation of the observed positions, in metres.
        starts: first guesses, between a quarter and four times the mass.
        iterations: of Rprop on the logarithm of the mass; its steps know each slope's sign alone.
        lr: its first step, and its longest.
    """

    links: int = 10
    steps: int = 60
    total_mass: float = 7.0
    noise: float = 0.002
    starts: int = 5
    iterations: int = 30
    lr: float = 0.3


def run(settings: Settings, context: Context) -> Outcome:
    """Observes a trajectory, guesses masses, and moves all guesses at once until their trajectories fit."""
    generator = torch.Generator().manual_seed(context.seed)
    scene, layer = Scene(settings.links, settings.steps), step_layer(settings.links)
    true = torch.tensor(settings.total_mass / settings.links, dtype=torch.float64)
    path, _ = simulate(layer, scene, true)
    observed = path + settings.noise * torch.randn(path.shape, generator=generator, dtype=path.dtype)
    uniform = torch.rand(settings.starts, generator=generator, dtype=torch.float64)
    logarithm = (true.log() + (2 * uniform - 1) * torch.tensor(4.0).log()).requires_grad_()
    gradient_error, compared = check_gradient(layer, scene, observed, logarithm.detach().exp())
    optimizer = torch.optim.Rprop([logarithm], lr=settings.lr, step_sizes=(1e-9, settings.lr))
    guesses, losses = [logarithm.detach().exp()], []
    for _ in context.track(range(settings.iterations), "Rprop"):
        loss = misfit(simulate(layer, scene, logarithm.exp())[0], observed)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        losses.append(loss.detach())
        guesses.append(logarithm.detach().exp())
    history = torch.stack(guesses) / true
    metrics = {
        "relative_mass_error": (history[-1] - 1).abs().max().item(),
        "relative_mass_error_before": (history[0] - 1).abs().max().item(),
        "misfit": losses[-1].max().item(),
        "misfit_of_true_mass": misfit(path, observed).item(),
        "gradient_error": gradient_error,
        "gradients_compared": compared,
    }
    return Outcome(metrics, draw=Picture(scene, path.detach(), observed, history).draw)


def misfit(path: Bodies, observed: Bodies) -> Float[torch.Tensor, "*batch"]:
    """Returns the mean squared distance between two trajectories."""
    return (path - observed).square().sum(dim=-1).mean(dim=(-2, -1))


def check_gradient(
    layer: Any, scene: Scene, observed: Bodies, masses: Float[torch.Tensor, " starts"]
) -> tuple[float, float]:
    """Returns the largest relative error of the gradient against central differences, and the share compared.

    A contact that closes or opens between the two sides of a difference is a kink, where neither is right: those
    starts are left out.
    """
    leaf = masses.clone().requires_grad_()
    loss = misfit(simulate(layer, scene, leaf)[0], observed)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    with torch.no_grad():
        (above, gaps_above), (below, gaps_below) = (
            simulate(layer, scene, masses * (1 + sign * _DIFFERENCE)) for sign in (1, -1)
        )
    difference = (misfit(above, observed) - misfit(below, observed)) / (2 * _DIFFERENCE * masses)
    same = ((gaps_above < _TOUCHING) == (gaps_below < _TOUCHING)).all(dim=(-2, -1))
    error = (gradient - difference).abs() / difference.abs()
    return error[same].max().item() if same.any() else float("nan"), same.double().mean().item()


@dataclass(frozen=True)
class Picture:
    """The trajectory with what was observed of it, and the guesses on their way."""

    scene: Scene
    path: Bodies
    observed: Bodies
    history: Float[torch.Tensor, "iterations starts"]

    def draw(self, figure: Any) -> None:
        """Draws the chain at several times, and the masses over the iterations."""
        left, right = figure.subplots(1, 2)
        self._draw_motion(left)
        right.semilogy(self.history, color="tab:blue", alpha=0.7)
        right.axhline(1.0, color="0.3", linestyle=":")
        right.set(xlabel="iteration", ylabel="mass of the chain, relative to the true one")

    def _draw_motion(self, axes: Any) -> None:
        from matplotlib import colormaps
        from matplotlib.patches import Circle

        shown = torch.linspace(0, self.scene.steps - 1, 8).long().tolist()
        for place, step in enumerate(shown):
            colour = colormaps["viridis"](place / len(shown))
            x, y = torch.cat([torch.zeros(1, 2, dtype=self.path.dtype), self.path[step, :-1]]).T
            axes.plot(x, y, "o-", color=colour, markersize=4, label=f"{(step + 1) * self.scene.time_step:.2f} s")
            centre = self.path[step, -1, 0].item(), self.path[step, -1, 1].item()
            axes.add_patch(Circle(centre, self.scene.radius, fill=False, edgecolor=colour))
            axes.plot(*self.observed[step].T, ".", color="0.3", markersize=2)
        axes.set(xlabel="x (m)", ylabel="y (m)", title="the chain, the ball, the observations (dots)")
        axes.set_aspect("equal")
        axes.set(xlim=(-0.8, 1.4), ylim=(-2.2, 0.1))
        axes.legend(fontsize="small", loc="upper right")


EXPERIMENT = Experiment(
    "chain",
    "Infers the mass of a chain from its motion after a ball has hit it.",
    run,
    {"ci": Settings(links=3, steps=30, starts=3, iterations=25), "full": Settings()},
)
