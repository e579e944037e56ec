"""Predictive control in closed loop: each step solves from the plan of the step before, or from nothing.

The answer is the states that are passed through, and the gradient of the last plan with respect to the last state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.contest import Answer, Array, Contender, Entry
from benchmarks.workload import Bar, Row, Task, Workload
from benchmarks.workloads.box_mpc import BOUND
from benchmarks.workloads.control import exact_answer, random_data, text
from cvxlayers import CvxpyLayer

_COLD = "cvxlayers, no warm start"
Controls = Callable[[Array], Array]


def prepare(*, n: int, m: int, horizon: int, steps: int, batch: int, seed: int) -> Task:
    """Makes the systems, the two ways to control them, and the exact controls."""
    data = random_data(n, m, batch, seed)
    weights = np.random.default_rng(seed + 1).normal(size=(batch, m, horizon))
    build = partial(text, n, m, horizon, BOUND)

    def contender(warm: bool) -> Contender:
        layer = CvxpyLayer(*build())
        return Contender(
            lambda: rollout(_planner(layer, data, warm), data, steps),
            lambda: partial(_identity, _answer(layer, data, weights, steps, warm)),
        )

    def exact() -> Answer:
        def plan(state: Array) -> Array:
            here = exact_answer(build, horizon, BOUND, {**data, "x0": state}, weights)
            found.append(here.gradients["x0"])
            return here.solution

        found: list[Array] = []
        return Answer(rollout(plan, data, steps), {"x0": found[-1]})

    return Task([Entry("cvxlayers", partial(contender, True), "ours"), Entry(_COLD, partial(contender, False))], exact)


def rollout(plan: Controls, data: dict[str, Array], steps: int) -> Array:
    """Applies the first control of each plan; returns the states, of shape (batch, steps, n)."""
    state, states = data["x0"], []
    for _ in range(steps):
        states.append(state)
        control = plan(state)[:, :, 0]
        state = np.einsum("bij,bj->bi", data["A"], state) + np.einsum("bij,bj->bi", data["B"], control)
    return np.stack(states, axis=1)


def _planner(layer: CvxpyLayer, data: dict[str, Array], warm: bool) -> Controls:
    last: list[Any] = [None]

    def plan(state: Array) -> Array:
        result = layer.solve(data["Q"], data["R"], data["A"], data["B"], state, warm_start=last[0])
        if warm:
            last[0] = result
        return result.variables[0]

    return plan


def _answer(layer: CvxpyLayer, data: dict[str, Array], weights: Array, steps: int, warm: bool) -> Answer:
    states = rollout(_planner(layer, data, warm), data, steps)
    gradients, _ = layer.vjp([data["Q"], data["R"], data["A"], data["B"], states[:, -1]], [weights])
    return Answer(states, {"x0": gradients[-1]})


def _identity(answer: Answer) -> Answer:
    return answer


WORKLOAD = Workload(
    "predictive control in closed loop, each step from the plan of the one before",
    [Row("warm_start", {"n": 4, "m": 2, "horizon": 20, "steps": 40}, 32, [Bar(1, 2, _COLD)])],
    prepare=prepare,
)
