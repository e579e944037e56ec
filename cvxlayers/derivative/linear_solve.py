"""The choice between the dense, the banded, the sparse and the separable factorisation of the reduced system."""

from __future__ import annotations

from enum import Enum

from cvxlayers.ball import find_ball, require_ball
from cvxlayers.derivative.arrow import factorise_arrow
from cvxlayers.derivative.ball import factorise_ball
from cvxlayers.derivative.banded import factorise_banded
from cvxlayers.derivative.dense import factorise_dense
from cvxlayers.derivative.isotropic import factorise_isotropic
from cvxlayers.derivative.sparse import factorise_sparse
from cvxlayers.derivative.system import Factorisation, System
from cvxlayers.isotropic import find_isotropic, require_isotropic
from cvxlayers.kkt import narrow_band, stored
from cvxlayers.program import Structure
from cvxlayers.separable import require, separate

# Below the first order LAPACK on the whole matrix beats any sparse code; above the second its memory does not.
_ALWAYS_DENSE, _NEVER_DENSE, _DENSE_FILL = 120, 2000, 0.15


class Method(Enum):
    """How the reduced system is factorised."""

    DENSE = "dense"
    BANDED = "banded"
    SPARSE = "sparse"
    ARROW = "arrow"
    ISOTROPIC = "isotropic"
    BALL = "ball"

    @property
    def is_structured(self) -> bool:
        """Whether it uses more of the structure than its sparsity, and takes a whole batch at once."""
        return self in (Method.ARROW, Method.ISOTROPIC, Method.BALL)


def choose_method(structure: Structure, recognise: bool = False) -> Method:
    """Returns the method for programs of this structure, from the order, the bandwidth and the fill of the matrix K.

    Args:
        structure: what the programs share.
        recognise: whether to use that few rows couple the variables, or that the program is a projection on a cone.
    """
    if recognise and find_isotropic(structure) is not None:
        return Method.ISOTROPIC
    if recognise and find_ball(structure) is not None:
        return Method.BALL
    if recognise and separate(structure) is not None:
        return Method.ARROW
    order = structure.n + structure.m
    if narrow_band(structure) is not None:
        return Method.BANDED
    if order <= _ALWAYS_DENSE:
        return Method.DENSE
    fill = stored(structure) / order**2
    return Method.DENSE if order <= _NEVER_DENSE and fill >= _DENSE_FILL else Method.SPARSE


def factorise(system: System, method: Method, threads: int) -> Factorisation:
    """Factorises the matrices K of a batch of systems."""
    if method.is_structured:
        structure = system.program.structure

        def whole(other: System) -> Factorisation:
            return factorise(other, choose_method(structure), threads)

        if method is Method.BALL:
            return factorise_ball(system, require_ball(structure), whole)
        if method is Method.ARROW:
            return factorise_arrow(system, require(structure), whole)
        return factorise_isotropic(system, require_isotropic(structure), whole)
    if method is Method.DENSE:
        return factorise_dense(system, threads)
    if method is Method.BANDED:
        return factorise_banded(system)
    return factorise_sparse(system, threads)
