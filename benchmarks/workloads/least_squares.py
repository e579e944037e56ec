"""Least squares with the data matrix as a parameter, as one writes it.

minimise ‖A x − b‖² over x. Canonicalisation names the residual t = A x − b, one variable for each observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import cvxpy as cp
import numpy as np
import torch

from benchmarks.contest import Answer, Array, Entry
from benchmarks.peers.layers import Text, entries_of
from benchmarks.torch_layer import layer_contender
from benchmarks.workload import Bar, Row, Task, Workload

SIZES = ((200, 10), (2000, 50))


def text(observations: int, variables: int) -> Text:
    """Returns the problem, its parameters A and b, and its variable."""
    A, b = cp.Parameter((observations, variables), name="A"), cp.Parameter(observations, name="b")
    x = cp.Variable(variables, name="x")
    return cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b))), [A, b], [x]


def random_data(observations: int, variables: int, batch: int, seed: int) -> tuple[dict[str, Array], Array]:
    """Returns data of which a sparse x explains most, and the weights."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(batch, observations, variables))
    truth = rng.normal(size=(batch, variables)) * (rng.random((batch, variables)) < 0.5)
    b = (A @ truth[:, :, None])[:, :, 0] + rng.normal(size=(batch, observations))
    return {"A": A, "b": b}, rng.normal(size=(batch, variables))


def prepare(*, rows: int, columns: int, batch: int, seed: int) -> Task:
    """Makes the data, the layers, and the answer in closed form."""
    data, weights = random_data(rows, columns, batch, seed)
    by_hand = Entry("torch, QR", lambda: layer_contender(_by_qr, data, weights), "by hand")
    entries = entries_of(partial(text, rows, columns), data, weights, dense=rows <= 200)
    return Task([*entries, by_hand], partial(closed_form, data, weights))


def closed_form(data: Mapping[str, Array], weights: Array) -> Answer:
    """Returns x = A⁺b and, with g = (AᵀA)⁻¹w, the gradients (b − Ax)gᵀ − Agxᵀ of A and Ag of b."""
    A, b = data["A"], data["b"][:, :, None]
    Q, R = np.linalg.qr(A)
    x = np.linalg.solve(R, Q.mT @ b)
    g = np.linalg.solve(R, np.linalg.solve(R.mT, weights[:, :, None]))
    return Answer(x[:, :, 0], {"A": (b - A @ x) @ g.mT - A @ g @ x.mT, "b": (A @ g)[:, :, 0]})


def _by_qr(A: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor]:
    Q, R = torch.linalg.qr(A)
    return (torch.linalg.solve_triangular(R, Q.mT @ b[:, :, None], upper=True)[:, :, 0],)


WORKLOAD = Workload(
    "least squares, the data matrix a parameter",
    [Row("least_squares", {"rows": m, "columns": n}, batch, [Bar(5, 20)]) for m, n in SIZES for batch in (1, 16)],
    prepare=prepare,
)
