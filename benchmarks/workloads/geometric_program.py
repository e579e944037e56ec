"""A geometric program: the box of largest volume under limits of wall, floor and aspect (Boyd et al. 2007)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cvxpy as cp
import numpy as np
import torch

from benchmarks.approximate import approximate
from benchmarks.contest import Answer, Array
from benchmarks.implicit import implicit_answer
from benchmarks.peers.layers import Text, entries_of
from benchmarks.workload import Bar, Row, Task, Workload

NAMES = ("wall", "floor", "low", "high", "narrow", "wide")


def text() -> Text:
    """Returns the problem, its six limits, and its variable: height, width, depth."""
    wall, floor, low, high, narrow, wide = (cp.Parameter(pos=True, name=name) for name in NAMES)
    size = cp.Variable(3, pos=True, name="size")
    h, w, d = size[0], size[1], size[2]
    constraints: list[Any] = [
        2 * (h * w + h * d) <= wall,
        w * d <= floor,
        h / w >= low,
        h / w <= high,
        d / w >= narrow,
        d / w <= wide,
    ]
    return cp.Problem(cp.Maximize(h * w * d), constraints), [wall, floor, low, high, narrow, wide], [size]


def prepare(*, batch: int, seed: int) -> Task:
    """Makes limits around those of CVXPY's example."""
    rng = np.random.default_rng(seed)
    middle = {"wall": 200.0, "floor": 50.0, "low": 0.5, "high": 2.0, "narrow": 0.5, "wide": 2.0}
    data = {name: value * np.exp(rng.uniform(-0.2, 0.2, size=batch)) for name, value in middle.items()}
    weights = rng.normal(size=(batch, 3))
    entries = entries_of(text, data, weights, gp=True, quadratic=False)
    return Task(entries, lambda: _exact(data, weights))


def _exact(data: Mapping[str, Array], weights: Array) -> Answer:
    problem = text()
    starts, marks = [], []
    for size, duals in approximate(problem, data, gp=True):
        multipliers = np.abs(np.array(duals, dtype=float))
        starts.append(np.concatenate([size, multipliers]))
        marks.append(multipliers > 1e-6)
    return implicit_answer(_conditions, starts, marks, data, weights)


def _conditions(z: torch.Tensor, active: torch.Tensor, **limits: torch.Tensor) -> torch.Tensor:
    """In the logarithms of the sizes: the cost's gradient balances those of the active limits."""
    size, multipliers = z[:3], z[3:]
    logs = torch.log(size)

    def slack(u: torch.Tensor) -> torch.Tensor:
        h, w, d = u
        used = torch.stack(
            [torch.logaddexp(h + w, h + d) + np.log(2.0), w + d, w - h, h - w, w - d, d - w],
        )
        allowed = [
            limits["wall"],
            limits["floor"],
            1 / limits["low"],
            limits["high"],
            1 / limits["narrow"],
            limits["wide"],
        ]
        return used - torch.log(torch.stack(allowed))

    held = torch.where(active, multipliers, torch.zeros_like(multipliers))
    pulled = torch.func.jacfwd(slack)(logs).mT @ held
    return torch.cat([pulled - 1, torch.where(active, slack(logs), multipliers)])


WORKLOAD = Workload(
    "a geometric program in three variables",
    [Row("geometric_program", {}, batch, [Bar(1.3, 1.5)] if batch == 128 else []) for batch in (1, 128)],
    prepare=prepare,
)
