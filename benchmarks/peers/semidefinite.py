"""Moreau called directly on a semidefinite program: its order of the entries of a matrix is written down here."""

from __future__ import annotations

from functools import partial
from importlib import import_module

import numpy as np
import torch

from benchmarks.contest import Array, Contender, Entry
from benchmarks.torch_layer import layer_contender


def moreau_entry(C: Array, weights: Array, quadratic: bool) -> Entry:
    """Returns Moreau on: minimise tr(CX), or ½‖X − C‖², over matrices X ⪰ 0 with ones on their diagonal."""
    return Entry("Moreau", partial(_moreau, C, weights, quadratic), imports=("moreau.torch",))


def _moreau(C: Array, weights: Array, quadratic: bool) -> Contender:
    moreau, door = import_module("moreau"), import_module("moreau.torch")
    batch, order, _ = C.shape
    # The upper triangle, column by column, entries beside the diagonal times √2.
    columns, rows = np.tril_indices(order)
    length, diagonal = len(rows), np.flatnonzero(rows == columns)
    scale = torch.tensor(np.where(rows == columns, 1.0, np.sqrt(2.0)))
    solver = door.Solver(
        n=length,
        m=order + length,
        P_row_offsets=torch.arange(length + 1) if quadratic else torch.zeros(length + 1, dtype=torch.int64),
        P_col_indices=torch.arange(length if quadratic else 0),
        A_row_offsets=torch.arange(order + length + 1),
        A_col_indices=torch.tensor(np.concatenate([diagonal, np.arange(length)])),
        cones=moreau.Cones(num_zero_cones=order, psd_dims=[order]),
        settings=moreau.Settings(device="cpu", batch_size=batch, enable_grad=True, solver="ipm"),
    )
    P = torch.ones(batch, length if quadratic else 0, dtype=torch.float64)
    A = torch.cat([torch.ones(order), -torch.ones(length)]).double().expand(batch, -1)
    b = torch.cat([torch.ones(order), torch.zeros(length)]).double().expand(batch, -1)
    sign = -1.0 if quadratic else 1.0
    unscaled = 1 / scale

    def layer(matrix: torch.Tensor) -> tuple[torch.Tensor]:
        q = sign * scale * (matrix[:, rows, columns] + matrix[:, columns, rows]) / 2
        entries = solver.solve(P, A, q, b).x * unscaled
        X = entries.new_zeros(batch, order, order)
        X = X.index_put((slice_of(batch), torch.tensor(rows), torch.tensor(columns)), entries)
        return (X + torch.triu(X, 1).mT,)

    return layer_contender(layer, {"C": C}, weights)


def slice_of(batch: int) -> torch.Tensor:
    """Returns the batch's indices as a column."""
    return torch.arange(batch)[:, None]
