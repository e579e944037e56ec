"""Programs without the copies in their costs, where leaving these out rounds no number.

CVXPY writes `sum_squares(x − c)` with t = x − c. Where the costs are ½ Σ p t² of such copies t = c + f x, one of a
variable, with constants p, f and a (of t in its row) that are powers of two, their gradient by x is

    f p t = f p (c + f x) = p′ x + q′,     p′ = f² p,     q′ = f p c,

with one rounding on either side, that of c + f x. With p′ x + q′ as one term the residuals of the reduced program are
therefore those of the full one, but for the order of the sums in Aᵀy, also where c + f x cancels. What the reduced
program lacks, the rows of the copies and their costs, is solved by the copies and multipliers that are computed of x,
to the rounding of an operation. So a point that is certified here is certified there, in the same scales where |f p/a|
is one number. And as c is affine in theta, so is q′: the reduced programs are compiled like any other, and calls and
derivatives that ask for x alone need not see the full ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from cvxlayers.affine_map import AffineMap
from cvxlayers.batches import Run, Vectors
from cvxlayers.closed import find_form
from cvxlayers.compiled import CompiledProblem
from cvxlayers.derivative import DerivativeInfo, Differential, Point
from cvxlayers.kernel import Kernel
from cvxlayers.linear_map import LinearMap
from cvxlayers.program import ConeProgram
from cvxlayers.reduction import Reduction
from cvxlayers.residual import evaluate
from cvxlayers.variable_map import Leaves

Index = Int[np.ndarray, " _count"]


@dataclass(frozen=True, eq=False)
class Lean:
    """A problem whose programs are the reduced ones.

    Attributes:
        compiled: the maps to these programs, and from their solutions to the listed variables; it has no leaves, and
            no constant of the objective.
        kernel: how they are solved and differentiated.
        reduction: what they leave out.
        unit: how large b is in the rows that they leave out, for q of size one.
    """

    compiled: CompiledProblem
    kernel: Kernel
    reduction: Reduction
    unit: float

    def evaluate(self, program: ConeProgram, x: Vectors, y: Vectors, s: Vectors) -> Point:
        """Evaluates the residual map, with the gradient of the costs as one term, and b as large as the full one."""
        return evaluate(program, x, y - s, near=s, unit=self.unit)


def find_lean(compiled: CompiledProblem, kernel: Kernel) -> Lean | None:
    """Returns the lean problem; None where the programs have no closed form, or more to them than such copies."""
    reduction = kernel.reduction
    if kernel.closed is None or reduction is None or not _fits(compiled, reduction):
        return None
    variables, rows = reduction.kept_variables, reduction.kept_rows
    listed = compiled.variables
    if listed.y.matrix.nnz or listed.x.inputs[reduction.copies.columns].any():
        return None
    shown = replace(listed, x=listed.x.columns(variables), y=listed.y.columns(rows))
    P = reduction.gather_P.apply(compiled.P.constant[None, reduction.kept_P])[0]
    lean = replace(
        compiled,
        structure=reduction.structure,
        variables=shown,
        leaves=Leaves(shown.select([]), (), ()),
        P=AffineMap(LinearMap(sp.csr_array((len(P), compiled.parameters.width))), P, compiled.P.blocks),
        q=_costs(compiled, reduction),
        A=_rows(compiled.A, reduction.kept_A),
        b=_rows(compiled.b, rows),
        offset=replace(compiled.offset, constant=np.full(1, np.nan)),
    )
    small = replace(kernel, full=lean.structure, reduction=None, closed=find_form(lean.structure, None))
    return Lean(lean, small, reduction, float(1.0 / np.abs(_weights(compiled, reduction)[0])))


def _fits(compiled: CompiledProblem, reduction: Reduction) -> bool:
    """Whether all that is eliminated are copies, one of a variable, the costs their squares, and no number rounded."""
    P, copies = compiled.structure.P, reduction.copies
    if reduction.stacks or len(reduction.fixed.rows) or len(reduction.redundant):
        return False
    scaled, factors = copies.scaled.matrix, (compiled.P.constant, compiled.A.constant[copies.pivots])
    squares = np.array_equal(P.rows, P.cols) and np.array_equal(P.cols, np.sort(copies.columns))
    single = len(np.unique(scaled.indices)) == len(copies.rows)
    constant = not any(compiled.P.depends) and not any(compiled.q.depends) and not compiled.q.constant.any()
    if not (squares and single and constant):
        return False
    mantissas, _ = np.frexp(np.concatenate([*factors, scaled.data]))
    return bool((np.abs(mantissas) == 0.5).all() and np.ptp(np.abs(_weights(compiled, reduction))) == 0.0)


def _weights(compiled: CompiledProblem, reduction: Reduction) -> Float[np.ndarray, " _count"]:
    """Returns f p / a of each copy: q′ is that times b."""
    copies, P = reduction.copies, compiled.structure.P
    p = np.zeros(compiled.structure.n)
    p[P.cols] = compiled.P.constant
    return copies.scaled.matrix.data * p[copies.columns] / compiled.A.constant[copies.pivots]


def _costs(compiled: CompiledProblem, reduction: Reduction) -> AffineMap:
    """Returns theta ↦ q′."""
    rows, moved = reduction.copies.rows, reduction.copies.scaled.columns(reduction.kept_variables).matrix
    shape = (len(reduction.kept_variables), len(rows))
    spread = sp.csr_array((_weights(compiled, reduction), (moved.indices, np.arange(len(rows)))), shape=shape)
    linear, constant = compiled.b.linear.matrix[rows], compiled.b.constant[rows]
    return AffineMap(LinearMap(sp.csr_array(spread @ linear)), spread @ constant, compiled.b.blocks)


def _rows(affine: AffineMap, rows: Index) -> AffineMap:
    return AffineMap(LinearMap(sp.csr_array(affine.linear.matrix[rows])), affine.constant[rows], affine.blocks)


@final
@dataclass(frozen=True, eq=False)
class Within(Differential):
    """The solution maps of lean programs, as parts of those of the full ones.

    Attributes:
        program: the full programs.
        point: their solutions.
        full: their solution maps, linearised.
        kept: the variables and rows of the lean programs.
    """

    program: ConeProgram
    point: Point
    full: Differential
    kept: tuple[Run, Run]

    def solve(self, first: Vectors, second: Vectors, dual: bool = True) -> tuple[Vectors, Vectors, DerivativeInfo]:
        """Solves with zeros in what the lean programs leave out."""
        structure, (variables, rows) = self.program.structure, self.kept
        f, g = np.zeros((len(first), structure.n)), np.zeros((len(first), structure.m))
        f[:, variables], g[:, rows] = first, second
        lam, mu, info = self.full.solve(f, g, dual)
        return lam[:, variables], mu[:, rows], info
