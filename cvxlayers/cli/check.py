"""`check`: compiles a problem, solves it, and compares its gradients with finite differences."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from cvxlayers.cli import screen
from cvxlayers.cli.sample import Numbers, sample
from cvxlayers.derivative import DerivativeInfo
from cvxlayers.errors import CvxlayersWarning
from cvxlayers.gradcheck import GradientCheck, Verdict
from cvxlayers.neutral import CvxpyLayer
from cvxlayers.program import Status


def check(layer: CvxpyLayer, parameters: Sequence[Any], seed: int) -> int:
    """Writes what was found, and returns the exit code: 0 where all is well, 1 where something is not."""
    rng = np.random.default_rng(seed)
    values = sample(layer.layer.compiled.parameters, [parameter.value for parameter in parameters], rng)
    drawn = [parameter.name() for parameter in parameters if parameter.value is None]
    screen.line(layer.describe())
    if drawn:
        screen.line(f"\n{', '.join(drawn)} without a value: drawn at random, seed {seed}", "doubtful")
    return _differentiated(layer, values) if _solved(layer, values) else 1


def _solved(layer: CvxpyLayer, values: Sequence[Numbers]) -> bool:
    result = layer.solve(*values, on_failure="nan")
    status = Status(int(result.status)).name.lower().replace("_", " ")
    if not result.ok:
        screen.line(f"\nnot solved: {status}. Give the parameters values at which there is a solution", "bad")
        return False
    gaps = ", ".join(f"{name} {float(getattr(result.info, name)):.1e}" for name in ("primal", "dual", "gap"))
    screen.line(f"\n{status} by {result.info.solver}: optimal value {float(result.objective):.8g}", "good")
    screen.line(f"relative residuals: {gaps}")
    return True


def _differentiated(layer: CvxpyLayer, values: list[Numbers]) -> int:
    """Compares the derivatives of a random function of the outputs, along random directions for each parameter."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CvxlayersWarning)
        _, info = layer.vjp(values, [np.ones(output.shape) for output in layer(*values)])
        found = layer.gradcheck(*values)
    rows = zip(found.names, found.verdict, found.error, found.difference_error, strict=True)
    screen.line("")
    screen.table(
        ("parameter", "verdict", "error", "error of the difference"),
        [(name, _words(verdict), f"{error:.1e}", f"{noise:.1e}") for name, verdict, error, noise in rows],
    )
    for warning in dict.fromkeys(str(entry.message) for entry in caught):
        screen.line(warning, "doubtful")
    _say_doubts(info)
    return _verdict(found)


def _words(verdict: object) -> str:
    return Verdict(int(str(verdict))).name.lower().replace("_", " ")


def _say_doubts(info: DerivativeInfo) -> None:
    if info.degenerate:
        screen.line(
            "degenerate: the solution is not unique, or active constraints are dependent; the derivative is the "
            "least-squares one of smallest norm",
            "doubtful",
        )
    if info.weakly_active:
        screen.line("a constraint is only just active: the solution has a kink here, and no derivative", "doubtful")


def _verdict(found: GradientCheck) -> int:
    """Says what the comparison proves, and returns the exit code."""
    if not found.ok:
        wrong = [name for name, verdict in zip(found.names, found.verdict, strict=True) if verdict == Verdict.DIFFERS]
        screen.line(f"the derivatives differ from finite differences, in {', '.join(wrong)}", "bad")
        return 1
    if (found.verdict == Verdict.AGREES).all():
        screen.line("the derivatives agree with finite differences", "good")
        return 0
    screen.line("the comparison proves nothing where one of its sides is unreliable", "doubtful")
    return 1
