"""Command line of metric learning: `python -m examples.metric_learning`."""

from __future__ import annotations

from collections.abc import Sequence

from examples.experiment import main as run
from examples.metric_learning.cubic import CUBIC

EXPERIMENTS = [CUBIC]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one of the experiments, or lists them."""
    run("metric_learning", EXPERIMENTS, arguments)


if __name__ == "__main__":
    main()
