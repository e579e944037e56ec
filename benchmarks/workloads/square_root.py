"""The dense quadratic programs again, written with `sum_squares(L @ x)` where Q = LᵀL.

Canonicalisation names t = L x: as many variables and equalities more, unless they are eliminated.
"""

from __future__ import annotations

from functools import partial

import cvxpy as cp
import numpy as np

from benchmarks.contest import Answer
from benchmarks.exact_quadratic import QuadraticPrograms, exact_answer, random_programs
from benchmarks.peers.layers import Text, entries_of
from benchmarks.workload import Bar, Row, Task, Workload
from benchmarks.workloads.dense_qp import ROWS_OF


def root_problem(n: int, equalities: int, inequalities: int) -> Text:
    """Returns the problem of `dense_qp` with ½‖Lx‖² in place of ½xᵀQx."""
    L, p = cp.Parameter((n, n), name="L"), cp.Parameter(n, name="p")
    A, b = cp.Parameter((equalities, n), name="A"), cp.Parameter(equalities, name="b")
    G, h = cp.Parameter((inequalities, n), name="G"), cp.Parameter(inequalities, name="h")
    x = cp.Variable(n, name="x")
    objective = cp.Minimize(0.5 * cp.sum_squares(L @ x) + p @ x)
    return cp.Problem(objective, [A @ x == b, G @ x <= h]), [L, p, A, b, G, h], [x]


def prepare(*, n: int, batch: int, seed: int) -> Task:
    """Makes the programs, the layers that take this text, and the exact answer."""
    equalities, inequalities = ROWS_OF.get(n, (n // 3, n // 2))
    programs = random_programs(batch, n, equalities, inequalities, seed)
    L = np.linalg.cholesky(programs.Q).mT
    rest = {name: value for name, value in programs.parameters.items() if name != "Q"}
    text = partial(root_problem, n, equalities, inequalities)
    entries = entries_of(text, {"L": L, **rest}, programs.weights, dense=n <= 32)
    return Task(entries, partial(_exact, programs, L))


def _exact(programs: QuadraticPrograms, L: np.ndarray) -> Answer:
    exact = exact_answer(programs)
    gradients = dict(exact.gradients)
    # Q = LᵀL, and the gradient of Q is symmetric.
    return Answer(exact.solution, {"L": 2 * L @ gradients.pop("Q"), **gradients})


WORKLOAD = Workload(
    "the same programs by sum_squares(L @ x)",
    [
        Row("square_root", {"n": n}, batch, [Bar(5, 5)] if batch == 128 else [])
        for n in ROWS_OF
        for batch in (1, 16, 128)
    ],
    prepare=prepare,
)
