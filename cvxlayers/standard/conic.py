"""Cone programs by their data: minimise ½ xᵀPx + qᵀx subject to Ax + s = b, s ∈ K."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxlayers.build import assemble
from cvxlayers.compiled import CompiledProblem
from cvxlayers.cones import Product
from cvxlayers.errors import OptionError, ShapeError, did_you_mean
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

_LAYOUTS = 16
_COUNTS, _LISTS = ("zero", "nonnegative", "exponential"), ("second_order", "semidefinite", "power")


@dataclass(frozen=True, eq=False)
class ConicSolution:
    """The solution of a batch of cone programs, at which Px + Aᵀy + q = 0; the slack is s = b − Ax.

    Attributes:
        x: the minimisers, of shape (*batch, n).
        y: the dual variables, of shape (*batch, m).
        result: the `LayerResult`, with optimal values, statuses and residuals of each item, which a later solve takes
            as `warm_start`; None in TensorFlow, and inside JAX's transformations.
    """

    x: Any
    y: Any
    result: Any
    names: tuple[str, ...]
    pullback: Pullback | None

    def vjp(self, x: Any = None, *, y: Any = None, objective: Any = None) -> tuple[dict[str, Any], Any]:
        """Pulls cotangents of the solution back to the data. For numpy only: frameworks have their own.

        Args:
            x: cotangent of x; None is zero.
            y: of y.
            objective: of the optimal values.

        Returns:
            The cotangent of each block that was given, by name, of the shape given (of a sparse block, of its values);
            and per item how far to trust them.

        Raises:
            DerivativeError: in a framework.
        """
        return pulled_back(self.names, self.pullback, (x, y), objective)


def solve_conic(given: Mapping[str, Any], cones: Mapping[str, Any], keywords: Keywords, door: Door) -> ConicSolution:
    """Solves cone programs through a door; `given` holds P (or None), q, A and b.

    Raises:
        OptionError: if a cone is unknown.
        InputError: if the blocks do not fit together.
        SolverError: if items cannot be solved.
    """
    cone = _cone(cones)
    blocks, values = read_blocks(given, door)
    for name in ("q", "A", "b"):
        if name not in blocks or not blocks[name].shape:
            raise ShapeError(f"{name} must be given")
    n, m = blocks["q"].shape[0], blocks["A"].shape[0]
    if cone.dim != m:
        raise ShapeError(f"the cones have {cone.dim} rows together, A has {m}")
    check_shapes(blocks, {"P": (n, n), "A": (m, n), "b": (m,)})
    if keywords.check:
        check_cost(blocks, values, door)
    layer = keywords.layer(_layer(tuple(blocks.values()), cone, keywords.solver))
    run = door.run(layer, list(values.values()), keywords.start)
    return ConicSolution(*run.leaves, result=run.result, names=tuple(blocks), pullback=run.pullback)


def _cone(cones: Mapping[str, Any]) -> Product:
    known = [field.name for field in fields(Product)]
    for name in cones:
        if name not in known:
            raise OptionError(f"unknown cone {name!r}{did_you_mean(name, known)}; the cones are {', '.join(known)}")
    sizes: dict[str, Any] = {name: int(np.asarray(cones[name])) for name in _COUNTS if name in cones}
    for name in _LISTS:
        convert = float if name == "power" else int
        sizes[name] = tuple(convert(size) for size in np.atleast_1d(np.asarray(cones.get(name, ()))).tolist())
    return Product(**sizes)


@lru_cache(maxsize=_LAYOUTS)
def _layer(blocks: tuple[Block, ...], cone: Product, solver: str | None) -> Layer:
    return assemble(_compile({block.name: block for block in blocks}, cone), solver=solver)


def _compile(blocks: Mapping[str, Block], cone: Product) -> CompiledProblem:
    parameters = parameters_of(blocks)
    start = {name: columns.start for name, columns in zip(parameters.names, parameters.columns, strict=True)}
    n, m = blocks["q"].shape[0], blocks["A"].shape[0]
    terms = {name: [placed(blocks[name], start[name], 0, np.arange(n if name == "q" else m))] for name in "qAb"}
    terms["P"] = [quadratic(blocks["P"], start["P"])] if "P" in blocks else []
    y = sp.csr_array(sp.eye_array(n + m, m, k=-n))
    return compile_form(parameters, terms, cone, Outputs(("x", "y"), (n, m), y))
