"""A ridge: ½ρ‖variables‖² added to the cost of a compiled problem makes its solution unique."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from cvxlayers.affine_map import AffineMap
from cvxlayers.compiled import CompiledProblem
from cvxlayers.linear_map import LinearMap
from cvxlayers.patterns import Pattern


def add_ridge(compiled: CompiledProblem, weight: float) -> CompiledProblem:
    """Returns the problem with ½ weight ‖X‖² added to its (minimised) cost for every variable X of the problem.

    The variables are the user's, all of them, and not what canonicalisation introduces; those of a geometric program
    are logarithms here.
    """
    if not weight:
        return compiled
    structure = compiled.structure
    old = structure.P.matrix(np.arange(1.0, structure.P.nnz + 1))
    added = weight * _gram(compiled)
    union = sp.csc_array(abs(old) + abs(added))
    union.sort_indices()
    n = structure.n
    pattern = Pattern((n, n), union.indices, union.indptr)
    cells, extra = pattern.cols * n + pattern.rows, added.tocoo()
    places = np.searchsorted(cells, structure.P.cols * n + structure.P.rows)
    scatter = sp.csr_array((np.ones(len(places)), (places, np.arange(len(places)))), shape=(pattern.nnz, len(places)))
    constant = scatter @ compiled.P.constant
    constant[np.searchsorted(cells, extra.col * n + extra.row)] += extra.data
    linear = LinearMap(sp.csr_array(scatter @ compiled.P.linear.matrix))
    P = AffineMap(linear, constant, compiled.P.blocks)
    return replace(compiled, structure=replace(structure, P=pattern), P=P)


def _gram(compiled: CompiledProblem) -> sp.csc_array:
    """Returns LᵀL for the map L from the program's x to all variables of the problem."""
    leaves = compiled.leaves
    primal = [index for index, owner in enumerate(leaves.owners) if not owner.dual]
    matrix = leaves.map.select(primal).x.matrix
    return sp.csc_array(matrix.T @ matrix)
