"""Command line of predict-then-optimise: `python -m examples.decision`."""

from __future__ import annotations

from collections.abc import Sequence

from examples.decision.matching import MATCHING
from examples.decision.max_margin import MAX_MARGIN
from examples.decision.newsvendor import NEWSVENDOR
from examples.decision.portfolio import PORTFOLIO
from examples.decision.scheduling import SCHEDULING
from examples.decision.shortest_path import SHORTEST_PATH
from examples.experiment import main as run

EXPERIMENTS = [SHORTEST_PATH, MAX_MARGIN, NEWSVENDOR, SCHEDULING, MATCHING, PORTFOLIO]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one of the experiments, or lists them."""
    run("decision", EXPERIMENTS, arguments)


if __name__ == "__main__":
    main()
