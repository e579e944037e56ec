"""The policy as a PyTorch module, and its training, in one process or in several under torchrun.

    torchrun --nproc_per_node 2 -m examples.scale.torch_policy --out policy.pt

On several hosts the same script runs as it is: `torchrun --nnodes 4 --nproc_per_node 8 --rdzv_backend c10d
--rdzv_endpoint HOST:29400 -m examples.scale.torch_policy`, started on each of them.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from cvxlayers.torch import CvxpyLayer
from examples.scale.policy import STATES, Plant, Rollouts, plant, problem, rollouts


class ClosedLoop(torch.nn.Module):
    """The plant under the policy: rollouts in, mean cost of a step out."""

    def __init__(self, system: Plant, layer: CvxpyLayer, limit: float = 0.5) -> None:
        torch.nn.Module.__init__(self)
        self.layer = layer
        self.root = torch.nn.Parameter(torch.eye(STATES, dtype=torch.float64))
        self.slope = torch.nn.Parameter(torch.zeros(STATES, dtype=torch.float64))
        self.A, self.B = torch.from_numpy(system.A), torch.from_numpy(system.B)
        self.limit = torch.tensor(limit, dtype=torch.float64)

    def forward(self, starts: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Returns the mean over items and steps of ‖x‖² + ‖u‖²."""
        x, total = starts, torch.zeros((), dtype=starts.dtype)
        for disturbance in noise:
            (u,) = self.layer(x, self.root, self.slope, self.limit)
            total = total + (x.square().sum(dim=1) + u.square().sum(dim=1)).mean()
            x = x @ self.A.T + u @ self.B.T + disturbance
        return total / len(noise)


def train(model: torch.nn.Module, drawn: Rollouts, epochs: int, lr: float = 0.1) -> list[float]:
    """Trains by gradient descent on the rollouts given, and returns the costs before each step and after the last."""
    starts, noise = torch.from_numpy(drawn.starts), torch.from_numpy(drawn.noise)
    optimiser, costs = torch.optim.SGD(model.parameters(), lr=lr), []
    for _ in range(epochs):
        optimiser.zero_grad()
        cost = model(starts, noise)
        cost.backward()
        optimiser.step()
        costs.append(cost.item())
    with torch.no_grad():
        return [*costs, model(starts, noise).item()]


def closed_loop() -> ClosedLoop:
    """Returns the plant under the policy, untrained."""
    system = plant()
    return ClosedLoop(system, CvxpyLayer(*problem(system)))


def share(drawn: Rollouts, rank: int, size: int) -> Rollouts:
    """Returns the rollouts of one process out of several; their number must be a multiple of the processes'."""
    count = len(drawn.starts)
    if count % size:
        raise ValueError(f"{count} rollouts cannot be shared evenly by {size} processes")
    mine = slice(rank * count // size, (rank + 1) * count // size)
    return Rollouts(drawn.starts[mine], drawn.noise[:, mine])


def main() -> None:
    """Trains the policy; under torchrun every process takes its share of the rollouts."""
    parser = argparse.ArgumentParser(description=main.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--batch", type=int, default=32, help="rollouts, over all processes")
    parser.add_argument("--steps", type=int, default=10, help="steps of a rollout")
    parser.add_argument("--epochs", type=int, default=20, help="steps of gradient descent")
    parser.add_argument("--out", type=Path, default=Path("outputs/policy.pt"), help="file for the trained policy")
    options = parser.parse_args()
    model, drawn = closed_loop(), rollouts(options.batch, options.steps)
    if "RANK" in os.environ:
        distributed.init_process_group("gloo")
        rank, size = distributed.get_rank(), distributed.get_world_size()
        train(DistributedDataParallel(model), share(drawn, rank, size), options.epochs)
        distributed.destroy_process_group()
    else:
        rank = 0
        train(model, drawn, options.epochs)
    if rank == 0:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), options.out)


if __name__ == "__main__":
    main()
