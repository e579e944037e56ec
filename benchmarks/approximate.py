"""Approximate solutions by CVXPY and Clarabel, item by item: where the exact answers start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cvxpy as cp

from benchmarks.contest import Array
from benchmarks.peers.layers import Text

_TIGHT = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}


def approximate(text: Text, data: Mapping[str, Array], *, gp: bool = False) -> list[tuple[list[Any], list[Any]]]:
    """Returns, for each item, the values of the problem's variables and of its constraints' duals, in its order."""
    problem, parameters, _ = text
    found = []
    for index in range(len(next(iter(data.values())))):
        for parameter, value in zip(parameters, data.values(), strict=True):
            parameter.value = value[index]
        problem.solve(solver=cp.CLARABEL, gp=gp, **_TIGHT)
        values = [variable.value for variable in problem.variables()]
        found.append((values, [constraint.dual_value for constraint in problem.constraints]))
    return found
