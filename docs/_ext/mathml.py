"""Mathematics as MathML, written when the site is built: browsers draw it, without scripts and fonts from elsewhere."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

# Parentheses stretch to the height of a matrix only with fonts made for it: here they are borders of the matrix.
_MATRIX = re.compile(r"<mo>&#x00028;</mo><mtable>(.*?)</mtable><mo>&#x00029;</mo>", re.DOTALL)


def markup(formula: str, display: str) -> str:
    """Returns a formula in MathML."""
    return _MATRIX.sub(r'<mtable class="matrix">\1</mtable>', convert(formula, display=display))


def inline(writer: Any, node: nodes.math) -> None:
    """Writes a formula that stands in a line."""
    writer.body.append(markup(node.astext(), "inline"))
    raise nodes.SkipNode


def block(writer: Any, node: nodes.math_block) -> None:
    """Writes a formula that stands on its own; long ones scroll within their block."""
    writer.body.append(writer.starttag(node, "div", CLASS="math"))
    writer.body.append(markup(node.astext(), "block"))
    writer.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Adds the renderer `mathml`."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
