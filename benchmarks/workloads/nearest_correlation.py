"""The nearest correlation matrix (Higham 2002): minimise ½‖X − C‖², diag X = 1, X ⪰ 0."""

from __future__ import annotations

import torch

from benchmarks.workloads.semidefinite import workload

WORKLOAD = workload(
    "nearest_correlation",
    "the nearest correlation matrix",
    quadratic=True,
    argument=lambda X, y, C: C - torch.diag_embed(y),
)
