"""A compiled problem: plain arrays that map parameters to a cone program and its solution to variables.

Nothing here needs CVXPY. Every map is linear or affine, a sparse matrix with its transpose beside it, apart from the
logarithms and exponentials of geometric programs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cvxlayers.affine_map import AffineMap
from cvxlayers.batches import Values, Vectors
from cvxlayers.parameter_map import ParameterMap, Theta
from cvxlayers.program import ConeProgram, Structure
from cvxlayers.variable_map import Leaves, VariableMap


@dataclass(frozen=True, eq=False)
class CompiledProblem:
    """A problem in conic form, as maps from its parameters and to its variables.

    Attributes:
        structure: sizes, patterns and the cone.
        parameters: the user's values ↔ theta.
        variables: the program's x and y → the variables that the user listed.
        leaves: the program's x and y → all variables and dual variables.
        P: theta → stored entries of P.
        q: theta → q.
        A: theta → stored entries of A.
        b: theta → b.
        offset: theta → the constant of the objective.
        maximise: whether the program minimises the negated objective.
        gp: whether the problem is geometric: the program minimises the logarithm of the objective.
    """

    structure: Structure
    parameters: ParameterMap
    variables: VariableMap
    leaves: Leaves
    P: AffineMap
    q: AffineMap
    A: AffineMap
    b: AffineMap
    offset: AffineMap
    maximise: bool
    gp: bool

    def program(self, theta: Theta) -> ConeProgram:
        """Returns the cone program of each item."""
        data = (self.P.apply(theta), self.q.apply(theta), self.A.apply(theta), self.b.apply(theta))
        return ConeProgram(self.structure, theta.batch, *data)

    @property
    def names_in_costs(self) -> list[str]:
        """The parameters on which q depends."""
        return [name for name, enters in zip(self.parameters.names, self.q.depends, strict=True) if enters]

    @cached_property
    def depends(self) -> tuple[bool, bool, bool, bool]:
        """Whether any parameter enters P, q, A and b."""
        P, q, A, b = (any(affine.depends) for affine in (self.P, self.q, self.A, self.b))
        return P, q, A, b

    def tangent(self, dtheta: Vectors) -> tuple[Values, Vectors, Values, Vectors]:
        """Returns the tangents of P, q, A and b."""
        return self.P.tangent(dtheta), self.q.tangent(dtheta), self.A.tangent(dtheta), self.b.tangent(dtheta)

    def adjoint(self, P: Values, q: Vectors, A: Values, b: Vectors) -> Vectors:
        """Returns the cotangent of theta for cotangents of P, q, A and b."""
        out = np.zeros((len(q), self.parameters.width))
        self.pull(P, q, A, b, self.parameters.split(out))
        return out

    def pull(self, P: Values, q: Vectors, A: Values, b: Vectors, out: Sequence[Vectors]) -> None:
        """Writes the cotangents of theta's blocks for cotangents of P, q, A and b to `out`, arrays of zeros."""
        maps = (self.P, self.q, self.A, self.b)
        for affine, cotangent, alone in zip(maps, (P, q, A, b), self._alone, strict=True):
            for index, part in affine.parts.items():
                part.add_adjoint(cotangent, out[index], blank=alone[index])

    @cached_property
    def blocks_of_P(self) -> frozenset[int]:
        """The positive semidefinite parameters that are, but for a factor, principal submatrices of P.

        Where P is positive definite, so are they.
        """
        definite = [k for k, domain in enumerate(self.parameters.domains) if domain and domain.definite > 0]
        return frozenset(k for k in definite if k in self.P.parts and self._is_block_of_P(k))

    def _is_block_of_P(self, index: int) -> bool:
        """Whether P holds a multiple of the parameter, and nothing else in these entries. A random value tells."""
        part, order = self.P.parts[index].matrix, math.isqrt(self.parameters.sizes[index])
        touched = np.flatnonzero(np.diff(part.indptr))
        if self.P.constant[touched].any() or np.diff(self.P.linear.matrix.indptr - part.indptr)[touched].any():
            return False
        value = np.random.default_rng(0).uniform(1.0, 2.0, size=(order, order))
        value = value + value.T
        P = self.structure.P.dense((part @ value.ravel())[None])[0]
        rows = np.flatnonzero(np.diagonal(P))
        if len(rows) != order or np.count_nonzero(P) != order**2:
            return False
        factor = P[rows[0], rows[0]] / value[0, 0]
        return bool(factor > 0 and np.allclose(P[np.ix_(rows, rows)], factor * value, rtol=1e-12, atol=0.0))

    @cached_property
    def _alone(self) -> list[dict[int, bool]]:
        """For P, q, A and b: by parameter, whether the entries that enter there enter none of the others."""
        maps = (self.P, self.q, self.A, self.b)
        often = np.sum([affine.linear.inputs for affine in maps], axis=0) > 1
        blocks = self.parameters.blocks
        return [
            {index: not bool(np.any((affine.linear.inputs & often)[blocks[index]])) for index in affine.parts}
            for affine in maps
        ]
