"""Compiles a CVXPY problem: checks it, has CVXPY reduce it, and reads every map off as a sparse matrix."""

from __future__ import annotations

from collections.abc import Sequence

import cvxpy as cp
import scipy.sparse as sp

from cvxlayers.canonical.conic import Conic, conic_form
from cvxlayers.canonical.data import read_data
from cvxlayers.canonical.leaves import Output, parameter_matrix, variable_matrices
from cvxlayers.canonical.signature import check_problem, check_signature
from cvxlayers.compiled import CompiledProblem, LinearMap, ParameterMap, VariableMap


def compile_problem(
    problem: object, parameters: Sequence[object], variables: Sequence[object], *, gp: bool = False
) -> CompiledProblem:
    """Compiles a problem into plain arrays.

    Args:
        problem: a DPP `cvxpy.Problem` (log-log convex with `gp`).
        parameters: all its parameters, in the order of a call.
        variables: what a call returns: variables, dual variables of constraints, or constraints that have exactly one.
        gp: whether the problem is a geometric program.

    Raises:
        SignatureError: if the lists do not fit the problem.
        DPPError: if the problem is not DPP; the message names the expression, its parameters, and the way out.
        ProblemError: if the problem is not convex, mixed-integer or complex, or has no variables.
    """
    signature = check_signature(problem, parameters, variables)
    check_problem(signature.problem, gp)
    conic = conic_form(signature.problem, gp)
    layout = _parameter_map(conic, signature.parameters)
    data = read_data(conic, parameter_matrix(conic, signature.parameters, layout), layout)
    x, y = variable_matrices(conic, signature.outputs)
    return CompiledProblem(
        structure=data.structure,
        parameters=layout,
        variables=_variable_map(conic, signature.outputs, x, sp.csr_array(y[:, data.kept_rows])),
        P=data.P,
        q=data.q,
        A=data.A,
        b=data.b,
        offset=data.offset,
        maximise=isinstance(signature.problem.objective, cp.Maximize),
        gp=gp,
    )


def _parameter_map(conic: Conic, parameters: Sequence[cp.Parameter]) -> ParameterMap:
    used = conic.program.param_id_to_col
    return ParameterMap(
        names=tuple(parameter.name() for parameter in parameters),
        shapes=tuple(parameter.shape for parameter in parameters),
        logs=tuple(conic.logarithms.get(parameter.id) in used for parameter in parameters),
    )


def _variable_map(conic: Conic, outputs: Sequence[Output], x: sp.csr_array, y: sp.csr_array) -> VariableMap:
    return VariableMap(
        names=tuple(output.name for output in outputs),
        shapes=tuple(output.shape for output in outputs),
        x=LinearMap(x),
        y=LinearMap(y),
        exps=tuple(output.exp(conic) for output in outputs),
    )
