"""Approximate solutions by CVXPY and Clarabel, item by item: where the exact answers start."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import cvxpy as cp
import numpy as np

from benchmarks.contest import Array
from benchmarks.peers.layers import Text

_TIGHT = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}


def approximate(text: Text, data: Mapping[str, Array], *, gp: bool = False) -> list[tuple[Array, list[Any]]]:
    """Returns, for each item, the value of the variable, and of the duals of all constraints, in their order."""
    problem, parameters, (variable,) = text
    found = []
    for index in range(len(next(iter(data.values())))):
        for parameter, value in zip(parameters, data.values(), strict=True):
            parameter.value = value[index]
        with warnings.catch_warnings():
            # Newton's method goes on from here, and says where it does not arrive.
            warnings.filterwarnings("ignore", message="Solution may be inaccurate")
            problem.solve(solver=cp.CLARABEL, gp=gp, **_TIGHT)
        found.append((np.array(variable.value), [constraint.dual_value for constraint in problem.constraints]))
    return found
