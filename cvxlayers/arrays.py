"""Numpy arrays as callers pass them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from cvxlayers.errors import DtypeError

Array = Float[np.ndarray, "..."]


def common_dtype(parameters: Sequence[ArrayLike]) -> type[np.floating]:
    """Returns float32 where all arrays are, else float64."""
    single = bool(parameters) and all(np.asarray(parameter).dtype == np.float32 for parameter in parameters)
    return np.float32 if single else np.float64


def real(label: str, value: ArrayLike) -> Array:
    """Returns an array in double precision.

    Raises:
        DtypeError: if it does not hold real numbers.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise DtypeError(f"{label} needs real numbers, got an array of {array.dtype}")
    return array.astype(np.float64, copy=False)
