"""What both control workloads share: linear dynamics, a quadratic cost, and all of it differentiated."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any

import cvxpy as cp
import numpy as np
import torch

from benchmarks.approximate import approximate
from benchmarks.contest import Answer, Array, Contender, Entry
from benchmarks.implicit import implicit_answer
from benchmarks.peers.layers import Text, diffcp_entry, moreau_entries, our_entry
from benchmarks.torch_layer import layer_contender
from benchmarks.workload import Task

Tensor = torch.Tensor


def text(n: int, m: int, horizon: int, bound: float | None, root: bool = False) -> Text:
    """Returns the problem: the sum of xᵀQx and uᵀRu over the horizon, x⁺ = Ax + Bu, and |u| ≤ bound.

    Args:
        n: number of states.
        m: number of controls.
        horizon: number of steps.
        bound: of each control, if any.
        root: whether Q and R are given by their square roots, for layers that take no parametric `quad_form`.
    """
    A, B, x0 = cp.Parameter((n, n), name="A"), cp.Parameter((n, m), name="B"), cp.Parameter(n, name="x0")
    X, U = cp.Variable((n, horizon + 1), name="X"), cp.Variable((m, horizon), name="U")
    if root:
        Q, R = cp.Parameter((n, n), name="Q"), cp.Parameter((m, m), name="R")
        cost = cp.sum_squares(Q @ X[:, 1:]) + cp.sum_squares(R @ U)
    else:
        Q, R = cp.Parameter((n, n), PSD=True, name="Q"), cp.Parameter((m, m), PSD=True, name="R")
        cost = sum(cp.quad_form(X[:, t + 1], Q) + cp.quad_form(U[:, t], R) for t in range(horizon))
    constraints: list[Any] = [X[:, 0] == x0, X[:, 1:] == A @ X[:, :-1] + B @ U]
    if bound is not None:
        # As matrix products, since cvxpylayers 1.2 with Moreau drops bounds of variables by themselves.
        constraints += [2 * U <= 2 * bound, -2 * U <= 2 * bound]
    return cp.Problem(cp.Minimize(cost), constraints), [Q, R, A, B, x0], [U]


def random_data(n: int, m: int, batch: int, seed: int) -> dict[str, Array]:
    """Returns stable systems, costs and states."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(batch, n, n))
    A *= 0.95 / np.abs(np.linalg.eigvals(A)).max(-1)[:, None, None]
    roots = (rng.normal(size=(batch, k, k)) / np.sqrt(k) for k in (n, m))
    Q, R = (np.eye(root.shape[-1]) + root @ root.mT for root in roots)
    return {"Q": Q, "R": R, "A": A, "B": rng.normal(size=(batch, n, m)), "x0": 2 * rng.normal(size=(batch, n))}


def prepare(*, n: int, m: int, horizon: int, batch: int, seed: int, bound: float | None) -> Task:
    """Makes the systems, the layers, a Riccati recursion where there are no bounds, and the reference."""
    data = random_data(n, m, batch, seed)
    weights = np.random.default_rng(seed + 1).normal(size=(batch, m, horizon))
    build = partial(text, n, m, horizon, bound)
    entries = [our_entry(build, data, weights), *moreau_entries(build, data, weights)]
    if horizon * n <= 500:
        entries.append(_diffcp(partial(build, root=True), data, weights))
    entries.append(Entry("mpc.pytorch", partial(_mpc, horizon, bound, data, weights), imports=("mpc.mpc",)))
    if bound is None:
        entries.append(
            Entry("torch, Riccati", lambda: layer_contender(partial(riccati, horizon), data, weights), "by hand")
        )
    return Task(entries, partial(exact_answer, build, horizon, bound, data, weights))


def riccati(horizon: int, Q: Tensor, R: Tensor, A: Tensor, B: Tensor, x0: Tensor) -> tuple[Tensor]:
    """Returns the controls by the backward recursion for the gains and a rollout; autograd differentiates it."""
    P, gains = Q, []
    for _ in range(horizon):
        BP = B.mT @ P
        K = -torch.linalg.solve(R + BP @ B, BP @ A)
        gains.append(K)
        closed = A + B @ K
        P = Q + K.mT @ R @ K + closed.mT @ P @ closed
    x, controls = x0[:, :, None], []
    for K in reversed(gains):
        u = K @ x
        controls.append(u)
        x = A @ x + B @ u
    return (torch.cat(controls, dim=-1),)


def _diffcp(build: partial[Text], data: Mapping[str, Array], weights: Array) -> Entry:
    """Returns diffcp on the text with roots: they are factorised in PyTorch, so that the parameters are the same."""
    plain = diffcp_entry(build, data, weights)

    def rooted(entry: Entry) -> Entry:
        return Entry(entry.name, partial(_rooted, build, entry.name, data, weights), imports=entry.imports)

    first, *finer = (rooted(entry) for entry in (plain, *plain.finer))
    return Entry(first.name, first.build, imports=first.imports, finer=finer)


def _rooted(build: partial[Text], name: str, data: Mapping[str, Array], weights: Array) -> Contender:
    arguments = {} if name.endswith("diffcp") else {"eps": 1e-8, "max_iters": 10_000, "acceleration_lookback": 0}
    if "Clarabel" in name:
        arguments = {"solve_method": "Clarabel", **({"mode": "dense"} if "dense" in name else {})}
    layer = import_module("cvxpylayers.torch").CvxpyLayer(*build(), solver_args=arguments)

    def call(Q: Tensor, R: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        return layer(torch.linalg.cholesky(Q).mT, torch.linalg.cholesky(R).mT, *rest)

    return layer_contender(call, data, weights)


def _mpc(horizon: int, bound: float | None, data: Mapping[str, Array], weights: Array) -> Contender:
    """Builds mpc.pytorch's solver. Its horizon counts states: the last one's control costs, moves nothing, is zero."""
    library = import_module("mpc.mpc")
    batch, n, m = data["B"].shape
    solver = library.MPC(
        n,
        m,
        horizon + 1,
        u_lower=None if bound is None else -bound,
        u_upper=bound,
        lqr_iter=1 if bound is None else 20,
        verbose=-1,
        exit_unconverged=False,
        detach_unconverged=False,
        n_batch=batch,
        eps=1e-9,
    )

    def call(Q: Tensor, R: Tensor, A: Tensor, B: Tensor, x0: Tensor) -> tuple[Tensor]:
        top = torch.cat([2 * Q, Q.new_zeros(batch, n, m)], dim=2)
        C = torch.cat([top, torch.cat([Q.new_zeros(batch, m, n), 2 * R], dim=2)], dim=1)
        steps = (horizon + 1, *C.shape)
        cost = library.QuadCost(C.expand(steps), C.new_zeros(horizon + 1, batch, n + m))
        dynamics = library.LinDx(torch.cat([A, B], dim=2).expand(horizon, batch, n, n + m))
        _, controls, _ = solver(x0, cost, dynamics)
        return (controls[:-1].permute(1, 2, 0),)

    return layer_contender(call, data, weights)


def exact_answer(
    build: partial[Text], horizon: int, bound: float | None, data: dict[str, Array], weights: Array
) -> Answer:
    """Solves for the controls alone: the gradient of the rollout's cost is zero where they are within the bounds."""
    m = data["R"].shape[-1]
    if bound is None:
        starts = [np.zeros(m * horizon)] * len(weights)
        marks = [np.zeros(m * horizon)] * len(weights)
    else:
        starts = [controls.ravel() for controls, _ in approximate(build(), data)]
        slopes = [_slope(horizon, start, index, data) for index, start in enumerate(starts)]
        # At a bound the cost still falls outwards.
        marks = [
            np.where((np.abs(u) > bound - 1e-5) & (u * g < -1e-7), np.sign(u) * bound, 0.0)
            for u, g in zip(starts, slopes, strict=True)
        ]
    return implicit_answer(partial(_conditions, horizon), starts, marks, data, weights)


def _slope(horizon: int, u: Array, index: int, data: Mapping[str, Array]) -> Array:
    item = {name: torch.tensor(value[index]) for name, value in data.items()}
    return _conditions(horizon, torch.tensor(u), torch.zeros(len(u), dtype=torch.float64), **item).numpy()


def _conditions(
    horizon: int, z: Tensor, mark: Tensor, Q: Tensor, R: Tensor, A: Tensor, B: Tensor, x0: Tensor
) -> Tensor:
    """The derivative of the cost by the adjoint recursion, or the distance to the bound that is active."""
    u = z.reshape(-1, horizon)
    states = [x0]
    for t in range(horizon):
        states.append(A @ states[-1] + B @ u[:, t])
    p, gradients = torch.zeros_like(x0), []
    for t in reversed(range(horizon)):
        p = 2 * Q @ states[t + 1] + A.mT @ p
        gradients.append(2 * R @ u[:, t] + B.mT @ p)
    slope = torch.stack(gradients[::-1], dim=1).ravel()
    return torch.where(mark != 0, z - mark, slope)
