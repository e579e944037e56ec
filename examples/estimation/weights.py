"""Weights of measurements, learned from how well the estimate that they lead to agrees with the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from jaxtyping import Float

from examples.experiment import Context

Precisions = Float[torch.Tensor, "graphs edges"]
Errors = Float[torch.Tensor, " graphs"]

# Deviation of a measurement without overlap, and by how much its logarithm falls to that of one with full overlap.
_WORST, _FALL = 0.6, 3.0
_DIFFERENCE = 1e-5


class Graphs(Protocol):
    """Graphs whose edges are measurements, each with what is known of its quality before the estimate."""

    @property
    def overlap(self) -> Precisions:
        """In [0, 1]: how much two poses see of each other's surroundings."""
        ...


Kind = TypeVar("Kind", bound=Graphs)


@dataclass(frozen=True)
class Settings:
    """How many graphs are learned from and tested on, by how many independent learners, and how."""

    learners: int = 5
    train: int = 12
    test: int = 20
    epochs: int = 20
    lr: float = 0.5


@dataclass(frozen=True)
class Task(Generic[Kind]):
    """What is estimated: random graphs, and the error of the estimate under the precisions of its measurements."""

    sample: Callable[[int, torch.Generator], Kind]
    error: Callable[[Kind, Precisions], Errors]


def deviation(overlap: Precisions) -> Precisions:
    """Returns the true deviation of measurements: twenty times as large without overlap as with full overlap."""
    return _WORST * torch.exp(-_FALL * overlap)


def precisions(theta: Float[torch.Tensor, "learners 3"], overlap: Precisions) -> Precisions:
    """Returns learned precisions, exp of a cubic in the overlap: the first graphs are the first learner's."""
    share = len(overlap) // len(theta)
    powers = torch.stack([overlap, overlap**2, overlap**3], dim=-1)
    return torch.exp((powers @ theta.repeat_interleave(share, dim=0)[..., None])[..., 0])


@dataclass(frozen=True)
class Learned:
    """The weights of each learner, its training errors, and its errors on graphs that it has not seen."""

    theta: Float[torch.Tensor, "learners 3"]
    curve: Float[torch.Tensor, "epochs learners"]
    uniform: Float[torch.Tensor, " learners"]
    learned: Float[torch.Tensor, " learners"]
    true: Float[torch.Tensor, " learners"]
    gradient_error: float

    def metrics(self) -> dict[str, float]:
        """Returns mean errors, and the gain over uniform weights with its standard error over the learners."""
        gain = 1 - self.learned / self.uniform
        spread = gain.std().item() / len(gain) ** 0.5 if len(gain) > 1 else float("nan")
        return {
            "test_error_uniform": self.uniform.mean().item(),
            "test_error_learned": self.learned.mean().item(),
            "test_error_true_precisions": self.true.mean().item(),
            "gain": gain.mean().item(),
            "gain_standard_error": spread,
            "gradient_error": self.gradient_error,
        }


def learn(task: Task[Any], settings: Settings, context: Context) -> Learned:
    """Lets independent learners, each with graphs of its own, find weights: all graphs of all are one batch."""
    generator = torch.Generator().manual_seed(context.seed)
    train, test = (task.sample(settings.learners * count, generator) for count in (settings.train, settings.test))
    theta = torch.zeros(settings.learners, 3, dtype=torch.float64, requires_grad=True)
    optimizer, curve = torch.optim.Adam([theta], lr=settings.lr), []

    def by_learner(errors: Errors) -> Float[torch.Tensor, " learners"]:
        return errors.reshape(settings.learners, -1).mean(dim=1)

    def errors(theta: torch.Tensor) -> Float[torch.Tensor, " learners"]:
        return by_learner(task.error(train, precisions(theta, train.overlap)))

    gradient_error = _gradient_error(errors, theta.detach())
    for step in context.track(range(settings.epochs), "learning weights"):
        optimizer.param_groups[0]["lr"] = settings.lr * (1 - step / settings.epochs)
        loss = errors(theta)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        curve.append(loss.detach())
    with torch.no_grad():
        ways = torch.ones_like(test.overlap), precisions(theta, test.overlap), deviation(test.overlap) ** -2
        uniform, learned, true = (by_learner(task.error(test, way)) for way in ways)
    return Learned(theta.detach(), torch.stack(curve), uniform, learned, true, gradient_error)


def _gradient_error(errors: Callable[[torch.Tensor], torch.Tensor], theta: torch.Tensor) -> float:
    """Returns the largest relative error, over the learners, of the derivative along (1, 1, 1)."""
    leaf = theta.clone().requires_grad_()
    slope = torch.autograd.grad(errors(leaf).sum(), leaf)[0].sum(dim=1)
    with torch.no_grad():
        difference = (errors(theta + _DIFFERENCE) - errors(theta - _DIFFERENCE)) / (2 * _DIFFERENCE)
    return ((slope - difference).abs() / difference.abs()).max().item()


def draw_learned(learned: Learned, figure: Any) -> None:
    """Draws the learned precisions against the true ones, and the errors on unseen graphs."""
    left, right = figure.subplots(1, 2)
    overlap = torch.linspace(0, 1, 100, dtype=torch.float64)
    grid = overlap.expand(len(learned.theta), -1)
    for line in precisions(learned.theta, grid):
        left.semilogy(overlap, line / line.mean(), color="tab:blue", alpha=0.6)
    true = deviation(overlap) ** -2
    left.semilogy(overlap, true / true.mean(), "k:", label="true precision")
    left.set(xlabel="overlap", ylabel="weight (mean 1)", title="learned weights, one line a learner")
    left.legend()
    for values in torch.stack([learned.uniform, learned.learned, learned.true], dim=1):
        right.plot(["uniform", "learned", "true precisions"], values, "o-", color="tab:blue", alpha=0.6)
    right.set(ylabel="error on unseen graphs", title="one line a learner")
    right.set_ylim(bottom=0)
