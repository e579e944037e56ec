"""The solution maps of a call, differentiated over the solved items in pieces that fit a processor's cache."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from cvxlayers import report
from cvxlayers.batches import Run, every
from cvxlayers.blas import one_thread
from cvxlayers.cones import Smoothed
from cvxlayers.derivative import TRUSTED, DerivativeInfo, Differential, Known, Point, linearise
from cvxlayers.differentiation import Differentiation
from cvxlayers.errors import DerivativeError, DerivativeWarning
from cvxlayers.forward import Array, Forward, Items, put_on_path, spread, spread_info
from cvxlayers.kernel import Kernel
from cvxlayers.lean import Within
from cvxlayers.lpgd import Differences
from cvxlayers.parallel import chunks, map_chunks, worthwhile_chunks
from cvxlayers.program import ConeProgram
from cvxlayers.reduction import Reduced

# Bytes of matrices that one piece of a batch may fill.
_CACHE = 2**22
# The same with threads: each piece is a hundred short calls of NumPy, between which they queue for the interpreter.
_SHARED = 2**26

# What derivatives at some solutions are computed from.
Local = Differential | Differences


@dataclass(frozen=True, eq=False)
class SolutionMaps:
    """The solution maps of one call.

    Attributes:
        kernel: how systems are factorised.
        how: what of the maps is differentiated.
        forward: the call, at the points where they are.
        strict: whether doubtful derivatives raise instead of warning.
        width: how many numbers of each item derivatives with respect to parameters are.
        within: of lean programs, the solution maps of the full ones, and their variables and rows among those.
    """

    kernel: Kernel
    how: Differentiation
    forward: Forward
    strict: bool
    width: int
    within: tuple[SolutionMaps, tuple[Run, Run]] | None = None

    def differentiate(
        self, local: Callable[[Any, Items | slice, Sequence[Array]], DerivativeInfo], widths: Sequence[int]
    ) -> tuple[list[Array], DerivativeInfo]:
        """Differentiates the maps of the solved items.

        Args:
            local: adds what it computes for some items, from a `Local`, to arrays of zeros.
            widths: the widths of these arrays.

        Returns:
            The arrays for the whole batch; items without a solution are zero, or NaN where the call asked for NaN.
        """
        forward = self.forward
        solved = forward.ok.nonzero()[0]
        if not len(solved):
            nothing = [np.zeros((0, width)) for width in widths]
            return spread(nothing, solved, forward), spread_info(_no_info(), solved, forward)
        everything = len(solved) == forward.program.batch
        known = forward.found.known if everything and self.how.kind == "exact" else None
        threads, count = (1, 1) if known is not None else self._pieces(len(solved))
        within = 1 if threads > 1 else forward.options.threads
        arrays = [np.zeros((len(solved), width)) for width in widths]

        def piece_of(piece: slice) -> DerivativeInfo:
            index = piece if everything else solved[piece]
            whole = everything and piece.stop - piece.start == len(solved)
            found = forward.everything if whole else forward.item(index)
            return local(self._local(found, index, within, known), index, [array[piece] for array in arrays])

        with one_thread(self.kernel.limits_blas(len(solved))):
            infos = map_chunks(piece_of, chunks(len(solved), count, smallest=8), threads)
        info = infos[0] if len(infos) == 1 else _joined(infos)
        self._check(info, solved)
        return spread(arrays, solved, forward), spread_info(info, solved, forward)

    def _pieces(self, batch: int) -> tuple[int, int]:
        """Returns how many threads share the items, and in how many pieces."""
        if self.how.kind == "lpgd":  # its solver has threads of its own
            return 1, 1
        threads = len(worthwhile_chunks(batch, self.forward.options.threads, self.kernel.free_microseconds))
        footprint = self.kernel.factor_bytes + 8 * self.width
        return threads, max(threads, batch * footprint // (_CACHE if threads == 1 else _SHARED))

    def _local(
        self, found: tuple[ConeProgram, Point, Reduced | None], index: Items | slice, threads: int, known: Known | None
    ) -> Local:
        """Returns what derivatives at the solutions of the items `index` are computed from."""
        program, point, reduced = found
        how, kernel, forward = self.how, self.kernel, self.forward
        if how.kind == "lpgd":
            return Differences(kernel, program, point, forward.options, how.mu)
        smoothed = Smoothed(program.structure.cone, how.mu) if how.kind == "smoothed" else None
        outputs = forward.map.x.apply
        if kernel.closed is None or smoothed is not None:
            factoriser = kernel.factoriser(threads, reduced, known)
            return linearise(program, point, factoriser, smoothed, outputs, kernel.redundant)

        def whole(items: Items) -> Differential:
            return self._whole(np.arange(forward.program.batch)[index][items], threads)

        return kernel.closed.linearise(program, point, reduced, outputs, whole)

    def _whole(self, items: Items, threads: int) -> Differential:
        """Linearises the maps of some items as those of any program."""
        if self.within is not None:
            maps, kept = self.within
            full = maps._whole(items, threads)
            return Within(full.program, full.point, full, kept)
        program, point, reduced = self.forward.item(items)
        factoriser = self.kernel.factoriser(threads, reduced)
        with one_thread(len(items) > 1 or self.kernel.is_delayed):
            return linearise(program, point, factoriser, None, self.forward.map.x.apply, self.kernel.redundant)

    def _check(self, info: DerivativeInfo, solved: Items) -> None:
        trusted = info.residual <= TRUSTED
        if not every(trusted):
            rough = (~trusted).nonzero()[0]
            message = report.doubtful(solved[rough], len(solved), info.residual[rough], self.how.kind)
            if self.strict:
                raise DerivativeError(message)
            warnings.warn(message, DerivativeWarning, stacklevel=4)


def differentiated_point(kernel: Kernel, how: Differentiation, forward: Forward) -> Forward:
    """Returns a call as if it had ended where it is differentiated: on the central path, if that is smoothed."""
    if how.kind != "smoothed":
        return forward
    solved = np.flatnonzero(forward.ok)
    program, point = forward.program.item(solved), forward.point.item(solved)
    reduced = None if forward.found.reduced is None else forward.found.reduced.item(solved)
    found = kernel.central_point(program, reduced, point, how.mu)
    return forward.at(put_on_path(forward.point, solved, found))


def _no_info() -> DerivativeInfo:
    none, no = np.zeros(0), np.zeros(0, dtype=bool)
    return DerivativeInfo(none, none, no, no, no)


def _joined(infos: Sequence[DerivativeInfo]) -> DerivativeInfo:
    names = [column.name for column in fields(DerivativeInfo)]
    return DerivativeInfo(*(np.concatenate([getattr(info, name) for info in infos]) for name in names))
