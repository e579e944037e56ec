"""Compiles a CVXPY problem: checks it, has CVXPY reduce it, and reads every map off as a sparse matrix."""

from __future__ import annotations

from collections.abc import Sequence

import cvxpy as cp
import scipy.sparse as sp

from cvxlayers.canonical.cache import cache_folder, cached
from cvxlayers.canonical.conic import Conic, conic_form
from cvxlayers.canonical.data import read_data
from cvxlayers.canonical.domains import domain_of
from cvxlayers.canonical.leaves import Output, dual_ids, parameter_matrix, real_shape, variable_matrices
from cvxlayers.canonical.signature import Signature, check_problem, check_signature
from cvxlayers.compiled import CompiledProblem
from cvxlayers.errors import ProblemError
from cvxlayers.linear_map import LinearMap
from cvxlayers.parameter_map import ParameterMap
from cvxlayers.variable_map import Leaves, VariableMap


def compile_problem(
    problem: object,
    parameters: object,
    variables: object,
    *,
    gp: bool = False,
    freeze: object = (),
    cache: object = None,
) -> CompiledProblem:
    """Compiles a problem into plain arrays.

    Args:
        problem: a DPP `cvxpy.Problem` (log-log convex with `gp`).
        parameters: all its parameters but the frozen ones, in the order of a call.
        variables: what a call returns: variables, dual variables of constraints, or constraints that have exactly one.
        gp: whether the problem is a geometric program.
        freeze: parameters that are not listed, and keep the values that they have now.
        cache: folder in which compiled problems are kept; by default CVXLAYERS_CACHE, none where that is unset.

    Raises:
        SignatureError: if the lists do not fit the problem.
        DPPError: if the problem is not DPP; the message names the expression, its parameters, and the way out.
        ProblemError: if the problem is not convex, mixed-integer or complex, or has no variables.
    """
    folder = cache_folder(cache)
    signature = check_signature(problem, parameters, variables, freeze)
    return cached(signature, gp, folder, lambda: _compile(signature, gp))


def _compile(signature: Signature, gp: bool) -> CompiledProblem:
    check_problem(signature.fixed, gp)
    conic = conic_form(signature.fixed, gp)
    layout = _parameter_map(conic, signature.parameters)
    data = read_data(conic, parameter_matrix(conic, signature.parameters, layout), layout)
    every, listed = _all_outputs(conic, signature)
    x, y = variable_matrices(conic, every)
    leaves = _variable_map(conic, every, x, sp.csr_array(y[:, data.kept_rows]))
    return CompiledProblem(
        structure=data.structure,
        parameters=layout,
        variables=leaves.select(listed),
        leaves=Leaves(leaves, tuple(output.owner for output in every), listed),
        P=data.P,
        q=data.q,
        A=data.A,
        b=data.b,
        offset=data.offset,
        maximise=isinstance(signature.problem.objective, cp.Maximize),
        gp=gp,
    )


def _all_outputs(conic: Conic, signature: Signature) -> tuple[list[Output], tuple[int, ...]]:
    """Returns every variable and dual variable that CVXPY can carry back, and the positions of the listed ones."""
    problem, listed = signature.problem, signature.outputs
    every = [Output(variable) for variable in problem.variables()]
    carried = dual_ids(conic)
    for constraint in problem.constraints:
        if constraint.id in carried:
            every += [Output(dual, constraint, index) for index, dual in enumerate(constraint.dual_variables)]
    positions = {output.leaf.id: position for position, output in enumerate(every)}
    missing = [output.name for output in listed if output.leaf.id not in positions]
    if missing:
        raise ProblemError(f"CVXPY does not recover the dual variables {', '.join(missing)} of this kind of constraint")
    return every, tuple(positions[output.leaf.id] for output in listed)


def _parameter_map(conic: Conic, parameters: Sequence[cp.Parameter]) -> ParameterMap:
    used = conic.program.param_id_to_col
    return ParameterMap(
        names=tuple(parameter.name() for parameter in parameters),
        shapes=tuple(real_shape(parameter.shape, parameter.is_complex()) for parameter in parameters),
        logs=tuple(conic.logarithms.get(parameter.id) in used for parameter in parameters),
        domains=tuple(domain_of(parameter) for parameter in parameters),
        complexes=tuple(parameter.is_complex() for parameter in parameters),
    )


def _variable_map(conic: Conic, outputs: Sequence[Output], x: sp.csr_array, y: sp.csr_array) -> VariableMap:
    return VariableMap(
        names=tuple(output.name for output in outputs),
        shapes=tuple(output.shape for output in outputs),
        x=LinearMap(x),
        y=LinearMap(y),
        exps=tuple(output.exp(conic) for output in outputs),
        complexes=tuple(output.complex for output in outputs),
    )
