"""`info`: versions, and which solvers and frameworks are found."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from cvxlayers import __version__
from cvxlayers.cli import screen
from cvxlayers.solvers import SOLVERS

_LIBRARIES, _FRAMEWORKS = ("cvxpy", "numpy", "scipy"), ("torch", "jax", "tensorflow")


def info() -> int:
    """Writes the table, and returns the exit code."""
    screen.table(("what", "version"), list(_rows()))
    return 0


def _rows() -> Iterator[tuple[str, str]]:
    yield "cvxlayers", __version__
    yield "python", platform.python_version()
    for name in (*_LIBRARIES, *_FRAMEWORKS):
        yield name, _version(name)
    for name in SOLVERS:
        yield f"solver {name}", "built in" if name == "DIRECT" else _version(name.lower())


def _version(package: str) -> str:
    # TensorFlow for processors alone is a package of its own.
    for name in (package, f"{package}-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "not installed"
