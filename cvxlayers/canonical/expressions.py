"""Walks over CVXPY's expression trees, and how they are shown in messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.constraints.constraint import Constraint

_LONGEST = 160

Part = cp.Minimize | cp.Maximize | Constraint


def parts(problem: cp.Problem) -> Iterator[tuple[Part, cp.Expression]]:
    """Yields the objective and the sides of the constraints, each with the part of the problem it belongs to."""
    yield problem.objective, problem.objective.expr
    for constraint in problem.constraints:
        for argument in constraint.args:
            yield constraint, argument


def nodes(expression: cp.Expression) -> Iterator[cp.Expression]:
    """Yields an expression and all that it is made of."""
    yield expression
    for argument in expression.args:
        yield from nodes(argument)


def smallest(expression: cp.Expression, sound: Callable[[cp.Expression], bool]) -> cp.Expression | None:
    """Returns the first expression, innermost first, that is not sound though all its arguments are."""
    for argument in expression.args:
        found = smallest(argument, sound)
        if found is not None:
            return found
    return None if sound(expression) else expression


def place(problem: cp.Problem, part: Part) -> str:
    """Says where a part stands in the problem."""
    for index, constraint in enumerate(problem.constraints):
        if constraint is part:
            return f"constraint {index} ({shown(constraint)})"
    return "the objective"


def names(holder: cp.Problem | cp.Expression) -> str:
    """Returns the names of the parameters that occur."""
    return ", ".join(dict.fromkeys(parameter.name() for parameter in holder.parameters())) or "none"


def shown(holder: object) -> str:
    """Returns the text of an expression or a constraint, on one line and not too long."""
    text = " ".join(str(holder).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def infinite_parts(problem: cp.Problem) -> list[str]:
    """Says which parts of the problem hold a constant that is infinite or not a number."""
    found = [place(problem, part) for part, side in parts(problem) if any(map(_infinite, nodes(side)))]
    found += [f"the bounds of variable {v.name()}" for v in problem.variables() if any(map(_infinite, _bounds(v)))]
    return list(dict.fromkeys(found))


def _infinite(node: object) -> bool:
    value = node.value if isinstance(node, cp.Constant) else node
    if isinstance(value, cp.Expression) or value is None:
        return False
    return not np.all(np.isfinite(value.data if sp.issparse(value) else np.asarray(value)))


def _bounds(variable: cp.Variable) -> list[object]:
    return list(variable.attributes["bounds"] or [])
