"""One epoch of tuning a box-constrained policy.

A rollout of `horizon` steps calls the layer as often, on `batch` states at once, and is differentiated through all of
them. The answer is the mean cost and its gradient with respect to the policy's parameters.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import scipy.linalg
import torch

from benchmarks.contest import Answer, Contender, Entry
from benchmarks.torch_layer import Layer
from benchmarks.workload import Row, Task, Workload
from cvxlayers.torch import CvxpyLayer
from examples.control.cocp_box import U_MAX, box_system
from examples.control.cocp_lqr import lyapunov_problem
from examples.control.linear import LinearSystem, linear_simulator, quadratic_cost
from examples.control.simulator import draw, rollout

TIGHT = {"eps": 1e-8, "max_iters": 10_000, "acceleration_lookback": 0}

Tensor = torch.Tensor


def prepare(*, horizon: int, batch: int, seed: int) -> Task:
    """Makes the layers, with a problem each, and the exact answer."""
    system = box_system()

    def ours() -> Contender:
        return _contender(CvxpyLayer(*lyapunov_problem(system, U_MAX)), horizon, batch, seed)

    def peer(**keywords: Any) -> Contender:
        layer = import_module("cvxpylayers.torch").CvxpyLayer(*lyapunov_problem(system, U_MAX), **keywords)
        return _contender(layer, horizon, batch, seed)

    imports = ("cvxpylayers.torch", "diffcp")
    finer = Entry("cvxpylayers + diffcp, SCS 1e-8", partial(peer, solver_args=TIGHT), imports=imports)
    entries = [
        Entry("cvxlayers", ours, "ours"),
        Entry("cvxpylayers + diffcp", peer, imports=imports, finer=[finer]),
        Entry("cvxpylayers + Moreau", partial(peer, solver="MOREAU"), imports=("cvxpylayers.torch", "moreau.torch")),
    ]
    return Task(entries, lambda: epoch(exact_layer(system), horizon, batch, seed)())


def epoch(layer: Layer, horizon: int, batch: int, seed: int) -> Callable[[], Answer]:
    """Rolls out and differentiates; returns what hands the answer out."""
    cost, parameters = _mean_cost(layer, horizon, batch, seed)
    S, q = torch.autograd.grad(cost, parameters)
    return lambda: Answer(cost.detach()[None].numpy(), {"S": S[None].numpy(), "q": q[None].numpy()})


def exact_layer(system: LinearSystem) -> Layer:
    """Returns the policy by going through all nine ways in which two controls meet their bounds, or do not."""
    A, B = torch.as_tensor(system.A), torch.as_tensor(system.B)
    patterns = list(itertools.product((-1, 0, 1), repeat=2))

    def solve(x: Tensor, S: Tensor, q: Tensor) -> tuple[Tensor]:
        P = S.mT @ S
        H, h = torch.eye(2, dtype=x.dtype) + B.T @ P @ B, x @ A.T @ P @ B + q @ B / 2
        points = torch.stack([_on_face(H, h, torch.tensor(pattern)) for pattern in patterns])
        values = torch.einsum("kbi,ij,kbj->kb", points, H, points) + 2 * (points * h).sum(-1)
        outside = (points.abs() > U_MAX * (1 + 1e-12)).any(-1)
        best = values.masked_fill(outside, torch.inf).argmin(dim=0)
        return (points[best, torch.arange(len(x))],)

    return solve


def _on_face(H: Tensor, h: Tensor, pattern: Tensor) -> Tensor:
    """Minimises u'Hu + 2h'u with the controls whose pattern is not zero at their bounds."""
    free = (pattern == 0).to(H.dtype)
    fixed = U_MAX * pattern.to(H.dtype)
    matrix = free[:, None] * H + torch.diag(1 - free)
    return torch.linalg.solve(matrix, torch.where(free > 0, -h, fixed).mT).mT


def _contender(layer: Layer, horizon: int, batch: int, seed: int) -> Contender:
    def forward() -> None:
        with torch.no_grad():
            _mean_cost(layer, horizon, batch, seed)

    return Contender(forward, partial(epoch, layer, horizon, batch, seed))


def _mean_cost(layer: Layer, horizon: int, batch: int, seed: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    system = box_system()
    n = system.sizes[0]
    P = scipy.linalg.solve_discrete_are(system.A, system.B, torch.eye(n).numpy(), torch.eye(2).numpy())
    S = torch.as_tensor(scipy.linalg.sqrtm(P).real.copy()).requires_grad_()
    q = torch.zeros(n, dtype=torch.float64, requires_grad=True)
    simulator = linear_simulator(system, start=system.noise)
    draws = draw(simulator, seed, batch, horizon)
    return rollout(lambda x: layer(x, S, q)[0], simulator, quadratic_cost, draws).costs.mean(), (S, q)


WORKLOAD = Workload(
    "an epoch of tuning a box-constrained policy: 100 steps through a layer, and back",
    [Row("cocp_box", {"horizon": 100}, 6)],
    prepare=prepare,
)
