"""Layers that are given the matrices of a quadratic program: ½xᵀQx + pᵀx, Ax = b, Gx ≤ h, all of them dense."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import torch

from benchmarks.contest import Answer, Array, Contender, Entry
from benchmarks.torch_layer import layer_contender, make_answer

NAMES = ("Q", "p", "A", "b", "G", "h")


def matrix_entries(data: Mapping[str, Array], weights: Array) -> list[Entry]:
    """Returns Moreau called directly, qpth, proxsuite, qpax and jaxopt's OSQP; the data are called as in `NAMES`."""
    values = {name: data[name] for name in NAMES}
    jax_entry = partial(_jax_entry, values, weights)
    return [
        Entry("Moreau", partial(_moreau, values, weights), imports=("moreau.torch",)),
        Entry("proxsuite", partial(_proxsuite, values, weights), imports=("proxsuite.torch.qplayer",)),
        Entry("qpth", partial(_qpth, values, weights), imports=("qpth.qp",)),
        jax_entry("qpax", "qpax", _qpax, finer={"qpax, 1e-9": {"solver_tol": 1e-9, "target_kappa": 1e-9}}),
        jax_entry("jaxopt OSQP", "jaxopt", _osqp, finer={"jaxopt OSQP, 1e-9": {"tol": 1e-9}}),
    ]


def _moreau(values: Mapping[str, Array], weights: Array) -> Contender:
    moreau, door = import_module("moreau"), import_module("moreau.torch")
    batch, n = values["p"].shape
    equalities, inequalities = values["b"].shape[1], values["h"].shape[1]
    rows = equalities + inequalities
    solver = door.Solver(
        n=n,
        m=rows,
        P_row_offsets=torch.arange(0, n * n + 1, n),
        P_col_indices=torch.arange(n).repeat(n),
        A_row_offsets=torch.arange(0, rows * n + 1, n),
        A_col_indices=torch.arange(n).repeat(rows),
        cones=moreau.Cones(num_zero_cones=equalities, num_nonneg_cones=inequalities),
        settings=moreau.Settings(device="cpu", batch_size=batch, enable_grad=True),
    )

    def layer(*tensors: torch.Tensor) -> tuple[torch.Tensor]:
        Q, p, A, b, G, h = tensors
        matrix = torch.cat([A, G], dim=1).reshape(batch, -1)
        return (solver.solve(Q.reshape(batch, -1), matrix, p, torch.cat([b, h], dim=1)).x,)

    return layer_contender(layer, values, weights)


def _proxsuite(values: Mapping[str, Array], weights: Array) -> Contender:
    function = import_module("proxsuite.torch.qplayer").QPFunction(omp_parallel=True)
    lower = torch.full(values["h"].shape, -1e20, dtype=torch.float64)

    def layer(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        Q, p, A, b, G, h = tensors
        return function(Q, p, A, b, G, lower, h)

    return layer_contender(layer, values, weights)


def _qpth(values: Mapping[str, Array], weights: Array) -> Contender:
    function = import_module("qpth.qp").QPFunction(verbose=-1)

    def layer(*tensors: torch.Tensor) -> tuple[torch.Tensor]:
        Q, p, A, b, G, h = tensors
        return (function(Q, p, G, h, A, b),)

    return layer_contender(layer, values, weights)


def _qpax(**settings: Any) -> Callable[..., Any]:
    return partial(import_module("qpax").solve_qp_primal, **settings)


def _osqp(**settings: Any) -> Callable[..., Any]:
    solver = import_module("jaxopt").OSQP(**settings)

    def solve(Q: Any, p: Any, A: Any, b: Any, G: Any, h: Any) -> Any:
        return solver.run(params_obj=(Q, p), params_eq=(A, b), params_ineq=(G, h)).params.primal

    return solve


def _jax_entry(
    values: Mapping[str, Array],
    weights: Array,
    name: str,
    module: str,
    make: Callable[..., Callable[..., Any]],
    finer: Mapping[str, Mapping[str, Any]],
) -> Entry:
    def build(settings: Mapping[str, Any]) -> Contender:
        return _jax_contender(make(**settings), values, weights)

    more = [Entry(title, partial(build, settings), imports=("jax", module)) for title, settings in finer.items()]
    return Entry(name, partial(build, {}), imports=("jax", module), finer=more)


def _jax_contender(solve: Callable[..., Any], values: Mapping[str, Array], weights: Array) -> Contender:
    """Compiles the solution of the batch, and that with the gradients of its product with `weights`."""
    jax = import_module("jax")
    arrays = [jax.numpy.asarray(value) for value in values.values()]
    upstream, over_batch = jax.numpy.asarray(weights), jax.vmap(solve)

    def solved_and_pulled(*inputs: Any) -> tuple[Any, Any]:
        x, pull = jax.vjp(over_batch, *inputs)
        return x, pull(upstream)

    forward, both = jax.jit(over_batch), jax.jit(solved_and_pulled)

    def step() -> Callable[[], Answer]:
        x, gradients = jax.block_until_ready(both(*arrays))
        return lambda: make_answer(
            np.asarray(x), {name: np.asarray(g) for name, g in zip(values, gradients, strict=True)}
        )

    return Contender(lambda: jax.block_until_ready(forward(*arrays)), step)
