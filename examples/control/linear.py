"""Linear systems x⁺ = A x + B u + w with quadratic costs: the random ones of the experiments, and their worlds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from examples.control.simulator import Simulator, Tensor

Array = np.ndarray


@dataclass(frozen=True)
class LinearSystem:
    """x⁺ = A x + B u + w, with w of standard deviation `noise`; Q = I and R = I weigh states and controls."""

    A: Array
    B: Array
    noise: float

    @property
    def sizes(self) -> tuple[int, int]:
        """The numbers of states and of controls."""
        n, m = self.B.shape
        return n, m


def random_system(n: int, m: int, seed: int, noise: float = 0.5) -> LinearSystem:
    """Draws a system whose A has spectral radius 1, as Agrawal, Barratt, Boyd and Stellato (2020) do."""
    # The published systems come from this legacy stream.
    random = np.random.RandomState(seed)
    A = random.randn(n, n)
    A /= np.abs(np.linalg.eigvals(A)).max()
    return LinearSystem(A, random.randn(n, m), noise)


def linear_simulator(system: LinearSystem, start: float, dtype: torch.dtype = torch.float64) -> Simulator:
    """Returns the world of a linear system.

    Args:
        system: the system.
        start: standard deviation of the first state.
        dtype: what random numbers are drawn in; it decides the stream.
    """
    n = system.sizes[0]
    A, B = torch.as_tensor(system.A), torch.as_tensor(system.B)

    def normal(generator: torch.Generator, batch: int) -> Tensor:
        return torch.randn(batch, n, generator=generator, dtype=dtype).double()

    return Simulator(
        lambda generator, batch: start * normal(generator, batch),
        lambda generator, batch: system.noise * normal(generator, batch),
        lambda x, u, w: x @ A.mT + u @ B.mT + w,
    )


def quadratic_cost(x: Tensor, u: Tensor, after: Tensor) -> Tensor:
    """|x|² + |u|²: what Q = I and R = I make of a step."""
    del after
    return x.square().sum(dim=-1) + u.square().sum(dim=-1)
