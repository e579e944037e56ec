"""Quadratic programs by their data: minimise ½ xᵀPx + qᵀx subject to Ax = b, Gx ≤ h, lb ≤ x ≤ ub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int

from cvxlayers.build import assemble
from cvxlayers.compiled import CompiledProblem
from cvxlayers.cones import Product
from cvxlayers.errors import ShapeError
from cvxlayers.layer import Layer
from cvxlayers.standard.block import Block
from cvxlayers.standard.form import (
    Door,
    Keywords,
    Outputs,
    Pullback,
    check_cost,
    check_shapes,
    compile_form,
    parameters_of,
    placed,
    pulled_back,
    quadratic,
    read_blocks,
)
from cvxlayers.standard.terms import CONSTANT, Terms

Rows = Int[np.ndarray, " rows"]

# Layers of so many layouts are kept, so that a second solve does not build its maps again.
_LAYOUTS = 16
# The sign with which each bound is infinite where it binds nobody.
_VACUOUS = {"h": np.inf, "lb": -np.inf, "ub": np.inf}


@dataclass(frozen=True, eq=False)
class QPSolution:
    """The solution of a batch of quadratic programs, at which Px + q + Aᵀy + Gᵀz + z_box = 0.

    Attributes:
        x: the minimisers, of shape (*batch, n).
        y: the dual variables of Ax = b.
        z: those of Gx ≤ h, nonnegative.
        z_box: those of the bounds: negative where lb is active, positive where ub is.
        result: the `LayerResult`, with optimal values, statuses and residuals of each item, which a later solve takes
            as `warm_start`; None in TensorFlow, and inside JAX's transformations.
    """

    x: Any
    y: Any
    z: Any
    z_box: Any
    result: Any
    names: tuple[str, ...]
    pullback: Pullback | None

    def vjp(
        self, x: Any = None, *, y: Any = None, z: Any = None, z_box: Any = None, objective: Any = None
    ) -> tuple[dict[str, Any], Any]:
        """Pulls cotangents of the solution back to the data. For numpy only: frameworks have their own.

        Args:
            x: cotangent of x; None is zero.
            y: of y.
            z: of z.
            z_box: of z_box.
            objective: of the optimal values.

        Returns:
            The cotangent of each block that was given, by name, of the shape given (of a sparse block, of its values);
            and per item how far to trust them.

        Raises:
            DerivativeError: in a framework.
        """
        return pulled_back(self.names, self.pullback, (x, y, z, z_box), objective)


@dataclass(frozen=True)
class _Layout:
    """What decides a layer: the blocks, and the rows that bind somebody, as bytes. P, A, G, … follow in this order."""

    blocks: tuple[Block, ...]
    n: int
    kept: tuple[tuple[str, bytes], ...]

    def rows(self, name: str) -> Rows:
        """Returns the rows of G, lb or ub that bind somebody."""
        return np.frombuffer(dict(self.kept)[name], dtype=np.int64)


def solve_qp(given: Mapping[str, Any], keywords: Keywords, door: Door) -> QPSolution:
    """Solves quadratic programs through a door; `given` holds P, q, A, b, G, h, lb and ub, or None.

    Raises:
        InputError: if the blocks do not fit together.
        SolverError: if items cannot be solved.
    """
    for matrix, vector in (("A", "b"), ("G", "h")):
        if (given[matrix] is None) != (given[vector] is None):
            raise ShapeError(f"{matrix} and {vector} belong together: give both or neither")
    blocks, values = read_blocks(given, door)
    n = _size(blocks)
    check_shapes(blocks, _shapes(blocks, n))
    if keywords.check:
        check_cost(blocks, values, door)
    kept = tuple((name, _binding(name, blocks, values, n, door).tobytes()) for name in _VACUOUS if name in blocks)
    layer = keywords.layer(_layer(_Layout(tuple(blocks.values()), n, kept), keywords.solver))
    run = door.run(layer, list(values.values()), keywords.start)
    return QPSolution(*run.leaves, result=run.result, names=tuple(blocks), pullback=run.pullback)


def _size(blocks: Mapping[str, Block]) -> int:
    if "q" not in blocks or not blocks["q"].shape:
        raise ShapeError("q must be given, as an array of shape (*batch, n)")
    return blocks["q"].shape[0]


def _shapes(blocks: Mapping[str, Block], n: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"P": (n, n), "lb": (n,), "ub": (n,)}
    for matrix, vector in (("A", "b"), ("G", "h")):
        if matrix in blocks:
            height = blocks[matrix].shape[0]
            shapes |= {matrix: (height, n), vector: (height,)}
    return shapes


def _binding(name: str, blocks: Mapping[str, Block], values: Mapping[str, Any], n: int, door: Door) -> Rows:
    """Returns the rows whose bound is not infinite in all items."""
    count = blocks["G"].shape[0] if name == "h" else n
    value = door.numeric(values[name])
    if value is None:
        return np.arange(count)
    vacuous = (value == _VACUOUS[name]).reshape((-1, *blocks[name].shape)).all(axis=0)
    return np.flatnonzero(~np.broadcast_to(vacuous, (count,))).astype(np.int64)


@lru_cache(maxsize=_LAYOUTS)
def _layer(layout: _Layout, solver: str | None) -> Layer:
    return assemble(_compile(layout), solver=solver)


def _compile(layout: _Layout) -> CompiledProblem:
    """Stacks the rows Ax = b, Gx ≤ h, −x ≤ −lb, x ≤ ub."""
    blocks = {block.name: block for block in layout.blocks}
    parameters = parameters_of(blocks)
    start = {name: columns.start for name, columns in zip(parameters.names, parameters.columns, strict=True)}
    terms: dict[str, list[Terms]] = {"P": [], "q": [placed(blocks["q"], start["q"], 0, np.arange(layout.n))]}
    terms |= {"A": [], "b": []}
    if "P" in blocks:
        terms["P"].append(quadratic(blocks["P"], start["P"]))
    rows: dict[str, tuple[int, Rows]] = {}
    first = 0
    for matrix, vector in (("A", "b"), ("G", "h"), ("", "lb"), ("", "ub")):
        if vector not in blocks:
            continue
        kept = np.arange(blocks["A"].shape[0]) if vector == "b" else layout.rows(vector)
        sign = -1.0 if vector == "lb" else 1.0
        bound = placed(blocks[vector], start[vector], first, kept)
        terms["b"].append(replace(bound, coefficients=sign * bound.coefficients))
        terms["A"].append(placed(blocks[matrix], start[matrix], first, kept) if matrix else _unit(first, kept, sign))
        rows[vector] = first, kept
        first += len(kept)
    zero = len(rows["b"][1]) if "b" in rows else 0
    outputs = _outputs(layout.n, blocks, rows, first)
    return compile_form(parameters, terms, Product(zero=zero, nonnegative=first - zero), outputs)


def _unit(first: int, kept: Rows, sign: float) -> Terms:
    """The rows ±x of the kept variables."""
    place = first + np.arange(len(kept))
    return Terms(place, kept.astype(int), np.full(len(kept), CONSTANT), np.full(len(kept), sign))


def _outputs(n: int, blocks: Mapping[str, Block], rows: Mapping[str, tuple[int, Rows]], m: int) -> Outputs:
    sizes = (n, blocks["A"].shape[0] if "A" in blocks else 0, blocks["G"].shape[0] if "G" in blocks else 0, n)
    starts = np.cumsum(sizes)
    places, sources, signs = [], [], []
    for vector, start, sign in (("b", 0, 1.0), ("h", 1, 1.0), ("lb", 2, -1.0), ("ub", 2, 1.0)):
        if vector in rows:
            first, kept = rows[vector]
            places.append(starts[start] + kept)
            sources.append(first + np.arange(len(kept)))
            signs.append(np.full(len(kept), sign))
    entries = [np.concatenate(parts) if parts else np.zeros(0) for parts in (signs, places, sources)]
    y = sp.csr_array((entries[0], (entries[1].astype(int), entries[2].astype(int))), shape=(sum(sizes), m))
    return Outputs(("x", "y", "z", "z_box"), sizes, y)
