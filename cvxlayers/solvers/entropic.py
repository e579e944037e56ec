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

from cvxlayers.batches import Vectors
from cvxlayers.idioms.separable import Separable, require, separate
from cvxlayers.program import ConeProgram, Solution, Status, Structure
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

    @property
    def is_formula(self) -> bool:
        """It is one."""
        return True

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Solves all items at once; it leaves those with an active bound unsolved."""
        solution = unsolved(program.structure, program.batch)
        with np.errstate(all="ignore"):
            optimum = find_optimum(program, require(program.structure))
            solution.x[:], solution.y[:], solution.s[:] = optimum.point(program)
        solution.iterations[:] = optimum.iterations
        solution.status[optimum.fine & np.isfinite(optimum.x).all(axis=1)] = Status.SOLVED
        return solution


@dataclass(frozen=True, eq=False)
class Optimum:
    """The solutions of a batch, in terms of the variables alone.

    Attributes:
        parts: the parts of the programs.
        response: the entropies.
        sigma: σ of each.
        logs: log(σ/γ) of each.
        x: the main variables.
        row: the coefficients of the row, zero where there is none.
        nu: the multiplier of the row.
        fine: which items have this solution: with proper entropies, and no active bound.
        iterations: how often the row was evaluated.
    """

    parts: Separable
    response: Response
    sigma: list[Vectors]
    logs: list[Vectors]
    x: Vectors
    row: Float[np.ndarray, "_leading main"]
    nu: Float[np.ndarray, " batch"]
    fine: Bool[np.ndarray, " batch"]
    iterations: Int[np.ndarray, " batch"]

    def point(self, program: ConeProgram) -> tuple[Vectors, Vectors, Vectors]:
        """Returns x, y and s of the programs."""
        structure, parts, batch = program.structure, self.parts, program.batch
        x, y, s = np.empty((batch, structure.n)), np.empty((batch, structure.m)), np.empty((batch, structure.m))
        x[:, parts.main_run] = self.x
        for sigma, log, term in zip(self.sigma, self.logs, self.response.terms, strict=True):
            first, second, third = term.places.rows
            height = sigma * log
            np.negative(height, out=height)
            s[:, first], s[:, second], s[:, third] = height, sigma, term.gamma
            height -= term.offset
            x[:, term.places.bounded] = height / term.head
            y[:, first], y[:, second], y[:, third] = -term.w, (log + 1.0) * -term.w, sigma * (term.w / term.gamma)
        for group in parts.bounds:
            y[:, group.rows] = 0.0
            s[:, group.rows] = np.maximum(_slack(program, group.rows, group.entries, x[:, group.columns]), 0.0)
        if len(parts.coupling):
            row = int(parts.coupling[0])
            y[:, row] = self.nu
            s[:, row] = 0.0 if row < structure.cone.zero else np.maximum(self.left(program), 0.0)
        return x, y, s

    def left(self, program: ConeProgram) -> Scalars:
        """Returns the slack of the row."""
        return program.b[:, int(self.parts.coupling[0])] - np.sum(self.row * self.x, axis=1)


def find_optimum(program: ConeProgram, parts: Separable) -> Optimum:
    """Solves all items at once."""
    response = Response([read_weights(program, places) for places in parts.places])
    q, batch = program.q[:, parts.main_run], program.batch
    z = response.exponent(np.broadcast_to(q, (batch, q.shape[1])))
    nu, count, row = np.zeros(batch), np.zeros(batch, dtype=np.int64), np.zeros((1, q.shape[1]))
    if len(parts.coupling):
        row = parts.coupling_matrix(program.A)[:, 0, parts.main_run]
        b, strict = program.b[:, int(parts.coupling[0])], int(parts.coupling[0]) < program.structure.cone.zero
        nu, z, (sigma, x), count = _multiplier(response, z, row, np.broadcast_to(b, (batch,)), strict)
    else:
        sigma, x = _respond(response, z)
    fine = np.broadcast_to(response.valid(), (batch,))
    for group in parts.bounds:
        where = np.searchsorted(parts.main, group.columns)
        fine = fine & (_slack(program, group.rows, group.entries, x[:, where]) >= 0).all(axis=1)
    return Optimum(parts, response, sigma, response.logs(z, sigma), x, row, nu, fine, count)


def _slack(program: ConeProgram, rows: Items, entries: Items, x: Vectors) -> Vectors:
    return program.b[:, rows] - program.A[:, entries] * x


def _respond(response: Response, z: Vectors) -> tuple[list[Vectors], Vectors]:
    """Returns σ and x."""
    sigma = response.sigma(z)
    return sigma, response.x(sigma)


def _multiplier(
    response: Response, z: Vectors, a: Float[np.ndarray, "leading main"], b: Scalars, strict: bool
) -> tuple[Scalars, Vectors, tuple[list[Vectors], Vectors], Items]:
    """Finds the multiplier ν of the row.

    Args:
        response: the entropies.
        z: their exponents where ν is zero.
        a: the row's coefficients.
        b: its right-hand sides.
        strict: whether it is an equation.

    Returns:
        ν, the exponents there, σ and x, and how often the row was evaluated.
    """
    tilt, batch = a / response.kappa, len(z)

    def at(nu: Scalars) -> Vectors:
        shift = tilt * nu[:, None]
        return np.subtract(z, shift, out=shift)

    def excess(nu: Scalars, items: Items) -> tuple[Scalars, Scalars, Scalars]:
        one, row = response.item(items), a if len(a) == 1 else a[items]
        sigma, x = _respond(one, z[items] - (tilt if len(tilt) == 1 else tilt[items]) * nu[:, None])
        # A matrix product would be rounded in another way for other neighbours.
        slope = np.einsum("bn,bn->b", row**2, one.flexibility(sigma))
        value, rounding = _balance(row, x, b[items])
        return value, slope, rounding

    count, nu = np.ones(batch, dtype=np.int64), _start(response, z, tilt, b)
    held = np.ones(batch, dtype=bool)
    if not strict:
        held = _balance(a, _respond(response, z)[1], b)[0] < 0
        nu = np.where(held, np.maximum(nu, 0.0), 0.0)
    exponent = at(nu)
    found = _respond(response, exponent)
    value, rounding = _balance(a, found[1], b)
    left = np.flatnonzero(held & ~(np.abs(value) <= rounding))
    if not len(left):
        return nu, exponent, found, count
    nu[left], more = find_root(lambda nu, k: excess(nu, left[k]), nu[left], 0.1 + 0.1 * np.abs(nu[left]))
    count[left] += more
    exponent = at(nu)
    return nu, exponent, _respond(response, exponent), count


def _balance(row: Float[np.ndarray, "leading main"], x: Vectors, b: Scalars) -> tuple[Scalars, Scalars]:
    """Returns what is left of the row, and how large the rounding of that is."""
    terms = row * x
    value = b - terms.sum(axis=1)
    return value, _ROUNDING * (np.abs(b) + np.abs(terms, out=terms).sum(axis=1))


def _start(response: Response, z: Vectors, tilt: Vectors, b: Scalars) -> Scalars:
    """Returns the multiplier of softmax, where the row is a sum and the terms are equal, or about it."""
    term = response.terms[0]
    exponent = z + np.log(term.gamma / np.abs(term.alpha))
    largest = exponent.max(axis=1, keepdims=True)
    exponent -= largest
    total = np.log(np.exp(exponent, out=exponent).sum(axis=1)) + largest[:, 0]
    start = (total - np.log(np.abs(b))) / np.mean(tilt, axis=1)
    return np.where(np.isfinite(start), start, 0.0)
