"""Least squares with the data matrix as a parameter, as one writes it, against cvxpylayers with its default solver.

minimise ‖A x − b‖² over x. Canonicalisation names the residual t = A x − b, one variable for each observation.
"""

from __future__ import annotations

from collections.abc import Sequence

import cvxpy as cp
import numpy as np
import torch

from benchmarks.command_line import run
from benchmarks.contest import Answer, Array, Contender
from benchmarks.torch_layer import layer_contender, peer_door
from cvxlayers.torch import CvxpyLayer

SIZES = {"batch": 16, "observations": 200, "variables": 10}


def prepare(*, batch: int, observations: int, variables: int, seed: int) -> tuple[Sequence[Contender], Answer]:
    """Makes the data, both layers, and the answer in closed form."""
    rng = np.random.default_rng(seed)
    data = {"A": rng.normal(size=(batch, observations, variables)), "b": rng.normal(size=(batch, observations))}
    weights = rng.normal(size=(batch, variables))
    ours = CvxpyLayer(*problem(observations, variables))
    peer = peer_door().CvxpyLayer(*problem(observations, variables))
    names = {"cvxlayers": ours, "cvxpylayers": peer}
    return [layer_contender(name, layer, data, weights) for name, layer in names.items()], closed_form(data, weights)


def problem(observations: int, variables: int) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
    """Returns the problem, its parameters A and b, and its variable."""
    A, b = cp.Parameter((observations, variables), name="A"), cp.Parameter(observations, name="b")
    x = cp.Variable(variables, name="x")
    return cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b))), [A, b], [x]


def closed_form(data: dict[str, Array], weights: Array) -> Answer:
    """Returns x = A⁺b, and gradients by the derivative of PyTorch's QR-based solver."""
    A, b = (torch.tensor(data[name], requires_grad=True) for name in ("A", "b"))
    Q, R = torch.linalg.qr(A)
    x = torch.linalg.solve_triangular(R, (Q.mT @ b[:, :, None]), upper=True)[:, :, 0]
    gradients = torch.autograd.grad(x, [A, b], torch.tensor(weights))
    return Answer(x.detach().numpy(), dict(zip(("A", "b"), (g.numpy() for g in gradients), strict=True)))


if __name__ == "__main__":
    run("least_squares", SIZES, prepare)
