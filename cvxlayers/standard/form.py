"""What the standard forms share: their blocks, their outputs, and how a door solves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypedDict

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int

from cvxlayers.build import with_keywords
from cvxlayers.compiled import CompiledProblem
from cvxlayers.cones import Product
from cvxlayers.domain import Domain
from cvxlayers.errors import DerivativeError, ShapeError
from cvxlayers.layer import Layer
from cvxlayers.linear_map import LinearMap
from cvxlayers.parameter_map import ParameterMap
from cvxlayers.program import Structure
from cvxlayers.result import LayerResult, WarmStart
from cvxlayers.standard.block import Block, read_block
from cvxlayers.standard.sparse_cost import check_sparse
from cvxlayers.standard.terms import Terms, matrix_map, stack, vector_map
from cvxlayers.variable_map import Leaves, Owner, VariableMap

Array = Any
# Pulls cotangents of the outputs, and of the optimal value, back to the blocks.
Pullback = Callable[[Sequence[Any], Any], tuple[list[Any], Any]]

_AXES = {"P": 2, "q": 1, "A": 2, "b": 1, "G": 2, "h": 1, "lb": 1, "ub": 1}


class SolveKeywords(TypedDict, total=False):
    """The keywords of a solve: those of a layer and of its call.

    Attributes:
        solver: a solver by name; by default chosen from the program's class and size.
        solver_args: `eps`, `max_iters`, `time_limit`, `verbose`, and the solver's own names.
        on_failure: what happens about items that cannot be solved: "raise", "nan" or "mask".
        strict: whether inaccurate solutions and doubtful derivatives raise instead of warning.
        threads: threads over the items of a batch.
        check: whether P is checked for symmetry and definiteness.
        warm_start: an earlier solution of the same form, with nearby data.
    """

    solver: str | None
    solver_args: Mapping[str, object] | None
    on_failure: str
    strict: bool
    threads: int | None
    check: bool
    warm_start: Any


@dataclass(frozen=True, eq=False)
class Keywords:
    """What a solve asks for, with the defaults of a layer."""

    solver: str | None = None
    solver_args: Mapping[str, object] | None = None
    on_failure: str = "raise"
    strict: bool = False
    threads: int | None = None
    check: bool = True
    warm_start: Any = None

    @property
    def start(self) -> WarmStart | None:
        """Where to start from."""
        return None if self.warm_start is None else self.warm_start.result.warm_start

    def layer(self, layer: Layer) -> Layer:
        """Returns a layer that was made with the defaults, with these keywords."""
        layer = replace(layer, strict=self.strict, check=self.check)
        return with_keywords(layer, self.solver_args, self.on_failure, self.threads)


class Run(NamedTuple):
    """What a framework's solve returns.

    Attributes:
        leaves: all variables and dual variables.
        result: what else the solve found out; None where that is not known yet.
        pullback: how cotangents are pulled back, where the caller does that.
    """

    leaves: Sequence[Array]
    result: LayerResult | None
    pullback: Pullback | None


@dataclass(frozen=True, eq=False)
class Door:
    """How a framework takes part.

    Attributes:
        convert: makes an array of the framework.
        numeric: makes a numpy array of one of the framework; None where its values are not known yet.
        run: solves with all leaves as outputs.
    """

    convert: Callable[[Any], Array]
    numeric: Callable[[Array], np.ndarray | None]
    run: Callable[[Layer, Sequence[Array], WarmStart | None], Run]


def pulled_back(
    names: Sequence[str], pullback: Pullback | None, cotangents: Sequence[Any], objective: Any
) -> tuple[dict[str, Any], Any]:
    """Returns the cotangent of each block by name, and per item how far to trust them.

    Raises:
        DerivativeError: if the caller's framework has its own way.
    """
    if pullback is None:
        raise DerivativeError("differentiate through the tensors of the solution: vjp is for numpy arrays")
    gradients, info = pullback(cotangents, objective)
    return dict(zip(names, gradients, strict=True)), info


def read_blocks(given: Mapping[str, Any], door: Door) -> tuple[dict[str, Block], dict[str, Array]]:
    """Returns the blocks that are given, and their values."""
    read = {
        name: read_block(name, block, _AXES[name], door.convert) for name, block in given.items() if block is not None
    }
    return {name: block for name, (block, _) in read.items()}, {name: value for name, (_, value) in read.items()}


def check_shapes(blocks: Mapping[str, Block], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Checks the shapes of the blocks that are given.

    Raises:
        ShapeError: if one does not fit the others.
    """
    for name, shape in wanted.items():
        block = blocks.get(name)
        scalar = name in ("lb", "ub") and block is not None and block.shape == ()
        if block is not None and block.shape != shape and not scalar:
            raise ShapeError(
                f"{name} has shape {block.shape} where the other blocks want {shape}, or (*batch, {shape})"
            )


def check_cost(blocks: Mapping[str, Block], values: Mapping[str, Array], door: Door) -> None:
    """Checks a sparse P, where its values are known: a dense one is checked at every call.

    Raises:
        DomainError: if it does not hold both triangles, with the same values in both, or is indefinite.
    """
    block = blocks.get("P")
    if block is None or block.pattern is None:
        return
    entries = door.numeric(values["P"])
    if entries is not None:
        check_sparse(block, entries.reshape((-1, *block.value_shape)).astype(float, copy=False))


def parameters_of(blocks: Mapping[str, Block]) -> ParameterMap:
    """Returns the map of the blocks' values, in order."""
    definite = {"symmetric": "symmetric", "definite": "positive semidefinite"}
    domains = [
        Domain(definite, symmetric=True, definite=1, order=block.shape[0])
        if name == "P" and block.pattern is None
        else None
        for name, block in blocks.items()
    ]
    return ParameterMap(
        names=tuple(blocks),
        shapes=tuple(block.value_shape for block in blocks.values()),
        logs=(False,) * len(blocks),
        domains=tuple(domains),
    )


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a form returns: x, and rows of y for each named dual variable."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    y: sp.csr_array

    def variables(self) -> VariableMap:
        """Returns x and the duals as maps of the program's x and y."""
        total, n = sum(self.sizes), self.sizes[0]
        x = sp.csr_array(sp.eye_array(total, n))
        shapes = tuple((size,) for size in self.sizes)
        return VariableMap(self.names, shapes, LinearMap(x), LinearMap(self.y), (False,) * len(shapes))


def compile_form(
    parameters: ParameterMap,
    terms: Mapping[str, Sequence[Terms]],
    cone: Product,
    outputs: Outputs,
) -> CompiledProblem:
    """Returns the compiled problem of P, q, A and b that are sums of terms."""
    n, m = outputs.sizes[0], cone.dim
    P_pattern, P = matrix_map(stack(terms["P"]), (n, n), parameters)
    A_pattern, A = matrix_map(stack(terms["A"]), (m, n), parameters)
    q, b, offset = (
        vector_map(stack(terms.get(name, ())), size, parameters) for name, size in (("q", n), ("b", m), ("offset", 1))
    )
    variables, every = outputs.variables(), tuple(range(len(outputs.names)))
    owners = tuple(Owner(index, (name,), dual=index > 0) for index, name in enumerate(outputs.names))
    leaves = Leaves(variables, owners, every)
    structure = Structure(P_pattern, A_pattern, cone)
    return CompiledProblem(structure, parameters, variables, leaves, P, q, A, b, offset, maximise=False, gp=False)


def quadratic(block: Block, start: int) -> Terms:
    """The terms of P, as the symmetric part of what is given."""
    rows, cols = block.positions()
    columns = start + np.arange(len(rows))
    half = np.full(2 * len(rows), 0.5)
    return Terms(np.concatenate([rows, cols]), np.concatenate([cols, rows]), np.tile(columns, 2), half)


def placed(block: Block, start: int, first_row: int, kept: Int[np.ndarray, " rows"]) -> Terms:
    """The terms of the kept rows of a matrix or vector, stacked from `first_row` on."""
    rows, cols = block.positions() if len(block.shape) == 2 else _vector_positions(block, kept)
    place = np.full(max(int(rows.max(initial=-1)), int(kept.max(initial=-1))) + 1, -1)
    place[kept] = first_row + np.arange(len(kept))
    inside = np.flatnonzero(place[rows] >= 0)
    columns = start + (np.arange(len(rows)) if block.shape else np.zeros(len(rows), dtype=int))
    return Terms(place[rows[inside]], cols[inside], columns[inside], np.ones(len(inside)))


def _vector_positions(block: Block, kept: Int[np.ndarray, " rows"]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(block.shape[0]) if block.shape else kept
    return rows, np.zeros(len(rows), dtype=int)
