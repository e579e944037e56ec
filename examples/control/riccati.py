"""Riccati's equations: finite horizons by recursion, infinite ones with the derivative of their solution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import scipy.linalg
import torch

Tensor = torch.Tensor


@dataclass(frozen=True)
class LQR:
    """Finite-horizon problems: minimise Σ ½ τ'Cτ + c'τ over τ = (x, u), with x⁺ = F τ + f and x₀ given.

    Attributes:
        C: (*batch, T, n + m, n + m), symmetric.
        c: (*batch, T, n + m).
        F: (*batch, T − 1, n, n + m).
        f: (*batch, T − 1, n).
        x0: (*batch, n).
    """

    C: Tensor
    c: Tensor
    F: Tensor
    f: Tensor
    x0: Tensor


def solve_lqr(problem: LQR) -> tuple[Tensor, Tensor]:
    """Solves by Riccati's recursion.

    Returns:
        τ of shape (*batch, T, n + m), and the multipliers λ of shape (*batch, T, n) of x₀ = x_init and x⁺ − Fτ − f = 0.
    """
    n, T = problem.x0.shape[-1], problem.c.shape[-2]
    gains, values = [], []
    for t in reversed(range(T)):
        H, h = problem.C[..., t, :, :], problem.c[..., t, :]
        if values:  # the cost to go of the next state, ½ x'Vx + v'x
            V, v = values[-1]
            F, f = problem.F[..., t, :, :], problem.f[..., t, :]
            H, h = H + F.mT @ V @ F, h + _times(F.mT, _times(V, f) + v)
        K = -torch.linalg.solve(H[..., n:, n:], torch.cat([H[..., n:, :n], h[..., n:, None]], dim=-1))
        K, k = K[..., :n], K[..., n]
        V = H[..., :n, :n] + H[..., :n, n:] @ K
        gains.append((K, k))
        values.append(((V + V.mT) / 2, h[..., :n] + _times(H[..., :n, n:], k)))
    x, points, multipliers = problem.x0, [], []
    for t, ((K, k), (V, v)) in enumerate(zip(reversed(gains), reversed(values), strict=True)):
        points.append(torch.cat([x, _times(K, x) + k], dim=-1))
        multipliers.append(-_times(V, x) - v)
        if t + 1 < T:
            x = _times(problem.F[..., t, :, :], points[-1]) + problem.f[..., t, :]
    return torch.stack(points, dim=-2), torch.stack(multipliers, dim=-2)


def solve_kkt(problem: LQR) -> Tensor:
    """Solves the optimality conditions as one dense linear system; returns τ."""
    n, (T, width) = problem.x0.shape[-1], problem.c.shape[-2:]
    batch, size = problem.x0.shape[:-1], T * (width + n)
    M, right = problem.c.new_zeros(*batch, size, size), problem.c.new_zeros(*batch, size)
    for t in range(T):
        z, row = slice(t * width, (t + 1) * width), slice(T * width + t * n, T * width + (t + 1) * n)
        x = slice(t * width, t * width + n)
        M[..., z, z], right[..., z] = problem.C[..., t, :, :], -problem.c[..., t, :]
        M[..., row, x] = M[..., x, row] = torch.eye(n, dtype=M.dtype)
        if t:
            before, F = slice((t - 1) * width, t * width), problem.F[..., t - 1, :, :]
            M[..., row, before], M[..., before, row] = -F, -F.mT
        right[..., row] = problem.f[..., t - 1, :] if t else problem.x0
    return torch.linalg.solve(M, right)[..., : T * width].reshape(*batch, T, width)


def lqr_gradients(problem: LQR, upstream: Tensor) -> LQR:
    """Returns the gradient of a function of τ by every datum: one more LQR, with the upstream gradient as its c.

    With (d, e) the solution and multipliers of that problem, ∂C = ½ (d τ' + τ d'), ∂c = d, ∂F = −(λ⁺ d' + e⁺ τ'),
    ∂f = −e⁺ and ∂x₀ = −e₀ (Amos, Rodriguez, Sacks, Boots and Kolter, 2018, module 1).
    """
    τ, λ = solve_lqr(problem)
    adjoint = LQR(problem.C, upstream, problem.F, torch.zeros_like(problem.f), torch.zeros_like(problem.x0))
    d, e = solve_lqr(adjoint)
    outer = d[..., :, None] * τ[..., None, :]
    dF = -(λ[..., 1:, :, None] * d[..., :-1, None, :] + e[..., 1:, :, None] * τ[..., :-1, None, :])
    return LQR((outer + outer.mT) / 2, d, dF, -e[..., 1:, :], -e[..., 0, :])


def dare(A: Tensor, B: Tensor, Q: Tensor, R: Tensor) -> Tensor:
    """Returns the stabilising P of P = Q + A'PA − A'PB (R + B'PB)⁻¹ B'PA, differentiable in all four."""
    return _Dare.apply(A, B, Q, R)  # type: ignore[no-any-return]


def feedback(A: Tensor, B: Tensor, R: Tensor, P: Tensor) -> Tensor:
    """Returns K = (R + B'PB)⁻¹ B'PA, so that u = −K x minimises u'Ru + (Ax + Bu)'P(Ax + Bu)."""
    return torch.linalg.solve(R + B.mT @ P @ B, B.mT @ P @ A)


class _Dare(torch.autograd.Function):
    """The derivative solves a Lyapunov equation in the closed loop A − BK: S = (A − BK) S (A − BK)' + ∂P."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, B: Tensor, Q: Tensor, R: Tensor) -> Tensor:
        a, b, q, r = (matrix.detach().double().numpy() for matrix in (A, B, Q, R))
        P = torch.as_tensor(scipy.linalg.solve_discrete_are(a, b, q, r)).to(A.dtype)
        ctx.save_for_backward(A, B, R, P)
        return P

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, ...]:
        A, B, R, P = ctx.saved_tensors
        K = feedback(A, B, R, P)
        closed, dP = A - B @ K, (upstream[0] + upstream[0].mT) / 2
        S = scipy.linalg.solve_discrete_lyapunov(closed.double().numpy(), dP.double().numpy())
        S = torch.as_tensor(S).to(A.dtype)
        dA = 2 * P @ closed @ S
        return dA, -dA @ K.mT, S, K @ S @ K.mT


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]
