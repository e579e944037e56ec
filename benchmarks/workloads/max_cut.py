"""The semidefinite relaxation of max-cut (Goemans and Williamson 1995): minimise tr(CX), diag X = 1, X ⪰ 0."""

from __future__ import annotations

import torch

from benchmarks.workloads.semidefinite import workload

WORKLOAD = workload(
    "max_cut", "the relaxation of max-cut", quadratic=False, argument=lambda X, y, C: X - C - torch.diag_embed(y)
)
