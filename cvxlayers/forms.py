"""Programs by their data, on numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike

from cvxlayers import standard
from cvxlayers.arrays import Array, common_dtype, real
from cvxlayers.derivative import DerivativeInfo
from cvxlayers.errors import ShapeError
from cvxlayers.layer import Layer
from cvxlayers.result import WarmStart
from cvxlayers.standard import ConicSolution, Keywords, QPSolution, SolveKeywords

# What numpy makes an array of, of shape (*batch, *shape); for matrices also a sparse matrix, or one as a pattern with
# its values, of shape (*batch, nnz).
Data = Any


def solve_qp(
    P: Data,
    q: Data,
    *,
    A: Data = None,
    b: Data = None,
    G: Data = None,
    h: Data = None,
    lb: Data = None,
    ub: Data = None,
    **keywords: Unpack[SolveKeywords],
) -> QPSolution:
    """Solves quadratic programs: minimise ½ xᵀPx + qᵀx subject to Ax = b, Gx ≤ h, lb ≤ x ≤ ub.

        x = solve_qp(P, q, G=G, h=h).x

    Every block has its own leading batch axes, which broadcast. P, A and G may also be SciPy sparse matrices, or pairs
    (pattern, values): a SciPy sparse matrix whose stored positions count, and values of shape (*batch, nnz) in the
    order of `pattern.tocoo()`.

    Args:
        P: positive semidefinite, of shape (*batch, n, n), both triangles; None for a linear program.
        q: of shape (*batch, n).
        A: of shape (*batch, equalities, n); None without any, as all that follow.
        b: of shape (*batch, equalities).
        G: of shape (*batch, inequalities, n).
        h: of shape (*batch, inequalities); rows that are infinite in all items are left out.
        lb: lower bounds of shape (*batch, n), or one number; infinite ones are left out, as for h.
        ub: upper bounds, likewise.
        keywords: `solver`, `solver_args`, `on_failure`, `strict`, `threads` and `check`, as of a layer, and
            `warm_start`, an earlier solution.

    Returns:
        x, the dual variables y, z and z_box, and all else that a solve found out; its `vjp` pulls cotangents back.

    Raises:
        InputError: if the blocks do not fit together.
        SolverError: if items cannot be solved; it names them, their status, and the way out.

    References:
        Amos, Kolter, "OptNet: differentiable optimization as a layer in neural networks" (2017); derivatives as of
        `CvxpyLayer`.
    """
    given = {"P": P, "q": q, "A": A, "b": b, "G": G, "h": h, "lb": lb, "ub": ub}
    return standard.solve_qp(given, Keywords(**keywords), _DOOR)


def solve_conic(
    P: Data,
    q: Data,
    A: Data,
    b: Data,
    cones: Mapping[str, Any],
    **keywords: Unpack[SolveKeywords],
) -> ConicSolution:
    """Solves cone programs: minimise ½ xᵀPx + qᵀx subject to Ax + s = b, s ∈ K.

    Args:
        P: as of `solve_qp`.
        q: of shape (*batch, n).
        A: of shape (*batch, m, n), dense or sparse as P; its rows are ordered as `cones` is written here.
        b: of shape (*batch, m).
        cones: the sizes of the cones: `zero` and `nonnegative` (rows), `second_order` (rows of each; the first is the
            bound of the norm), `semidefinite` (order of each; the upper triangle column by column, entries off the
            diagonal times √2), `exponential` (their number; x, y, z with y·exp(x/y) ≤ z), `power` (the exponent α
            of each; x, y, z with x^α y^(1−α) ≥ |z|).
        keywords: as of `solve_qp`.

    Returns:
        x, the dual variable y, and all else that a solve found out; its `vjp` pulls cotangents back.

    Raises:
        OptionError: if a cone is unknown.
        InputError: if the blocks do not fit together.
        SolverError: if items cannot be solved; it names them, their status, and the way out.

    References:
        Healey, Nobel, Boyd, "Differentiating through a quadratic cone program" (2025), arXiv:2508.17522.
    """
    return standard.solve_conic({"P": P, "q": q, "A": A, "b": b}, cones, Keywords(**keywords), _DOOR)


def _run(layer: Layer, values: Sequence[Any], warm_start: WarmStart | None) -> standard.Run:
    dtype = common_dtype(values)
    names = layer.compiled.parameters.names
    doubles = [real(name, value) for name, value in zip(names, values, strict=True)]
    forward = layer.forward(doubles, layer.options, warm_start, layer.compiled.leaves.map)
    leaves = [output.astype(dtype, copy=False) for output in forward.outputs]
    objective = layer.objective(forward).astype(dtype, copy=False)

    def pull(cotangents: Sequence[Any], optimal: Any) -> tuple[list[Array], DerivativeInfo]:
        like = [*forward.outputs, layer.objective(forward)]
        *arrays, last = [_matched(value, want) for value, want in zip((*cotangents, optimal), like, strict=True)]
        return layer.vjp(forward, arrays, last)

    return standard.Run(leaves, layer.result(forward, leaves, objective, np.asarray), pull)


def _matched(cotangent: ArrayLike | None, like: Array) -> Array | None:
    if cotangent is None:
        return None
    array = real("a cotangent", cotangent)
    if array.shape != like.shape:
        raise ShapeError(f"a cotangent has shape {array.shape}, expected {like.shape}")
    return array


_DOOR = standard.Door(convert=np.asarray, numeric=np.asarray, run=_run)
