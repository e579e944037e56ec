"""The Python of the site's pages: what readers type, and what they then see.

A page is a Markdown file or a notebook. Its Python blocks are run in order, in one namespace. Where a block prints, a
block of text follows and shows it; `python -m docs.pages` writes these blocks anew.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

HERE = Path(__file__).parent
_BLOCK = re.compile(r"^```python\n(?P<source>.*?)^```$(\n\n^```text\n(?P<shown>.*?)^```$)?", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of Python: its first line, its source, and what the page shows of what it prints."""

    line: int
    source: str
    shown: str

    def code(self, path: Path) -> CodeType:
        """Code whose tracebacks name the lines of the page."""
        return compile("\n" * (self.line - 1) + self.source, str(path), "exec")


def pages() -> list[Path]:
    """All pages with Python in them."""
    found = [path for kind in ("*.md", "*.ipynb") for path in HERE.rglob(kind) if "_build" not in path.parts]
    return sorted(path for path in found if any(blocks(path)))


def blocks(path: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text())["cells"]
        yield from (Block(1, "".join(cell["source"]), "") for cell in cells if cell["cell_type"] == "code")
        return
    text = path.read_text()
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("source")) + 1
        yield Block(line, match["source"], match["shown"] or "")


def run(path: Path) -> list[str]:
    """Runs a page as a reader would, in an empty folder, and returns what each block printed."""
    module, printed = ModuleType("page"), []
    sys.modules["page"] = module  # where classes that the page defines look for their names
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for block in blocks(path):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(block.code(path), vars(module))
            printed.append("".join(line.rstrip() + "\n" for line in out.getvalue().rstrip().splitlines()))
    return printed


def refresh(path: Path) -> None:
    """Writes what the blocks print into a page."""
    printed = iter(run(path))

    def shown(match: re.Match[str]) -> str:
        text = next(printed)
        return f"```python\n{match['source']}```" + (f"\n\n```text\n{text}```" if text else "")

    path.write_text(_BLOCK.sub(shown, path.read_text()))


def main() -> None:
    """Refreshes the pages named, or all."""
    parser = argparse.ArgumentParser(description="Run the pages, and write what they print into them.")
    parser.add_argument("pages", nargs="*", type=Path)
    os.environ.setdefault("MPLBACKEND", "agg")
    for path in [given.resolve() for given in parser.parse_args().pages] or pages():
        if path.suffix == ".md":
            refresh(path)


if __name__ == "__main__":
    main()
