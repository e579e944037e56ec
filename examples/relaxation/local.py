"""A local solver for polynomials, and the exact derivative of the local minimiser that it finds."""

from __future__ import annotations

import torch

from examples.relaxation.moments import Coefficients, Points, evaluate, sensitivity

_STEPS, _LONGEST = 200, 0.1


def local_minimiser(coefficients: Coefficients, start: Points) -> Points:
    """Returns the local minimiser downhill of each start, differentiable in the coefficients.

    Newton's steps, always downhill and never longer than a tenth; the derivative is that of the implicit function.
    """
    a, x = coefficients.detach(), start
    for _ in range(_STEPS):
        slope, curvature = evaluate(a, x, 1), evaluate(a, x, 2).abs().clamp(min=1e-3)
        x = x - (slope / curvature).clamp(-_LONGEST, _LONGEST)
    # Zero, with the derivative of the implicit function.
    attached = (sensitivity(a, x) * (coefficients - a)).sum(dim=-1)
    return x + attached


def global_minimiser(coefficients: Coefficients) -> Points:
    """Returns the global minimiser of each polynomial, from all roots of its derivative: the judge of both solvers."""
    powers = torch.arange(1, coefficients.shape[-1], dtype=coefficients.dtype)
    slopes = coefficients[..., 1:] * powers
    monic = slopes[..., :-1] / slopes[..., -1:]
    companion = torch.diag_embed(torch.ones_like(monic[..., 1:]), offset=-1)
    companion[..., :, -1] = -monic
    roots = torch.linalg.eigvals(companion)
    real = roots.imag.abs() < 1e-6 * (1 + roots.real.abs())
    values = evaluate(coefficients[..., None, :], roots.real)
    best = torch.where(real, values, torch.inf).argmin(dim=-1, keepdim=True)
    return roots.real.gather(-1, best)[..., 0]
