"""`check`: compiles a problem, solves it, and compares its gradients with finite differences."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from cvxlayers.cli import screen
from cvxlayers.cli.sample import Numbers, random_directions, sample
from cvxlayers.derivative import DerivativeInfo
from cvxlayers.errors import CvxlayersWarning
from cvxlayers.neutral import CvxpyLayer
from cvxlayers.program import Status

Array = Float[np.ndarray, "..."]

# Relative step of the differences, and the relative error up to which a derivative agrees with them; derivatives below
# the last part of what they are derivatives of count as zero.
_STEP, _AGREES, _NOTHING = 1e-4, 1e-4, 1e-3


def check(layer: CvxpyLayer, parameters: Sequence[Any], seed: int) -> int:
    """Writes what was found, and returns the exit code: 0 where all is well, 1 where something is not."""
    rng = np.random.default_rng(seed)
    values = sample(layer.layer.compiled.parameters, [parameter.value for parameter in parameters], rng)
    drawn = [parameter.name() for parameter in parameters if parameter.value is None]
    screen.line(layer.describe())
    if drawn:
        screen.line(f"\n{', '.join(drawn)} without a value: drawn at random, seed {seed}", "doubtful")
    return _differentiated(layer, values, rng) if _solved(layer, values) else 1


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


def _differentiated(layer: CvxpyLayer, values: list[Numbers], rng: np.random.Generator) -> int:
    """Compares the derivatives of a random function of the outputs, along a random direction for each parameter."""
    weights = [rng.normal(size=output.shape) for output in layer(*values)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CvxlayersWarning)
        gradients, info = layer.vjp(values, weights)
        pairs = list(_pairs(layer, values, weights, gradients, rng))
    smallest = _NOTHING * float(np.sqrt(sum(np.sum(weight**2) for weight in weights)))
    errors = [abs(got - want) / max(abs(want), smallest) for got, want in pairs]
    cells = [(f"{got:.6g}", f"{want:.6g}", f"{error:.1e}") for (got, want), error in zip(pairs, errors, strict=True)]
    names = layer.layer.compiled.parameters.names
    screen.line("")
    screen.table(
        ("parameter", "derivative", "difference", "error"),
        [(name, *row) for name, row in zip(names, cells, strict=True)],
    )
    for warning in dict.fromkeys(str(entry.message) for entry in caught):
        screen.line(warning, "doubtful")
    return _verdict(max(errors, default=0.0), info)


def _pairs(
    layer: CvxpyLayer,
    values: list[Numbers],
    weights: Sequence[Array],
    gradients: Sequence[Numbers],
    rng: np.random.Generator,
) -> Iterator[tuple[float, float]]:
    """Yields the derivative and the central difference along one direction of each parameter."""
    directions = random_directions(layer.layer.compiled.parameters, rng)
    for index, (gradient, along) in enumerate(zip(gradients, directions, strict=True)):
        step = _STEP * max(1.0, float(np.abs(values[index]).max(initial=0.0)))
        ends = []
        for sign in (1.0, -1.0):
            outputs = layer(*values[:index], values[index] + sign * step * along, *values[index + 1 :])
            ends.append(sum(_inner(weight, output) for weight, output in zip(weights, outputs, strict=True)))
        yield _inner(gradient, along), (ends[0] - ends[1]) / (2 * step)


def _inner(left: Numbers, right: Numbers) -> float:
    """The inner product of arrays, as real numbers where they are complex."""
    return float(np.sum(left.real * right.real + left.imag * right.imag))


def _verdict(error: float, info: DerivativeInfo) -> int:
    if info.degenerate:
        screen.line(
            "degenerate: the solution is not unique, or active constraints are dependent; the derivative is the "
            "least-squares one of smallest norm",
            "doubtful",
        )
    if info.weakly_active:
        screen.line("a constraint is only just active: the solution has a kink here, and no derivative", "doubtful")
    if error <= _AGREES:
        screen.line("the derivatives agree with finite differences", "good")
        return 0
    screen.line(f"the derivatives differ from finite differences, by {error:.1e}", "bad")
    return 1
