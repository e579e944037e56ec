"""Linear objectives with entropies, over at most one linear constraint: softmax, soft top-k, and their weighted kin.

    minimise qᵀx + Σₖ wₖ σₖ log(σₖ/γₖ),  σₖ = αₖ x + βₖ,   subject to   aᵀx = b or aᵀx ≤ b;

each variable has one such term, or two whose slopes wα are opposite. Then σ(ν), for a multiplier ν of the row, is an
exponential or a logistic function, and aᵀx(ν) falls: one root for each item.

References: Amos, Koltun, Kolter, "The limited multi-label projection layer" (2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, Float

from cvxlayers.program import ConeProgram, Solution, Status, Structure, Vectors
from cvxlayers.separable import Entropies, Separable, require, separate
from cvxlayers.solvers.items import unsolved
from cvxlayers.solvers.root import Items, Scalars, find_root
from cvxlayers.solvers.solver import Options, Solver

Terms = Float[np.ndarray, "leading terms"]

_ROUNDING = 4 * np.finfo(float).eps
# How far opposite slopes may be from it.
_OPPOSITE = 1e-14


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
        parts = require(program.structure)
        terms = [_terms(program, group) for group in parts.entropies]
        solution = unsolved(program.structure, program.batch)
        with np.errstate(all="ignore"):
            _fill(solution, program, parts, terms)
        return solution


class _Weights(NamedTuple):
    """The numbers of one term of each variable, in the order of the main variables; see above."""

    group: Entropies
    w: Terms
    alpha: Terms
    beta: Terms
    gamma: Terms
    head: Terms
    offset: Terms


@dataclass(frozen=True, eq=False)
class _Response:
    """σ of each term as functions of the costs c = q + aν of the variables.

    One term: σ = γ exp(−c/κ − 1). Two: σ/γ = R σ′/γ′ with R = exp(−c/κ), and α σ′ − α′ σ = αβ′ − α′β.
    """

    terms: Sequence[_Weights]

    def sigma(self, cost: Vectors) -> list[Vectors]:
        """Returns σ of each term."""
        first = self.terms[0]
        kappa = first.w * first.alpha
        if len(self.terms) == 1:
            return [first.gamma * np.exp(-cost / kappa - 1.0)]
        second = self.terms[1]
        R = first.gamma / second.gamma * np.exp(-cost / kappa)
        total = first.alpha * second.beta - second.alpha * first.beta
        return [total / (first.alpha / R - second.alpha), total / (first.alpha - R * second.alpha)]

    def x(self, sigma: Sequence[Vectors]) -> Vectors:
        """Returns x from the smallest of its σ, which says most."""
        x = [(value - term.beta) / term.alpha for value, term in zip(sigma, self.terms, strict=True)]
        return x[0] if len(x) == 1 else np.where(sigma[0] <= sigma[1], x[0], x[1])

    def curvature(self, sigma: Sequence[Vectors]) -> Vectors:
        """Returns the second derivative of the terms in x."""
        return np.sum([t.w * t.alpha**2 / value for value, t in zip(sigma, self.terms, strict=True)], axis=0)


def _terms(program: ConeProgram, group: Entropies) -> _Weights:
    A, b, order = program.A, program.b, np.argsort(group.columns)
    group = Entropies(*(getattr(group, name)[order] for name in group.__dataclass_fields__))
    first, second, third = group.rows.T
    head = -A[:, group.bounded_entries]
    w = -program.q[:, group.bounded] / head
    return _Weights(group, w, -A[:, group.entries], b[:, second], b[:, third], head, b[:, first])


def _fill(solution: Solution, program: ConeProgram, parts: Separable, terms: Sequence[_Weights]) -> None:
    response, q = _Response(terms), np.take(program.q, parts.main, axis=1)
    fine = np.logical_and.reduce([_valid(term) for term in terms])
    if len(terms) == 2:
        slopes = [term.w * term.alpha for term in terms]
        fine = fine & (np.abs(slopes[0] + slopes[1]) <= _OPPOSITE * np.abs(slopes[0])).all(axis=1)
    cost = q
    if len(parts.coupling):
        cost = _priced(solution, program, parts, response, q)
    sigma = response.sigma(np.broadcast_to(cost, (program.batch, cost.shape[1])))
    solution.x[:, parts.main] = response.x(sigma)
    for value, term in zip(sigma, terms, strict=True):
        log = np.log(value / term.gamma)
        height = -value * log
        solution.x[:, term.group.bounded] = (height - term.offset) / term.head
        first, second, third = term.group.rows.T
        solution.s[:, first], solution.s[:, second], solution.s[:, third] = height, value, term.gamma
        y = -term.w, -term.w * (log + 1.0), term.w * value / term.gamma
        solution.y[:, first], solution.y[:, second], solution.y[:, third] = y
    zero = program.structure.cone.zero
    linear = slice(0, zero + program.structure.cone.nonnegative)
    slack = program.b[:, linear] - program.structure.A.matvec(program.A, solution.x)[:, linear]
    free = np.concatenate([group.rows for group in parts.bounds] or [np.zeros(0, dtype=np.int64)])
    fine = fine & (slack[:, free] >= 0).all(axis=1) & np.isfinite(solution.x).all(axis=1)
    solution.y[:, free] = 0.0
    solution.s[:, linear] = np.maximum(slack, 0.0)
    solution.s[:, :zero] = 0.0
    solution.status[np.broadcast_to(fine, solution.status.shape)] = Status.SOLVED


def _valid(term: _Weights) -> Bool[np.ndarray, " leading"]:
    sound = (term.w > 0) & (term.gamma > 0) & (term.alpha != 0) & (term.head > 0)
    return sound.all(axis=1)


def _priced(solution: Solution, program: ConeProgram, parts: Separable, response: _Response, q: Vectors) -> Vectors:
    """Finds the multiplier ν of the row, and returns the costs q + aν."""
    row, batch = int(parts.coupling[0]), program.batch
    a = np.broadcast_to(parts.coupling_matrix(program.A)[:, 0][:, parts.main], (batch, q.shape[1]))
    q, b = np.broadcast_to(q, a.shape), np.broadcast_to(program.b[:, row], (batch,))

    def excess(nu: Scalars, items: Items) -> tuple[Scalars, Scalars, Scalars]:
        one = response if len(items) == batch else _some(response, items)
        sigma = one.sigma(q[items] + a[items] * nu[:, None])
        terms = a[items] * one.x(sigma)
        slope = np.sum(a[items] ** 2 / one.curvature(sigma), axis=1)
        return b[items] - terms.sum(axis=1), slope, _ROUNDING * (np.abs(b[items]) + np.abs(terms).sum(axis=1))

    nu, count = _start(response, q, a, b), np.zeros(batch, dtype=np.int64)
    items = np.arange(batch)
    if row >= program.structure.cone.zero:
        items = np.flatnonzero(excess(np.zeros(batch), items)[0] < 0)
        nu = np.where(np.isin(np.arange(batch), items), np.maximum(nu, 0.0), 0.0)
    found, count[items] = find_root(lambda nu, k: excess(nu, items[k]), nu[items], 0.1 + 0.1 * np.abs(nu[items]))
    nu[items] = found
    solution.iterations[:] = count
    solution.y[:, row] = nu
    return q + a * nu[:, None]


def _start(response: _Response, q: Vectors, a: Vectors, b: Scalars) -> Scalars:
    """Returns the multiplier of softmax, where the row is a sum and the terms are equal, or about it."""
    term = response.terms[0]
    kappa = term.w * term.alpha
    exponent = -q / kappa + np.log(term.gamma / np.abs(term.alpha)) - 1.0
    largest = exponent.max(axis=1, keepdims=True)
    total = np.log(np.sum(np.exp(exponent - largest), axis=1)) + largest[:, 0]
    scale = np.mean(a / kappa, axis=1)
    start = (total - np.log(np.abs(b))) / scale
    return np.where(np.isfinite(start), start, 0.0)


def _some(response: _Response, items: Items) -> _Response:
    def pick(array: Terms) -> Terms:
        return array if len(array) == 1 else array[items]

    return _Response([_Weights(term.group, *(pick(array) for array in term[1:])) for term in response.terms])
