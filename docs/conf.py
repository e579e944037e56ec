"""How the site is built: `make docs`. Nothing it shows is fetched from anywhere."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

import cvxlayers  # noqa: E402

project = "cvxlayers"
author = copyright = "the cvxlayers authors"
version = release = cvxlayers.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_nb",
    "sphinx_design",
    "sphinx_copybutton",
    "docstrings",
    "mathml",
    "pictures",
]
default_role = "code"
smartquotes = False  # quotes are part of what is typed
exclude_patterns = ["_build", "_ext", "figures", "**.ipynb_checkpoints"]

# Markdown and notebooks
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_block", "attrs_inline"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_in_temp = True  # what a tutorial saves is not left beside it
nb_merge_streams = True
nb_ipywidgets_js = {}  # no widgets are shown, so none of their scripts is loaded
suppress_warnings = ["mystnb.unknown_mime_type"]

# The reference
autodoc_member_order = "bysource"
autoclass_content = "both"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
add_module_names = False

# Looks
html_theme = "furo"
html_title = "cvxlayers"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#1f5fa8",
        "color-brand-content": "#1f5fa8",
    },
    "dark_css_variables": {
        "color-brand-primary": "#7fb3ee",
        "color-brand-content": "#7fb3ee",
    },
}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
