"""Why a problem is not convex by CVXPY's rules: the smallest offending expression, and the way out."""

from __future__ import annotations

import cvxpy as cp
from cvxpy.atoms.affine.binary_operators import MulExpression, multiply
from cvxpy.atoms.elementwise.power import Power
from cvxpy.atoms.quad_form import QuadForm

from cvxlayers.canonical.expressions import Expression, Part, Problem, names, parts, place, shown, smallest

_NOT_CONVEX = "the problem is not convex by CVXPY's rules (DCP)"
_RULES = (
    "A minimised objective must be convex, a maximised one concave, and constraints convex <= concave or affine == "
    "affine"
)


def explain_not_convex(problem: Problem) -> str:
    """Returns why a problem is not convex by CVXPY's rules (DCP)."""
    for part, expression in parts(problem):
        offender = smallest(expression, lambda e: e.is_dcp(dpp=False))
        if offender is not None:
            return (
                f"{_NOT_CONVEX}: in {place(problem, part)}, the expression `{shown(offender)}` is neither convex nor "
                f"concave{_remedy(offender)}{_other_disciplines(problem)}"
            )
    broken = next(part for part in (problem.objective, *problem.constraints) if not part.is_dcp(dpp=False))
    return f"{_NOT_CONVEX}: {_broken(problem, broken)}. {_RULES}{_other_disciplines(problem)}"


def _broken(problem: Problem, part: Part) -> str:
    if isinstance(part, cp.Minimize | cp.Maximize):
        verb = "minimised" if isinstance(part, cp.Minimize) else "maximised"
        return f"the objective `{shown(part.expr)}` is {verb} but {part.expr.curvature.lower()}"
    sides = " and ".join(f"`{shown(side)}` is {side.curvature.lower()}" for side in part.args)
    return f"in {place(problem, part)}, {sides}"


def _remedy(offender: Expression) -> str:
    if isinstance(offender, QuadForm):
        matrix = offender.args[1]
        if matrix.parameters():
            return (
                f", because `{shown(matrix)}` is not known to be semidefinite. Declare the parameter PSD=True, "
                "compute it in the framework where it is a function of others, or wrap it in cp.psd_wrap if you know "
                "that it is"
            )
        return ", because its matrix is indefinite"
    if isinstance(offender, Power) and offender.parameters():
        return ". An exponent must be a constant"
    if isinstance(offender, MulExpression | multiply):
        if all(factor.variables() for factor in offender.args):
            return ": it multiplies variables"
        if offender.parameters():
            return (
                f". Declare the sign of the parameters {names(offender)}, as cp.Parameter(nonneg=True), if they scale "
                "a convex expression"
            )
    return ""


def _other_disciplines(problem: Problem) -> str:
    if problem.is_dgp(dpp=False):
        return ". It is a geometric program: pass gp=True"
    if problem.is_dqcp():
        return (
            ". It is quasiconvex (DQCP): fix the level of the objective by a constraint, and bisect over layers that "
            "decide feasibility"
        )
    return ""
