"""A sparse system without a full structural rank never reaches SuperLU, which may end the process on one."""

from __future__ import annotations

import numpy as np
import qdldl
import scipy.sparse as sp

from cvxlayers.derivative import sparse


def test_least_squares_in_place_of_a_factorisation(monkeypatch):
    K = sp.csc_array(np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]))
    shifted = sp.csc_matrix(K + 1e-9 * sp.diags_array([1.0, 1.0, -1.0]))
    item = sparse.SparseItem(K, np.ones(3), qdldl.Solver(shifted), np.inf, np.array([1.0, -1.0, 0.0]))

    def never(*_):
        raise AssertionError("SuperLU was asked")

    monkeypatch.setattr(sparse.spl, "splu", never)
    rhs = np.array([1.0, 0.0, 2.0])  # inconsistent: the nearest has a half in both first entries
    solution, residual = item.solve(rhs)
    np.testing.assert_allclose(solution, [1.0, 1.0, 0.5], atol=1e-6)
    assert residual > 0.1
