"""Which values a parameter allows by its attributes: sign, bounds, symmetry, definiteness, support, whole numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Complex, Float

from cvxlayers.errors import DomainError

Array = Float[np.ndarray, "..."]
Flat = Float[np.ndarray, "items size"]
Entries = Float[np.ndarray, "items size"] | Complex[np.ndarray, "items size"]
Matrices = Float[np.ndarray, "items count order order"] | Complex[np.ndarray, "items count order order"]
Excess = Float[np.ndarray, " items"]

# How far entries may lie outside of bounds: rounding of single precision, also where the bound is zero. What must be
# zero, symmetric or definite may be off by this part of the largest entry.
_BOUND, _STRUCTURE = 1e-6, 1e-5
# How far large whole numbers may be off: single precision does not tell those above 2^24 from their neighbours.
_WHOLE = 1e-2
# Bytes of values that are checked at a time.
_CACHE = 2**20
WAY_OUT = "Pass values that are allowed, or check=False where this is meant"


@dataclass(frozen=True, eq=False)
class Domain:
    """The values that one parameter allows.

    Attributes:
        words: the attribute by which each of the following is declared, as a user writes it.
        lower: the smallest allowed entries, raveled in C order; None without any.
        upper: the largest allowed entries.
        support: which entries may differ from zero; None for all.
        integer: which entries are whole numbers; None for none.
        boolean: which entries are zero or one; None for none.
        symmetric: whether matrices (the last two axes) are symmetric.
        definite: 1 where they are positive semidefinite, -1 negative, 0 neither.
        order: the number of rows of these matrices.
        complex: whether rows hold real and imaginary parts in turn; symmetric then means Hermitian.
        imaginary: whether the real parts are zero.
    """

    words: dict[str, str]
    lower: Float[np.ndarray, " size"] | None = None
    upper: Float[np.ndarray, " size"] | None = None
    support: Bool[np.ndarray, " size"] | None = None
    integer: Bool[np.ndarray, " size"] | None = None
    boolean: Bool[np.ndarray, " size"] | None = None
    symmetric: bool = False
    definite: int = 0
    order: int = 0
    complex: bool = False
    imaginary: bool = False

    def check(self, label: str, flat: Flat) -> None:
        """Checks the values of all items. Items that are not finite are left to the solve, which reports them.

        Args:
            label: how a message names the parameter.
            flat: one row per item, raveled in C order.

        Raises:
            DomainError: if any value is not allowed; it names the items.
        """
        if self._holds_exactly(flat):
            return
        finite = np.flatnonzero(np.isfinite(flat).all(axis=1))
        values = flat if len(finite) == len(flat) else flat[finite]
        values = values[:, ::2] + 1j * values[:, 1::2] if self.complex else values
        if not values.size:
            return
        for (kind, what), excess in self._excesses(values).items():
            bad = np.flatnonzero(excess)
            if len(bad):
                which = named(finite[bad], len(flat))
                raise DomainError(
                    f"{label} is declared {self.words[kind]}, but {which} {what} {excess[bad].max():.3g}. {WAY_OUT}"
                )

    @cached_property
    def without_definite(self) -> Domain:
        """The same, where definiteness is known or found out otherwise."""
        return replace(self, definite=0)

    def _holds_exactly(self, flat: Flat) -> bool:
        """Whether entries are within bounds and matrices symmetric without any slack, the common case."""
        if self.complex or self.imaginary or self.definite or self.support is not None:
            return False
        if not (_is_whole(flat, self.integer) and _is_binary(flat, self.boolean)):
            return False
        if self.symmetric:
            matrices = flat.reshape((-1, self.order, self.order))
            # Transposed in memory first, as NumPy compares arrays of different strides several times as slowly.
            if not (matrices == np.ascontiguousarray(matrices.transpose(0, 2, 1))).all():
                return False
        below = self.lower is None or bool((flat >= self.lower).all())
        return below and (self.upper is None or bool((flat <= self.upper).all()))

    def _excesses(self, values: Entries) -> dict[tuple[str, str], Excess]:
        """Returns, by kind and words, how far each item is off, zero where that is allowed, piece by piece."""
        count = max(1, _CACHE // (values.itemsize * values.shape[1]))
        found: dict[tuple[str, str], list[Excess]] = {}
        for start in range(0, len(values), count):
            for kind, what, excess, allowed in self._checks(values[start : start + count]):
                found.setdefault((kind, what), []).append(np.where(excess > allowed, excess, 0.0))
        return {key: np.concatenate(parts) for key, parts in found.items()}

    def _checks(self, values: Entries) -> Iterator[tuple[str, str, Excess, Excess]]:
        """Yields the kind of each check, its words, how far each item is off, and how far it may be."""
        size = np.abs(values).max(axis=1)
        slack = _BOUND * np.maximum(1.0, size)
        if self.lower is not None:
            yield "lower", "below the lowest allowed value by up to", (self.lower - values).max(axis=1), slack
        if self.upper is not None:
            yield "upper", "above the highest allowed value by up to", (values - self.upper).max(axis=1), slack
        if self.support is not None and not self.support.all():
            outside = np.abs(values[:, ~self.support]).max(axis=1)
            yield "support", "with entries where it must be zero, up to", outside, _STRUCTURE * size
        if self.integer is not None:
            yield "integer", "off whole numbers by up to", *_apart(values, np.rint(values), self.integer)
        if self.boolean is not None:
            yield "boolean", "off 0 and 1 by up to", *_apart(values, np.rint(np.clip(values.real, 0, 1)), self.boolean)
        if self.imaginary:
            yield "imaginary", "with a real part, up to", np.abs(values.real).max(axis=1), _STRUCTURE * size
        if self.symmetric:
            matrices = values.reshape((len(values), -1, self.order, self.order))
            yield (
                "symmetric",
                f"not {'Hermitian' if self.complex else 'symmetric'}, off by up to",
                _asymmetry(matrices),
                _STRUCTURE * size,
            )
            if self.definite:
                word = "negative" if self.definite > 0 else "positive"
                found = worst_eigenvalues(self.definite * matrices, _STRUCTURE * size)
                yield "definite", f"indefinite, with {word} eigenvalues of size up to", found, _STRUCTURE * size


def _is_whole(flat: Flat, mask: Bool[np.ndarray, " size"] | None) -> bool:
    return mask is None or bool(((flat == np.rint(flat)) | ~mask).all())


def _is_binary(flat: Flat, mask: Bool[np.ndarray, " size"] | None) -> bool:
    return mask is None or bool(((flat == 0) | (flat == 1) | ~mask).all())


def _apart(values: Entries, allowed: Entries, mask: Bool[np.ndarray, " size"]) -> tuple[Excess, Excess]:
    """Returns how far the masked entries are from allowed ones, beyond rounding of each, and how far they may be."""
    away = np.abs(values - allowed) * mask
    rounding = np.clip(_BOUND * np.abs(allowed), _BOUND, _WHOLE)
    return np.where(away > rounding, away, 0.0).max(axis=1), np.zeros(len(values))


def _asymmetry(matrices: Matrices) -> Excess:
    if np.array_equal(matrices, matrices.swapaxes(-1, -2).conj()):
        return np.zeros(len(matrices))
    return np.abs(matrices - matrices.swapaxes(-1, -2).conj()).max(axis=(1, 2, 3))


def worst_eigenvalues(matrices: Matrices, allowed: Excess) -> Excess:
    """Returns minus the smallest eigenvalue of each item, or zero where all items are known to be definite enough.

    Only the lower triangles are read.
    """
    # A shift that is positive also where the matrix is zero.
    shift = np.maximum(allowed, np.finfo(float).tiny)[:, None, None, None]
    if _is_definite(matrices) or _is_definite(matrices + shift * np.eye(matrices.shape[-1])):
        return np.zeros(len(matrices))
    return -np.linalg.eigvalsh(matrices).min(axis=(1, 2))


def _is_definite(matrices: Matrices) -> bool:
    try:
        np.linalg.cholesky(matrices)
    except np.linalg.LinAlgError:
        return False
    return True


def named(bad: np.ndarray, count: int) -> str:
    """Returns the items of a batch that are something, and the verb."""
    if count == 1:
        return "its value is"
    shown = ", ".join(str(item) for item in bad[:8].tolist())
    more = ", ..." if len(bad) > 8 else ""
    return f"{len(bad)} of {count} items ([{shown}{more}]) are"
