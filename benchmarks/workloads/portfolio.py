"""Markowitz portfolios over a factor model: minimise −μᵀw + ‖Fᵀw‖² + ‖d∘w‖² over the simplex."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import cvxpy as cp
import numpy as np
import torch

from benchmarks.approximate import approximate
from benchmarks.contest import Answer, Array
from benchmarks.implicit import implicit_answer
from benchmarks.peers.layers import Text, entries_of
from benchmarks.workload import Bar, Row, Task, Workload

_FACTORS = 10


def text(constants: Mapping[str, Array], assets: int, factor: float = 1.0) -> Text:
    """Returns the problem.

    Args:
        constants: F and d, where they are no parameters.
        assets: how many.
        factor: by which w ≥ 0 is multiplied: cvxpylayers 1.2 with Moreau drops the bound otherwise.
    """
    means, w = cp.Parameter(assets, name="means"), cp.Variable(assets, name="w")
    if constants:
        parameters, F, d = [means], constants["F"], constants["d"]
    else:
        F, d = cp.Parameter((assets, _FACTORS), name="F"), cp.Parameter(assets, nonneg=True, name="d")
        parameters = [means, F, d]
    cost = cp.sum_squares(F.T @ w) + cp.sum_squares(cp.multiply(d, w)) - means @ w
    constraints: list[Any] = [cp.sum(w) == 1, w >= 0 if factor == 1 else factor * w >= 0]
    return cp.Problem(cp.Minimize(cost), constraints), parameters, [w]


def prepare(*, assets: int, everything: int, batch: int, seed: int) -> Task:
    """Makes the data; the factor model is a constant, or one for each item."""
    rng = np.random.default_rng(seed)
    data = {"means": 0.3 * rng.normal(size=(batch, assets))}
    models = batch if everything else 1
    model = {
        "F": rng.normal(size=(models, assets, _FACTORS)) / np.sqrt(_FACTORS),
        "d": rng.uniform(0.3, 1.0, size=(models, assets)),
    }
    constants = {} if everything else {name: value[0] for name, value in model.items()}
    data = {**data, **model} if everything else data
    weights = rng.normal(size=(batch, assets))
    build = partial(text, constants, assets)
    entries = entries_of(build, data, weights, peer_text=partial(build, 2.0), dense=False)
    return Task(entries, partial(_exact, build(), constants, data, weights))


def _exact(problem: Text, constants: Mapping[str, Array], data: Mapping[str, Array], weights: Array) -> Answer:
    found = approximate(problem, data)
    starts = [np.append(w, duals[0]) for w, duals in found]
    held = [np.asarray(duals[1]) < w for w, duals in found]
    fixed = {name: torch.tensor(value) for name, value in constants.items()}
    return implicit_answer(partial(_conditions, **fixed), starts, held, data, weights)


def _conditions(z: torch.Tensor, held: torch.Tensor, means: torch.Tensor, F: torch.Tensor, d: torch.Tensor):
    w, price = z[:-1], z[-1]
    slope = 2 * F @ (F.mT @ w) + 2 * d * d * w - means + price
    return torch.cat([torch.where(held, slope, w), (w.sum() - 1)[None]])


WORKLOAD = Workload(
    "portfolios over a factor model, their means or everything as parameters",
    [
        Row("portfolio", {"assets": 200, "everything": everything}, batch, [Bar(3, 3)])
        for everything in (0, 1)
        for batch in (1, 32)
    ],
    prepare=prepare,
)
