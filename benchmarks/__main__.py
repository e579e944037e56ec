"""The command line: `python -m benchmarks` runs what is not finished yet, and writes the tables and the chart."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from fnmatch import fnmatch
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.chart import draw
from benchmarks.report import detail_lines, detail_table, summary_lines, title_of
from benchmarks.run import Result, Settings, finished, run_row, versions
from benchmarks.workload import Row
from benchmarks.workloads import NAMES, all_rows

FOLDER = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the chosen rows, prints each, and writes what is known of all rows."""
    options = _parser().parse_args(arguments)
    settings = Settings(**{field.name: getattr(options, field.name) for field in fields(Settings)})
    # What is asked of this library comes first: whoever has no time for all rows has these.
    rows = sorted((row for row in all_rows() if _chosen(row, options)), key=lambda row: not row.bars)
    console, kept = Console(width=None if sys.stdout.isatty() else 180), options.out / "rows"
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    stop = monotonic() + 60 * options.minutes
    try:
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("rows", total=len(rows))
            for row in rows:
                progress.update(bar, description=row.name)
                result = None if options.fresh else finished(kept, row)
                if result is None and monotonic() < stop:
                    result = run_row(kept, row, settings, lambda line: progress.console.print(line, markup=False))
                if result is not None and len(rows) < 10:
                    progress.console.print(detail_table(result))
                progress.advance(bar)
    finally:
        write(options.out)
    console.print(f"Tables: {options.out / 'results.md'}")


def write(folder: Path) -> None:
    """Writes JSON, Markdown and the chart of all rows that are finished."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [(row, finished(folder / "rows", row)) for row in all_rows()]
    rows = [row for row, result in pairs if result is not None]
    results = [result for _, result in pairs if result is not None]
    lines = ["# Results", "", *_about(), "", *summary_lines(rows, results), ""]
    workload = None
    for result in results:
        if result.workload != workload:
            workload = result.workload
            lines += [f"## {workload}", "", f"{title_of(result)[0].upper()}{title_of(result)[1:]}.", ""]
        lines += detail_lines(result)
    (folder / "results.md").write_text("\n".join(lines))
    (folder / "results.json").write_text(json.dumps([_brief(result) for result in results], indent=1) + "\n")
    if results:
        draw(results, folder / "ratios.png")


def _about() -> list[str]:
    found = ", ".join(f"{name} {number}" for name, number in versions().items())
    return [
        "Written by `make bench`. Times in ms, median (minimum) of interleaved rounds; compile in ms. A ratio is the",
        "peer's time, forward and backward, to ours in the same process: above 1, ours is faster. Errors are relative:",
        "the largest of an item's solution; of gradients the median over items and parameters, and the largest. Above",
        "5e-3 a contender is marked, and does not count.",
        "",
        f"Versions: {found}.",
    ]


def _brief(result: Result) -> dict[str, Any]:
    scores = []
    for score in result.scores:
        brief = {**asdict(score)}
        for name in ("forward", "step"):
            seconds = brief.pop(name)
            if seconds:
                brief[name] = {"median": median(seconds), "minimum": min(seconds), "rounds": len(seconds)}
        scores.append(brief)
    return {"row": result.row, "scores": scores}


def _chosen(row: Row, options: argparse.Namespace) -> bool:
    named = not options.workload or row.workload in options.workload
    sized = options.batch is None or row.batch == options.batch
    return named and sized and any(fnmatch(row.name, pattern) for pattern in options.row or ["*"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--workload", action="append", choices=NAMES, help="only this one; may be repeated")
    parser.add_argument("--batch", type=int, help="only rows of this batch size")
    parser.add_argument("--row", action="append", help="only rows of this name, * for anything; may be repeated")
    parser.add_argument("--fresh", action="store_true", help="run finished rows again")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no further row is started")
    parser.add_argument("--memory", action="store_true", help="measure memory in every row")
    for field in fields(Settings):
        if field.name != "memory":
            parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    parser.add_argument("--out", type=Path, default=FOLDER, help="where results are kept")
    return parser


if __name__ == "__main__":
    main()
