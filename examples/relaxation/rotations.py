"""Rotations from noisy relative ones, by a relaxation that certifies itself, with weights learned through it.

References: Rosen, Carlone, Bandeira, Leonard, "SE-Sync: a certifiably correct algorithm for synchronization over the
special Euclidean group" (2019); Holmes, Dümbgen, Barfoot, "SDPRLayers: certifiable backpropagation through polynomial
optimization problems in robotics" (2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import cvxpy as cp
import numpy as np
import torch
from jaxtyping import Float

from cvxlayers.torch import CvxpyLayer
from examples.estimation.weights import Errors, Precisions, Settings, Task, deviation, draw_learned, learn
from examples.experiment import Context, Experiment, Outcome
from examples.relaxation.moments import eigenvalue_ratio

Matrices = Float[torch.Tensor, "*batch order order"]

FRAMES = 5
FROM, TO = torch.triu_indices(FRAMES, FRAMES, offset=1)


@dataclass(frozen=True)
class RotationGraphs:
    """Measured Rᵢ Rⱼᵀ of all pairs, the overlap of each, and the true rotations."""

    relative: Float[torch.Tensor, "graphs edges 3 3"]
    overlap: Precisions
    rotations: Float[torch.Tensor, "graphs frames 3 3"]


def rotation_layer(frames: int) -> CvxpyLayer:
    """Returns the layer C ↦ X that maximises ⟨C, X⟩ over semidefinite X whose diagonal blocks are identities.

    Where X has rank three it is R Rᵀ with R the stacked rotations (or all of them reflected, which changes no product):
    then no other rotations agree better with the measurements in C.
    """
    order = 3 * frames
    C, X = cp.Parameter((order, order), symmetric=True, name="C"), cp.Variable((order, order), PSD=True, name="X")
    blocks = [X[i : i + 3, i : i + 3] for i in range(0, order, 3)]
    identity: list[cp.Constraint] = [block == np.eye(3) for block in blocks]
    return CvxpyLayer(cp.Problem(cp.Maximize(cp.trace(C @ X)), identity), parameters=[C], variables=[X])


def sample(count: int, generator: torch.Generator) -> RotationGraphs:
    """Returns random rotations, and their products with noise that depends on the overlap."""
    rotations = _exponential(3 * torch.randn(count, FRAMES, 3, generator=generator, dtype=torch.float64))
    overlap = torch.rand(count, len(FROM), generator=generator, dtype=torch.float64)
    noise = torch.randn(count, len(FROM), 3, generator=generator, dtype=torch.float64)
    exact = rotations[:, FROM] @ rotations[:, TO].mT
    return RotationGraphs(_exponential(deviation(overlap)[..., None] * noise) @ exact, overlap, rotations)


def _exponential(vectors: Float[torch.Tensor, "*batch 3"]) -> Float[torch.Tensor, "*batch 3 3"]:
    """Returns the rotations about these axes, by angles that are their lengths."""
    x, y, z = vectors.unbind(dim=-1)
    zero = torch.zeros_like(x)
    rows = [torch.stack(row, dim=-1) for row in ((zero, -z, y), (z, zero, -x), (-y, x, zero))]
    return torch.linalg.matrix_exp(torch.stack(rows, dim=-2))


def agreement(graphs: RotationGraphs, weights: Precisions) -> Matrices:
    """Returns C with the weighted measurements in its blocks, their weights one on average."""
    scaled = weights / weights.mean(dim=1, keepdim=True)
    place = torch.zeros(len(FROM), FRAMES, FRAMES, dtype=weights.dtype)
    place[torch.arange(len(FROM)), FROM, TO] = 1.0
    C = torch.einsum("be,beij,efg->bfigj", scaled, graphs.relative, place).flatten(3).flatten(1, 2)
    return (C + C.mT) / 2


def rotation_error(layer: CvxpyLayer, graphs: RotationGraphs, weights: Precisions) -> Errors:
    """Returns the mean squared angle, to first order, between estimated and true products Rᵢ Rⱼᵀ, in radians."""
    (X,) = layer(agreement(graphs, weights))
    R = graphs.rotations.flatten(1, 2)
    return (X - R @ R.mT).square().sum(dim=(1, 2)) / (2 * FRAMES * (FRAMES - 1))


def run(settings: Settings, context: Context) -> Outcome:
    """Learns the weights of measurements from their overlap, and certifies every estimate on unseen graphs."""
    layer = rotation_layer(FRAMES)
    learned = learn(Task(sample, partial(rotation_error, layer)), settings, context)
    generator = torch.Generator().manual_seed(context.seed + 1)
    unseen = sample(settings.test, generator)
    (X,) = layer(agreement(unseen, deviation(unseen.overlap) ** -2))
    ratio = eigenvalue_ratio(X, rank=3)
    metrics = {**learned.metrics(), "eigenvalue_ratio": ratio.max().item(), "tight": (ratio < 1e-6).double().mean()}
    return Outcome(metrics, draw=partial(draw_learned, learned))


EXPERIMENT = Experiment(
    "rotations",
    "Learns how much to trust each relative rotation, through a relaxation that certifies the estimate.",
    run,
    {"ci": Settings(learners=2, train=4, test=6, epochs=4), "full": Settings()},
)
