"""The convex sub-problem: a quadratic program at the model, and its elastic form where the linearisation is infeasible.

minimise ½ dᵀPd + ∇fᵀd subject to Ad + g = 0, Gd + h ≤ 0, lower ≤ z + d ≤ upper. The elastic form lets the rows of A and
G be violated, at a price ρ for each unit; the bounds of z hold always.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool

from cvxlayers.errors import CvxlayersWarning
from cvxlayers.forms import solve_qp
from cvxlayers.program import Status
from cvxlayers.sqp.model import Blocks, Layout, Model, Multipliers, Sizes
from cvxlayers.sqp.pattern import Pattern, Values, Vectors
from cvxlayers.standard import QPSolution

# Curvatures below this, relative to the largest, are raised to it; it changes steps, never where they end.
_FLATTEST = 1e-8
# Multiples of AᵀA that are tried to make an indefinite Hessian definite without changing the step.
_AUGMENTATIONS = (1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True, eq=False)
class Step:
    """Solutions of the sub-problems of some items.

    Attributes:
        d: the steps.
        multipliers: of the linearised constraints.
        solved: which items have a step.
        elastic: which of them needed the elastic form.
        curvature: entries of the Hessian whose Newton step d is.
    """

    d: Vectors
    multipliers: Multipliers
    solved: Bool[np.ndarray, " batch"]
    elastic: Bool[np.ndarray, " batch"]
    curvature: Values


@dataclass(frozen=True, eq=False)
class Convex:
    """A positive definite P, what its augmentation by ρAᵀA adds to the linear term, and P without it."""

    P: Values
    shift: Vectors
    curvature: Values


def convexified(layout: Layout, model: Model) -> Convex:
    """Makes the Hessian positive definite.

    A Hessian that is definite stays as it is. Where adding ρAᵀA makes it definite, the step is the Newton step, as
    Ad = −g is fixed; the linear term ρAᵀg keeps the multipliers too. Otherwise negative curvatures change their sign.
    """
    shift = np.zeros((len(model.g), layout.n))
    if len(layout.blocks) != 1 or layout.blocks[0][0] != 1:
        P = _entries(tuple(_raised(block) for block in model.hessian))
        return Convex(P, shift, P)
    H = model.hessian[0][:, 0].copy()
    kept = np.zeros(len(H), dtype=bool)
    curved = _indefinite(H)
    if len(curved) and layout.A.shape[0]:
        A = layout.A.dense(model.A)
        for weight in _AUGMENTATIONS:
            rho = (
                weight * np.abs(H[curved]).max(axis=(1, 2)) / np.maximum(np.abs(A[curved]).max(axis=(1, 2)), 1e-8) ** 2
            )
            trial = H[curved] + rho[:, None, None] * A[curved].mT @ A[curved]
            definite = np.linalg.eigvalsh(trial)[:, 0] > _FLATTEST * np.abs(trial).max(axis=(1, 2))
            done = curved[definite]
            H[done], kept[done] = trial[definite], True
            shift[done] = rho[definite, None] * layout.A.rmatvec(model.A[done], model.g[done])
            curved = curved[~definite]
    P = _entries((_raised(H[:, None]),))
    return Convex(P, shift, np.where(kept[:, None], _entries(model.hessian), P))


def solve(layout: Layout, z: Vectors, model: Model, penalty: Sizes, solver: str | None) -> Step:
    """Solves the sub-problems of a batch, in elastic form where they have no solution."""
    convex = convexified(layout, model)
    solution = _solved(layout, z, model, convex, solver)
    d, y, w, box = solution.x.copy(), solution.y.copy(), solution.z.copy(), solution.z_box.copy()
    good = _usable(solution)
    elastic = np.flatnonzero(~good)
    if len(elastic):
        relaxed, ok = _elastic(layout, z[elastic], model.item(elastic), convex.P[elastic], penalty[elastic])
        d[elastic], y[elastic], w[elastic], box[elastic] = relaxed
        good = good.copy()
        good[elastic] = ok
    was_elastic = np.zeros(len(z), dtype=bool)
    was_elastic[elastic] = True
    return Step(d, Multipliers(y, w, box), good, was_elastic, convex.curvature)


def corrected(layout: Layout, z: Vectors, d: Vectors, model: Model, g: Vectors, h: Vectors, solver: str | None) -> Step:
    """Returns the second-order correction: the step for the values g and h found at z + d instead of their models."""
    curved = Model(
        model.gradient,
        g - layout.A.matvec(model.A, d),
        h - layout.G.matvec(model.G, d),
        model.A,
        model.G,
        model.hessian,
    )
    convex = convexified(layout, curved)
    solution = _solved(layout, z, curved, convex, solver)
    none = np.zeros(len(z), dtype=bool)
    return Step(
        solution.x, Multipliers(solution.y, solution.z, solution.z_box), _usable(solution), none, convex.curvature
    )


def _solved(layout: Layout, z: Vectors, model: Model, convex: Convex, solver: str | None) -> QPSolution:
    blocks: dict[str, Any] = {}
    if layout.A.shape[0]:
        blocks |= {"A": (layout.A.csr, model.A), "b": -model.g}
    if layout.G.shape[0]:
        blocks |= {"G": (layout.G.csr, model.G), "h": -model.h}
    if np.isfinite(layout.lower).any():
        blocks["lb"] = layout.lower - z
    if np.isfinite(layout.upper).any():
        blocks["ub"] = layout.upper - z
    return _quiet((layout.P.csr, convex.P), model.gradient + convex.shift, blocks, solver)


def _elastic(
    layout: Layout, z: Vectors, model: Model, P: Values, penalty: Sizes
) -> tuple[tuple[Vectors, Vectors, Vectors, Vectors], Bool[np.ndarray, " batch"]]:
    """Solves with rows Ad + g = t⁺ − t⁻ and Gd + h ≤ s, at the price ρ(t⁺ + t⁻ + s)."""
    n, p, q, batch = layout.n, layout.A.shape[0], layout.G.shape[0], len(z)
    extra = 2 * p + q
    A_right, G_right = _slack(p, (np.arange(p), p + np.arange(p)), extra), _slack(q, (2 * p + np.arange(q),), extra)
    A, G = layout.A.padded(A_right), layout.G.padded(G_right)
    diagonal = Pattern.block_diagonal((1,) * extra)
    rows = np.concatenate([layout.P.rows, n + diagonal.rows])
    P_pattern = Pattern((n + extra, n + extra), rows, np.concatenate([layout.P.cols, n + diagonal.cols]))
    flat = 1e-8 * np.broadcast_to(penalty[:, None], (batch, extra))
    price = np.concatenate([model.gradient, np.broadcast_to(penalty[:, None], (batch, extra))], axis=1)
    none = np.full((batch, extra), np.inf)
    blocks = {
        "A": (A.csr, layout.A.beside(model.A, A_right)),
        "b": -model.g,
        "G": (G.csr, layout.G.beside(model.G, G_right)),
        "h": -model.h,
        "lb": np.concatenate([layout.lower - z, np.zeros((batch, extra))], axis=1),
        "ub": np.concatenate([layout.upper - z, none], axis=1),
    }
    blocks = {name: block for name, block in blocks.items() if (p or name not in "Ab") and (q or name not in "Gh")}
    solution = _quiet((P_pattern.csr, np.concatenate([P, flat], axis=1)), price, blocks, None)
    return (solution.x[:, :n], solution.y, solution.z, solution.z_box[:, :n]), _usable(solution)


def _slack(height: int, columns: tuple[np.ndarray, ...], width: int) -> sp.coo_array:
    """Returns slack columns: −1 for what a row may exceed by, +1 for what it may fall short by."""
    signs = np.repeat((-1.0, 1.0)[: len(columns)], height)
    places = np.tile(np.arange(height), len(columns)), np.concatenate(columns)
    return sp.coo_array((signs, places), shape=(height, width))


def _quiet(P: object, q: Vectors, blocks: dict[str, Any], solver: str | None) -> QPSolution:
    """Solves without a word: what is wrong with a sub-problem is the algorithm's to answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CvxlayersWarning)
        return solve_qp(P, q, **blocks, on_failure="mask", check=False, solver=solver)


def _usable(solution: QPSolution) -> Bool[np.ndarray, " batch"]:
    status = np.atleast_1d(solution.result.status)
    finite = np.isfinite(solution.x).all(axis=1)
    return finite & ((status == Status.SOLVED) | (status == Status.INACCURATE))


def _indefinite(H: np.ndarray) -> np.ndarray:
    scale = np.maximum(np.abs(H).max(axis=(1, 2)), 1.0)
    return np.flatnonzero(np.linalg.eigvalsh(H)[:, 0] < _FLATTEST * scale)


def _raised(block: np.ndarray) -> np.ndarray:
    """Returns the blocks with curvatures |λ|, none below the flattest."""
    values, vectors = np.linalg.eigh(block)
    scale = np.maximum(np.abs(values).max(axis=-1, keepdims=True), 1.0)
    curved = values[..., :1] < _FLATTEST * scale
    raised = np.maximum(np.abs(values), _FLATTEST * scale)
    return np.where(curved[..., None], (vectors * raised[..., None, :]) @ vectors.mT, block)


def _entries(blocks: Blocks) -> Values:
    flat = [block.reshape(len(block), -1) for block in blocks]
    return np.concatenate(
        [(entries + _mirrored(block)) / 2 for entries, block in zip(flat, blocks, strict=True)], axis=1
    )


def _mirrored(block: np.ndarray) -> np.ndarray:
    return block.mT.reshape(len(block), -1)
