"""Why a problem is not disciplined parametrised (DPP): the smallest expression at fault, and the way out."""

from __future__ import annotations

from collections.abc import Iterator

import cvxpy as cp
from cvxpy.atoms.affine.add_expr import AddExpression
from cvxpy.atoms.affine.affine_atom import AffAtom
from cvxpy.atoms.affine.binary_operators import DivExpression, MulExpression, multiply
from cvxpy.atoms.affine.concatenate import Concatenate
from cvxpy.atoms.affine.hstack import Hstack
from cvxpy.atoms.affine.vstack import Vstack
from cvxpy.atoms.elementwise.power import Power
from cvxpy.atoms.quad_form import QuadForm
from cvxpy.utilities import scopes

from cvxlayers.canonical.expressions import Expression, Part, Problem, names, nodes, parts, place, shown, smallest

RULE = "Problem must be DPP."

_SCALE = "scale the matrix in the framework, P_scaled = gamma * P, and pass P_scaled as the parameter (PSD=True)"
_FACTOR = (
    "a parametric matrix is supported in a term of the objective only. Here pass a factor L of P = L @ L.T as the "
    "parameter instead, and write sum_squares(L.T @ x)"
)
_PRODUCT = (
    "it multiplies two expressions that both hold parameters. Compute the product of the parameters in the framework "
    "and pass it as one parameter; or name the factor that also holds variables by a new variable and an equality "
    "constraint"
)
_FREEZE = "Parameters that need not change may be fixed at their values instead, by freeze=[...]"


def explain_dpp(problem: Problem, gp: bool) -> str:
    """Returns why a convex problem is not disciplined parametrised, and the way out; empty where it is."""
    trouble = _geometric(problem) if gp else _trapped(problem) or _undisciplined(problem)
    return f"{RULE} {trouble}. {_FREEZE}" if trouble else ""


def explain_frozen(problem: Problem, gp: bool) -> str:
    """Finds parameters as exponents, whose value at compile time CVXPY would silently keep; empty without any."""
    for constraint in problem.constraints:
        if isinstance(constraint, cp.PowCone3D | cp.PowConeND) and constraint.alpha.parameters():
            return (
                f"In {place(problem, constraint)}, the parameter {names(constraint.alpha)} is the exponent of a power "
                "cone. Exponents must be constants: give it a value and pass "
                f"freeze=[{names(constraint.alpha)}], one layer for each value that is needed"
            )
    for part, expression in () if gp else parts(problem):
        for node in nodes(expression):
            exponent = node.p if isinstance(node, Power) else None
            if isinstance(exponent, cp.Expression) and exponent.parameters():
                return (
                    f"In {place(problem, part)}, `{shown(node)}` has the parameter {names(exponent)} as its exponent. "
                    "Exponents must be constants, except in geometric programs (gp=True): give it a value and pass "
                    f"freeze=[{names(exponent)}], one layer for each value that is needed"
                )
    return ""


def _geometric(problem: Problem) -> str:
    if problem.is_dpp("dgp"):
        return ""
    return (
        "In a geometric program a parameter may be a positive coefficient (declare it pos=True) or an exponent of a "
        f"variable; the parameters are {names(problem)}. Compute any other function of them in the framework first, "
        "and pass the result as the parameter"
    )


def _trapped(problem: Problem) -> str:
    """Finds quad_form with a parametric matrix where CVXPY's own test passes but its reduction does not carry it."""
    for part, expression in parts(problem):
        in_objective = part is problem.objective
        carried = set(map(id, _terms(expression))) if in_objective else set()
        for node in nodes(expression):
            if not isinstance(node, QuadForm) or not node.args[1].parameters():
                continue
            where = f"In {place(problem, part)}, `{shown(node)}` (parameters {names(node)})"
            if node.args[0].parameters():
                return f"{where}: {_bare(node)}"
            if id(node) not in carried:
                return f"{where}: {_SCALE if in_objective and _scaled(expression, node) else _FACTOR}"
    return ""


def _terms(expression: Expression) -> Iterator[Expression]:
    """The terms of a sum, through signs, constant factors and anything else that is affine."""
    yield expression
    changing = [argument for argument in expression.args if argument.parameters() or not argument.is_constant()]
    stacked = isinstance(expression, AddExpression | Hstack | Vstack | Concatenate)
    if isinstance(expression, AffAtom) and (stacked or len(changing) <= 1):
        for argument in expression.args:
            yield from _terms(argument)


def _scaled(expression: Expression, target: Expression) -> bool:
    """Whether nothing but affine expressions stand above the target: it is scaled, and not bent."""
    if expression is target:
        return True
    inside = [argument for argument in expression.args if any(node is target for node in nodes(argument))]
    return isinstance(expression, AffAtom) and any(_scaled(argument, target) for argument in inside)


def _undisciplined(problem: Problem) -> str:
    if problem.is_dpp("dcp", quad_form_dpp="qp"):
        return ""
    with scopes.dpp_scope(), scopes.quad_form_dpp_scope():
        for part, expression in parts(problem):
            offender = smallest(expression, lambda e: e.is_dcp())
            if offender is not None:
                return (
                    f"In {place(problem, part)}, the expression `{shown(offender)}` is not affine in the parameters "
                    f"{names(offender)}: {_remedy(offender)}"
                )
        for part in (problem.objective, *problem.constraints):
            if not part.is_dcp():
                return _wrong_side(problem, part)
    return f"The parameters are {names(problem)}"


def _wrong_side(problem: Problem, part: Part) -> str:
    """Every expression is sound, but a function of parameters alone has the curvature that its place forbids."""
    for side in part.args:
        bent = smallest(side, lambda e: bool(e.variables()) or e.is_affine())
        if bent is not None:
            where = f"In {place(problem, part)}, `{shown(bent)}`"
            return f"{where} is not affine in the parameters {names(bent)}: {_compute(bent)}"
    return (
        f"The curvature of {place(problem, part)} depends on its parameters. Declare their signs, as "
        "cp.Parameter(nonneg=True), where they scale a convex expression"
    )


def _remedy(offender: Expression) -> str:
    if isinstance(offender, QuadForm):
        return _bare(offender)
    if not offender.variables():
        return _compute(offender)
    for argument in offender.args:
        if not argument.variables() and not argument.is_affine():
            bent = smallest(argument, lambda e: e.is_affine())
            return _compute(argument if bent is None else bent)
    if isinstance(offender, DivExpression) and offender.args[1].parameters():
        return "it divides by a parameter. Compute the reciprocal in the framework and pass that as the parameter"
    if isinstance(offender, MulExpression | multiply):
        return _factors(offender)
    return (
        "a parameter stands inside an atom that is not affine in it. Compute that function of the parameter in the "
        "framework and pass the result as the parameter; or name the argument that holds it by a new variable, with an "
        "equality constraint"
    )


def _bare(form: QuadForm) -> str:
    vector, matrix = (shown(argument) for argument in form.args)
    return (
        "quad_form cannot hold parameters in its vector. Name the vector by a new variable e, with the constraint "
        f"e == {vector}, and write quad_form(e, {matrix})"
    )


def _factors(product: Expression) -> str:
    if any(isinstance(node, QuadForm) and node.args[1].parameters() for node in nodes(product)):
        return _SCALE
    if all(factor.parameters() for factor in product.args):
        return _PRODUCT
    return "declare the sign of the parameter, as cp.Parameter(nonneg=True), if it scales a convex expression"


def _compute(expression: Expression) -> str:
    return f"compute `{shown(expression)}` in the framework and pass the result as the parameter"
