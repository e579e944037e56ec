"""How this library stands against its peers: the chart of the results that `make bench` has kept.

    python -m docs.figures.benchmarks                  # of benchmarks/results
    python -m docs.figures.benchmarks FOLDER           # of those that were written with --out FOLDER

It belongs to the machine on which they were measured, so that it is not drawn with the other figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks.__main__ import FOLDER
from benchmarks.chart import plot
from benchmarks.run import Result, finished
from benchmarks.workloads import all_rows
from docs.figures.palette import Colours, save


def draw(results: Sequence[Result], colours: Colours) -> Figure:
    """Draws a row of dots for each row of the benchmark."""
    figure, axes = plt.subplots(figsize=(7.4, 0.8 + 0.18 * len(results)))
    plot(axes, results, peer=colours.one, by_hand=colours.three, line=colours.ink, grid=colours.faint)
    return figure


def main() -> None:
    """Draws what is finished."""
    parser = argparse.ArgumentParser(description="Draw the results of make bench for light and for dark pages.")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="where make bench has kept its results")
    folder = parser.parse_args().folder
    kept = [finished(folder / "rows", row) for row in all_rows()]
    results = [result for result in kept if result is not None]
    if not results:
        parser.error(f"{folder} holds no results: run make bench first")
    save("benchmarks", partial(draw, results))


if __name__ == "__main__":
    main()
