"""Command line of metric learning: `python -m examples.metric_learning`."""

from __future__ import annotations

from collections.abc import Sequence

from examples.experiment import main as run
from examples.metric_learning.cubic import CUBIC
from examples.metric_learning.portfolio import PORTFOLIO
from examples.metric_learning.regression import REGRESSION
from examples.metric_learning.returns import RETURNS

EXPERIMENTS = [CUBIC, PORTFOLIO, RETURNS, REGRESSION]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one of the experiments, or lists them."""
    run("metric_learning", EXPERIMENTS, arguments)


if __name__ == "__main__":
    main()
