"""Results as a table for people and as JSON for later comparison."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.contest import Score

_PACKAGES = ("cvxlayers", "cvxpy", "cvxpylayers", "moreau", "daqp", "piqp", "clarabel", "numpy", "scipy", "torch")


def print_scores(title: str, scores: Sequence[Score]) -> None:
    """Prints one line per contender. Ratios are to the first one, of medians and of minima."""
    table = Table(title=title, caption=f"{len(scores[0].step)} interleaved rounds; times in ms, median (minimum)")
    for heading in ("", "forward", "forward + backward", "times the first", "error of x", "error of gradients"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    first = scores[0]
    for score in scores:
        ratio = f"{score.median_step / first.median_step:.2f} ({min(score.step) / min(first.step):.2f})"
        gradient_error = f"{score.gradient_error:.0e}, median {score.median_gradient_error:.0e}"
        errors = (f"{score.solution_error:.0e}", gradient_error)
        table.add_row(score.name, _times(score.forward), _times(score.step), ratio, *errors)
    Console(width=max(120, Console().width)).print(table)


def save_scores(folder: Path, workload: str, settings: dict[str, int], scores: Sequence[Score]) -> Path:
    """Writes all times, errors, versions and what the machine is; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    record = {
        "workload": workload,
        "time": now.isoformat(timespec="seconds"),
        "settings": settings,
        "machine": {"processors": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()},
        "versions": {name: found for name in _PACKAGES if (found := _version(name)) is not None},
        "scores": [asdict(score) for score in scores],
    }
    path = folder / f"{workload}-{now:%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def _times(seconds: Sequence[float]) -> str:
    return f"{1e3 * median(seconds):.1f} ({1e3 * min(seconds):.1f})"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
