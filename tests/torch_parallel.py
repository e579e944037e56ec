"""Data-parallel training through a layer: two processes reach the parameters of one on the union of their batches.

Run by two processes, `torchrun --nproc_per_node 2 -m tests.torch_parallel`; the first compares, and prints "equal".
"""

from __future__ import annotations

import cvxpy as cp
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from cvxlayers.torch import CvxpyLayer

STEPS = 5


class Policy(torch.nn.Module):
    """A linear map, projected on the simplex."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        a, x = cp.Parameter(3), cp.Variable(3, nonneg=True)
        self.linear = torch.nn.Linear(4, 3, dtype=torch.float64)
        self.layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [cp.sum(x) == 1]), [a], [x])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Returns the policy's actions."""
        return self.layer(self.linear(features))[0]


def train(model: torch.nn.Module, features: torch.Tensor, targets: torch.Tensor) -> list[torch.Tensor]:
    """Returns the parameters after some steps of gradient descent."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(STEPS):
        optimiser.zero_grad()
        (model(features) - targets).square().sum(dim=1).mean().backward()
        optimiser.step()
    return [parameter.detach() for parameter in model.parameters()]


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    rank, size = distributed.get_rank(), distributed.get_world_size()
    torch.manual_seed(0)
    model, alone = Policy(), Policy()
    alone.load_state_dict(model.state_dict())
    features = torch.randn(16, 4, dtype=torch.float64)
    targets = torch.rand(16, 3, dtype=torch.float64).softmax(dim=1)
    mine = slice(rank * 16 // size, (rank + 1) * 16 // size)
    together = train(DistributedDataParallel(model), features[mine], targets[mine])
    if rank == 0:
        pairs = zip(together, train(alone, features, targets), strict=True)
        print("equal" if all(torch.allclose(a, b, rtol=0, atol=1e-10) for a, b in pairs) else "different")
    distributed.destroy_process_group()
