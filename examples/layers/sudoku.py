"""OptNet's sudoku: a quadratic program whose equations are the rules, given or learned from solved boards.

References: Amos and Kolter (2017), OptNet; https://github.com/locuslab/optnet (penalty 0.1, 40 equations).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from jaxtyping import Float

from cvxlayers.torch import CvxpyLayer
from examples.experiment import Context, Experiment, Outcome
from examples.layers.boards import CELLS, DIGITS, ENTRIES, Boards, Puzzles, draw_puzzles, rules, solutions

PENALTY = 0.1
EQUATIONS = 40


@dataclass(frozen=True)
class Settings:
    """How many boards are learned from and tested on, how many solutions are kept for testing, and how to train."""

    boards: int = 1000
    tests: int = 1000
    unseen: int = 58
    epochs: int = 40
    batch: int = 100
    lr: float = 0.01


class LearnedRules(torch.nn.Module):
    """argmin ½ 0.1 ‖z‖² − xᵀz over A z = A z₀, z ≥ 0, with A and z₀ > 0 learned: there is always a solution."""

    def __init__(self, generator: torch.Generator) -> None:
        torch.nn.Module.__init__(self)
        x, z = cp.Parameter(ENTRIES), cp.Variable(ENTRIES)
        A, b = cp.Parameter((EQUATIONS, ENTRIES)), cp.Parameter(EQUATIONS)
        problem = cp.Problem(_objective(x, z), [cp.Zero(A @ z - b), z >= 0])
        self.layer = CvxpyLayer(problem, [x, A, b], [z], solver="daqp")
        start = torch.randn(EQUATIONS, ENTRIES, dtype=torch.float64, generator=generator)
        self.A = torch.nn.Parameter(start / ENTRIES**0.5)
        self.log_inside = torch.nn.Parameter(torch.full((ENTRIES,), 1 / DIGITS, dtype=torch.float64).log())

    def forward(self, given: Boards) -> Boards:
        """Returns the answers to boards with gaps."""
        return self.layer(given, self.A, self.A @ self.log_inside.exp())[0]


def given_rules() -> CvxpyLayer:
    """Returns the layer whose equations are the rules."""
    x, z = cp.Parameter(ENTRIES), cp.Variable(ENTRIES)
    # Many boards have several active sets at their solution: an active-set solver is exact there.
    return CvxpyLayer(cp.Problem(_objective(x, z), [cp.Zero(rules() @ z - 1), z >= 0]), [x], [z], solver="daqp")


def run(settings: Settings, context: Context) -> Outcome:
    """Solves boards by the rules, learns rules from boards, and asks both about solutions not learned from."""
    rng, generator = np.random.default_rng(context.seed), torch.Generator().manual_seed(context.seed)
    order = rng.permutation(len(solutions()))
    seen, unseen = order[settings.unseen :], order[: settings.unseen]
    train, test = (
        draw_puzzles(np.resize(grids, n), rng) for grids, n in ((seen, settings.boards), (unseen, settings.tests))
    )
    learned, network = LearnedRules(generator), _network(context.seed)
    curve = _train(learned, train, test, settings, context, "rules")
    _train(network, train, test, settings, context, "network")
    metrics = {
        "accuracy_given_rules": _accuracy(lambda given: given_rules()(given)[0], test),
        "accuracy_learned_rules": _accuracy(learned, test),
        "accuracy_learned_rules_train": _accuracy(learned, train),
        "accuracy_network": _accuracy(network, test),
        "accuracy_network_train": _accuracy(network, train),
        "misfit_of_rules": _misfit(learned.A.detach()),
    }
    return Outcome(metrics, draw=lambda figure: _draw(figure, curve, learned.A.detach().numpy()))


def _objective(x: cp.Parameter, z: cp.Variable) -> cp.Minimize:
    return cp.Minimize(0.5 * PENALTY * cp.sum_squares(z) - x @ z)


def _network(seed: int) -> torch.nn.Module:
    """Returns what else one might train: two hidden layers, and a softmax in each cell."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.nn.Sequential(
            torch.nn.Linear(ENTRIES, 256, dtype=torch.float64),
            torch.nn.ReLU(),
            torch.nn.Linear(256, 256, dtype=torch.float64),
            torch.nn.ReLU(),
            torch.nn.Linear(256, ENTRIES, dtype=torch.float64),
            torch.nn.Unflatten(-1, (CELLS, DIGITS)),
            torch.nn.Softmax(dim=-1),
            torch.nn.Flatten(),
        )


def _train(
    model: torch.nn.Module, train: Puzzles, test: Puzzles, settings: Settings, context: Context, label: str
) -> list[tuple[float, float]]:
    """Learns by Adam on squared errors, the step falling along a cosine; returns loss and test accuracy by epoch."""
    rng, curve = np.random.default_rng(context.seed), []
    optimizer = torch.optim.Adam(model.parameters(), settings.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)
    for _ in context.track(range(settings.epochs), label):
        losses = []
        for batch in torch.as_tensor(rng.permutation(settings.boards)).split(settings.batch):
            optimizer.zero_grad()
            loss = (model(train.given[batch]) - train.solved[batch]).square().sum(dim=1).mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        schedule.step()
        curve.append((sum(losses) / len(losses), _accuracy(model, test)))
    return curve


@torch.no_grad()
def _accuracy(model: Any, puzzles: Puzzles) -> float:
    return puzzles.solved_by(model(puzzles.given)).double().mean().item()


def _misfit(A: Float[torch.Tensor, "equations entries"]) -> float:
    """Returns the share of the differences between solutions that the equations forbid.

    At zero they imply no more than the rules; as many as the rules, they then are the rules.
    """
    full = torch.eye(DIGITS, dtype=A.dtype)[torch.as_tensor(solutions())].flatten(1)
    differences, basis = full - full.mean(dim=0), torch.linalg.qr(A.T)[0]
    return ((differences @ basis).norm() / differences.norm()).item()


def _draw(figure: Any, curve: list[tuple[float, float]], A: np.ndarray) -> None:
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.2, 1, 1])
    losses, accuracies = zip(*curve, strict=True)
    epochs = range(1, len(curve) + 1)
    left.plot(epochs, accuracies, color="tab:blue", label="unseen solutions right")
    left.set(xlabel="epoch", ylim=(0, 1.05), title="Learning the rules")
    twin = left.twinx()
    twin.plot(epochs, losses, color="tab:orange", label="training loss")
    twin.set(ylim=(0, None))
    left.legend(handles=[*left.lines, *twin.lines], loc="upper center", bbox_to_anchor=(0.5, -0.12))
    for axes, rows, title in ((middle, A, "what was learned"), (right, rules(), "the rules")):
        axes.imshow(_projector(rows), cmap="RdBu", vmin=-0.5, vmax=0.5)
        axes.set(xticks=[], yticks=[], title=title, xlabel="projection onto the equations' rows")


def _projector(rows: np.ndarray) -> np.ndarray:
    basis = np.linalg.qr(rows.T)[0]
    return basis @ basis.T


SUDOKU = Experiment(
    "sudoku",
    "Sudoku 4 × 4 by a quadratic program: the rules given, and the rules learned from solved boards.",
    run,
    {"ci": Settings(200, 100, 58, 8, 40, 0.03), "full": Settings()},
)
