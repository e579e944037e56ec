"""Whether a problem, its parameters and its variables can become a layer, and if not, why and what to do."""

from __future__ import annotations

from collections.abc import Sequence

import cvxpy as cp

from cvxlayers.canonical.explain import explain_dpp, explain_not_convex
from cvxlayers.canonical.leaves import Output
from cvxlayers.errors import DPPError, ProblemError, SignatureError


def check_signature(
    problem: object, parameters: Sequence[object], variables: Sequence[object]
) -> tuple[cp.Problem, list[Output]]:
    """Returns the problem and what each entry of `variables` means.

    Raises:
        SignatureError: if the lists do not fit the problem.
    """
    if not isinstance(problem, cp.Problem):
        raise SignatureError(f"problem must be a cvxpy.Problem, got {type(problem).__name__}")
    _check_parameters(problem, parameters)
    if not isinstance(variables, list | tuple):
        raise SignatureError(f"The layer's variables must be provided as a list or tuple, got {type(variables).__name__}")
    if not variables:
        raise SignatureError("The layer's variables are empty: list at least one variable, so that there is an output")
    return problem, [_output(problem, variable, index) for index, variable in enumerate(variables)]


def check_problem(problem: cp.Problem, gp: bool) -> None:
    """Raises unless the problem is continuous, real, convex and DPP.

    Raises:
        DPPError: if it is not DPP.
        ProblemError: if anything else stands in the way.
    """
    if not problem.variables():
        raise ProblemError("the problem has no variables: there is nothing to solve for")
    discrete = [v.name() for v in problem.variables() if v.attributes["boolean"] or v.attributes["integer"]]
    if discrete:
        raise ProblemError(
            f"the problem is mixed-integer (variables {', '.join(discrete)}): its solution map is piecewise constant and "
            "has no useful derivative. Relax the variables, as cp.Variable(bounds=[0, 1]) for boolean ones"
        )
    leaves = [*problem.variables(), *problem.parameters()]
    complex_leaves = [leaf.name() for leaf in leaves if leaf.is_complex()]
    if complex_leaves:
        raise ProblemError(
            f"complex variables and parameters are not supported ({', '.join(complex_leaves)}): write their real and "
            "imaginary parts as leaves of their own"
        )
    if gp:
        if not problem.is_dgp(dpp=False):
            raise ProblemError("the problem is not a disciplined geometric program (DGP), but gp=True was given")
        if not problem.is_dgp(dpp=True):
            raise DPPError(explain_dpp(problem, gp=True))
        return
    if not problem.is_dcp(dpp=False):
        raise explain_not_convex(problem)
    trouble = explain_dpp(problem, gp=False)
    if trouble:
        raise DPPError(trouble)


def _check_parameters(problem: cp.Problem, parameters: Sequence[object]) -> None:
    if not isinstance(parameters, list | tuple):
        raise SignatureError(
            f"The layer's parameters must be provided as a list or tuple, got {type(parameters).__name__}"
        )
    listed = [getattr(parameter, "id", None) for parameter in parameters]
    own = {parameter.id: parameter for parameter in problem.parameters()}
    missing = [parameter.name() for parameter in own.values() if parameter.id not in listed]
    foreign = [str(parameter) for parameter, identity in zip(parameters, listed, strict=True) if identity not in own]
    twice = [own[identity].name() for identity in own if listed.count(identity) > 1]
    if missing or foreign or twice:
        what = [f"missing from the list: {', '.join(missing)}"] if missing else []
        what += [f"not in the problem: {', '.join(foreign)}"] if foreign else []
        what += [f"listed twice: {', '.join(twice)}"] if twice else []
        way_out = ". A parameter that never changes can be a cp.Constant instead" if missing else ""
        raise SignatureError(f"The layer's parameters must exactly match problem.parameters; {'; '.join(what)}{way_out}")


def _output(problem: cp.Problem, variable: object, index: int) -> Output:
    for own in problem.variables():
        if own is variable or getattr(variable, "id", None) == own.id:
            return Output(own)
    for constraint in problem.constraints:
        if constraint is variable and len(constraint.dual_variables) == 1:
            return Output(constraint.dual_variables[0], constraint)
        for position, dual in enumerate(constraint.dual_variables):
            if dual is variable:
                return Output(dual, constraint, position)
    several = isinstance(variable, cp.constraints.constraint.Constraint) and variable in problem.constraints
    hint = f"; it has {len(variable.dual_variables)} dual variables, list dual_variables[i]" if several else ""
    raise SignatureError(
        f"Variable {variable} (#{index}) must be a subset of problem.variables or a dual variable of a constraint of the "
        f"problem; the variables are {', '.join(own.name() for own in problem.variables())}{hint}"
    )
