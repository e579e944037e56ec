"""How large the maps from parameters to a program will be, estimated before they are built.

Every product of an entry of a parameter with an entry of a variable is a term of these maps: A @ x of a parameter A has
one for each entry of A, but A @ X of a matrix X has one for each entry of A and column of X.
"""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.atoms.affine.add_expr import AddExpression
from cvxpy.atoms.affine.affine_atom import AffAtom
from cvxpy.atoms.affine.binary_operators import MulExpression, multiply
from cvxpy.atoms.affine.kron import kron
from cvxpy.atoms.affine.sum import Sum
from cvxpy.atoms.quad_form import QuadForm
from cvxpy.expressions.leaf import Leaf

from cvxlayers.canonical.expressions import Expression, Problem, parts, place
from cvxlayers.errors import ProblemError
from cvxlayers.memory import amount, memory_limit

# What a term costs while CVXPY and the compiler work on it, measured.
_BYTES = 300


def check_size(problem: Problem) -> None:
    """Refuses a problem whose maps would fill the memory.

    Raises:
        ProblemError: if they would; it names the largest part, the estimate, and the way out.
    """
    sizes = {part: 0.0 for part, _ in parts(problem)}
    for part, expression in parts(problem):
        sizes[part] += parametric_terms(expression)
    total, limit = _BYTES * sum(sizes.values()), memory_limit()
    if total > limit:
        largest = max(sizes, key=lambda part: sizes[part])
        raise ProblemError(
            f"the maps from the parameters to this program would need about {amount(total)}, and there are "
            f"{amount(limit)}: {place(problem, largest)} multiplies entries of parameters with entries of variables "
            f"{sizes[largest]:.1e} times. Make the columns of a matrix variable a batch axis of a layer for one; "
            "fix large parameters by freeze=[...]; or hand over the matrices of the program by solve_qp or solve_conic"
        )


def parametric_terms(expression: Expression) -> float:
    """Returns the number of terms that hold a parameter, over all affine expressions that an expression is made of."""
    if not expression.parameters():
        return 0.0
    if isinstance(expression, QuadForm):
        return float(expression.args[1].size) + parametric_terms(expression.args[0])
    if not isinstance(expression, AffAtom):
        return sum((_all_terms(argument) for argument in expression.args), 0.0)
    return _all_terms(expression)


def _all_terms(expression: Expression) -> float:
    """The terms of an affine expression, and those of the arguments of what is not affine in it."""
    bent = sum(parametric_terms(node) for node in _bent(expression))
    return bent + (expression.size * _terms_per_entry(expression) if expression.parameters() else 0.0)


def _bent(expression: Expression) -> list[Expression]:
    if not isinstance(expression, AffAtom):
        return [expression] if expression.args else []
    return [node for argument in expression.args for node in _bent(argument)]


def _terms_per_entry(expression: Expression) -> float:
    """The mean number of terms that an entry is a sum of."""
    if isinstance(expression, Leaf):
        return _fill(expression)
    if not isinstance(expression, AffAtom):
        return 1.0
    terms = [_terms_per_entry(argument) for argument in expression.args]
    if isinstance(expression, AddExpression):
        return sum(terms)
    if isinstance(expression, MulExpression | multiply | kron):
        matrices = isinstance(expression, MulExpression) and not isinstance(expression, multiply)
        inner = expression.args[0].shape[-1:] if matrices else ()
        return float(np.prod(terms)) * float(np.prod(inner))
    added = expression.args[0].size / max(expression.size, 1) if isinstance(expression, Sum) else 1.0
    return max(terms, default=1.0) * added


def _fill(leaf: Leaf) -> float:
    """Returns the part of the entries of a leaf that may differ from zero."""
    size = max(leaf.size, 1)
    if isinstance(leaf, cp.Constant):
        return (leaf.value.nnz if sp.issparse(leaf.value) else np.count_nonzero(leaf.value)) / size
    if leaf.sparse_idx is not None:
        return len(leaf.sparse_idx[0]) / size
    return 1.0 / leaf.shape[-1] if leaf.attributes["diag"] else 1.0
