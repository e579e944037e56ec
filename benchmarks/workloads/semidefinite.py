"""What both semidefinite workloads share: a symmetric matrix, ones on its diagonal, and its reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import cvxpy as cp
import numpy as np
import torch

from benchmarks.approximate import approximate
from benchmarks.contest import Answer, Array, Entry
from benchmarks.implicit import implicit_answer
from benchmarks.peers.layers import Text, diffcp_entry, our_entry
from benchmarks.peers.semidefinite import moreau_entry
from benchmarks.workload import Bar, Row, Task, Workload

Tensor = torch.Tensor


def workload(name: str, title: str, quadratic: bool, argument: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Workload:
    """Returns a workload over matrices X with ones on their diagonal.

    cvxpylayers with Moreau refuses semidefinite cones, so that Moreau is called directly.

    Args:
        name: its name.
        title: what it is.
        quadratic: whether ½‖X − C‖² is minimised, else the trace of CX.
        argument: what X is the positive part of at the solution, from X, the duals of the diagonal, and C.
    """

    def prepare(*, order: int, batch: int, seed: int) -> Task:
        rng = np.random.default_rng(seed)
        C = rng.normal(size=(batch, order, order))
        data, weights = {"C": (C + C.mT) / 2}, rng.normal(size=(batch, order, order))
        build = partial(text, order, quadratic)
        entries: Sequence[Entry] = [
            our_entry(build, data, weights),
            diffcp_entry(build, data, weights, dense=order <= 10),
            moreau_entry(data["C"], weights, quadratic),
        ]
        return Task(entries, partial(_exact, build(), argument, data, weights))

    rows = [
        Row(name, {"order": order}, batch, [Bar(1.3, 1.5)] if order <= 20 else [])
        for order, batch in ((10, 32), (20, 32), (40, 8))
    ]
    return Workload(title, rows, prepare=prepare)


def text(order: int, quadratic: bool) -> Text:
    """Returns the problem, its matrix, and its variable."""
    C = cp.Parameter((order, order), symmetric=True, name="C")
    X = cp.Variable((order, order), symmetric=True, name="X")
    cost = 0.5 * cp.sum_squares(X - C) if quadratic else cp.trace(C @ X)
    return cp.Problem(cp.Minimize(cost), [cp.diag(X) == 1, X >> 0]), [C], [X]


def _exact(problem: Text, argument: Callable[..., Tensor], data: Mapping[str, Array], weights: Array) -> Answer:
    starts = [np.concatenate([X.ravel(), np.ravel(duals[0])]) for X, duals in approximate(problem, data)]
    return implicit_answer(partial(_conditions, argument), starts, [np.zeros(1)] * len(starts), data, weights)


def _conditions(argument: Callable[..., Tensor], z: Tensor, mark: Tensor, C: Tensor) -> Tensor:
    """X is the positive part of a symmetric matrix, and has ones on its diagonal."""
    del mark
    order = len(C)
    X, y = z[: order * order].reshape(order, order), z[order * order :]
    W = argument(X, y, (C + C.mT) / 2)
    values, vectors = torch.linalg.eigh((W + W.mT) / 2)
    positive = vectors * torch.relu(values) @ vectors.mT
    return torch.cat([(X - positive).ravel(), torch.diagonal(X) - 1])
