"""Command line of the example: `python -m examples.elastic_net`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from examples.elastic_net.baseline import search_grid
from examples.elastic_net.data import load_study
from examples.elastic_net.plot import save_plot
from examples.elastic_net.report import print_report
from examples.elastic_net.tune import Settings, tune


def main(arguments: Sequence[str] | None = None) -> None:
    """Tunes an elastic net through the layer and compares it with a grid search."""
    options = _parser().parse_args(arguments)
    console = Console()
    study = load_study(options.splits, options.folds, options.seed, expand=options.features == "expanded")
    baseline = search_grid(study)
    tuned, curves = tune(study, Settings(options.epochs, options.lr, options.shrinkage))
    options.out.mkdir(parents=True, exist_ok=True)
    picture = options.out / "elastic_net.png"
    save_plot(picture, study.features, baseline, tuned, curves)
    print_report(console, baseline, tuned)
    console.print(f"Loss curves, weights and penalties: {picture}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.elastic_net",
        description="Tunes the penalties of an elastic net by gradient descent through the layer that fits it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--epochs", type=_positive, default=15, help="steps of Adam on the validation error")
    parser.add_argument("--lr", type=float, default=0.1, help="step size of Adam, in logarithms of penalties")
    parser.add_argument("--shrinkage", type=float, default=0.1, help="pull of a penalty towards those of its kind")
    parser.add_argument("--splits", type=_positive, default=16, help="random divisions into training and test people")
    parser.add_argument("--folds", type=_several, default=5, help="folds of cross-validation within a training part")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first division")
    parser.add_argument(
        "--features",
        choices=("measured", "expanded"),
        default="expanded",
        help="the 10 measurements, or 64 predictors with their squares and interactions",
    )
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder for the plot")
    return parser


def _positive(text: str) -> int:
    return _at_least(1, text)


def _several(text: str) -> int:
    return _at_least(2, text)


def _at_least(least: int, text: str) -> int:
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, got {number}")
    return number


if __name__ == "__main__":
    main()
