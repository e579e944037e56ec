"""Workers of a data loader that solve: `python -m tests.torch_loader fork` (or spawn) prints "right".

A process of its own, since other frameworks' threads do not survive a fork.
"""

from __future__ import annotations

import sys

import cvxpy as cp
import torch

from cvxlayers.torch import CvxpyLayer


class Solutions(torch.utils.data.Dataset):
    """Items that a layer computes: min ½‖x‖² + 1ᵀx s.t. 1ᵀx = b, x ≥ 0 for b = 1, 2, 3, 4."""

    def __init__(self) -> None:
        x, c, b = cp.Variable(3), cp.Parameter(3), cp.Parameter()
        problem = cp.Problem(cp.Minimize(c @ x + 0.5 * cp.sum_squares(x)), [cp.sum(x) == b, x >= 0])
        self.layer = CvxpyLayer(problem, [c, b], [x], threads=2)

    def __len__(self) -> int:
        """The number of items."""
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        """Eight equal solutions."""
        return self.layer(torch.ones(8, 3), torch.full((8,), float(index + 1)))[0]


if __name__ == "__main__":
    data = Solutions()
    data[0]
    loader = torch.utils.data.DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context=sys.argv[1])
    sums = torch.cat([batch.sum(dim=2) for batch in loader])
    torch.testing.assert_close(sums, torch.arange(1.0, 5.0)[:, None].expand(4, 8))
    print("right")
