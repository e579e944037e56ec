"""Shortest paths on a 5 × 5 grid as a layer, and the published way to draw their costs.

References: Elmachtoub and Grigas (2022), Smart "predict, then optimize";
https://github.com/paulgrigas/SmartPredictThenOptimize.
"""

from __future__ import annotations

from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import torch
from jaxtyping import Float

from cvxlayers.torch import CvxpyLayer

SIDE, EDGES, FEATURES = 5, 40, 5
# A program this close to the linear one has its solution, a path, unless two paths cost the same to within as much; and
# it is strictly convex, which active-set methods need, the fastest by far on the vertices of this polytope.
SHARP = 1e-5

Costs = Float[torch.Tensor, "*batch edges"]


@dataclass(frozen=True)
class Trips:
    """Features of each trip and the costs of the edges on that day, of mean one."""

    x: Float[torch.Tensor, "trips features"]
    costs: Float[torch.Tensor, "trips edges"]


def incidence() -> Float[np.ndarray, "nodes edges"]:
    """Returns +1 where an edge, to the right or down, leaves a node and −1 where it arrives."""
    node = np.arange(SIDE**2).reshape(SIDE, SIDE)
    starts = np.concatenate([node[:, :-1].ravel(), node[:-1].ravel()])
    ends = np.concatenate([node[:, 1:].ravel(), node[1:].ravel()])
    every = np.arange(SIDE**2)[:, None]
    return (every == starts).astype(float) - (every == ends)


def path_layer(smoothing: float = SHARP) -> CvxpyLayer:
    """Returns the layer c ↦ argmin cᵀw + ½ smoothing ‖w‖² over flows w of one from corner to corner."""
    c, w = cp.Parameter(EDGES), cp.Variable(EDGES)
    supply = np.zeros(SIDE**2)
    supply[0] = 1
    # The balance of the last node follows from the others.
    balance = cp.Zero(incidence()[:-1] @ w - supply[:-1])
    objective = c @ w + (0.5 * smoothing * cp.sum_squares(w) if smoothing else 0)
    return CvxpyLayer(cp.Problem(cp.Minimize(objective), [balance, w >= 0]), [c], [w])


def draw_map(rng: np.random.Generator) -> Float[np.ndarray, "edges features"]:
    """Returns which features matter to which edges."""
    return rng.integers(0, 2, (EDGES, FEATURES)).astype(float)


def draw_trips(
    matters: Float[np.ndarray, "edges features"], trips: int, degree: int, rng: np.random.Generator
) -> Trips:
    """Draws features, and costs ((B x) / √5 + 3)ᵈ + 1 without noise, divided by the expected order of size."""
    x = rng.normal(size=(trips, FEATURES))
    costs = (x @ matters.T / FEATURES**0.5 + 3) ** degree + 1
    return Trips(torch.as_tensor(x), torch.as_tensor(costs / (3.5**degree + 1)))


def regret(layer: CvxpyLayer, predicted: Costs, true: Costs) -> float:
    """Returns by what share the paths chosen by predicted costs are longer than the shortest, on average."""
    with torch.no_grad():
        chosen, best = (layer(costs)[0] for costs in (predicted, true))
    return ((true * (chosen - best)).sum() / (true * best).sum()).item()
