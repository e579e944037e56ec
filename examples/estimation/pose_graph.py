"""A robot's poses in the plane from odometry and loop closures, whose weights are learned through the estimate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float

from examples.estimation.gauss_newton import Solver, gauss_newton_layer, newton_layer
from examples.estimation.weights import Errors, Precisions, Settings, Task, deviation, draw_learned, learn
from examples.experiment import Context, Experiment, Outcome

Poses = Float[torch.Tensor, "*batch poses 3"]
Moves = Float[torch.Tensor, "*batch edges 3"]

POSES = 8
# The way around a block, and who sees whom again.
_STEPS = [(i, i + 1) for i in range(POSES - 1)]
_CLOSURES = [(0, 7), (1, 7), (0, 6), (1, 6), (2, 7), (0, 5), (2, 6), (1, 5)]
FROM, TO = torch.tensor(_STEPS + _CLOSURES).T
_ITERATIONS = 10


@dataclass(frozen=True)
class PoseGraphs:
    """Measured moves between poses, the overlap of each, and the true poses."""

    moves: Moves
    overlap: Precisions
    poses: Poses


def sample(count: int, generator: torch.Generator) -> PoseGraphs:
    """Returns ways around a block; half of the closures have so little overlap that they are nearly worthless."""
    bends = 2 * torch.pi / POSES + 0.2 * torch.randn(count, POSES, generator=generator, dtype=torch.float64)
    angles = bends.cumsum(dim=-1)
    strides = torch.stack([angles.cos(), angles.sin()], dim=-1)
    poses = torch.cat([strides.cumsum(dim=1), angles[..., None]], dim=-1)
    poses = _as_seen_from_first(poses)
    shape = count, len(FROM)
    overlap = torch.rand(shape, generator=generator, dtype=torch.float64)
    overlap[:, : len(_STEPS)] = 0.5 + 0.5 * overlap[:, : len(_STEPS)]  # consecutive poses see each other well
    noise = deviation(overlap)[..., None] * torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    return PoseGraphs(_between(poses) + noise * torch.tensor([1.0, 1.0, 0.5]), overlap, poses)


def residual(z: torch.Tensor, moves: Moves, roots: torch.Tensor) -> torch.Tensor:
    """Returns the weighted errors of all moves of one graph; the first pose is the origin."""
    poses = torch.cat([torch.zeros(1, 3, dtype=z.dtype), z.reshape(-1, 3)])
    error = _between(poses) - moves
    turn = torch.atan2(error[:, 2].sin(), error[:, 2].cos())
    return (roots[:, None] * torch.cat([error[:, :2], 2 * turn[:, None]], dim=-1)).flatten()


def _between(poses: Poses) -> Moves:
    """Returns each edge's move, in the frame of the pose that it starts from."""
    origin, end = poses[..., FROM, :], poses[..., TO, :]
    cos, sin = origin[..., 2].cos(), origin[..., 2].sin()
    dx, dy, turn = (end - origin).unbind(dim=-1)
    return torch.stack([cos * dx + sin * dy, cos * dy - sin * dx, turn], dim=-1)


def _as_seen_from_first(poses: Poses) -> Poses:
    first = poses[:, :1]
    dx, dy, turn = (poses - first).unbind(dim=-1)
    cos, sin = first[..., 2].cos(), first[..., 2].sin()
    return torch.stack([cos * dx + sin * dy, cos * dy - sin * dx, turn], dim=-1)


def dead_reckoning(moves: Moves) -> Poses:
    """Returns the poses that the odometry alone gives: where the solver starts."""
    poses = [torch.zeros_like(moves[:, 0])]
    for step in range(POSES - 1):
        x, y, angle = poses[-1].unbind(dim=-1)
        dx, dy, turn = moves[:, step].unbind(dim=-1)
        cos, sin = angle.cos(), angle.sin()
        poses.append(torch.stack([x + cos * dx - sin * dy, y + sin * dx + cos * dy, angle + turn], dim=-1))
    return torch.stack(poses, dim=1)


def pose_solver() -> Solver:
    """Returns Gauss and Newton's method for the poses of a graph."""
    unknowns = 3 * (POSES - 1)
    return Solver(residual, gauss_newton_layer(3 * len(FROM), unknowns), newton_layer(unknowns), _ITERATIONS)


def position_error(solver: Solver, graphs: PoseGraphs, weights: Precisions) -> Errors:
    """Returns the mean squared error of the estimated positions of each graph, differentiable in the weights."""
    start = dead_reckoning(graphs.moves)[:, 1:].flatten(1)
    scaled = weights / weights.mean(dim=1, keepdim=True).detach()  # the size of all weights changes nothing
    z = solver.solve(start, [graphs.moves, scaled.sqrt()], "implicit")
    gap = z.unflatten(1, (-1, 3)) - graphs.poses[:, 1:]
    return gap[..., :2].square().sum(dim=-1).mean(dim=-1)


def run(settings: Settings, context: Context) -> Outcome:
    """Learns the weights of measurements from their overlap, and compares them on graphs not seen before."""
    learned = learn(Task(sample, partial(position_error, pose_solver())), settings, context)
    return Outcome(learned.metrics(), draw=partial(draw_learned, learned))


EXPERIMENT = Experiment(
    "pose-graph",
    "Learns how much to trust each measurement of a pose graph, through Gauss and Newton's method.",
    run,
    {"ci": Settings(learners=2, train=6, test=10, epochs=5), "full": Settings()},
)
