"""Command line of the examples of relaxations: `python -m examples.relaxation`."""

from __future__ import annotations

from collections.abc import Sequence

from examples.experiment import main as run
from examples.relaxation import polynomial, rotations

EXPERIMENTS = [polynomial.EXPERIMENT, rotations.EXPERIMENT]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one of the experiments, or lists them."""
    run("relaxation", EXPERIMENTS, arguments)


if __name__ == "__main__":
    main()
