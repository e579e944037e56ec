"""The choice between the dense, the banded and the sparse factorisation of the reduced system."""

from __future__ import annotations

from enum import Enum

from cvxlayers.derivative.banded import factorise_banded
from cvxlayers.derivative.dense import factorise_dense
from cvxlayers.derivative.sparse import factorise_sparse
from cvxlayers.derivative.system import Factorisation, System
from cvxlayers.kkt import narrow_band, stored
from cvxlayers.program import Structure

# Below the first order LAPACK on the whole matrix beats any sparse code; above the second its memory does not.
_ALWAYS_DENSE, _NEVER_DENSE, _DENSE_FILL = 120, 2000, 0.15


class Method(Enum):
    """How the reduced system is factorised."""

    DENSE = "dense"
    BANDED = "banded"
    SPARSE = "sparse"


def choose_method(structure: Structure) -> Method:
    """Returns the method for programs of this structure, from the order, the bandwidth and the fill of the matrix K."""
    order = structure.n + structure.m
    if narrow_band(structure) is not None:
        return Method.BANDED
    if order <= _ALWAYS_DENSE:
        return Method.DENSE
    fill = stored(structure) / order**2
    return Method.DENSE if order <= _NEVER_DENSE and fill >= _DENSE_FILL else Method.SPARSE


def factorise(system: System, method: Method, threads: int) -> Factorisation:
    """Factorises the matrices K of a batch of systems."""
    if method is Method.DENSE:
        return factorise_dense(system, threads)
    if method is Method.BANDED:
        return factorise_banded(system)
    return factorise_sparse(system, threads)
