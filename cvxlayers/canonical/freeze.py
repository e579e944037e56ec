"""Fixes parameters at the values that they hold, in a copy of the problem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from cvxlayers.canonical.expressions import Problem
from cvxlayers.errors import SignatureError


def freeze_parameters(problem: Problem, frozen: Sequence[cp.Parameter]) -> Problem:
    """Returns the problem with constants in place of some parameters, also where they are exponents.

    Variables stay the same objects, and constraints keep their ids.

    Raises:
        SignatureError: if a parameter has no value, or stands where it cannot be replaced.
    """
    if not frozen:
        return problem
    constants = {parameter.id: _constant(parameter) for parameter in frozen}
    expression = _replaced(problem.objective.expr, constants)
    constraints = [_replaced(constraint, constants) for constraint in problem.constraints]
    fixed = cp.Problem(type(problem.objective)(expression), constraints)
    stuck = [parameter.name() for parameter in fixed.parameters() if parameter.id in constants]
    if stuck:
        raise SignatureError(
            f"freeze cannot replace {', '.join(stuck)} inside the attributes of a variable: write the bound as a "
            "constraint, or list the parameter among parameters"
        )
    return fixed


def _constant(parameter: cp.Parameter) -> Any:
    value = parameter.value if parameter.sparse_idx is None else parameter.value_sparse
    if value is None:
        raise SignatureError(
            f"freeze fixes parameters at their values, but {parameter.name()} has none: set {parameter.name()}.value"
        )
    constant = cp.Constant(sp.csc_array(value) if sp.issparse(value) else np.array(value))
    return cp.psd_wrap(constant) if parameter.attributes["PSD"] else constant


def _replaced(node: Any, constants: dict[int, Any]) -> Any:
    """Returns an expression or a constraint with the constants put in; the same object where none occurs."""
    if isinstance(node, list):
        return [_replaced(argument, constants) for argument in node]
    if isinstance(node, cp.Parameter):
        return constants.get(node.id, node)
    if not node.args or not any(parameter.id in constants for parameter in _parameters(node)):
        return node
    arguments, data = _replaced(list(node.args), constants), node.get_data() or ()
    if not any(map(_holds, data)):
        return node.copy(arguments)
    return type(node)(*arguments, *(_replaced(datum, constants) if _holds(datum) else datum for datum in data))


def freezable(problem: Problem) -> dict[int, cp.Parameter]:
    """Returns all parameters by id, also those that CVXPY does not count: the exponents of power cones."""
    exponents = [parameter for constraint in problem.constraints for parameter in _parameters(constraint)]
    return {parameter.id: parameter for parameter in (*problem.parameters(), *exponents)}


def _parameters(node: Any) -> list[cp.Parameter]:
    exponents = node.alpha.parameters() if isinstance(node, cp.PowCone3D | cp.PowConeND) else []
    return [*node.parameters(), *exponents]


def _holds(datum: object) -> bool:
    return isinstance(datum, cp.Expression) and bool(datum.parameters())
