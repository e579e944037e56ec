"""Why a problem is not convex or not DPP: the smallest offending expression, its parameters, and the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cvxpy as cp
from cvxpy.atoms.affine.add_expr import AddExpression
from cvxpy.atoms.affine.binary_operators import DivExpression, MulExpression, multiply
from cvxpy.atoms.affine.sum import Sum
from cvxpy.atoms.affine.unary_operators import NegExpression
from cvxpy.atoms.elementwise.power import Power
from cvxpy.atoms.quad_form import QuadForm
from cvxpy.utilities import scopes

from cvxlayers.errors import ProblemError

_LONGEST = 160


def explain_not_convex(problem: cp.Problem) -> ProblemError:
    """Returns the error for a problem that is not convex by CVXPY's rules (DCP)."""
    for where, expression in _parts(problem):
        offender = _smallest(expression, lambda e: e.is_dcp(dpp=False))
        if offender is not None:
            return ProblemError(
                f"the problem is not convex by CVXPY's rules (DCP): in {where}, the expression `{_shown(offender)}` is "
                "neither convex nor concave"
            )
    return ProblemError(
        "the problem is not convex by CVXPY's rules (DCP): a minimised objective must be convex, a maximised one "
        "concave, and constraints convex ≤ concave, affine == affine"
    )


def explain_dpp(problem: cp.Problem, gp: bool) -> str:
    """Returns why the problem is not disciplined parametrised, and the way out; empty where it is."""
    frozen = _frozen_exponents(problem, gp)
    if frozen:
        return f"Problem must be DPP. {frozen}"
    if gp:
        if problem.is_dpp("dgp"):
            return ""
        return (
            "Problem must be DPP. In a geometric program a parameter may be a positive coefficient or an exponent of a "
            f"variable; the parameters are {_names(problem)}. Compute any other function of them in the framework first, "
            "and pass the result as a parameter"
        )
    trapped = _trapped_quad_form(problem)
    if trapped:
        return f"Problem must be DPP. {trapped}"
    if problem.is_dpp("dcp", quad_form_dpp="qp"):
        return ""
    with scopes.quad_form_dpp_scope():
        for where, expression in _parts(problem):
            offender = _smallest(expression, lambda e: e.is_dcp(dpp=True))
            if offender is not None:
                return (
                    f"Problem must be DPP. In {where}, the expression `{_shown(offender)}` is not affine in the "
                    f"parameters {_names(offender)}: {_remedy(offender)}"
                )
    return (
        f"Problem must be DPP. Its curvature depends on the signs of the parameters {_names(problem)}: declare them, as "
        "cp.Parameter(nonneg=True), where they scale a convex expression"
    )


def _parts(problem: cp.Problem) -> Iterator[tuple[str, cp.Expression]]:
    yield "the objective", problem.objective.expr
    for index, constraint in enumerate(problem.constraints):
        for argument in constraint.args:
            yield f"constraint {index} ({_shown(constraint)})", argument


def _smallest(expression: cp.Expression, sound: Callable[[cp.Expression], bool]) -> cp.Expression | None:
    """Returns the first expression, innermost first, that is not sound though all its arguments are."""
    for argument in expression.args:
        found = _smallest(argument, sound)
        if found is not None:
            return found
    return None if sound(expression) else expression


def _remedy(offender: cp.Expression) -> str:
    parametric = [argument for argument in offender.args if argument.parameters()]
    if isinstance(offender, QuadForm):
        return _SHIFTED
    if isinstance(offender, MulExpression | multiply):
        if any(isinstance(node, QuadForm) for node in _nodes(offender)):
            return "scale the matrix in the framework, P_scaled = gamma * P, and pass P_scaled as the parameter"
        if len(parametric) == 2:
            return (
                "it multiplies two parameters, or a parameter by an expression that holds one. Compute the product in "
                "the framework and pass it as one parameter; where the second factor also holds variables, name that "
                "factor by a new variable and an equality constraint"
            )
        return "declare the sign of the parameter, as cp.Parameter(nonneg=True), if it scales a convex expression"
    if isinstance(offender, DivExpression):
        return "it divides by a parameter. Compute the reciprocal in the framework and pass that as the parameter"
    return (
        "a parameter stands inside an atom that is not affine in it. Compute that function of the parameter in the "
        "framework and pass the result as the parameter; or name the argument by a new variable and an equality constraint"
    )


_SHIFTED = (
    "quad_form with a parametric matrix needs a bare variable. Add a variable e with the constraint e == x - r, and "
    "write quad_form(e, P)"
)


def _trapped_quad_form(problem: cp.Problem) -> str:
    """Finds quad_form with a parametric matrix where CVXPY's own test passes but its reduction does not carry it."""
    for where, expression in _parts(problem):
        carried = set(map(id, _summands(expression))) if where == "the objective" else set()
        for node in _nodes(expression):
            if not isinstance(node, QuadForm) or not node.args[1].parameters():
                continue
            if node.args[0].parameters():
                return f"In {where}, `{_shown(node)}`: {_SHIFTED}"
            if id(node) not in carried:
                return (
                    f"In {where}, `{_shown(node)}` has the parametric matrix {_names(node.args[1])}, which is supported as a "
                    "term of the objective only. Elsewhere pass a factor L of P = L @ L.T as the parameter, and write "
                    "sum_squares(L.T @ x); where it is scaled by a parameter, scale P in the framework"
                )
    return ""


def _summands(expression: cp.Expression) -> Iterator[cp.Expression]:
    """The terms of a sum, through signs, sums and constant factors."""
    yield expression
    transparent = isinstance(expression, AddExpression | NegExpression | Sum)
    scaled = isinstance(expression, MulExpression | multiply | DivExpression)
    if scaled:
        transparent = any(argument.is_constant() and not argument.parameters() for argument in expression.args)
    if transparent:
        for argument in expression.args:
            yield from _summands(argument)


def _frozen_exponents(problem: cp.Problem, gp: bool) -> str:
    """Finds parameters as exponents, whose value at compile time CVXPY would silently keep."""
    for index, constraint in enumerate(problem.constraints):
        if isinstance(constraint, cp.PowCone3D | cp.PowConeND) and constraint.alpha.parameters():
            return (
                f"Constraint {index} ({_shown(constraint)}) has the parameter {_names(constraint.alpha)} as the exponent of "
                "a power cone; exponents must be constants"
            )
    for where, expression in _parts(problem):
        for node in _nodes(expression):
            if isinstance(node, Power) and not gp and isinstance(node.p, cp.Expression) and node.p.parameters():
                return (
                    f"In {where}, `{_shown(node)}` has the parameter {_names(node.p)} as an exponent; exponents must be "
                    "constants, except in geometric programs (gp=True)"
                )
    return ""


def _nodes(expression: cp.Expression) -> Iterator[cp.Expression]:
    yield expression
    for argument in expression.args:
        yield from _nodes(argument)


def _names(holder: cp.Problem | cp.Expression) -> str:
    return ", ".join(parameter.name() for parameter in holder.parameters())


def _shown(holder: object) -> str:
    text = str(holder)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
