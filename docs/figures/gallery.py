"""The pictures of the gallery: each experiment run at a size that takes minutes, and the picture that it draws.

    python -m docs.figures.gallery              # all of them
    python -m docs.figures.gallery swing-up     # some

Pictures are kept in docs/gallery, so that building the site runs no experiment.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
GALLERY = ROOT / "docs" / "gallery"


@dataclass(frozen=True)
class Run:
    """An experiment of a package of examples, with the options that give it the size for the documentation."""

    package: str
    experiment: str
    options: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """What a person would type, after `python`."""
        return ["-m", f"examples.{self.package}", self.experiment, *self.options]

    def draw(self) -> Path:
        """Runs it, and returns the picture."""
        picture = GALLERY / f"{self.experiment}.png"
        subprocess.run([sys.executable, *self.command, "--plot", str(picture)], cwd=ROOT, check=True)
        return picture


FULL = ("--size", "full")
RUNS = (
    Run("control", "cocp-box", ("--epochs", "30")),
    Run("control", "cocp-vehicle"),
    Run("control", "climate"),
    Run("control", "swing-up"),
    Run("control", "imitation-pendulum"),
    Run("decision", "spo-shortest-path"),
    Run("decision", "newsvendor"),
    Run("decision", "max-margin", FULL),
    Run("decision", "portfolio", FULL),
    Run("decision", "scheduling", FULL),
    Run("decision", "matching", FULL),
    Run("layers", "sudoku"),
    Run("layers", "tv-operator", FULL),
    Run("layers", "lista", FULL),
    Run("metric_learning", "cubic", FULL),
    Run("metric_learning", "returns", FULL),
    Run("metric_learning", "regression", FULL),
    Run("relaxation", "polynomial"),
    Run("relaxation", "rotations"),
    Run("estimation", "curve-fit"),
    Run("estimation", "pose-graph"),
    Run("physics", "chain"),
    Run("physics", "slide"),
    Run("smoothing", "paths"),
    Run("scale", "sweep", FULL),
)


def draw_demo() -> Path:
    """Runs the elastic net on four divisions of its data, and returns its picture."""
    command = [sys.executable, "-m", "examples.elastic_net", "--splits", "4", "--out", str(GALLERY)]
    subprocess.run(command, cwd=ROOT, check=True)
    return (GALLERY / "elastic_net.png").rename(GALLERY / "elastic-net.png")


def main() -> None:
    """Draws the pictures named, or all."""
    parser = argparse.ArgumentParser(description="Draw the pictures of the gallery.")
    parser.add_argument("experiments", nargs="*", help="their names; by default all")
    wanted = parser.parse_args().experiments
    for run in RUNS:
        if not wanted or run.experiment in wanted:
            print(run.draw().relative_to(ROOT))
    if not wanted or "elastic-net" in wanted:
        print(draw_demo().relative_to(ROOT))


if __name__ == "__main__":
    main()
