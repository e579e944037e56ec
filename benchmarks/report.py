"""Results as tables, in Markdown and on the screen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.table import Table

from benchmarks.contest import Score
from benchmarks.run import Result
from benchmarks.workload import Bar, Row
from benchmarks.workloads import load

HEADINGS = ("", "compile", "forward", "forward + backward", "times ours", "error of x", "error of gradients", "memory")


@dataclass(frozen=True)
class Standing:
    """How this library stands in a row.

    Attributes:
        ours: its median seconds, forward and backward.
        peer: the best accurate peer; None where there is none.
        ratio: that peer's seconds to ours, in the process in which both ran.
    """

    ours: float
    peer: Score | None
    ratio: float


def ratio(score: Score) -> float:
    """Returns a contender's seconds to ours, forward and backward."""
    return math.nan if score.failure or not score.rival else score.median_step / score.rival


def ours_of(result: Result) -> Score:
    """Returns this library's score."""
    return next(score for score in result.scores if score.kind == "ours")


def standing(result: Result, against: str = "") -> Standing:
    """Returns how this library stands against the best accurate peer, or the best contender of a name."""
    rivals = [score for score in result.scores if score.accurate and score.name != ours_of(result).name]
    rivals = [s for s in rivals if (s.name.startswith(against) if against else s.kind == "peer")]
    best = min(rivals, key=ratio, default=None)
    return Standing(ours_of(result).median_step, best, math.nan if best is None else ratio(best))


def summary_lines(rows: Sequence[Row], results: Sequence[Result]) -> list[str]:
    """Returns the Markdown table of ratios: a line for each bar of a row, or one for a row that has none."""
    lines = [
        "| row | ours, ms | against | ratio | must | wanted |",
        "|---|---|---|---|---|---|",
    ]
    for row, result in zip(rows, results, strict=True):
        for bar in row.bars or [None]:
            lines.append(_summary_line(row, result, bar))
    return lines


def _summary_line(row: Row, result: Result, bar: Bar | None) -> str:
    found = standing(result, "" if bar is None else bar.against)
    peer = "none is accurate" if found.peer is None else found.peer.name
    marks = ("", "") if bar is None else (f"{bar.must:g}", f"{bar.want:g}")
    if bar is not None and found.ratio < bar.must:
        marks = (f"{bar.must:g}, missed", marks[1])
    shown = "" if math.isnan(found.ratio) else f"{found.ratio:.2f}"
    return f"| {row.name} | {1e3 * found.ours:.2f} | {peer} | {shown} | {marks[0]} | {marks[1]} |"


def detail_lines(result: Result) -> list[str]:
    """Returns the Markdown table of a row, all contenders, fastest first."""
    lines = [f"### {result.row}", "", "| " + " | ".join(HEADINGS) + " |", "|---" + "|---:" * (len(HEADINGS) - 1) + "|"]
    return [*lines, *("| " + " | ".join(cells) + " |" for cells in _cells(result)), ""]


def title_of(result: Result) -> str:
    """Returns what the row's workload is."""
    return load(result.workload).title


def detail_table(result: Result) -> Table:
    """Returns the same for the screen."""
    table = Table(title=f"{result.row}: {title_of(result)}", caption="ms, median (minimum)")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for cells in _cells(result):
        table.add_row(*cells)
    return table


def _cells(result: Result) -> list[tuple[str, ...]]:
    took_part = sorted((score for score in result.scores if not score.failure), key=lambda score: score.median_step)
    return [_cells_of(score) for score in took_part] + [
        (score.name, score.failure.replace("|", "/"), *[""] * (len(HEADINGS) - 2))
        for score in result.scores
        if score.failure
    ]


def _cells_of(score: Score) -> tuple[str, ...]:
    name = score.name if score.kind != "by hand" else f"{score.name} (by hand)"
    if not score.accurate:
        name += " (not accurate)"
    return (
        name,
        f"{1e3 * score.compile:.0f}",
        _times(score.forward),
        _times(score.step),
        f"{ratio(score):.2f}",
        f"{score.solution_error:.0e}",
        f"{score.median_gradient_error:.0e}, at most {score.gradient_error:.0e}",
        _memory(score),
    )


def _memory(score: Score) -> str:
    if score.memory is None or score.building is None:
        return ""
    return f"{score.memory / 2**20:.1f} MB ({score.building / 2**20:.0f})"


def _times(seconds: Sequence[float]) -> str:
    return f"{1e3 * median(seconds):.3g} ({1e3 * min(seconds):.3g})"
