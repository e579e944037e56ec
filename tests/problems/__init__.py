"""The catalogue: small problems of every cone, every kind of parameter and every kind of variable."""

from __future__ import annotations

from tests.problems import attributes, exponential, linear, power, quadratic, second_order, semidefinite
from tests.problems.case import Case, support

_FILES = (linear, quadratic, attributes, second_order, semidefinite, exponential, power)

CASES: dict[str, Case] = {case.name: case for file in _FILES for case in file.CASES}

__all__ = ["CASES", "Case", "support"]
