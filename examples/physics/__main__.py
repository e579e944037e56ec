"""Command line of the examples of physics: `python -m examples.physics`."""

from __future__ import annotations

from collections.abc import Sequence

from examples.experiment import main as run
from examples.physics import infer_mass, slide

EXPERIMENTS = [infer_mass.EXPERIMENT, slide.EXPERIMENT]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one of the experiments, or lists them."""
    run("physics", EXPERIMENTS, arguments)


if __name__ == "__main__":
    main()
