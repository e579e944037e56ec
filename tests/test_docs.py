"""The site: its code runs and prints what is shown, its reference lists what is public, its pictures are described."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cvxlayers import errors
from cvxlayers.base import BaseLayer
from docs.pages import blocks, pages, run
from tests.test_messages import messages, words

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TEXTS = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
REFERENCE = {
    "numpy": "cvxlayers",
    "torch": "cvxlayers.torch",
    "jax": "cvxlayers.jax",
    "tensorflow": "cvxlayers.tensorflow",
    "sqp": "cvxlayers.sqp",
    "errors": "cvxlayers.errors",
    "testing": "cvxlayers.testing",
}
# Public names that are no class or function.
PLAIN = {"__version__", "errors"}
# What rests on a method of others names its source.
RESTING = {"CvxpyLayer", "MPC", "SQP", "solve_conic", "solve_qp"}
# How many words of a message, from its first constant part, name it.
HEAD = 4


def name_of(path):
    return str(path.relative_to(DOCS))


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in pages() if path.suffix == ".ipynb"], ids=name_of)
def test_tutorials_run(path):
    """In a process of their own: they train for long where every call has its types checked."""
    pytest.importorskip("torch")
    source = "import sys, pathlib, docs.pages; docs.pages.run(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", source, str(path)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "MPLBACKEND": "agg"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in pages() if path.suffix == ".md"], ids=name_of)
def test_pages_run_and_print_what_they_show(path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    for package in ("torch", "jax", "tensorflow"):
        if any(package in block.source for block in blocks(path)):
            pytest.importorskip(package)
    printed = run(path)
    assert printed == [block.shown for block in blocks(path)], f"python -m docs.pages {path} writes it anew"


@pytest.mark.parametrize("page", REFERENCE)
def test_the_reference_lists_what_is_public(page):
    module = pytest.importorskip(REFERENCE[page])
    text = (DOCS / "api" / f"{page}.md").read_text().split("## What results hold")[0]
    listed = re.findall(r"^\.\. auto\w+:: ([\w.]+)$", text, re.MULTILINE)
    assert sorted(listed) == sorted(f"{module.__name__}.{name}" for name in set(module.__all__) - PLAIN)


def public():
    """Every public class and function, by its full name."""
    for module in REFERENCE.values():
        try:
            found = importlib.import_module(module)
        except ImportError:
            continue
        for name in sorted(set(found.__all__) - PLAIN):
            yield f"{module}.{name}", getattr(found, name)


def sections(docstring):
    return set(re.findall(r"^(Args|Attributes|Raises|Returns|References):$", docstring, re.MULTILINE))


@pytest.mark.parametrize(("name", "thing"), [pytest.param(*pair, id=pair[0]) for pair in public()])
def test_public_names_say_what_they_take_raise_and_rest_on(name, thing):
    text = inspect.getdoc(thing) or ""
    assert text, f"{name} has no docstring"
    if inspect.isclass(thing) and issubclass(thing, BaseLayer):
        text += inspect.getdoc(thing.__init__) or ""  # how a layer is made is the same in all frameworks
    if inspect.isclass(thing) and "Args" not in sections(text):
        return  # what holds data, or is raised, is described by its attributes
    wanted = {"Args", "Raises"} | ({"References"} if name.split(".")[-1] in RESTING else set())
    assert wanted <= sections(text), f"{name} has only {sections(text)}"
    parameters = inspect.signature(thing).parameters.values()
    missing = [p.name for p in parameters if not re.search(rf"\b{p.name}\b.*:", text) and p.name != "self"]
    assert not missing, f"{name} says nothing of {missing}"


def test_troubleshooting_covers_every_message():
    said = " ".join(words((DOCS / "troubleshooting.md").read_text()))
    missing = []
    for where, parts in messages():
        candidates = [words(part) for part in parts if len(words(part)) >= 3]
        if not any(" ".join(found[:HEAD]) in said for found in candidates):
            missing.append(f"{where}: {parts}")
    assert not missing, "\n".join(missing)


def test_troubleshooting_names_every_exception():
    text = (DOCS / "troubleshooting.md").read_text()
    assert all(f"`{name}`" in text for name in errors.__all__)


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_pictures_are_described(path):
    text = path.read_text()
    assert not re.search(r"!\[\]\(", text), "an image without a text for those who cannot see it"
    for body in re.findall(r"^[`:]{3,}\{(?:picture|image|figure)\}.*?^[`:]{3,}", text, re.MULTILINE | re.DOTALL):
        assert re.search(r"^:alt: \S.{20,}", body, re.MULTILINE), body
    for target in re.findall(r"^```\{picture\} (\S+)$", text, re.MULTILINE):
        assert all((DOCS / "figures" / f"{target}.{colours}.svg").exists() for colours in ("light", "dark"))
