"""Docstrings as they are written, read by Sphinx: stars and bars are letters, indented paragraphs are code."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sphinx.application import Sphinx

_SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields|References):$")


def escaped(line: str) -> str:
    """Escapes what would be markup outside backticks."""
    parts = re.split(r"(`[^`]*`)", line)
    plain = (part if part.startswith("`") else re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts)
    return re.sub(r"(`[^`]*`)(?=\w)", r"\1\\ ", "".join(plain))


def rewritten(lines: list[str]) -> Iterator[str]:
    """Marks indented paragraphs of the description as literal, and escapes all others."""
    literal = section = False
    for previous, line in zip(["", *lines], lines, strict=False):
        section = section or bool(_SECTION.match(line))
        indented = line.startswith("    ") and not section
        if indented and not literal and not previous.strip():
            literal = True
            yield from ("::", "")
        elif line.strip() and not indented:
            literal = False
        yield line if literal else escaped(line)


def process(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Rewrites the lines of one docstring in place, before the sections are read."""
    lines[:] = rewritten(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects to autodoc, ahead of napoleon."""
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
