"""The interface of a solver, and what the solvers of single items share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from cvxlayers.program import ConeProgram, Solution, Status, Structure

Vector = Float[np.ndarray, " size"]


@dataclass(frozen=True)
class Options:
    """What a solve is asked for, in one vocabulary over all solvers.

    Attributes:
        eps: the largest relative KKT residual of the returned point.
        max_iters: the iteration limit; None is the solver's own.
        time_limit: seconds per item; None is no limit.
        verbose: whether the solver prints its log.
        native: options under the solver's own names, passed on as they are.
    """

    eps: float = 1e-9
    max_iters: int | None = None
    time_limit: float | None = None
    verbose: bool = False
    native: Mapping[str, object] = field(default_factory=dict)


class Solver(ABC):
    """Solves batches of cone programs. Holds no state: a result depends on the program and the options alone."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name by which users choose it, in capitals, as in CVXPY."""

    @abstractmethod
    def refusal(self, structure: Structure) -> str | None:
        """Returns why programs of this structure are beyond the solver, or None where they are not."""

    @abstractmethod
    def native_options(self) -> tuple[str, ...]:
        """Returns the solver's own option names."""

    @abstractmethod
    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Solves every item, independently of the others and of their order.

        An item that ends without a solution has a status that says so, and the last iterate (NaN where there is none),
        or the certificate: for INFEASIBLE y with Aᵀy = 0, bᵀy < 0; for UNBOUNDED x with Px = 0, Ax + s = 0, qᵀx < 0.
        """


class Result(NamedTuple):
    """What a solver says of one item; `s` None stands for b − Ax."""

    x: Vector
    y: Vector
    s: Vector | None
    status: Status
    iterations: int


def solve_each(program: ConeProgram, solve: Callable[[int], Result]) -> Solution:
    """Calls `solve` for each item, and collects the results."""
    structure, batch = program.structure, program.batch
    x, y = np.empty((batch, structure.n)), np.empty((batch, structure.m))
    s = np.empty((batch, structure.m))
    status, iterations = np.empty(batch, dtype=np.int64), np.empty(batch, dtype=np.int64)
    missing = np.zeros(batch, dtype=bool)
    for item in range(batch):
        result = solve(item)
        x[item], y[item], status[item], iterations[item] = result.x, result.y, result.status, result.iterations
        if result.s is None:
            missing[item] = True
        else:
            s[item] = result.s
    if missing.any():
        slack = program.b - structure.A.matvec(program.A, x)
        slack[:, : structure.cone.zero] = 0.0
        s[missing] = slack[missing]
    return Solution(x, y, s, status, iterations)


def row(array: Float[np.ndarray, "batch size"], item: int) -> Vector:
    """Returns the item's row of an array that the batch may share."""
    return array[item if len(array) > 1 else 0]
