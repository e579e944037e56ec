"""Says in words whether a problem can become a layer, and if not, how to rewrite it."""

from __future__ import annotations

import cvxpy as cp

from cvxlayers.canonical.compile import compile_problem
from cvxlayers.errors import ProblemError, SignatureError

_FINE = "Nothing stands in the way: the problem can become a layer."


def explain(problem: object, *, gp: bool = False, freeze: object = ()) -> str:
    """Says why a problem cannot become a layer, and how to rewrite it.

        print(cvxlayers.explain(problem))

    Args:
        problem: a `cvxpy.Problem`.
        gp: whether it is meant as a geometric program.
        freeze: parameters that are to keep the values that they have.

    Returns:
        The message of the error that a layer of the problem would raise: the smallest expression at fault, its
        parameters, and the rewrite. One sentence that says so where nothing is.

    Raises:
        SignatureError: if it is not a `cvxpy.Problem`, or `freeze` holds what it cannot.
    """
    if not isinstance(problem, cp.Problem):
        raise SignatureError(f"problem must be a cvxpy.Problem, got {type(problem).__name__}")
    frozen = {getattr(entry, "id", None) for entry in freeze} if isinstance(freeze, list | tuple) else set()
    parameters = [parameter for parameter in problem.parameters() if parameter.id not in frozen]
    try:
        compile_problem(problem, parameters, problem.variables(), gp=gp, freeze=freeze)
    except SignatureError:
        raise
    except ProblemError as error:
        return str(error)
    return _FINE
