"""Calls that lean programs answer: their solutions are found and certified there, and so are derivatives.

The full programs behind them, and their points, are found only if they are asked for.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cvxlayers.batches import some
from cvxlayers.compiled import CompiledProblem
from cvxlayers.forward import Answer, Array, Found
from cvxlayers.lean import Lean
from cvxlayers.parameter_map import Theta
from cvxlayers.residual import evaluate
from cvxlayers.solve import CallOptions
from cvxlayers.solvers import Outcome


def solve(lean: Lean, compiled: CompiledProblem, theta: Theta, options: CallOptions) -> Answer | None:
    """Solves every item; returns None where not all of them are certified solutions, to rounding."""
    plan, batch = options.plan.of(theta.batch), theta.batch
    if not plan.primary.is_formula:
        return None
    # The caller's arrays may change before the full programs are asked for.
    theta = replace(theta, blocks=tuple(block.copy() for block in theta.blocks))
    program, variables = lean.compiled.program(theta), lean.compiled.variables
    with np.errstate(all="ignore"):
        solution = plan.primary.solve(program, options.solver)
        point = lean.evaluate(program, solution.x, solution.y, solution.s)
    if some(solution.status) or not point.is_exact:
        return None
    names = tuple(solver.name for solver in plan.solvers)
    outcome = Outcome(solution, names, np.zeros(batch, dtype=np.int64))
    found = Found(program, lean.compiled.offset.constant, None, None, point, outcome)

    def find() -> Found:
        full, offset = compiled.program(theta), compiled.offset.apply(theta)[:, 0]
        reduced = lean.reduction.eliminate(full)
        x, y, s = reduced.recover(point.x, point.y, point.s)
        return Found(full, offset, reduced, None, evaluate(full, x, y - s, near=s), outcome)

    def outputs() -> list[Array]:
        return variables.recover(point.x, point.y)

    return Answer(outputs, solution.status, point.merit, outcome, find, found)
