"""The estimate of how large a program's maps will be, and the refusal of what would not fit."""

from __future__ import annotations

from typing import Any

import cvxpy
import numpy as np
import pytest
import scipy.sparse as sp

from cvxlayers import CvxpyLayer
from cvxlayers.canonical import size
from cvxlayers.canonical.size import parametric_terms
from cvxlayers.errors import ProblemError
from cvxlayers.memory import amount, memory_limit

cp: Any = cvxpy

x, X, A, P, g = (
    cp.Variable(5),
    cp.Variable((5, 3)),
    cp.Parameter((4, 5)),
    cp.Parameter((5, 5), PSD=True),
    cp.Parameter(),
)
TERMS = {
    "vector": (A @ x, 20),
    "matrix": (A @ X, 60),
    "inside_an_atom": (cp.sum_squares(A @ x - 1) + cp.sum(x), 20 + 4),
    "quadratic_form": (cp.quad_form(x, P), 25),
    "scaled": (g * x, 5),
    "sum": (cp.sum(A @ X), 60),
    "behind_a_constant": (np.ones((2, 4)) @ (A @ x), 40),
    "behind_a_sparse_constant": (sp.eye_array(4, format="csr") @ (A @ x), 20),
    "behind_a_diagonal_constant": (np.eye(4) @ (A @ x), 20),
    "sparse_parameter": (cp.Parameter((100, 5), sparsity=([0, 99], [1, 2])) @ x, 2),
    "diagonal_parameter": (cp.Parameter((5, 5), diag=True) @ X, 15),
    "picked": ((A @ X)[0, 0], 5),
    "no_parameter": (cp.sum_squares(x), 0),
    "kronecker": (cp.kron(A, X), 20 * 15),
}


@pytest.mark.parametrize("name", list(TERMS))
def test_terms(name):
    expression, want = TERMS[name]
    assert want <= parametric_terms(expression) <= 1.5 * want


@pytest.mark.parametrize("columns", [3, 30])
def test_the_estimate_follows_the_maps(columns):
    B, Y = cp.Parameter((20, 10)), cp.Variable((10, columns))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(Y)), [B @ Y <= 1])
    layer = CvxpyLayer(problem, [B], [Y]).layer
    assert parametric_terms(B @ Y) == layer.compiled.A.linear.matrix.nnz


def test_what_would_not_fit_is_refused_before_it_is_built():
    B, Y = cp.Parameter((20_000, 20_000)), cp.Variable((20_000, 5_000))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(Y)), [B @ Y <= 1])
    with pytest.raises(ProblemError, match=r"about \d+ TB.* constraint 0 .*2\.0e\+12 times.*batch axis.*solve_qp"):
        CvxpyLayer(problem, [B], [Y])


def test_the_limit_is_the_memory_of_the_machine(monkeypatch):
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - 1)))
    assert memory_limit() > 1e6
    monkeypatch.setattr(size, "memory_limit", lambda: 5e3)
    with pytest.raises(ProblemError, match=r"would need about \d\.\d kB, and there are 5\.0 kB: the objective"):
        CvxpyLayer(problem, [A], [x])


def test_amounts():
    sizes = (0.0, 999.0, 1500.0, 25e6, 3.2e9, 7e16)
    assert [amount(value) for value in sizes] == ["0 B", "999 B", "1.5 kB", "25 MB", "3.2 GB", "70 PB"]
