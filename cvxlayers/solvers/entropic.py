"""Linear objectives with entropies, over at most one linear constraint: softmax, soft top-k, and their weighted kin.

    minimise qᵀx + Σₖ wₖ σₖ log(σₖ/γₖ),  σₖ = αₖ x + βₖ,   subject to   aᵀx = b or aᵀx ≤ b;

each variable has one such term, or two whose slopes wα are opposite. Then σ(ν), for a multiplier ν of the row, is an
exponential or a logistic function, and aᵀx(ν) falls: one root for each item.

References: Amos, Koltun, Kolter, "The limited multi-label projection layer" (2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.program import ConeProgram, Solution, Status, Structure, Vectors
from cvxlayers.separable import Separable, require, separate
from cvxlayers.solvers.items import unsolved
from cvxlayers.solvers.response import Response, read_weights
from cvxlayers.solvers.root import Items, Scalars, find_root
from cvxlayers.solvers.solver import Options, Solver

_ROUNDING = 4 * np.finfo(float).eps


@final
class Entropic(Solver):
    """Entropies and linear costs over at most one linear constraint, all items at once. Has no options."""

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "ENTROPIC"

    def refusal(self, structure: Structure) -> str | None:
        """It takes entropies of single variables, and one row."""
        parts = separate(structure)
        if parts is None or structure.P.nnz or not parts.entropies or len(parts.coupling) > 1:
            return "it takes linear costs, entropies of single variables, bounds, and one linear constraint"
        counts = [len(group.rows) for group in parts.entropies]
        if counts[0] < len(parts.main) or len(counts) > 2 or counts[-1] < counts[0]:
            return "it takes one entropy of each variable, or two"
        return None

    def native_options(self) -> Mapping[str, type]:
        """It has none."""
        return {}

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Solves all items at once; it leaves those with an active bound unsolved."""
        solution = unsolved(program.structure, program.batch)
        with np.errstate(all="ignore"):
            optimum = find_optimum(program, require(program.structure))
            solution.x[:], solution.y[:], solution.s[:] = optimum.point(program)
        solution.iterations[:] = optimum.iterations
        solution.status[optimum.fine] = Status.SOLVED
        return solution


@dataclass(frozen=True, eq=False)
class Optimum:
    """The solutions of a batch, in terms of the variables alone.

    Attributes:
        parts: the parts of the programs.
        response: the entropies.
        sigma: σ of each.
        x: the main variables.
        nu: the multiplier of the row, zero where there is none.
        fine: which items have this solution: with proper entropies, and no active bound.
        iterations: how often the row was evaluated.
    """

    parts: Separable
    response: Response
    sigma: list[Vectors]
    x: Vectors
    nu: Float[np.ndarray, " batch"]
    fine: Bool[np.ndarray, " batch"]
    iterations: Int[np.ndarray, " batch"]

    def point(self, program: ConeProgram) -> tuple[Vectors, Vectors, Vectors]:
        """Returns x, y and s of the programs."""
        structure, parts = program.structure, self.parts
        x, y, s = np.empty((program.batch, structure.n)), *np.empty((2, program.batch, structure.m))
        x[:, parts.main_run] = self.x
        for value, term in zip(self.sigma, self.response.terms, strict=True):
            log = np.log(value / term.gamma)
            height = -value * log
            x[:, term.places.bounded] = (height - term.offset) / term.head
            first, second, third = term.places.rows
            s[:, first], s[:, second], s[:, third] = height, value, term.gamma
            y[:, first], y[:, second] = -term.w, -term.w * (log + 1.0)
            y[:, third] = term.w * value / term.gamma
        for group in parts.bounds:
            y[:, group.rows] = 0.0
            s[:, group.rows] = np.maximum(_slack(program, group.rows, group.entries, x[:, group.columns]), 0.0)
        if len(parts.coupling):
            row = int(parts.coupling[0])
            y[:, row] = self.nu
            s[:, row] = 0.0 if row < structure.cone.zero else np.maximum(_left(program, parts, self.x), 0.0)
        return x, y, s


def find_optimum(program: ConeProgram, parts: Separable) -> Optimum:
    """Solves all items at once."""
    response = Response([read_weights(program, places) for places in parts.places])
    q, batch = program.q[:, parts.main_run], program.batch
    nu, count, fine = np.zeros(batch), np.zeros(batch, dtype=np.int64), np.broadcast_to(response.valid(), (batch,))
    if len(parts.coupling):
        nu, count = _multiplier(program, parts, response)
        q = q + _row(program, parts) * nu[:, None]
    sigma = response.sigma(np.broadcast_to(q, (batch, q.shape[1])))
    x = response.x(sigma)
    fine = fine & np.isfinite(x).all(axis=1)
    for group in parts.bounds:
        where = np.searchsorted(parts.main, group.columns)
        fine = fine & (_slack(program, group.rows, group.entries, x[:, where]) >= 0).all(axis=1)
    return Optimum(parts, response, sigma, x, nu, fine, count)


def _row(program: ConeProgram, parts: Separable) -> Float[np.ndarray, "leading main"]:
    """Returns the coefficients of the coupling row."""
    return parts.coupling_matrix(program.A)[:, 0, parts.main_run]


def _left(program: ConeProgram, parts: Separable, x: Vectors) -> Scalars:
    """Returns the slack of the coupling row."""
    return program.b[:, int(parts.coupling[0])] - np.sum(_row(program, parts) * x, axis=1)


def _slack(program: ConeProgram, rows: Items, entries: Items, x: Vectors) -> Vectors:
    return program.b[:, rows] - program.A[:, entries] * x


def _multiplier(program: ConeProgram, parts: Separable, response: Response) -> tuple[Scalars, Items]:
    """Returns the multiplier ν of the row, and how often it was evaluated."""
    row, batch = int(parts.coupling[0]), program.batch
    a, b = _row(program, parts), np.broadcast_to(program.b[:, row], (batch,))
    q = np.broadcast_to(program.q[:, parts.main_run], (batch, a.shape[1]))

    def excess(nu: Scalars, items: Items) -> tuple[Scalars, Scalars, Scalars]:
        everything = len(items) == batch
        one, cost, side = (response, q, b) if everything else (response.item(items), q[items], b[items])
        weights = a if everything or len(a) == 1 else a[items]
        sigma = one.sigma(cost + weights * nu[:, None])
        terms = weights * one.x(sigma)
        slope = np.sum(weights**2 / one.curvature(sigma), axis=1)
        return side - terms.sum(axis=1), slope, _ROUNDING * (np.abs(side) + np.abs(terms).sum(axis=1))

    nu, count = _start(response, q, a, b), np.zeros(batch, dtype=np.int64)
    items = np.arange(batch)
    if row >= program.structure.cone.zero:
        items = np.flatnonzero(excess(np.zeros(batch), items)[0] < 0)
        nu = np.where(np.isin(np.arange(batch), items), np.maximum(nu, 0.0), 0.0)
    found, count[items] = find_root(lambda nu, k: excess(nu, items[k]), nu[items], 0.1 + 0.1 * np.abs(nu[items]))
    nu[items] = found
    return nu, count


def _start(response: Response, q: Vectors, a: Vectors, b: Scalars) -> Scalars:
    """Returns the multiplier of softmax, where the row is a sum and the terms are equal, or about it."""
    term = response.terms[0]
    kappa = term.w * term.alpha
    exponent = -q / kappa + np.log(term.gamma / np.abs(term.alpha)) - 1.0
    largest = exponent.max(axis=1, keepdims=True)
    total = np.log(np.sum(np.exp(exponent - largest), axis=1)) + largest[:, 0]
    scale = np.mean(a / kappa, axis=1)
    start = (total - np.log(np.abs(b))) / scale
    return np.where(np.isfinite(start), start, 0.0)
