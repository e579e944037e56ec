"""Calls whose outputs are one product with the values of the parameters, and derivatives that are another.

The programs behind such outputs, and their points, are found only if they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from cvxlayers.affine import Affine
from cvxlayers.batches import Vectors
from cvxlayers.compiled import CompiledProblem
from cvxlayers.derivative import DerivativeInfo
from cvxlayers.forward import Answer, Array, Forward, Found, final_status, spread, spread_info
from cvxlayers.kernel import Kernel
from cvxlayers.parameter_map import Theta
from cvxlayers.program import ConeProgram
from cvxlayers.solve import CallOptions, solve_programs
from cvxlayers.variable_map import VariableMap


def solve(
    affine: Affine,
    compiled: CompiledProblem,
    kernel: Kernel,
    theta: Theta,
    outputs: VariableMap,
    options: CallOptions,
) -> Answer:
    """Solves every item by the map that compilation found."""
    rows = theta.values
    arrays, status, lost = affine.outputs(outputs, rows)
    accuracy, outcome = np.full(len(rows), affine.accuracy), affine.outcome(status, options.plan)

    def data() -> tuple[ConeProgram, Float[np.ndarray, "#batch"]]:
        kept = replace(theta, blocks=tuple(compiled.parameters.split(rows)))
        return compiled.program(kept), compiled.offset.apply(kept)[:, 0]

    def find() -> Found:
        program, offset = data()
        point = affine.point(program, rows)
        point = point if again is None else point.put(lost, again)
        return Found(program, offset, kernel.reduce(program), None, point, outcome)

    again = None
    if len(lost):
        program = data()[0].item(lost)
        solved, again, _ = solve_programs(kernel, program, kernel.reduce(program), options, None)
        accuracy[lost] = again.accuracy(program)
        status[lost] = final_status(solved.solution.status, accuracy[lost], options.solver.eps)
        for array, part in zip(arrays, outputs.recover(again.x, again.y), strict=True):
            array[lost] = part
    return Answer(lambda: arrays, status, accuracy, outcome, find)


def pull(
    affine: Affine, compiled: CompiledProblem, forward: Forward, rows: Sequence[Sequence[Array | None]]
) -> tuple[list[Array], DerivativeInfo]:
    """Returns the cotangents of theta's blocks for each row of cotangents of the outputs, one after another."""
    solved, batch = np.flatnonzero(forward.ok), len(forward.status)
    pulled = [affine.pull(forward.map, row, batch)[solved] for row in rows]
    found = [part for dtheta in pulled for part in compiled.parameters.split(dtheta)]
    return spread(found, solved, forward), spread_info(affine.info(len(solved)), solved, forward)


def push(affine: Affine, forward: Forward, dthetas: Sequence[Vectors]) -> tuple[list[list[Array]], DerivativeInfo]:
    """Returns the tangents of the outputs for each tangent of theta."""
    solved = np.flatnonzero(forward.ok)
    pushed = [spread(affine.push(forward.map, row[solved]), solved, forward) for row in dthetas]
    return pushed, spread_info(affine.info(len(solved)), solved, forward)
