"""The interface of a solver, and the one vocabulary of options over all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from cvxlayers.program import ConeProgram, Solution, Structure


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
    def native_options(self) -> Mapping[str, type]:
        """Returns the solver's own option names, and the type of each: bool, int, float or str."""

    def proves_convexity(self, options: Options) -> bool:
        """Whether P is positive definite in every program that it solves."""
        return False

    @property
    def is_formula(self) -> bool:
        """Whether its points are exact but for rounding, and of whole batches at once: then these are what to check."""
        return False

    @property
    def is_precise(self) -> bool:
        """Whether the points that it calls solved are so exact that the residual map is what to judge them by."""
        return False

    @property
    def is_unit_free(self) -> bool:
        """Whether it serves programs in any units alike, so that they need not be scaled."""
        return False

    def prepare(self, program: ConeProgram, threads: int) -> None:
        """Computes what is kept with a whole batch, before it is cut into chunks."""
        del program, threads

    def free_microseconds(self, structure: Structure) -> float:
        """Returns about how long a solve of one item leaves the interpreter to other threads; 0 if it does not."""
        # Interior points cost ten times more than active sets.
        item = 10.0 + structure.n * (structure.n + structure.m) / 50
        return item if structure.cone.polyhedral else 10 * item

    def dense_bytes(self, structure: Structure) -> int:
        """Returns how much memory the solver's dense copies of an item's matrices take; 0 if it has none."""
        return 0

    @abstractmethod
    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Solves every item, independently of the others and of their order. All data are finite.

        An item that ends without a solution has a status that says so, and the last iterate (NaN where there is none),
        or the certificate: for INFEASIBLE y with Aᵀy = 0, bᵀy < 0; for UNBOUNDED x with Px = 0, Ax + s = 0, qᵀx < 0.
        """
