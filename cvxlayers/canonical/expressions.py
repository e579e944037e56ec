"""Walks over CVXPY's expression trees, and how they are shown in messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

_LONGEST = 160

# CVXPY's own annotations lack what is used here: the arguments of atoms, and the parameters of methods that it caches.
Expression = Any
Problem = Any
# An objective or a constraint.
Part = Any


def parts(problem: Problem) -> Iterator[tuple[Part, Expression]]:
    """Yields the objective and the sides of the constraints, each with the part of the problem it belongs to."""
    yield problem.objective, problem.objective.expr
    for constraint in problem.constraints:
        for argument in constraint.args:
            yield constraint, argument


def nodes(expression: Expression) -> Iterator[Expression]:
    """Yields an expression and all that it is made of."""
    yield expression
    for argument in expression.args:
        yield from nodes(argument)


def smallest(expression: Expression, sound: Callable[[Expression], bool]) -> Expression | None:
    """Returns the first expression, innermost first, that is not sound though all its arguments are."""
    for argument in expression.args:
        found = smallest(argument, sound)
        if found is not None:
            return found
    return None if sound(expression) else expression


def place(problem: Problem, part: Part) -> str:
    """Says where a part stands in the problem."""
    for index, constraint in enumerate(problem.constraints):
        if constraint is part:
            return f"constraint {index} ({shown(constraint)})"
    return "the objective"


def names(holder: Problem | Expression) -> str:
    """Returns the names of the parameters that occur."""
    return ", ".join(dict.fromkeys(parameter.name() for parameter in holder.parameters())) or "none"


def shown(holder: object) -> str:
    """Returns the text of an expression or a constraint, on one line and not too long."""
    text = " ".join(str(holder).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def infinite_parts(problem: Problem) -> list[str]:
    """Says which parts of the problem hold a constant that is infinite or not a number."""
    found = [place(problem, part) for part, side in parts(problem) if any(map(_infinite, nodes(side)))]
    return list(dict.fromkeys(found))


def _infinite(node: Expression) -> bool:
    if not isinstance(node, cp.Constant):
        return False
    value = node.value
    return not np.all(np.isfinite(value.data if sp.issparse(value) else value))
