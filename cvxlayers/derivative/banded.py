"""Banded factorisations of a batch of reduced systems: LU in an order that keeps all entries near the diagonal.

The KKT matrix of a program over stages, such as one of predictive control, has a bandwidth that does not depend on the
number of stages: its factorisation is linear in it, as a Riccati recursion is. Rows are exchanged, so that K need not
be quasi-definite. Items that are singular to working precision are factorised as sparse ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cvxlayers.batches import Vectors
from cvxlayers.derivative.sparse import SparseItem, factorise_item, rank_of
from cvxlayers.derivative.system import Factorisation, Rank, Solve, System, refine
from cvxlayers.kkt.band import BandFactors, band_of, factorise_band

# A ratio of pivots below this makes an item suspect, and so does a residual above the second.
_SUSPECT, _ESCALATE = 1e-9, 1e-10
# Bytes of bands that are assembled at once.
_CACHE = 2**22


@dataclass(frozen=True, eq=False)
class BandedFactorisation(Factorisation):
    """The factorised items of a batch: K's factors, the suspect items' sparse ones, and how regular all are."""

    system: System
    factors: Sequence[BandFactors]
    suspects: Mapping[int, SparseItem]
    regular: Rank

    @property
    def rank(self) -> Rank:
        """How regular the systems are."""
        return self.regular

    def solve(self, first: Vectors, second: Vectors) -> Solve:
        """Solves K u = [first; second] for each item."""
        n, rhs = first.shape[1], np.concatenate([first, second], axis=1)
        refinable = np.ones(len(rhs), dtype=bool)
        refinable[list(self.suspects)] = False
        solution, residual = refine(self.system, rhs, self._approximate, refinable)
        doubtful = (residual > _ESCALATE) & np.isfinite(residual)
        for item in sorted({*self.suspects, *np.flatnonzero(doubtful).tolist()}):
            sparse = self.suspects[item] if item in self.suspects else factorise_item(self.system, item)
            again, found = sparse.solve(rhs[item])
            if item in self.suspects or found < residual[item]:
                solution[item], residual[item] = again, found
        return Solve(solution[:, :n], solution[:, n:], residual)

    def once(self, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors]:
        """Solves K u = [first; second] for each item, once."""
        n, rhs = first.shape[1], np.concatenate([first, second], axis=1)
        solution = self._approximate(rhs, np.arange(len(rhs)))
        for item, sparse in self.suspects.items():
            solution[item] = sparse.solve(rhs[item])[0]
        return solution[:, :n], solution[:, n:]

    def _approximate(self, rhs: Vectors, items: Int[np.ndarray, " count"]) -> Vectors:
        """Applies the factors; to the suspects nothing."""
        order = band_of(self.system.program.structure).order
        ordered, solution = rhs.take(order, axis=1), np.empty(rhs.shape)
        for row, item in zip(ordered, items.tolist(), strict=True):
            if item in self.suspects:
                row[:] = 0.0
            else:
                self.factors[item].substitute(row)
        solution[:, order] = ordered
        return solution


def factorise_banded(system: System) -> BandedFactorisation:
    """Factorises the banded matrices K of a batch of systems."""
    first, place = system.distinct
    if len(first) == len(place):
        return _factorise(system)
    some = _factorise(system.item(first))
    suspects = {item: some.suspects[k] for item, k in enumerate(place.tolist()) if k in some.suspects}
    return BandedFactorisation(system, [some.factors[k] for k in place.tolist()], suspects, some.rank.item(place))


def _factorise(system: System) -> BandedFactorisation:
    program, eigenvalues, A = system.program, system.derivative.eigenvalues, system.program.structure.A
    band = band_of(program.structure)
    batch, size = len(eigenvalues), len(band.order)
    step = max(1, _CACHE // (8 * size * (3 * band.width + 1)))
    factors: list[BandFactors] = []
    for start in range(0, batch, step):
        part = system.item(slice(start, min(start + step, batch)))
        scaled = part.program.A * np.take(part.root, A.rows, axis=1)
        factors += factorise_band(band, band.assemble(part.program.P, scaled, part.derivative.eigenvalues - 1.0))
    smallest, largest = _extremes(factors)
    condition = np.divide(largest, smallest, out=np.full(batch, np.inf), where=smallest > 0)
    suspects = {
        item: factorise_item(system, item)
        for item in np.flatnonzero(~(smallest > _SUSPECT * largest)).tolist()
        if np.isfinite(largest[item])
    }
    rank = Rank.regular(condition, program.structure.n)
    if suspects:
        rank.replace_items(np.array(list(suspects)), rank_of(list(suspects.values()), program.structure.n))
    return BandedFactorisation(system, factors, suspects, rank)


def _extremes(factors: Sequence[BandFactors]) -> tuple[Float[np.ndarray, " batch"], Float[np.ndarray, " batch"]]:
    """Returns the smallest and the largest pivot of each item."""
    if not factors:
        return np.zeros(0), np.zeros(0)
    pivots = np.array([item.pivots for item in factors])
    return pivots.min(axis=1), pivots.max(axis=1)
