"""Entropies of single variables, one or two of each, as functions of the costs of these variables.

One entropy, w σ log(σ/γ) with σ = αx + β: σ = γ e^z with z = −c/κ − 1 and κ = wα, for the cost c of x.
Two: σ/γ = R σ′/γ′ with R = e^z, z = −c/κ, where κ′ = −κ, and α σ′ − α′ σ = αβ′ − α′β.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.batches import Vectors
from cvxlayers.idioms.separable import Places
from cvxlayers.program import ConeProgram

Terms = Float[np.ndarray, "_leading terms"]

# How far opposite slopes may be from it.
_OPPOSITE = 1e-14


class Weights(NamedTuple):
    """The numbers of one entropy of each variable, which bounds a t by head·t = −σ log(σ/γ) − offset."""

    places: Places
    w: Terms
    alpha: Terms
    beta: Terms
    gamma: Terms
    head: Terms
    offset: Terms


def read_weights(program: ConeProgram, places: Places) -> Weights:
    """Returns the numbers of one entropy of each variable."""
    A, b = program.A, program.b
    first, second, third = places.rows
    head, q = -A[:, places.bounded_entries], shared(program.q[:, places.bounded])
    return Weights(places, -q / head, -A[:, places.entries], b[:, second], b[:, third], head, b[:, first])


def shared(values: Terms) -> Float[np.ndarray, "_some terms"]:
    """Returns the values of one item where all have the same: what follows is computed once, with the same result."""
    return values[:1] if len(values) > 1 and (values == values[0]).all() else values


@dataclass(frozen=True, eq=False)
class Response:
    """σ of each entropy, and with it x, as functions of the costs."""

    terms: Sequence[Weights]

    def valid(self) -> Bool[np.ndarray, " leading"]:
        """Returns for which items these are entropies; two of one variable must have opposite slopes κ."""
        fine = [((t.w > 0) & (t.gamma > 0) & (t.alpha != 0) & (t.head > 0)).all(axis=1) for t in self.terms]
        if len(self.terms) == 2:
            slopes = [term.w * term.alpha for term in self.terms]
            fine.append((np.abs(slopes[0] + slopes[1]) <= _OPPOSITE * np.abs(slopes[0])).all(axis=1))
        return np.logical_and.reduce(np.broadcast_arrays(*fine))

    @property
    def kappa(self) -> Terms:
        """The slopes κ of the first entropies."""
        return self.terms[0].w * self.terms[0].alpha

    def exponent(self, cost: Vectors) -> Vectors:
        """Returns z, which is affine in the costs."""
        z = cost / -self.kappa
        if len(self.terms) == 1:
            z -= 1.0
        return z

    def sigma(self, z: Vectors) -> list[Vectors]:
        """Returns σ of each entropy."""
        first, growth = self.terms[0], np.exp(z)
        if len(self.terms) == 1:
            growth *= first.gamma
            return [growth]
        second = self.terms[1]
        R = first.gamma / second.gamma * growth
        total = first.alpha * second.beta - second.alpha * first.beta
        return [total / (first.alpha / R - second.alpha), total / (first.alpha - R * second.alpha)]

    def logs(self, z: Vectors, sigma: Sequence[Vectors]) -> list[Vectors]:
        """Returns log(σ/γ) of each entropy."""
        if len(self.terms) == 1:
            return [z]
        return [np.log(value / term.gamma) for value, term in zip(sigma, self.terms, strict=True)]

    def x(self, sigma: Sequence[Vectors]) -> Vectors:
        """Returns x from the smallest of its σ, which says most."""
        x = [value - term.beta for value, term in zip(sigma, self.terms, strict=True)]
        for one, term in zip(x, self.terms, strict=True):
            one /= term.alpha
        return x[0] if len(x) == 1 else np.where(sigma[0] <= sigma[1], x[0], x[1])

    def flexibility(self, sigma: Sequence[Vectors]) -> Vectors:
        """Returns one over the second derivative of the entropies in x."""
        if len(self.terms) == 1:
            return sigma[0] * (1.0 / (self.terms[0].w * self.terms[0].alpha ** 2))
        first, second = (term.w * term.alpha**2 / value for value, term in zip(sigma, self.terms, strict=True))
        return 1.0 / (first + second)

    def item(self, items: Int[np.ndarray, " k"]) -> Response:
        """Returns the functions of some items."""

        def pick(array: Terms) -> Terms:
            return array if len(array) == 1 else array[items]

        return Response([Weights(term.places, *(pick(array) for array in term[1:])) for term in self.terms])
