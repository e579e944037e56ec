"""Imitation of an LQR expert: what the expert believes, or what it wants, is learnt from what it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import torch

from cvxlayers.torch import CvxpyLayer
from examples.control.plots import COLOURS
from examples.experiment import Context, Experiment, Outcome

Tensor = torch.Tensor

N, M, T = 3, 3, 5
EXPERT_SEED = 42


@dataclass(frozen=True)
class Settings:
    """How long and how fast to learn, and how many learners: each has a seed, from 0 on."""

    steps: int = 5000
    batch: int = 128
    lr: float = 1e-2
    learners: int = 8


def draw_model(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draws p, A and B as the published experiment does (Amos et al., 2018): in single precision, p twice."""
    random = torch.Generator().manual_seed(seed)
    torch.randn(N + M, generator=random)
    p = torch.randn(N + M, generator=random)
    A = torch.eye(N) + 0.2 * torch.randn(N, N, generator=random)
    return p.double(), A.double(), torch.randn(N, M, generator=random).double()


def learner_model(seed: int) -> tuple[Tensor, Tensor]:
    """Draws the A and B that a learner begins with."""
    random = torch.Generator().manual_seed(seed)
    A = torch.eye(N) + 0.2 * torch.randn(N, N, generator=random)
    return A.double(), torch.randn(N, M, generator=random).double()


def planner() -> CvxpyLayer:
    """Returns the layer (x₀, A, B, q, p) → (x, u) that minimises Σ ½ τ'diag(q)τ + p'τ over x⁺ = A x + B u."""
    x0, A, B = cp.Parameter(N, name="x0"), cp.Parameter((N, N), name="A"), cp.Parameter((N, M), name="B")
    q, p = cp.Parameter(N + M, nonneg=True, name="q"), cp.Parameter(N + M, name="p")
    x, u = cp.Variable((T, N), name="x"), cp.Variable((T, M), name="u")
    cost = 0.5 * (q[:N] @ cp.sum(cp.square(x), axis=0) + q[N:] @ cp.sum(cp.square(u), axis=0))
    cost += p[:N] @ cp.sum(x, axis=0) + p[N:] @ cp.sum(u, axis=0)
    dynamics: list[cp.Constraint] = [x[0] == x0, x[1:].T == A @ x[:-1].T + B @ u[:-1].T]
    return CvxpyLayer(cp.Problem(cp.Minimize(cost), dynamics), [x0, A, B, q, p], [x, u])


@dataclass(frozen=True)
class Expert:
    """An expert and the layer it plans with."""

    plan: CvxpyLayer
    A: Tensor
    B: Tensor
    q: Tensor
    p: Tensor

    def loss(self, x0: Tensor, A: Tensor, B: Tensor, q: Tensor, p: Tensor) -> Tensor:
        """Returns each learner's mean squared distance to the expert's plans; learners are the first axis."""
        with torch.no_grad():
            x, u = self.plan(x0, self.A, self.B, self.q, self.p)
        x_hat, u_hat = self.plan(x0, *(value.unsqueeze(1) for value in (A, B, q, p)))
        return ((x_hat - x).square() + (u_hat - u).square()).mean(dim=(1, 2, 3))


def expert() -> Expert:
    """Returns the published expert."""
    p, A, B = draw_model(EXPERT_SEED)
    return Expert(planner(), A, B, torch.ones(N + M, dtype=torch.float64), p)


def run_model(settings: Settings, context: Context) -> Outcome:
    """Learns A and B; the cost is known. All learners are solved in one call, and learn on states of their own."""
    known = expert()
    models = [learner_model(seed) for seed in range(settings.learners)]
    A, B = (torch.stack(values).requires_grad_() for values in zip(*models, strict=True))
    q, p = (value.expand(settings.learners, -1) for value in (known.q, known.p))

    def error() -> Tensor:
        return (A - known.A).square().mean(dim=(1, 2)) + (B - known.B).square().mean(dim=(1, 2))

    curves = _learn(settings, context, [A, B], lambda x0: known.loss(x0, A, B, q, p), error)
    at_1000 = curves["error"][min(1000, settings.steps)]
    metrics = {
        "trajectory_loss": curves["loss"][-1].tolist(),
        "model_loss_before": curves["error"][0].tolist(),
        "model_loss": at_1000.tolist(),
        "model_loss_at_end": curves["error"][-1].tolist(),
    }
    note = "model_loss is the mean squared error of A plus that of B, for each seed, at step 1000 or at the end"
    return Outcome(metrics, [note], lambda figure: _draw(figure, curves, "error of A and B"))


def run_cost(settings: Settings, context: Context) -> Outcome:
    """Learns q and p; the dynamics are known. Plans determine the cost up to its scale: both are scaled to |q| = 1."""
    known = expert()
    random = torch.Generator().manual_seed(context.seed)
    logits = torch.randn(settings.learners, N + M, generator=random, dtype=torch.float64).requires_grad_()
    p = torch.zeros(settings.learners, N + M, dtype=torch.float64, requires_grad=True)
    A, B = (value.expand(settings.learners, -1, -1) for value in (known.A, known.B))

    def error() -> Tensor:
        scale, size = logits.sigmoid().norm(dim=1, keepdim=True), known.q.norm()
        q_error = (logits.sigmoid() / scale - known.q / size).norm(dim=1)
        return q_error + (p / scale - known.p / size).norm(dim=1)

    curves = _learn(settings, context, [logits, p], lambda x0: known.loss(x0, A, B, logits.sigmoid(), p), error)
    metrics = {
        "trajectory_loss_before": curves["loss"][0].tolist(),
        "trajectory_loss": curves["loss"][-1].tolist(),
        "cost_error_before": curves["error"][0].tolist(),
        "cost_error": curves["error"][-1].tolist(),
    }
    return Outcome(metrics, draw=lambda figure: _draw(figure, curves, "error of the cost, up to its scale"))


def _learn(
    settings: Settings,
    context: Context,
    parameters: Sequence[Tensor],
    loss: Callable[[Tensor], Tensor],
    error: Callable[[], Tensor],
) -> dict[str, Tensor]:
    """Descends by RMSprop, which treats each learner by itself; returns losses and errors (steps, learners)."""
    optimiser = torch.optim.RMSprop(parameters, lr=settings.lr)
    states = [torch.Generator().manual_seed(1000 + context.seed + index) for index in range(settings.learners)]
    state: Mapping[str, Any] = context.resume() or {"step": 0, "loss": [], "error": []}
    if "optimiser" in state:
        optimiser.load_state_dict(state["optimiser"])
        for parameter, kept in zip(parameters, state["parameters"], strict=True):
            parameter.data.copy_(kept)
        for generator, kept in zip(states, state["states"], strict=True):
            generator.set_state(kept)
    losses, errors = list(state["loss"]), list(state["error"])
    for step in context.track(range(int(state["step"]), settings.steps), "imitating"):
        x0 = torch.stack([torch.randn(settings.batch, N, generator=g, dtype=torch.float64) for g in states])
        optimiser.zero_grad()
        each = loss(x0)
        losses.append(each.detach())
        errors.append(error().detach())
        each.sum().backward()
        optimiser.step()
        if (step + 1) % 100 == 0:
            kept = {"parameters": [value.detach() for value in parameters], "states": [g.get_state() for g in states]}
            context.keep(
                {"step": step + 1, "loss": losses, "error": errors, "optimiser": optimiser.state_dict(), **kept}
            )
    return {"loss": torch.stack(losses), "error": torch.stack([*errors, error().detach()])}


def _draw(figure: Any, curves: dict[str, Tensor], label: str) -> None:
    panels = figure.subplots(1, 2)
    for axes, key, title in zip(panels, ("loss", "error"), ("imitation loss", label), strict=True):
        for seed, curve in enumerate(curves[key].T):
            style = "-" if seed < len(COLOURS) else "--"
            axes.semilogy(curve, style, color=COLOURS[seed % len(COLOURS)], linewidth=1, label=f"learner {seed}")
        axes.set_xlabel("step")
        axes.set_ylabel(title)
    panels[1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


IMITATION_LQR = Experiment(
    "imitation-lqr",
    "Learns the dynamics A, B that an LQR expert believes in from its plans alone; eight learners side by side.",
    run_model,
    {"ci": Settings(steps=40, batch=16), "full": Settings()},
    {"model_loss_at_end": [16.0, 8e-5, 1e-5, 8e-5, 1e-5, 16.0, 16.0, 16.0]},
)
IMITATION_COST = Experiment(
    "imitation-cost",
    "Learns the cost of an LQR expert, up to its scale, from its plans alone.",
    run_cost,
    {"ci": Settings(steps=60, batch=16, learners=2), "full": Settings(steps=1500, learners=4)},
)
