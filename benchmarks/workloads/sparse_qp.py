"""A sparse quadratic program whose non-zeros are parameters: 1000 variables, 1 % of each constraint matrix."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from benchmarks.approximate import approximate
from benchmarks.contest import Answer, Array
from benchmarks.peers.layers import Text, entries_of
from benchmarks.workload import Bar, Row, Task, Workload

# Smaller programs, for tests, keep some non-zeros in each row.
_DENSITY, _LEAST = 0.01, 8
# Corrections of an active set, of which one or two rows are in doubt.
_STEPS = 10


def patterns(n: int, seed: int) -> tuple[sp.coo_array, sp.coo_array]:
    """Returns where the equalities and the inequalities have their non-zeros."""
    rng, density = np.random.default_rng(seed), max(_DENSITY, _LEAST / n)
    equalities = sp.random_array((n // 10, n), density=density, rng=rng)
    return equalities.tocoo(), sp.random_array((n // 2, n), density=density, rng=rng).tocoo()


def text(n: int, seed: int) -> Text:
    """Returns: minimise ½‖x‖² + pᵀx over Ax = b, Gx ≤ h, where a and g hold the non-zeros of A and G."""
    A, G = patterns(n, seed)
    p, b, h = cp.Parameter(n, name="p"), cp.Parameter(n // 10, name="b"), cp.Parameter(n // 2, name="h")
    a, g = cp.Parameter(A.nnz, name="a"), cp.Parameter(G.nnz, name="g")
    x = cp.Variable(n, name="x")
    objective = cp.Minimize(0.5 * cp.sum_squares(x) + p @ x)
    return (
        cp.Problem(objective, [_product(A, n // 10, a, x) == b, _product(G, n // 2, g, x) <= h]),
        [p, a, b, g, h],
        [x],
    )


def _product(pattern: sp.coo_array, rows: int, values: cp.Parameter, x: cp.Variable) -> cp.Expression:
    """Returns the product of a sparse matrix with x: gather, multiply, and add up within the rows."""
    count = pattern.nnz
    gather = sp.csr_array((np.ones(count), (np.arange(count), pattern.col)), shape=(count, x.size))
    add = sp.csr_array((np.ones(count), (pattern.row, np.arange(count))), shape=(rows, count))
    return add @ cp.multiply(values, gather @ x)


def prepare(*, n: int, batch: int, seed: int) -> Task:
    """Makes feasible programs, a tenth of whose inequalities or so are active, and the layers."""
    rng, (A, G) = np.random.default_rng(seed + 1), patterns(n, seed)
    inside, a, g = rng.normal(size=(batch, n)), rng.normal(size=(batch, A.nnz)), rng.normal(size=(batch, G.nnz))
    data = {
        "p": rng.normal(size=(batch, n)),
        "a": a,
        "b": _times(A, a, inside),
        "g": g,
        "h": _times(G, g, inside) + rng.uniform(size=(batch, n // 2)),
    }
    weights = rng.normal(size=(batch, n))
    build = partial(text, n, seed)
    return Task(entries_of(build, data, weights, dense=False), partial(_exact, build(), (A, G), data, weights))


def _times(pattern: sp.coo_array, values: Array, x: Array) -> Array:
    return np.stack(
        [sp.coo_array((v, pattern.coords), shape=pattern.shape) @ z for v, z in zip(values, x, strict=True)]
    )


def _exact(problem: Text, both: tuple[sp.coo_array, sp.coo_array], data: Mapping[str, Array], weights: Array) -> Answer:
    """Solves the optimality conditions on the active set, by dense linear algebra."""
    items = []
    for index, (x, duals) in enumerate(approximate(problem, data)):
        item = {name: value[index] for name, value in data.items()}
        items.append(_exact_item(both, item, x, duals[1], weights[index]))
    gradients = {name: np.stack([item.gradients[name] for item in items]) for name in data}
    return Answer(np.stack([item.solution for item in items]), gradients)


def _exact_item(
    both: tuple[sp.coo_array, sp.coo_array], item: dict[str, Array], start: Array, dual: Array, weights: Array
) -> Answer:
    A, G = (
        sp.coo_array((values, pattern.coords), shape=pattern.shape).toarray()
        for pattern, values in zip(both, (item["a"], item["g"]), strict=True)
    )
    active = dual > item["h"] - G @ start
    for _ in range(_STEPS):
        B, right = np.vstack([A, G[active]]), np.concatenate([item["b"], item["h"][active]])
        # ½‖x + p‖² over Bx = right: x = −p − Bᵀλ with BBᵀλ = −Bp − right.
        BB = B @ B.T
        multipliers = np.linalg.solve(BB, -B @ item["p"] - right)
        x = -item["p"] - B.T @ multipliers
        better = G @ x > item["h"] + 1e-12
        better[active] = multipliers[len(A) :] > 0
        if (better == active).all():
            break
        active = better
    else:
        raise ArithmeticError("no active set has been found")
    d_rows = np.linalg.solve(BB, B @ weights)
    dx = weights - B.T @ d_rows
    every = np.concatenate([np.ones(len(A), dtype=bool), active])
    dual_of, d_of = np.zeros((2, len(every)))
    dual_of[every], d_of[every] = multipliers, d_rows
    matrix = sp.vstack(both).tocoo()
    entries = -dual_of[matrix.row] * dx[matrix.col] - d_of[matrix.row] * x[matrix.col]
    count = both[0].nnz
    gradients = {"p": -dx, "a": entries[:count], "b": d_of[: len(A)], "g": entries[count:], "h": d_of[len(A) :]}
    return Answer(x, gradients)


WORKLOAD = Workload(
    "a sparse quadratic program, all non-zeros as parameters",
    [Row("sparse_qp", {"n": 1000}, batch, [Bar(2, 2)], memory=True) for batch in (1, 16)],
    prepare=prepare,
)
