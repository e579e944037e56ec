"""A picture of the sparsity of a layer's KKT system."""

from __future__ import annotations

from typing import Any

import scipy.sparse as sp

from cvxlayers.describe import program_class
from cvxlayers.errors import MissingDependencyError
from cvxlayers.layer import Layer
from cvxlayers.program import Structure


def kkt_pattern(structure: Structure) -> sp.csc_array:
    """Returns the matrix [[P, Aᵀ], [A, −I]], with ones where entries are stored."""
    P, A = (pattern.matrix(pattern.indices * 0.0 + 1.0) for pattern in (structure.P, structure.A))
    return sp.csc_array(sp.block_array([[P, A.T], [A, -sp.eye_array(structure.m)]]))


def spy(layer: Layer, axes: Any = None) -> Any:
    """Draws the sparsity of the KKT system that is factorised, and returns the axes.

    Args:
        layer: the layer.
        axes: matplotlib axes to draw on; new ones by default.

    Raises:
        MissingDependencyError: if matplotlib is not installed.
    """
    axes = _new_axes() if axes is None else axes
    structure = layer.kernel.structure
    matrix, order = kkt_pattern(structure), structure.n + structure.m
    axes.spy(matrix, markersize=max(1.0, min(8.0, 300 / max(order, 1))))
    for draw in (axes.axhline, axes.axvline):
        draw(structure.n - 0.5, linewidth=0.8, color="grey")
    axes.set_title(f"{program_class(structure)}: {structure.n} variables, {structure.m} rows, {matrix.nnz} entries")
    axes.set_xlabel("[[P, Aᵀ], [A, -I]]")
    return axes


def _new_axes() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError:
        raise MissingDependencyError("spy needs matplotlib: pip install 'cvxlayers[plot]'") from None
    return pyplot.figure().add_subplot()
