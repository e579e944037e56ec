"""Random dense quadratic programs and their exact solutions and gradients, by textbook formulas in plain numpy."""

from __future__ import annotations

from dataclasses import dataclass

import clarabel
import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float

from benchmarks.contest import Answer

Vector = Float[np.ndarray, " k"]


@dataclass(frozen=True)
class QuadraticPrograms:
    """A batch of: minimise ½xᵀQx + pᵀx subject to Ax = b, Gx ≤ h.

    Attributes:
        Q: positive definite.
        p: linear term.
        A: left side of the equalities.
        b: right side of the equalities.
        G: left side of the inequalities.
        h: right side of the inequalities.
        weights: what the solution is multiplied by; the sum of the products is differentiated.
    """

    Q: Float[np.ndarray, "batch n n"]
    p: Float[np.ndarray, "batch n"]
    A: Float[np.ndarray, "batch e n"]
    b: Float[np.ndarray, "batch e"]
    G: Float[np.ndarray, "batch m n"]
    h: Float[np.ndarray, "batch m"]
    weights: Float[np.ndarray, "batch n"]

    @property
    def parameters(self) -> dict[str, Float[np.ndarray, "batch ..."]]:
        """The data that gradients are taken of, by name."""
        return {name: getattr(self, name) for name in ("Q", "p", "A", "b", "G", "h")}


def random_programs(batch: int, n: int, equalities: int, inequalities: int, seed: int) -> QuadraticPrograms:
    """Returns feasible programs, some of whose inequalities are active."""
    rng = np.random.default_rng(seed)
    L = rng.normal(size=(batch, n, n)) / np.sqrt(n)
    A, G = rng.normal(size=(batch, equalities, n)), rng.normal(size=(batch, inequalities, n))
    inside = rng.normal(size=(batch, n, 1))
    return QuadraticPrograms(
        Q=L @ L.mT + 0.1 * np.eye(n),
        p=rng.normal(size=(batch, n)),
        A=A,
        b=(A @ inside)[..., 0],
        G=G,
        h=(G @ inside)[..., 0] + rng.uniform(size=(batch, inequalities)),
        weights=rng.normal(size=(batch, n)),
    )


def exact_answer(programs: QuadraticPrograms) -> Answer:
    """Solves the optimality conditions on the active set that an interior-point solver finds, to rounding.

    Raises:
        ArithmeticError: if a multiplier or a slack then has the wrong sign, so that the active set was wrong.
    """
    items = [_exact_item(programs, index) for index in range(len(programs.p))]
    gradients = {name: np.stack([item.gradients[name] for item in items]) for name in programs.parameters}
    return Answer(np.stack([item.solution for item in items]), gradients)


def _exact_item(programs: QuadraticPrograms, index: int) -> Answer:
    data = {name: value[index] for name, value in programs.parameters.items()}
    weights, A, G, n = programs.weights[index], data["A"], data["G"], len(data["p"])
    active = _active(data)
    B = np.vstack([A, G[active]])
    K = np.block([[data["Q"], B.T], [B, np.zeros((len(B), len(B)))]])
    z = np.linalg.solve(K, np.concatenate([-data["p"], data["b"], data["h"][active]]))
    x, multipliers = z[:n], z[n + len(A) :]
    if multipliers.min(initial=0) < 0 or (G @ x - data["h"]).max(initial=0) > 1e-9:
        raise ArithmeticError(f"item {index}: the active set is wrong or not strictly complementary")
    # K is symmetric: the adjoint of z ↦ wᵀx at K z = r is d = K⁻¹ (w, 0), and the gradient is dᵀ(dr − dK z).
    d = np.linalg.solve(K, np.concatenate([weights, np.zeros(len(B))]))
    dx, dB = d[:n], d[n:]
    # Rows that are not active have no influence.
    every = np.concatenate([np.ones(len(A), dtype=bool), active])
    d_rows, duals = np.zeros((2, len(every)))
    d_rows[every], duals[every] = dB, z[n:]
    rows = -np.outer(duals, dx) - np.outer(d_rows, x)
    gradients = {
        "Q": -(np.outer(dx, x) + np.outer(x, dx)) / 2,
        "p": -dx,
        "A": rows[: len(A)],
        "b": d_rows[: len(A)],
        "G": rows[len(A) :],
        "h": d_rows[len(A) :],
    }
    return Answer(x, gradients)


def _active(data: dict[str, Float[np.ndarray, "..."]]) -> Bool[np.ndarray, " m"]:
    """Returns which inequalities hold with equality: those whose multiplier exceeds their slack."""
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-10
    A, G = data["A"], data["G"]
    cones = [clarabel.ZeroConeT(len(A)), clarabel.NonnegativeConeT(len(G))]
    P, rows = sp.csc_array(np.triu(data["Q"])), sp.csc_array(np.vstack([A, G]))
    right = np.concatenate([data["b"], data["h"]])
    solution = clarabel.DefaultSolver(P, data["p"], rows, right, cones, settings).solve()
    return np.array(solution.z)[len(A) :] > np.array(solution.s)[len(A) :]
