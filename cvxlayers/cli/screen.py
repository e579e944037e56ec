"""Writes to the terminal: through rich where it is installed, else as plain text."""

from __future__ import annotations

from collections.abc import Sequence

_STYLES = {"good": "bold green", "bad": "bold red", "doubtful": "yellow", "title": "bold"}


def line(text: str, style: str = "") -> None:
    """Writes one line, in the style "good", "bad", "doubtful" or "title"."""
    try:
        from rich.console import Console
    except ImportError:
        print(text)
        return
    Console(highlight=False, soft_wrap=True).print(text, style=_STYLES.get(style), markup=False)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Writes rows in aligned columns."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        _plain([columns, *rows])
        return
    drawn = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        drawn.add_row(*(_escaped(cell) for cell in row))
    Console(highlight=False).print(drawn)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _plain(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
