"""The directive `picture`: a drawing in two variants, of which the page shows the one that suits its colours.

    ```{picture} cones
    :alt: What the drawing shows, for those who cannot see it.

    The caption.
    ```

shows `figures/cones.light.svg` or `figures/cones.dark.svg`.
"""

from __future__ import annotations

from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Picture(SphinxDirective):
    """Two images of which one is visible, and a caption."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {"alt": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Returns the figure."""
        if not self.options.get("alt"):
            raise self.error("a picture needs :alt:, a text for those who cannot see it")
        figure = nodes.figure("", classes=["picture"])
        for colours in ("light", "dark"):
            uri = f"/figures/{self.arguments[0]}.{colours}.svg"
            figure += nodes.image("", uri=uri, alt=self.options["alt"], classes=[f"only-{colours}"])
        if self.content:
            caption = nodes.caption()
            self.state.nested_parse(self.content, self.content_offset, caption)
            caption[:] = caption[0].children if isinstance(caption[0], nodes.paragraph) else caption.children
            figure += caption
        return [figure]


def setup(app: Sphinx) -> dict[str, bool]:
    """Adds the directive."""
    app.add_directive("picture", Picture)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
