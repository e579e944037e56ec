"""Command line of the examples of estimation: `python -m examples.estimation`."""

from __future__ import annotations

from collections.abc import Sequence

from examples.estimation import curve_fit, pose_graph
from examples.experiment import main as run

EXPERIMENTS = [curve_fit.EXPERIMENT, curve_fit.DECAY_EXPERIMENT, pose_graph.EXPERIMENT]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one of the experiments, or lists them."""
    run("estimation", EXPERIMENTS, arguments)


if __name__ == "__main__":
    main()
