"""Whether a problem, its parameters and its variables can become a layer, and if not, why and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cvxpy as cp
from cvxpy.constraints.finite_set import FiniteSet

from cvxlayers.canonical.convexity import explain_not_convex
from cvxlayers.canonical.explain import RULE, explain_dpp, explain_frozen
from cvxlayers.canonical.expressions import Problem, shown
from cvxlayers.canonical.freeze import freezable, freeze_parameters
from cvxlayers.canonical.leaves import SYMMETRIC, Output
from cvxlayers.canonical.size import check_size
from cvxlayers.errors import DPPError, ProblemError, SignatureError


@dataclass(frozen=True, eq=False)
class Signature:
    """A problem with what goes in and what comes out, in order.

    Attributes:
        problem: the user's problem.
        fixed: the same problem with its frozen parameters replaced by constants.
        parameters: what goes in.
        outputs: what comes out.
    """

    problem: Problem
    fixed: Problem
    parameters: Sequence[cp.Parameter]
    outputs: Sequence[Output]


def check_signature(problem: object, parameters: object, variables: object, freeze: object) -> Signature:
    """Returns the problem, its parameters in the order listed, and what each entry of `variables` means.

    Raises:
        SignatureError: if the lists do not fit the problem.
        ProblemError: if it has no variables.
    """
    if not isinstance(problem, cp.Problem):
        raise SignatureError(f"problem must be a cvxpy.Problem, got {type(problem).__name__}")
    problem = _each_once(problem)
    if not problem.variables():
        raise ProblemError("the problem has no variables: there is nothing to solve for")
    frozen = _checked_frozen(problem, freeze)
    ordered = _checked_parameters(problem, parameters, frozen)
    if not isinstance(variables, list | tuple):
        raise SignatureError(
            f"The layer's variables must be provided as a list or tuple, got {type(variables).__name__}"
        )
    if not variables:
        raise SignatureError("The layer's variables are empty: list at least one variable, so that there is an output")
    outputs = [_output(problem, variable, index) for index, variable in enumerate(variables)]
    return Signature(problem, freeze_parameters(problem, frozen), ordered, outputs)


def _each_once(problem: Problem) -> Problem:
    """Returns the problem without the repetitions of a constraint, among which its dual variable would be shared."""
    constraints = {constraint.id: constraint for constraint in problem.constraints}
    if len(constraints) == len(problem.constraints):
        return problem
    return cp.Problem(problem.objective, list(constraints.values()))


def check_problem(problem: Problem, gp: bool) -> None:
    """Raises unless the problem is continuous, real, convex, DPP, and not too large.

    Raises:
        DPPError: if it is not DPP.
        ProblemError: if anything else stands in the way.
    """
    _check_leaves(problem)
    frozen = explain_frozen(problem, gp)
    if frozen:
        raise DPPError(f"{RULE} {frozen}")
    if gp and not problem.is_dgp(dpp=False):
        raise ProblemError(
            "the problem is not a disciplined geometric program (DGP), but gp=True was given; its variables and the "
            "parameters that are coefficients must be declared pos=True"
        )
    if not gp and not problem.is_dcp(dpp=False):
        raise ProblemError(explain_not_convex(problem))
    trouble = explain_dpp(problem, gp)
    if trouble:
        raise DPPError(trouble)
    check_size(problem)


def _check_leaves(problem: Problem) -> None:
    """Raises where a variable or a parameter is of a kind that a layer cannot have."""
    if problem.is_mixed_integer() or any(isinstance(constraint, FiniteSet) for constraint in problem.constraints):
        discrete = [v.name() for v in problem.variables() if v.attributes["boolean"] or v.attributes["integer"]]
        raise ProblemError(
            f"the problem is mixed-integer ({', '.join(discrete) or 'a finite set'}): its solution map is piecewise "
            "constant and has no useful derivative. Relax it, with cp.Variable(bounds=[0, 1]) in place of boolean "
            "variables"
        )
    leaves = [*problem.variables(), *problem.parameters()]
    loose = [leaf.name() for leaf in leaves if leaf.is_complex() and any(leaf.attributes[a] for a in _dropped(leaf))]
    if loose:
        raise ProblemError(
            f"CVXPY loses the attributes diag, sparsity and symmetric of complex leaves, and all of imaginary ones "
            f"({', '.join(loose)}): leave them out, and write them as constraints, or use hermitian=True"
        )
    stacks = [
        leaf.name()
        for leaf in leaves
        if leaf.ndim > 2 and (leaf.is_complex() or leaf.parameters()) and any(leaf.attributes[a] for a in SYMMETRIC)
    ]
    if stacks:
        raise ProblemError(
            "CVXPY cannot reduce symmetric parameters, or Hermitian leaves, of more than two axes "
            f"({', '.join(stacks)}): leave the attribute out, or use one leaf for each matrix"
        )


def _dropped(leaf: cp.Variable | cp.Parameter) -> tuple[str, ...]:
    """The attributes that CVXPY drops where it replaces a complex leaf by its parts."""
    return ("diag", "sparsity", *SYMMETRIC) if leaf.is_imag() else ("diag", "sparsity", "symmetric")


def _checked_frozen(problem: Problem, freeze: object) -> list[cp.Parameter]:
    if not isinstance(freeze, list | tuple):
        raise SignatureError(f"freeze must be a list or tuple of parameters, got {type(freeze).__name__}")
    own = freezable(problem)
    foreign = [_named(entry) for entry in freeze if getattr(entry, "id", None) not in own]
    if foreign:
        raise SignatureError(
            f"freeze may hold parameters of the problem only; not in the problem: {', '.join(foreign)}"
        )
    return [own[entry.id] for entry in freeze]


def _checked_parameters(problem: Problem, parameters: object, frozen: list[cp.Parameter]) -> list[cp.Parameter]:
    if not isinstance(parameters, list | tuple):
        raise SignatureError(
            f"The layer's parameters must be provided as a list or tuple, got {type(parameters).__name__}"
        )
    own = {parameter.id: parameter for parameter in problem.parameters()}
    listed = [getattr(parameter, "id", None) for parameter in parameters]
    fixed = {parameter.id for parameter in frozen}
    missing = [parameter for identity, parameter in own.items() if identity not in listed and identity not in fixed]
    foreign = [_named(parameter) for parameter, identity in zip(parameters, listed, strict=True) if identity not in own]
    twice = [own[identity].name() for identity in own if listed.count(identity) > 1]
    both = [own[identity].name() for identity in own if identity in listed and identity in fixed]
    if missing or foreign or twice or both:
        what = [f"missing from the list: {', '.join(parameter.name() for parameter in missing)}"] if missing else []
        what += [f"not in the problem: {', '.join(foreign)}"] if foreign else []
        what += [f"listed twice: {', '.join(twice)}"] if twice else []
        what += [f"both listed and frozen: {', '.join(both)}"] if both else []
        valued = [parameter.name() for parameter in missing if parameter.value is not None]
        hint = f". To fix {', '.join(valued)} at compile time, pass freeze=[{', '.join(valued)}]" if valued else ""
        raise SignatureError(f"The layer's parameters must exactly match problem.parameters; {'; '.join(what)}{hint}")
    return [own[identity] for identity in listed if identity is not None]


def _output(problem: Problem, variable: object, index: int) -> Output:
    for own in problem.variables():
        if own is variable or getattr(variable, "id", None) == own.id:
            return Output(own)
    for constraint in problem.constraints:
        if constraint is variable and len(constraint.dual_variables) == 1:
            return Output(constraint.dual_variables[0], constraint)
        if constraint is variable:
            raise SignatureError(
                f"Entry #{index} of variables is a constraint with {len(constraint.dual_variables)} dual variables: "
                "list the ones that you want, as constraint.dual_variables[0]"
            )
        for position, dual in enumerate(constraint.dual_variables):
            if dual is variable:
                return Output(dual, constraint, position)
    raise SignatureError(
        "The layer's variables must be a subset of problem.variables, or dual variables of its constraints; entry "
        f"#{index}, {_named(variable)}, is neither. The variables are "
        f"{', '.join(own.name() for own in problem.variables())}"
    )


def _named(entry: object) -> str:
    return entry.name() if isinstance(entry, cp.Variable | cp.Parameter) else shown(entry)
