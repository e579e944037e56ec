"""What factorisations by structure share: their inverses may be inexact for some items, and unfit for others."""

from __future__ import annotations

import numpy as np

from cvxlayers.cones import Product
from cvxlayers.derivative.dense import factorise_dense
from cvxlayers.derivative.isotropic import factorise_isotropic
from cvxlayers.derivative.structured import StructuredFactorisation
from cvxlayers.derivative.system import Rank, System
from cvxlayers.idioms.isotropic import require_isotropic
from cvxlayers.program import ConeProgram, Structure
from tests.programs import CONES, known_solution, pattern_of, values_of

BATCH, N = 5, 6


def test_inexact_items_are_refined_and_unfit_ones_factorised_as_a_whole(rng):
    program, _, v = known_solution(CONES["polyhedral"], N, rng, batch=BATCH)
    system = System(program, program.structure.cone.derivative(-v).complement())
    exact = factorise_dense(system, threads=1)
    asked, whole = [], []

    def inverse(first, second):
        asked.append(np.flatnonzero(np.any(first, axis=1)).tolist())
        found = exact.solve(first, second)
        # Items 1 and 3 are a little off, item 2 is far off, and of item 4 it is known beforehand that it is.
        share = np.array([1.0, 1.00001, 0.0, 0.99999, np.nan])[:, None]
        return share * found.first, share * found.second

    def factorise(other):
        whole.append(other.program.batch)
        return factorise_dense(other, threads=1)

    served = np.arange(BATCH) < 4
    factors = StructuredFactorisation.of(system, inverse, Rank.regular(np.full(BATCH, 7.0), N), served, factorise)
    assert whole == [1]
    np.testing.assert_array_equal(factors.rank.condition[:4], 7.0)
    assert factors.rank.condition[4] == exact.rank.condition[4]
    first, second = rng.normal(size=(BATCH, N)), rng.normal(size=(BATCH, program.structure.m))
    found, reference = factors.solve(first, second), exact.solve(first, second)
    np.testing.assert_allclose(found.first, reference.first, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(found.second, reference.second, rtol=1e-11, atol=1e-12)
    assert (found.residual <= 1e-12).all()
    # An item that is exact at once is not touched again, and what refinement does not help is factorised.
    assert asked[0] == [0, 1, 2, 3, 4]
    assert all(items in ([1, 2, 3], [1, 3], [2]) for items in asked[1:])
    assert whole == [1, 1]


def projections(rng: np.random.Generator) -> ConeProgram:
    """One variable a row, in any order and unit; a cost of 2 is tiny, one of 4 huge; 3 weighs rows of a cone apart."""
    cone = Product(nonnegative=2, second_order=(3, 4), semidefinite=(2,))
    m = cone.dim
    order, weights = rng.permutation(m), np.ones((BATCH, m))
    weights[3], weights[2, 0], weights[4, 1] = rng.uniform(1.0, 2.0, size=m), 1e-10, 1e10
    rho = weights * rng.uniform(0.1, 10.0, size=(BATCH, 5)).repeat([1, 1, 3, 4, 3], axis=1)
    A, P = np.zeros((2, BATCH, m, m))
    A[:, np.arange(m), order] = rng.choice([-1.0, 1.0], size=m) * rng.uniform(0.3, 3.0, size=(BATCH, m))
    P[:, order, order] = rho * A[:, np.arange(m), order] ** 2
    structure = Structure(pattern_of(np.eye(m)), pattern_of(np.abs(A).sum(axis=0)), cone)
    q, b = np.zeros((2, BATCH, m))
    return ConeProgram(structure, BATCH, values_of(structure.P, P), q, values_of(structure.A, A), b)


def test_projections_are_solved_in_the_eigenbasis_alone(rng):
    program, whole = projections(rng), []
    structure, form = program.structure, require_isotropic(program.structure)
    v = rng.normal(size=(BATCH, structure.m))
    v[:, 0], v[:, 1] = 1.0, -1.0
    system = System(program, structure.cone.derivative(v).complement())

    def factorise(other):
        whole.append(other.program.batch)
        return factorise_dense(other, threads=1)

    factors = factorise_isotropic(system, form, factorise)
    assert factors.rest.tolist() == [3]
    first, second = rng.normal(size=(2, BATCH, structure.m))
    reference = factorise_dense(system, threads=1).solve(first, second)
    found = factors.once(first, second)
    for got, want in zip(found, (reference.first, reference.second), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)
    assert whole == [1]
    assert (factors.rank.condition > 1e8).tolist() == [False, False, True, False, True]
    assert factors.rank.condition[[0, 1]].max() <= 200.0
