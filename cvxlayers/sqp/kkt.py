"""The derivative of a solution through its KKT system: the active constraints held as equalities.

    [H  Aᵀ  Gᵀ  I ] [λ]   [dz]
    [A            ] [μ] = [dy]          rows of G and of the bounds only where they are active
    [G            ]       [dw]
    [I            ]

The cotangents of a perturbation of ∇L are −λ, of the values of the constraints −μ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from jaxtyping import Bool, Float

from cvxlayers.sqp.model import Layout, Multipliers, Sizes
from cvxlayers.sqp.pattern import Values, Vectors

# Systems up to this order are solved as one batch of dense ones.
_DENSE = 320


@dataclass(frozen=True, eq=False)
class System:
    """The KKT matrices of a batch, of one size: a row that is not active says that its unknown is zero.

    Attributes:
        layout: where the entries belong.
        H: entries of the Hessian.
        A: entries of ∂g/∂z.
        G: entries of ∂h/∂z.
        active: which inequalities hold with equality.
        bound: which variables are at a bound.
    """

    layout: Layout
    H: Vectors
    A: Vectors
    G: Vectors
    active: Bool[np.ndarray, "batch q"]
    bound: Bool[np.ndarray, "batch n"]

    @property
    def boxed(self) -> np.ndarray:
        """The variables that have a bound."""
        return np.flatnonzero(np.isfinite(self.layout.lower) | np.isfinite(self.layout.upper))

    def solve(self, dz: Vectors, at: Multipliers) -> tuple[Vectors, Multipliers, Sizes]:
        """Returns λ, μ, and the relative residual of each item."""
        rhs = np.concatenate(
            [dz, at.g, np.where(self.active, at.h, 0.0), np.where(self.bound, at.box, 0.0)[:, self.boxed]], axis=1
        )
        n, p, q = self.layout.n, self.layout.A.shape[0], self.layout.G.shape[0]
        found, residual = self._dense(rhs) if rhs.shape[1] <= _DENSE else self._sparse(rhs)
        lam, mu_g, mu_h, mu_box = np.split(found, np.cumsum([n, p, q]), axis=1)
        box = np.zeros((len(dz), n))
        box[:, self.boxed] = mu_box
        return lam, Multipliers(mu_g, mu_h, box), residual

    def _dense(self, rhs: Vectors) -> tuple[Vectors, Sizes]:
        K = np.zeros((len(rhs), rhs.shape[1], rhs.shape[1]))
        rows, cols, values = self._entries()
        K[:, rows, cols] = values
        try:
            found = np.linalg.solve(K, rhs[..., None])[..., 0]
        except np.linalg.LinAlgError:
            found = np.full_like(rhs, np.nan)
        residual = _relative(K, found, rhs)
        for item in np.flatnonzero(~(residual < 1e-9)):
            found[item] = np.linalg.lstsq(K[item], rhs[item], rcond=1e-12)[0]
        return found, _relative(K, found, rhs)

    def _sparse(self, rhs: Vectors) -> tuple[Vectors, Sizes]:
        rows, cols, values = self._entries()
        found, residual = np.empty_like(rhs), np.empty(len(rhs))
        for item, entries in enumerate(values):
            K = sp.csc_array((entries, (rows, cols)), shape=(rhs.shape[1],) * 2)
            try:
                found[item] = spla.splu(K).solve(rhs[item])
            except RuntimeError:  # SuperLU: exactly singular
                found[item] = spla.lsqr(K, rhs[item], atol=1e-14, btol=1e-14, iter_lim=10 * len(entries))[0]
            residual[item] = np.abs(K @ found[item] - rhs[item]).max()
        return found, _ratio(residual, np.abs(rhs).max(axis=1, initial=0.0))

    def _entries(self) -> tuple[np.ndarray, np.ndarray, Values]:
        layout, boxed = self.layout, self.boxed
        n, p, q = layout.n, layout.A.shape[0], layout.G.shape[0]
        places = [(layout.P.rows, layout.P.cols, self.H)]
        for rows, cols, values, start, active in (
            (layout.A.rows, layout.A.cols, self.A, n, np.ones((len(self.A), p), dtype=bool)),
            (layout.G.rows, layout.G.cols, self.G, n + p, self.active),
            (np.arange(len(boxed)), boxed, np.ones((len(self.H), len(boxed))), n + p + q, self.bound[:, boxed]),
        ):
            entries, diagonal = np.where(active[:, rows], values, 0.0), np.arange(active.shape[1])
            places += [
                (start + rows, cols, entries),
                (cols, start + rows, entries),
                (start + diagonal, start + diagonal, np.where(active, 0.0, 1.0)),
            ]
        rows, cols, values = zip(*places, strict=True)
        return np.concatenate(rows), np.concatenate(cols), np.concatenate(values, axis=1)


def _relative(K: np.ndarray, found: Vectors, rhs: Vectors) -> Float[np.ndarray, " batch"]:
    residual = np.abs((K @ found[..., None])[..., 0] - rhs).max(axis=1, initial=0.0)
    return _ratio(residual, np.abs(rhs).max(axis=1, initial=0.0))


def _ratio(residual: Sizes, scale: Sizes) -> Sizes:
    return np.divide(residual, scale, out=residual.copy(), where=scale > 0.0)
