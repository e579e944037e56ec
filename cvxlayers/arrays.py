"""Numpy arrays as callers pass them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

from cvxlayers.errors import DtypeError

Array = Float[np.ndarray, "..."]

_SINGLE = (np.float32, np.complex64)


def common_dtype(parameters: Sequence[ArrayLike]) -> type[np.floating]:
    """Returns float32 where all arrays are of single precision, else float64."""
    single = bool(parameters) and all(np.asarray(parameter).dtype in _SINGLE for parameter in parameters)
    return np.float32 if single else np.float64


def real(label: str, value: ArrayLike) -> Array:
    """Returns an array in double precision.

    Raises:
        DtypeError: if it does not hold real numbers.
    """
    array = _whole(label, value)
    if array.dtype.kind not in "fiub":
        raise DtypeError(f"{label} needs real numbers, got an array of {array.dtype}")
    return array.astype(np.float64, copy=False)


def parts(label: str, value: ArrayLike) -> Array:
    """Returns the real and imaginary parts of numbers, along a new last axis.

    Raises:
        DtypeError: if it does not hold numbers.
    """
    array = _whole(label, value)
    if array.dtype.kind not in "cfiub":
        raise DtypeError(f"{label} needs complex numbers, got an array of {array.dtype}")
    return np.stack([array.real, array.imag], axis=-1).astype(np.float64, copy=False)


def _whole(label: str, value: ArrayLike) -> np.ndarray:
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise DtypeError(f"{label} is a masked array with masked entries; fill them by .filled(value)")
    return np.asarray(value)


def unparted(array: Array) -> Complex[np.ndarray, "..."]:
    """Returns the complex numbers whose real and imaginary parts stand along the last axis: the inverse of `parts`."""
    return np.ascontiguousarray(array).view(np.complex64 if array.dtype == np.float32 else np.complex128)[..., 0]


def read(labels: Sequence[str], values: Sequence[ArrayLike], complexes: Sequence[bool]) -> list[Array]:
    """Returns values in double precision, complex ones as their parts; without flags all are real."""
    # A wrong number of values is reported by the map of the parameters.
    flags = [*complexes, *(False,) * len(values)]
    rows = zip(labels, values, flags, strict=False)
    return [(parts if flag else real)(label, value) for label, value, flag in rows]


def written(arrays: Sequence[Array], complexes: Sequence[bool], dtype: type[np.floating]) -> list[np.ndarray]:
    """Returns arrays in a precision, with the parts of complex ones put together."""
    flags = complexes or (False,) * len(arrays)
    cast = [array.astype(dtype, copy=False) for array in arrays]
    return [unparted(array) if flag else array for array, flag in zip(cast, flags, strict=True)]
