"""The least value of a polynomial in one variable as a semidefinite program over its moments, and as a layer."""

from __future__ import annotations

import cvxpy as cp
import torch
from jaxtyping import Float

from cvxlayers.torch import CvxpyLayer

Coefficients = Float[torch.Tensor, "*batch powers"]
Points = Float[torch.Tensor, "*batch"]


def moment_layer(degree: int, solver: str | None = None) -> CvxpyLayer:
    """Returns the layer a ↦ m that minimises Σ aₖ mₖ over all moments m that a distribution could have.

    Those are the m with m₀ = 1 whose Hankel matrix H, Hᵢⱼ = mᵢ₊ⱼ, is positive semidefinite. In one variable the least
    value is the polynomial's own. Where its global minimiser x is unique, mₖ = xᵏ and H = vvᵀ with v = (1, x, x², …).
    """
    order = degree // 2 + 1
    a, m = cp.Parameter(degree + 1, name="a"), cp.Variable(degree + 1, name="m")
    hankel = cp.bmat([[m[i + j] for j in range(order)] for i in range(order)])
    problem = cp.Problem(cp.Minimize(a @ m), [hankel >> 0, m[0] == 1])
    return CvxpyLayer(problem, parameters=[a], variables=[m], solver=solver)


def powers_of(x: Points, degree: int) -> Coefficients:
    """Returns (1, x, …, x^degree), the moments of a distribution at one point."""
    return torch.stack([x**power for power in range(degree + 1)], dim=-1)


def hankel_matrix(moments: Coefficients) -> Float[torch.Tensor, "*batch order order"]:
    """Returns the matrices Hᵢⱼ = mᵢ₊ⱼ."""
    order = moments.shape[-1] // 2 + 1
    return torch.stack([moments[..., i : i + order] for i in range(order)], dim=-2)


def eigenvalue_ratio(matrices: Float[torch.Tensor, "*batch order order"], rank: int = 1) -> Points:
    """Returns the first eigenvalue that a matrix of this rank has not, relative to the last that it has.

    Near zero it certifies that the relaxation is tight: its solution is that of the problem which was relaxed.
    """
    eigenvalues = torch.linalg.eigvalsh(matrices.detach())
    return eigenvalues[..., -rank - 1].abs() / eigenvalues[..., -rank]


def evaluate(coefficients: Coefficients, x: Points, derivative: int = 0) -> Points:
    """Returns the value, or a derivative, of each polynomial Σ aₖ xᵏ at its point."""
    value = torch.zeros_like(x)
    for power in reversed(range(derivative, coefficients.shape[-1])):
        factor = float(torch.arange(power - derivative + 1, power + 1).prod())
        value = value * x + factor * coefficients[..., power]
    return value


def sensitivity(coefficients: Coefficients, x: Points) -> Coefficients:
    """Returns dx/da = −(dp'/da) / p''(x) at a minimiser x of Σ aₖ xᵏ: the derivative that the layer has to have."""
    powers = torch.arange(coefficients.shape[-1], dtype=x.dtype)
    slopes = powers * x[..., None] ** (powers - 1).clamp(min=0)
    return -slopes / evaluate(coefficients, x, 2)[..., None]
