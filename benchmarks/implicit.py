"""Exact answers from optimality conditions: Newton's method to rounding, then the implicit function theorem.

Each workload writes the conditions of its own programs as a smooth square system, on the active set that an
interior-point solver finds. Nothing here knows cones, or what the contenders do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float

from benchmarks.contest import Answer, Array
from benchmarks.torch_layer import make_answer

Tensor = torch.Tensor
# Residual of z and the parameters of one item: F(z, mark, **parameters) = 0, with as many equations as unknowns. The
# mark, a tensor, says which constraints are active.
Conditions = Callable[..., Tensor]

_STEPS = 6


def implicit_answer(
    conditions: Conditions,
    starts: Sequence[Array],
    marks: Sequence[Array],
    parameters: Mapping[str, Array],
    weights: Array,
) -> Answer:
    """Solves the conditions of every item from its start, and differentiates the first unknowns, the solution.

    Args:
        conditions: the residual, see `Conditions`.
        starts: an approximate z for each item, which begins with the solution.
        marks: what is active in each item.
        parameters: data by name; what gradients are taken of.
        weights: what the solution is multiplied by.

    Raises:
        ArithmeticError: if Newton's method does not reach a solution.
    """
    solutions, gradients = [], []
    for index, (start, mark) in enumerate(zip(starts, marks, strict=True)):
        theta = {name: torch.tensor(value[index]) for name, value in parameters.items()}
        z, pulled = _item(conditions, torch.tensor(start), torch.tensor(mark), theta, weights[index].ravel())
        solutions.append(z[: weights[index].size].reshape(weights[index].shape))
        gradients.append(pulled)
    stacked = {name: np.stack([item[name] for item in gradients]) for name in parameters}
    return make_answer(np.stack(solutions), stacked)


def _item(
    conditions: Conditions, z: Tensor, mark: Tensor, theta: dict[str, Tensor], weights: Float[np.ndarray, " k"]
) -> tuple[Float[np.ndarray, " n"], dict[str, Array]]:
    def residual(unknowns: Tensor, data: dict[str, Tensor]) -> Tensor:
        return conditions(unknowns, mark, **data)

    J, step = np.empty((0, 0)), np.empty(0)
    for _ in range(_STEPS):
        F = residual(z, theta).numpy()
        J = torch.func.jacfwd(residual)(z, theta).numpy()
        step = np.linalg.solve(J, F)
        z = z - torch.tensor(step)
        if np.abs(step).max() <= 1e-14 * max(1.0, float(z.abs().max())):
            break
    else:
        if np.abs(step).max() > 1e-9 * max(1.0, float(z.abs().max())):
            raise ArithmeticError(f"Newton's method has not converged: its last step is {np.abs(step).max():.1e}")
    upstream = np.concatenate([weights, np.zeros(len(z) - len(weights))])
    adjoint = np.linalg.solve(J.T, upstream)
    inputs = {name: value.requires_grad_() for name, value in theta.items()}
    pulled = torch.autograd.grad(residual(z, inputs), list(inputs.values()), torch.tensor(-adjoint))
    return z.numpy(), {name: value.numpy() for name, value in zip(theta, pulled, strict=True)}
