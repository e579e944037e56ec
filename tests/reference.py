"""A second opinion on solutions and their derivatives, which shares no code with the library.

CVXPY reduces the problem with the values of its parameters put in as constants, Clarabel solves it, and Newton's
method on the optimality conditions makes the solution exact to rounding. With the complementarity of symmetric cones
written by the Jordan product these conditions are regular wherever the solution is unique, strictly complementary and
nondegenerate (Alizadeh, Haeberly, Overton 1998). Differences of such solutions certify derivatives to about 1e-9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import clarabel
import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.reductions.solvers.conic_solvers.clarabel_conif import dims_to_solver_cones

from tests.complementarity import Face, faces
from tests.problems import Case

Array = np.ndarray
Values = Sequence[Array]

_ITERATIONS = 30
# Steps of the differences: small beside the parameters, which are of order one, and beside the distance to a kink.
_STEP, _STEP_OF_MARGIN = 2e-3, 0.02
# Fourth-order central differences: f' ≈ Σ weight (f(kh) − f(−kh)) / h over k = 1, 2.
_STENCIL = {1: 2 / 3, 2: -1 / 12}


@dataclass(frozen=True)
class Program:
    """Dense data of: minimise ½xᵀPx + qᵀx subject to Ax + s = b, s in the cone."""

    P: Array
    q: Array
    A: Array
    b: Array


@dataclass(frozen=True)
class Solved:
    """A solution, and how good it is.

    Attributes:
        outputs: one array per listed variable, then one per dual variable of the problem.
        residual: the largest violation of the optimality conditions, relative to the terms that cancel.
        margin: how far the point is from losing strict complementarity; where positive, the solution map is smooth.
        point: x, s and y, from which a nearby solution is found.
        faces: the equations of complementarity on which it lies.
    """

    outputs: list[Array]
    residual: float
    margin: float
    point: tuple[Array, Array, Array]
    faces: list[Face]


@dataclass(frozen=True)
class Difference:
    """The derivative of all outputs along one direction of one parameter, and an estimate of its error."""

    slot: int
    direction: Array
    outputs: list[Array]
    error: float


class Reference:
    """Solves one problem of the catalogue at given values of its parameters."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.problem, self.parameters, self.variables = case.build()
        self.duals = [dual for constraint in self.problem.constraints for dual in constraint.dual_variables]

    def solve(self, values: Values, near: Solved | None = None) -> Solved:
        """Returns the solution; `near` is one at nearby values, on the same faces."""
        for parameter, value in zip(self.parameters, values, strict=True):
            _assign(parameter, value)
        data, chain, inverse = self.problem.get_problem_data(
            cp.CLARABEL, gp=self.case.gp, ignore_dpp=True, solver_opts={}
        )
        program = _program(data)
        x, s, y = _clarabel(program, data["dims"]) if near is None else near.point
        found = faces(data["dims"], s, y) if near is None else near.faces
        x, s, y, residual = _newton(program, found, x, s, y)
        raw = SimpleNamespace(status="Solved", x=x, z=y, s=s, obj_val=0.0, solve_time=0.0, iterations=0)
        self.problem.unpack_results(raw, chain, inverse)
        margin = min((face.margin(s[face.rows], y[face.rows]) for face in found), default=np.inf)
        outputs = [_dense(variable) for variable in (*self.variables, *self.duals)]
        return Solved(outputs, residual, margin, (x, s, y), found)

    def difference(self, values: Values, base: Solved, slot: int, direction: Array) -> Difference:
        """Differentiates the outputs along a direction of one parameter; two step sizes tell the error."""
        step = min(_STEP, _STEP_OF_MARGIN * base.margin) / np.abs(direction).max()
        at = {
            k: self.solve([v + k * step * direction if i == slot else v for i, v in enumerate(values)], base)
            for k in (-2, -1, -0.5, 0.5, 1, 2)
        }
        worst = max(solved.residual for solved in at.values())
        coarse, fine = (
            [
                sum(w * (at[k * h].outputs[i] - at[-k * h].outputs[i]) for k, w in _STENCIL.items()) / (h * step)
                for i in range(len(base.outputs))
            ]
            for h in (1, 0.5)
        )
        error = max(float(np.abs(c - f).max()) for c, f in zip(coarse, fine, strict=True))
        return Difference(slot, direction, fine, max(error, worst / step))


def _assign(parameter: cp.Parameter, value: Array) -> None:
    if parameter.attributes["sparsity"]:
        entries = value[parameter.sparse_idx]
        parameter.value_sparse = sp.coo_array((entries, parameter.sparse_idx), shape=parameter.shape)
    else:
        parameter.value = value


def _dense(variable: cp.Variable) -> Array:
    value: Any = variable.value
    return np.array(value.toarray() if sp.issparse(value) else value, dtype=float).reshape(variable.shape)


def _program(data: dict[str, Any]) -> Program:
    n = len(data["c"])
    P = data["P"].toarray() if data.get("P") is not None else np.zeros((n, n))
    A = data["A"].toarray() if data["A"].shape[0] else np.zeros((0, n))
    return Program(0.5 * (P + P.T), data["c"], A, data["b"])


def _clarabel(program: Program, dims: Any) -> tuple[Array, Array, Array]:
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    settings.tol_ktratio = 1e-9
    cones = dims_to_solver_cones(dims)
    P, A = sp.csc_matrix(np.triu(program.P)), sp.csc_matrix(program.A)
    found = clarabel.DefaultSolver(P, program.q, A, program.b, cones, settings).solve()
    if str(found.status) not in ("Solved", "AlmostSolved", "InsufficientProgress"):
        raise ArithmeticError(f"the reference is not solved: {found.status}")
    return np.array(found.x), np.array(found.s), np.array(found.z)


def _newton(program: Program, found: list[Face], x: Array, s: Array, y: Array) -> tuple[Array, Array, Array, float]:
    """Newton's method; returns the best point that it meets."""
    n, m = program.A.shape[1], len(program.b)
    multipliers = [face.start(s[face.rows], y[face.rows]) for face in found]
    best, best_residual, stalled = (x, s, y), _residual(program, found, x, s, y), 0
    for _ in range(_ITERATIONS):
        value, jacobian = _equations(program, found, x, s, y, multipliers)
        if not np.isfinite(jacobian).all():
            break
        step = np.linalg.lstsq(jacobian, -value, rcond=1e-13)[0] if value.size else value
        x, s, y = x + step[:n], s + step[n : n + m], y + step[n + m : n + 2 * m]
        stops = np.cumsum([n + 2 * m, *(face.multipliers for face in found)])
        multipliers = [old + step[a:b] for old, a, b in zip(multipliers, stops, stops[1:], strict=False)]
        residual = _residual(program, found, x, s, y)
        stalled = 0 if residual < 0.5 * best_residual else stalled + 1
        if residual < best_residual:
            best, best_residual = (x, s, y), residual
        if stalled == 3 or best_residual < 1e-16:
            break
    return *best, best_residual


def _equations(
    program: Program, found: list[Face], x: Array, s: Array, y: Array, multipliers: list[Array]
) -> tuple[Array, Array]:
    """The optimality conditions and their Jacobian in (x, s, y, multipliers)."""
    n, m = program.A.shape[1], len(program.b)
    value = [program.P @ x + program.q + program.A.T @ y, program.A @ x + s - program.b]
    width = n + 2 * m + sum(face.multipliers for face in found)
    blocks = [np.zeros((n, width)), np.zeros((m, width))]
    blocks[0][:, :n], blocks[0][:, n + m : n + 2 * m] = program.P, program.A.T
    blocks[1][:, :n], blocks[1][:, n : n + m] = program.A, np.eye(m)
    column = n + 2 * m
    for face, multiplier in zip(found, multipliers, strict=True):
        rows = face.rows
        part = face.linearise(s[rows], y[rows], multiplier)
        block = np.zeros((len(part.value), width))
        block[:, n + rows.start : n + rows.stop] = part.ds
        block[:, n + m + rows.start : n + m + rows.stop] = part.dy
        block[:, column : column + face.multipliers] = part.dmultipliers
        column += face.multipliers
        value.append(part.value)
        blocks.append(block)
    return np.concatenate(value), np.vstack(blocks)


def _residual(program: Program, found: list[Face], x: Array, s: Array, y: Array) -> float:
    """The largest violation of optimality, each relative to the terms that cancel in it."""
    stationarity = [program.P @ x, program.A.T @ y, program.q]
    feasibility = [program.A @ x, s, -program.b]
    worst = [_relative(stationarity), _relative(feasibility)]
    worst += [
        face.violation(s[face.rows], y[face.rows]) / (1 + np.abs(s[face.rows]).max() + np.abs(y[face.rows]).max())
        for face in found
    ]
    return float(max(worst))


def _relative(terms: list[Array]) -> float:
    if not terms[-1].size:
        return 0.0
    return float(np.abs(sum(terms)).max() / (1 + max(np.abs(term).max() for term in terms)))
