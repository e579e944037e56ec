"""Dense quadratic programs with every parameter differentiated, against cvxpylayers with Moreau.

Both layers get the same problem, with `quad_form(x, Q)` and Q a parameter: the fastest form of either.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module

import cvxpy as cp
import numpy as np
import torch

from benchmarks.command_line import run
from benchmarks.contest import Answer, Contender
from benchmarks.quadratic import QuadraticPrograms, exact_answer, random_programs
from cvxlayers.torch import CvxpyLayer

SIZES = {"batch": 128, "variables": 32, "equalities": 8, "inequalities": 16}


def prepare(
    *, batch: int, variables: int, equalities: int, inequalities: int, seed: int
) -> tuple[Sequence[Contender], Answer]:
    """Makes the programs, both layers, and the exact answer."""
    programs = random_programs(batch, variables, equalities, inequalities, seed)
    # Each layer gets a problem of its own: building one may change what is stored on a CVXPY problem. The peer comes
    # after our layer is built, as importing it replaces parts of CVXPY.
    ours = CvxpyLayer(*qp_problem(variables, equalities, inequalities))
    peer_door = import_module("cvxpylayers.torch")
    warnings.filterwarnings("ignore", message=r"solver='auto' resolved to ACTIVE_SET")
    peer = peer_door.CvxpyLayer(*qp_problem(variables, equalities, inequalities), solver="MOREAU")
    contenders = [layer_contender("cvxlayers", ours, programs), layer_contender("cvxpylayers + Moreau", peer, programs)]
    return contenders, exact_answer(programs)


def qp_problem(n: int, equalities: int, inequalities: int) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
    """Returns the problem, its parameters in the order of `QuadraticPrograms.parameters`, and its variable."""
    Q, p = cp.Parameter((n, n), PSD=True, name="Q"), cp.Parameter(n, name="p")
    A, b = cp.Parameter((equalities, n), name="A"), cp.Parameter(equalities, name="b")
    G, h = cp.Parameter((inequalities, n), name="G"), cp.Parameter(inequalities, name="h")
    x = cp.Variable(n, name="x")
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, Q) + p @ x), [A @ x == b, G @ x <= h])
    return problem, [Q, p, A, b, G, h], [x]


def layer_contender(
    name: str, layer: Callable[..., tuple[torch.Tensor, ...]], programs: QuadraticPrograms
) -> Contender:
    """Returns a layer of the problem as a contender, every datum of the programs requiring a gradient."""
    tensors = {key: torch.tensor(value, requires_grad=True) for key, value in programs.parameters.items()}
    weights = torch.tensor(programs.weights)
    return Contender(name, partial(layer, *tensors.values()), partial(_step, layer, tensors, weights))


def _step(
    layer: Callable[..., tuple[torch.Tensor, ...]], tensors: dict[str, torch.Tensor], weights: torch.Tensor
) -> Callable[[], Answer]:
    (x,) = layer(*tensors.values())
    gradients = torch.autograd.grad(x, list(tensors.values()), weights)
    return partial(_answer, x, dict(zip(tensors, gradients, strict=True)))


def _answer(x: torch.Tensor, gradients: dict[str, torch.Tensor]) -> Answer:
    arrays = {name: gradient.numpy() for name, gradient in gradients.items()}
    # Q is symmetric: only the symmetric part of its gradient means anything.
    Q = arrays["Q"]
    return Answer(x.detach().numpy(), {**arrays, "Q": (Q + np.swapaxes(Q, -1, -2)) / 2})


if __name__ == "__main__":
    run("dense_qp", SIZES, prepare)
