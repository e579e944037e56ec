"""The choice between the dense, banded, sparse and separable factorisations of the reduced system."""

from __future__ import annotations

from enum import Enum

from cvxlayers.derivative.arrow import factorise_arrow
from cvxlayers.derivative.banded import factorise_banded
from cvxlayers.derivative.cholesky import factorise_cholesky
from cvxlayers.derivative.condensed import factorise_condensed
from cvxlayers.derivative.coordinates import factorise_coordinates
from cvxlayers.derivative.dense import factorise_dense
from cvxlayers.derivative.isotropic import factorise_isotropic
from cvxlayers.derivative.schur import factorise_schur
from cvxlayers.derivative.sparse import factorise_sparse
from cvxlayers.derivative.system import Factorisation, System
from cvxlayers.idioms.coordinates import find_coordinates, require_coordinates
from cvxlayers.idioms.isotropic import find_isotropic, require_isotropic
from cvxlayers.idioms.separable import require, separate
from cvxlayers.kkt.band import narrow_band
from cvxlayers.kkt.effort import eliminates, factor_flops, stored
from cvxlayers.program import Structure

# Below the first order LAPACK on the whole matrix beats any sparse code; above the second its memory does not.
_ALWAYS_DENSE, _NEVER_DENSE, _DENSE_FILL = 120, 2000, 0.15
# Variables are so many times fewer than rows where these are eliminated first.
_FEWER = 1.5
# Rows whose Schur complement is kept dense, and how many operations of a sparse factorisation one of LAPACK's is worth.
_MOST_ROWS, _SPEED = 2000, 20.0
# Items from which on variables are eliminated for a whole batch: no batch is cut into pieces of fewer.
_FEW = 8


class Method(Enum):
    """How the reduced system is factorised."""

    DENSE = "dense"
    BANDED = "banded"
    SPARSE = "sparse"
    ARROW = "arrow"
    ISOTROPIC = "isotropic"
    COORDINATES = "coordinates"
    CONDENSED = "condensed"
    SCHUR = "Schur"
    CHOLESKY = "Cholesky"

    @property
    def is_structured(self) -> bool:
        """Whether it uses more of the structure than its sparsity, and takes a whole batch at once."""
        structured = (Method.ARROW, Method.ISOTROPIC, Method.COORDINATES, Method.CONDENSED)
        return self in structured


def choose_method(structure: Structure, recognise: bool = False) -> Method:
    """Returns the method for programs of this structure, from the order, the bandwidth and the fill of the matrix K.

    Args:
        structure: what the programs share.
        recognise: whether to use that few rows couple the variables, or that the program is a projection on a cone.
    """
    isotropic = find_isotropic(structure) if recognise else None
    if isotropic is not None and not isotropic.is_ball:
        return Method.ISOTROPIC
    if recognise and separate(structure) is not None:
        return Method.ARROW
    if recognise and find_coordinates(structure) is not None:
        return Method.COORDINATES
    order = structure.n + structure.m
    if narrow_band(structure) is not None:
        return Method.BANDED
    if order <= _ALWAYS_DENSE:
        return Method.CHOLESKY if eliminates(structure) else Method.DENSE
    fill = stored(structure) / order**2
    if recognise and _condenses(structure, fill):
        return Method.CONDENSED
    if order <= _NEVER_DENSE and fill >= _DENSE_FILL:
        return Method.CHOLESKY if eliminates(structure) else Method.DENSE
    return Method.SCHUR if _has_small_complement(structure) else Method.SPARSE


def _has_small_complement(structure: Structure) -> bool:
    """Whether the Schur complement of the rows, with all of them active, is factorised faster than the whole matrix."""
    few = structure.m <= min(structure.n, _MOST_ROWS) and structure.is_diagonal and structure.cone.polyhedral
    return few and structure.m**3 / 3 < _SPEED * factor_flops(structure)


def _condenses(structure: Structure, fill: float) -> bool:
    """Whether curved cones have so many more rows than there are variables that their directions go first."""
    return fill >= _DENSE_FILL and structure.n <= _ALWAYS_DENSE and _FEWER * structure.n <= structure.m


def factorise(system: System, method: Method, threads: int) -> Factorisation:
    """Factorises the matrices K of a batch of systems."""
    if method.is_structured:
        structure = system.program.structure

        def whole(other: System) -> Factorisation:
            return factorise(other, choose_method(structure), threads)

        if method is Method.ARROW:
            return factorise_arrow(system, require(structure), whole)
        if method is Method.COORDINATES:
            return factorise_coordinates(system, require_coordinates(structure), whole)
        if method is Method.CONDENSED:
            return factorise_condensed(system, whole)
        return factorise_isotropic(system, require_isotropic(structure), whole)
    if method is Method.CHOLESKY and system.program.batch >= _FEW:
        return factorise_cholesky(system, lambda other: factorise_dense(other, threads))
    if method in (Method.DENSE, Method.CHOLESKY):
        return factorise_dense(system, threads)
    if method is Method.BANDED:
        return factorise_banded(system)
    if method is Method.SCHUR:
        return factorise_schur(system, threads, lambda other: factorise_sparse(other, threads))
    return factorise_sparse(system, threads)
