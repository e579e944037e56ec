"""Non-linear least squares, min over z of ½ ‖r(z, θ)‖², by steps that are layers; its derivative in θ in four ways.

References: Pineda et al., "Theseus: a library for differentiable nonlinear optimization" (2022), whose modes these are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cvxpy as cp
import torch
from jaxtyping import Float
from torch.func import grad, jacrev, vmap

from cvxlayers.torch import CvxpyLayer

Estimates = Float[torch.Tensor, "batch unknowns"]
Residuals = Float[torch.Tensor, " residuals"]
# Of one item: its unknowns, then its data.
Residual = Callable[..., Residuals]
Backward = Literal["implicit", "unroll", "truncated", "dlm"]
MODES: tuple[Backward, ...] = ("implicit", "unroll", "truncated", "dlm")


def gauss_newton_layer(residuals: int, unknowns: int) -> CvxpyLayer:
    """Returns the layer (J, r, c) ↦ d that minimises ½ ‖J d + r‖² + cᵀd: a step of Gauss and Newton where c = 0."""
    J, r = cp.Parameter((residuals, unknowns), name="J"), cp.Parameter(residuals, name="r")
    c, d = cp.Parameter(unknowns, name="c"), cp.Variable(unknowns, name="d")
    objective = 0.5 * cp.sum_squares(J @ d + r) + c @ d
    return CvxpyLayer(cp.Problem(cp.Minimize(objective)), parameters=[J, r, c], variables=[d])


def newton_layer(unknowns: int) -> CvxpyLayer:
    """Returns the layer (H, g) ↦ d that minimises ½ dᵀH d + gᵀd."""
    H, g = cp.Parameter((unknowns, unknowns), PSD=True, name="H"), cp.Parameter(unknowns, name="g")
    d = cp.Variable(unknowns, name="d")
    return CvxpyLayer(cp.Problem(cp.Minimize(0.5 * cp.quad_form(d, H) + g @ d)), parameters=[H, g], variables=[d])


@dataclass(frozen=True)
class Solver:
    """Gauss and Newton's method for a residual function, over a batch.

    Attributes:
        residual: of one item: (z, *data) ↦ r.
        step: the layer of a step.
        newton: the layer of a Newton step, for implicit derivatives.
        iterations: steps of a solve; fixed, so that derivatives by unrolling mean something.
        truncation: steps that are differentiated in mode "truncated".
        epsilon: perturbation of the objective in mode "dlm".
    """

    residual: Residual
    step: CvxpyLayer
    newton: CvxpyLayer
    iterations: int = 15
    truncation: int = 5
    epsilon: float = 1e-7

    def solve(self, start: Estimates, data: Sequence[torch.Tensor], backward: Backward = "implicit") -> Estimates:
        """Returns the minimiser of each item, differentiable in the data.

        Args:
            start: where to start.
            data: tensors with a leading batch axis.
            backward: "unroll" differentiates all steps; "truncated" the last few, as if what came before were
                constant; "implicit" the equation ∇ₓ = 0 at the solution; "dlm" (direct loss minimisation) takes
                differences of the objective's gradient between the solution and that of a perturbed objective.
        """
        if backward == "unroll":
            return self.iterate(start, data, self.iterations)
        if backward == "truncated":
            with torch.no_grad():
                start = self.iterate(start, data, self.iterations - self.truncation)
            return self.iterate(start, data, self.truncation)
        with torch.no_grad():
            solution = self.iterate(start, data, self.iterations)
        if backward == "implicit":
            return self.attach(solution, data)
        return _DirectLoss.apply(self, solution, *data)  # pyright: ignore[reportReturnType]

    def iterate(
        self, z: Estimates, data: Sequence[torch.Tensor], steps: int, slope: Estimates | None = None
    ) -> Estimates:
        """Takes steps on ½ ‖r(z, data)‖² + slopeᵀz."""
        slope = torch.zeros_like(z) if slope is None else slope
        for _ in range(steps):
            J = vmap(jacrev(self.residual))(z, *data)
            (d,) = self.step(J, vmap(self.residual)(z, *data), slope)
            z = z + d
        return z

    def attach(self, solution: Estimates, data: Sequence[torch.Tensor]) -> Estimates:
        """Returns the solution with the derivative of the implicit function: of one Newton step whose H is constant.

        Raises:
            DomainError: if a Hessian is indefinite, so that this is no minimum.
        """
        with torch.no_grad():
            H = vmap(jacrev(grad(self.objective)))(solution, *data)
        gradient = vmap(grad(self.objective))(solution, *data)
        (d,) = self.newton((H + H.mT) / 2, gradient)
        return solution + d

    def objective(self, z: torch.Tensor, *data: torch.Tensor) -> torch.Tensor:
        """Returns ½ ‖r‖² of one item."""
        return 0.5 * self.residual(z, *data).square().sum()


class _DirectLoss(torch.autograd.Function):
    """The identity on solutions, whose derivative in the data is a difference of gradients of the objective.

    With v the loss's gradient and z_ε the minimiser of L(z, θ) + ε vᵀz, the gradient in θ is the limit of
    (∇L(z_ε, θ) − ∇L(z, θ)) / ε, ∇ in θ: no derivative of any step is needed.
    """

    @staticmethod
    def forward(ctx: Any, solver: Solver, solution: Estimates, *data: torch.Tensor) -> Estimates:
        ctx.solver = solver
        ctx.save_for_backward(solution, *data)
        return solution.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Estimates) -> tuple[torch.Tensor | None, ...]:
        solver, (solution, *data) = ctx.solver, ctx.saved_tensors
        (slope,) = cotangents
        # A loss of any size perturbs by ε: the difference is linear in the direction.
        size = slope.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(slope.dtype).tiny)
        moved = solver.iterate(solution, data, solver.iterations, solver.epsilon * slope / size)
        with torch.enable_grad():
            leaves = [item.detach().requires_grad_() for item in data]
            rise = vmap(solver.objective)(moved, *leaves) - vmap(solver.objective)(solution, *leaves)
            gradients = torch.autograd.grad((rise * size[:, 0] / solver.epsilon).sum(), leaves)
        return None, None, *gradients
