"""What compilation chose for programs of one structure: what is eliminated, and how their systems are factorised.

Programs and points outside a kernel are always the full ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from jaxtyping import Bool, Int

from cvxlayers.batches import Vectors
from cvxlayers.closed import ClosedForm
from cvxlayers.derivative import (
    DerivativeInfo,
    Factorisation,
    Factorise,
    Keeper,
    Known,
    Lifted,
    Method,
    Point,
    System,
    central_point,
    factorise,
    of_rows,
)
from cvxlayers.idioms.coordinates import require_coordinates
from cvxlayers.kkt.band import band_of
from cvxlayers.kkt.effort import dense_microseconds, stored
from cvxlayers.program import ConeProgram, Structure
from cvxlayers.reduction import Reduced, Reduction
from cvxlayers.variable_map import VariableMap

_DOUBLE, _INDEX = 8, 4
# How many numbers a structured factorisation keeps for each unknown.
_VECTORS = 12
# And how many a formula does.
_FORMULA = 4
# Bytes of two dense matrices of eighty rows, below which BLAS takes no threads, and of a thousand, where they pay.
_SMALL, _LARGE = 100_000, 16_000_000


@dataclass(frozen=True, eq=False)
class Kernel:
    """How the programs of one structure are solved and differentiated.

    Attributes:
        full: their structure.
        reduction: what is eliminated before the solver.
        method: how the systems are factorised.
        closed: the formulas of the programs, where they have any.
    """

    full: Structure
    reduction: Reduction | None
    method: Method
    closed: ClosedForm | None = None

    @property
    def structure(self) -> Structure:
        """The structure of the programs that the solver sees."""
        return self.full if self.reduction is None else self.reduction.structure

    @property
    def redundant(self) -> Int[np.ndarray, " _count"] | None:
        """The rows of the full programs that say nothing new."""
        return None if self.reduction is None else self.reduction.redundant

    def shares(self, outputs: VariableMap) -> bool:
        """Whether outputs are multipliers that repeated rows could share in other ways."""
        return self.reduction is not None and bool(self.reduction.repeated.asked(outputs.y.inputs).any())

    def tell(
        self, info: DerivativeInfo, listed: Bool[np.ndarray, " m"], y: Vectors, cotangent: Vectors | None = None
    ) -> DerivativeInfo:
        """Returns how far to trust a derivative of multipliers; see `Repeated.tell`."""
        return info if self.reduction is None else self.reduction.repeated.tell(info, listed, y, cotangent)

    def limits_blas(self, batch: int) -> bool:
        """Whether BLAS shall have one thread while so many items are worked on: not where formulas have no use for it.

        One large item may use all threads there are.
        """
        has_use = self.closed is None or bool(self.full.cone.semidefinite)
        return has_use and (batch > 1 or self.is_delayed)

    @cached_property
    def is_delayed(self) -> bool:
        """Whether BLAS takes threads for an item that delay it: LAPACK gains nothing by them on some hundred rows."""
        if self.method in (Method.CONDENSED, Method.COORDINATES):
            return True  # many products of small matrices
        data = 2 * _DOUBLE * (self.full.P.nnz + self.full.A.nnz)
        return _SMALL <= max(self.factor_bytes, data) < _LARGE

    @property
    def free_microseconds(self) -> float:
        """About how long the factorisation of one item's system leaves the interpreter to other threads."""
        if self.closed is not None or self.method.is_structured or self.method is Method.BANDED:
            return 0.0
        return dense_microseconds(self.structure.n + self.structure.m)

    @property
    def factor_bytes(self) -> int:
        """About how much memory one item's system and its factors take."""
        structure = self.structure
        order = structure.n + structure.m
        if self.closed is not None:
            return _FORMULA * order * _DOUBLE
        if self.method is Method.CONDENSED:
            return _DOUBLE * (2 * structure.n * structure.m + order * order // 4)
        if self.method is Method.COORDINATES:
            few = require_coordinates(structure).few
            return _DOUBLE * (2 * few * structure.m + 4 * few * few)
        if self.method.is_structured:
            return _VECTORS * order * _DOUBLE
        if self.method is Method.CHOLESKY:
            return _DOUBLE * (structure.n**2 + structure.n * structure.m + 2 * structure.m**2)
        if self.method is Method.DENSE:
            return 2 * order * order * _DOUBLE
        if self.method is Method.BANDED:
            return order * (3 * band_of(structure).width + 1) * _DOUBLE
        if self.method is Method.SCHUR:
            return structure.m**2 * _DOUBLE
        return 3 * stored(structure) * (_DOUBLE + _INDEX)

    def reduce(self, program: ConeProgram) -> Reduced | None:
        """Eliminates what the structure allows; None where that is nothing."""
        return None if self.reduction is None else self.reduction.eliminate(program)

    def factoriser(self, threads: int, reduced: Reduced | None = None, known: Known | None = None) -> Factorise:
        """Returns how the systems of the full programs are factorised: by way of the reduced ones.

        Args:
            threads: threads over the items.
            reduced: the same programs, reduced; otherwise each system's programs are reduced anew.
            known: factorised systems of the solver's programs, at other points.
        """
        reduction = self.reduction
        plain = self.plain(threads)
        if known is not None:
            plain = partial(known.factorise, factorise=plain)
        if reduction is None:
            return plain

        def lift(system: System, items: Int[np.ndarray, " k"] | None = None) -> Factorisation:
            if reduced is None:
                lower = reduction.eliminate(system.program)
            else:
                lower = reduced if items is None or len(items) == reduced.full.batch else reduced.item(items)
            small = System(lower.program, of_rows(system.derivative, reduction.kept_rows))
            fold, expand = partial(lower.fold, system), partial(lower.expand, system)
            return Lifted(plain(small), fold, expand, lower.carry)

        return lift

    def central_point(self, program: ConeProgram, reduced: Reduced | None, point: Point, mu: float) -> Point:
        """Returns the points of the central path with barrier parameter `mu`; see `derivative.central_point`.

        The barrier is that of the reduced programs: a row that says nothing new repels nothing.

        Args:
            program: the programs.
            reduced: the same programs, reduced; otherwise they are reduced anew.
            point: their solutions.
            mu: the barrier parameter.
        """
        reduction = self.reduction
        if reduction is None:
            return central_point(program, point.x, point.v, mu, self.plain(1))
        lower = reduction.eliminate(program) if reduced is None else reduced
        x, v = np.take(point.x, reduction.kept_variables, axis=1), np.take(point.v, reduction.kept_rows, axis=1)
        small = central_point(lower.program, x, v, mu, self.plain(1))
        x, y, s = lower.recover(small.x, small.y, small.s)
        return replace(small, x=x, v=y - s, y=y, s=s)

    def plain(self, threads: int, keeper: Keeper | None = None) -> Factorise:
        """Returns how systems of the solver's own programs are factorised."""

        def plain(system: System, items: Int[np.ndarray, " k"] | None = None) -> Factorisation:
            factors = factorise(system, self.method, threads)
            return factors if keeper is None else keeper.keep(system, factors)

        return plain
