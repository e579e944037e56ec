"""Finds the problem that is meant by FILE.py:NAME."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

from cvxlayers.errors import OptionError, did_you_mean


def load_problem(target: str) -> Any:
    """Runs a file and returns what NAME is there, or what it returns if it is a function; NAME is `problem` by default.

    Raises:
        OptionError: if there is no such file or name, or it is no problem.
    """
    place, _, name = target.rpartition(":") if ":" in Path(target).name else (target, "", "")
    path, name = Path(place), name or "problem"
    if not path.is_file():
        raise OptionError(f"there is no file {path}; a problem is named as FILE.py:NAME")
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        names = runpy.run_path(str(path))
    finally:
        sys.path.pop(0)
    if name not in names:
        raise OptionError(f"{path} has no {name!r}{did_you_mean(name, list(names))}")
    found = names[name]() if callable(names[name]) else names[name]
    if not hasattr(found, "parameters") or not hasattr(found, "variables"):
        raise OptionError(f"{name!r} in {path} is not a cvxpy.Problem, nor a function that returns one: {found!r}")
    return found
