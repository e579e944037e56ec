"""Command line of the small layers: `python -m examples.layers`."""

from __future__ import annotations

from collections.abc import Sequence

from examples.experiment import main as run
from examples.layers.closed_forms import CLOSED_FORMS
from examples.layers.lista import LISTA
from examples.layers.sudoku import SUDOKU
from examples.layers.top_k import TOP_K
from examples.layers.variation_operator import VARIATION_OPERATOR

EXPERIMENTS = [CLOSED_FORMS, TOP_K, VARIATION_OPERATOR, LISTA, SUDOKU]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one of the experiments, or lists them."""
    run("layers", EXPERIMENTS, arguments)


if __name__ == "__main__":
    main()
