"""The lasso: least squares with an absolute-value penalty."""

from __future__ import annotations

import itertools

import cvxpy as cp
import torch
from jaxtyping import Float

from cvxlayers.torch import CvxpyLayer


def lasso_layer(rows: int, n: int) -> CvxpyLayer:
    """Returns the layer (A, b, penalty) ↦ argmin ½ ‖A x − b‖² + Σⱼ penaltyⱼ |xⱼ|."""
    A, b, penalty = cp.Parameter((rows, n)), cp.Parameter(rows), cp.Parameter(n, nonneg=True)
    x = cp.Variable(n)
    objective = 0.5 * cp.sum_squares(A @ x - b) + penalty @ cp.abs(x)
    return CvxpyLayer(cp.Problem(cp.Minimize(objective)), [A, b, penalty], [x])


def lasso(
    A: Float[torch.Tensor, "rows n"], b: Float[torch.Tensor, " rows"], penalty: Float[torch.Tensor, " n"]
) -> Float[torch.Tensor, " n"]:
    """Returns the best of the solutions that belong to each pattern of signs: of (AᵀA)ₛₛ xₛ = (Aᵀb − penalty sign)ₛ."""
    signs = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=len(penalty))), dtype=b.dtype)
    used = signs.abs()
    gram = used[:, :, None] * (A.T @ A) * used[:, None] + torch.diag_embed(1 - used)
    candidates = torch.linalg.solve(gram, used * (A.T @ b - penalty * signs))
    objectives = 0.5 * (candidates @ A.T - b).square().sum(1) + (penalty * candidates.abs()).sum(1)
    return candidates[objectives.argmin()]
