"""What factorisations by structure share: their inverses may be inexact for some items, and unfit for others."""

from __future__ import annotations

import numpy as np

from cvxlayers.derivative.dense import factorise_dense
from cvxlayers.derivative.structured import StructuredFactorisation
from cvxlayers.derivative.system import Rank, System
from tests.programs import CONES, known_solution

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
