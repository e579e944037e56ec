"""What a solve may be asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from cvxlayers.errors import OptionError

HESSIANS = ("exact", "gauss_newton")
BACKWARDS = ("implicit", "gauss_newton", "unroll", "dlm")


@dataclass(frozen=True)
class Record:
    """One line of the iteration log: the worst of the items that are still running.

    Attributes:
        iteration: its number, from 0.
        running: how many items are not finished.
        residual: their largest relative KKT residual.
        violation: their largest violation of a constraint.
        step: the shortest step length taken.
        elastic: how many sub-problems needed the elastic form.
        corrected: how many steps took the second-order correction.
    """

    iteration: int
    running: int
    residual: float
    violation: float
    step: float
    elastic: int
    corrected: int

    def __str__(self) -> str:
        notes = f"{self.elastic:4d} {self.corrected:4d}"
        return (
            f"{self.iteration:4d} {self.running:5d} {self.residual:9.2e} {self.violation:9.2e} {self.step:8.3g} {notes}"
        )


@dataclass(frozen=True)
class Options:
    """How a solve runs and how it is differentiated; `SQP` says what each means."""

    hessian: str = "exact"
    backward: str = "implicit"
    eps: float = 1e-8
    max_iters: int = 100
    on_failure: str = "raise"
    solver: str | None = None
    dlm_epsilon: float = 1e-4
    progress: Callable[[Record], object] | None = None

    def __post_init__(self) -> None:
        if self.hessian not in HESSIANS:
            raise OptionError(f"hessian is one of {', '.join(HESSIANS)}; got {self.hessian!r}")
        if self.backward not in BACKWARDS and truncation(self.backward) is None:
            raise OptionError(f"backward is one of {', '.join(BACKWARDS)}, or truncated(k); got {self.backward!r}")
        if self.on_failure not in ("raise", "nan", "mask"):
            raise OptionError(f"on_failure is raise, nan or mask; got {self.on_failure!r}")
        if not (self.eps > 0.0 and self.max_iters >= 1 and self.dlm_epsilon > 0.0):
            raise OptionError("eps and dlm_epsilon are positive, and max_iters is at least 1")


def truncation(backward: str) -> int | None:
    """Returns k of "truncated(k)"; None for another name."""
    found = re.fullmatch(r"truncated\((\d+)\)", backward)
    return int(found[1]) if found and int(found[1]) > 0 else None


def unrolled(backward: str) -> int:
    """Returns how many of the last iterations a backward pass goes through: 0 where it needs none."""
    return 10**9 if backward == "unroll" else truncation(backward) or 0
