"""Dense quadratic programs with every datum a parameter: the layer of OptNet, written with `quad_form(x, Q)`."""

from __future__ import annotations

from functools import partial

import cvxpy as cp

from benchmarks.exact_quadratic import exact_answer, random_programs
from benchmarks.peers.layers import Text, moreau_entries, our_entry
from benchmarks.peers.quadratic import matrix_entries
from benchmarks.workload import Bar, Row, Task, Workload

# Equalities and inequalities by the number of variables.
ROWS_OF = {10: (5, 5), 32: (8, 16), 100: (50, 50)}
_BARS = {(10, 128): Bar(3, 4), (32, 128): Bar(3, 4), (100, 128): Bar(2, 2.5), (32, 1): Bar(2, 2)}


def qp_problem(n: int, equalities: int, inequalities: int) -> Text:
    """Returns the problem, its parameters in the order of `QuadraticPrograms.parameters`, and its variable."""
    Q, p = cp.Parameter((n, n), PSD=True, name="Q"), cp.Parameter(n, name="p")
    A, b = cp.Parameter((equalities, n), name="A"), cp.Parameter(equalities, name="b")
    G, h = cp.Parameter((inequalities, n), name="G"), cp.Parameter(inequalities, name="h")
    x = cp.Variable(n, name="x")
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, Q) + p @ x), [A @ x == b, G @ x <= h])
    return problem, [Q, p, A, b, G, h], [x]


def prepare(*, n: int, batch: int, seed: int) -> Task:
    """Makes the programs, the layers, and the exact answer. diffcp takes no parametric `quad_form`."""
    equalities, inequalities = ROWS_OF.get(n, (n // 3, n // 2))
    programs = random_programs(batch, n, equalities, inequalities, seed)
    data, weights = programs.parameters, programs.weights
    text = partial(qp_problem, n, equalities, inequalities)
    entries = [
        our_entry(text, data, weights),
        *moreau_entries(text, data, weights),
        *matrix_entries(data, weights),
    ]
    return Task(entries, partial(exact_answer, programs))


WORKLOAD = Workload(
    "quadratic programs, all data as parameters, by quad_form(x, Q)",
    [
        Row("dense_qp", {"n": n}, batch, [_BARS[n, batch]] if (n, batch) in _BARS else [])
        for n in ROWS_OF
        for batch in (1, 16, 128)
    ],
    prepare=prepare,
)
