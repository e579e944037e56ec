"""Experiments and their command line: what every package of examples shares.

A package lists its experiments and hands them to `main`; `python -m examples.PACKAGE list` shows them, and
`python -m examples.PACKAGE NAME` runs one. An experiment's settings are a dataclass, whose fields are its options.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

Size = Literal["ci", "full"]
Metric = float | Sequence[float]
Settings = TypeVar("Settings")
Step = TypeVar("Step")

SIZES: tuple[Size, ...] = ("ci", "full")


@dataclass(frozen=True)
class Outcome:
    """What a run found: numbers by name, lines for the reader, and what to draw (None: nothing worth a picture)."""

    metrics: Mapping[str, Any]  # each a Metric
    notes: Sequence[str] = ()
    draw: Callable[[Any], None] | None = None  # of a matplotlib Figure


@dataclass(frozen=True)
class Context:
    """The surroundings of a run: its seed, its progress bars, and the file its training resumes from."""

    seed: int = 0
    console: Console = field(default_factory=lambda: Console(quiet=True))
    checkpoint: Path | None = None

    def track(self, steps: Iterable[Step], label: str, total: float | None = None) -> Iterable[Step]:
        """Yields the steps under a progress bar, on standard error."""
        quiet = self.console.quiet
        return track(steps, label, total, console=Console(stderr=True, quiet=quiet), disable=quiet, transient=True)

    def resume(self) -> dict[str, Any] | None:
        """Returns the state last kept, tensors and plain values; None where there is none."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return None
        return torch.load(self.checkpoint, weights_only=True)

    def keep(self, state: Mapping[str, Any]) -> None:
        """Writes the state to resume from; a run without a checkpoint file keeps nothing."""
        if self.checkpoint is None:
            return
        unfinished = self.checkpoint.with_suffix(".part")
        torch.save(dict(state), unfinished)
        unfinished.replace(self.checkpoint)


@dataclass(frozen=True)
class Experiment(Generic[Settings]):
    """One experiment: its settings at both sizes, how it runs, and the numbers others have found for its metrics."""

    name: str
    summary: str
    run: Callable[[Settings, Context], Outcome]
    sizes: Mapping[Size, Settings]
    reference: Mapping[str, Metric] = field(default_factory=dict)

    def settings(self, size: Size, changes: Mapping[str, Any] | None = None) -> Settings:
        """Returns the settings of a size, some of them changed."""
        settings: Any = self.sizes[size]
        return dataclasses.replace(settings, **(changes or {}))


def main(package: str, experiments: Sequence[Experiment[Any]], arguments: Sequence[str] | None = None) -> None:
    """Runs one experiment of a package, or lists them all.

    Args:
        package: the package's name, as in `python -m examples.PACKAGE`.
        experiments: its experiments.
        arguments: the command line; None is the process's own.
    """
    options = vars(_parser(package, experiments).parse_args(arguments))
    console = Console()
    name = options.pop("name")
    if name == "list":
        console.print(_listing(package, experiments))
        return
    experiment = next(known for known in experiments if known.name == name)
    size, seed, plot, target, checkpoint = (options.pop(key) for key in ("size", "seed", "plot", "json", "checkpoint"))
    settings = experiment.settings(size, {key: value for key, value in options.items() if value is not None})
    begin = time.perf_counter()
    outcome = experiment.run(settings, Context(seed, console, checkpoint))
    seconds = time.perf_counter() - begin
    console.print(_results(experiment, outcome))
    for note in outcome.notes:
        console.print(note)
    console.print(f"{seconds:.1f} s, size {size}, seed {seed}")
    if plot is not None:
        _save_plot(plot, outcome)
        console.print(f"plot: {plot}")
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(record(experiment, size, seed, seconds, outcome), indent=2) + "\n")
        console.print(f"numbers: {target}")


def record(experiment: Experiment[Any], size: Size, seed: int, seconds: float, outcome: Outcome) -> dict[str, Any]:
    """Returns what the JSON file of a run holds: the same keys at both sizes."""
    return {
        "experiment": experiment.name,
        "size": size,
        "seed": seed,
        "seconds": seconds,
        "metrics": {name: _plain(value) for name, value in outcome.metrics.items()},
        "reference": {name: _plain(value) for name, value in experiment.reference.items()},
    }


def _parser(package: str, experiments: Sequence[Experiment[Any]]) -> argparse.ArgumentParser:
    shown = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(prog=f"python -m examples.{package}", formatter_class=shown)
    commands = parser.add_subparsers(dest="name", metavar="NAME", required=True)
    commands.add_parser("list", help="every experiment with its reference numbers")
    for experiment in experiments:
        escaped = experiment.summary.replace("%", "%%")  # argparse fills in help, not descriptions
        command = commands.add_parser(
            experiment.name, help=escaped, description=experiment.summary, formatter_class=shown
        )
        command.add_argument("--size", choices=SIZES, default="ci", help="ci: seconds; full: the published sizes")
        command.add_argument("--seed", type=int, default=0, help="seed of everything random")
        command.add_argument("--plot", type=Path, metavar="FILE", help="picture to write")
        command.add_argument("--json", type=Path, metavar="FILE", help="numbers to write")
        command.add_argument("--checkpoint", type=Path, metavar="FILE", help="file the training resumes from")
        _add_settings(command, experiment)
    return parser


def _add_settings(command: argparse.ArgumentParser, experiment: Experiment[Any]) -> None:
    """Adds an option for each field of the settings; left out, it has the value that belongs to the size."""
    small, full = (dataclasses.asdict(experiment.sizes[size]) for size in SIZES)
    for name, value in full.items():
        values = f"{value}" if small[name] == value else f"{small[name]}, full: {value}"
        command.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(value),
            default=argparse.SUPPRESS,
            help=f"a setting of this experiment (default: {values})",
        )


def _listing(package: str, experiments: Sequence[Experiment[Any]]) -> Table:
    table = Table(title=f"python -m examples.{package} NAME")
    for title in ("name", "what it does", "reference numbers"):
        table.add_column(title)
    for experiment in experiments:
        numbers = "\n".join(f"{name} {_shown(value)}" for name, value in experiment.reference.items())
        table.add_row(experiment.name, experiment.summary, numbers)
    return table


def _results(experiment: Experiment[Any], outcome: Outcome) -> Table:
    table = Table(title=experiment.summary)
    table.add_column("metric")
    table.add_column("here", justify="right")
    table.add_column("reference", justify="right")
    for name, value in outcome.metrics.items():
        known = experiment.reference.get(name)
        table.add_row(name, _shown(value), "" if known is None else _shown(known))
    return table


def _save_plot(path: Path, outcome: Outcome) -> None:
    if outcome.draw is None:
        raise SystemExit("this experiment draws no picture: leave out --plot")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    outcome.draw(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _plain(value: Metric) -> float | list[float]:
    return [float(item) for item in value] if isinstance(value, Sequence) else float(value)


def _shown(value: Metric) -> str:
    plain = _plain(value)
    return ", ".join(f"{item:.4g}" for item in plain) if isinstance(plain, list) else f"{plain:.4g}"
