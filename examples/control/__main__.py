"""`python -m examples.control NAME`: runs one experiment; `list` shows them all."""

from __future__ import annotations

from collections.abc import Sequence

from examples.control.convex import CONVEX
from examples.control.nonlinear import NONLINEAR
from examples.experiment import main as run

EXPERIMENTS = [*CONVEX, *NONLINEAR]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line of this package."""
    run("control", EXPERIMENTS, arguments)


if __name__ == "__main__":
    main()
