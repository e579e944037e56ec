"""What a row of the catalogue is: a problem, how its parameters are drawn, and who can solve it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cvxpy as cp
import numpy as np

Batch = tuple[int, ...]
Draw = Callable[[np.random.Generator, Batch, tuple[int, ...]], np.ndarray]
Built = tuple[cp.Problem, Sequence[cp.Parameter], Sequence[cp.Variable]]

# The relative error of gradients that the default settings must reach, by the hardest cone of a problem.
TOLERANCE = {"LP": 1e-6, "QP": 1e-6, "SOC": 1e-6, "PSD": 1e-6, "EXP": 1e-5, "POWER": 1e-5}


def normal(scale: float = 1.0, mean: object = 0.0) -> Draw:
    """Independent normal entries."""
    return lambda rng, batch, shape: np.asarray(mean) + scale * rng.normal(size=batch + shape)


def uniform(low: float, high: float) -> Draw:
    """Independent uniform entries."""
    return lambda rng, batch, shape: rng.uniform(low, high, size=batch + shape)


def definite(scale: float = 1.0, shift: float = 0.5) -> Draw:
    """Positive definite matrices (negative definite for a negative scale)."""

    def draw(rng: np.random.Generator, batch: Batch, shape: tuple[int, ...]) -> np.ndarray:
        factor = rng.normal(size=batch + shape)
        return scale * (factor @ factor.swapaxes(-1, -2) / shape[-1] + shift * np.eye(shape[-1]))

    return draw


def symmetric(scale: float = 1.0) -> Draw:
    """Symmetric matrices."""

    def draw(rng: np.random.Generator, batch: Batch, shape: tuple[int, ...]) -> np.ndarray:
        factor = rng.normal(size=batch + shape)
        return 0.5 * scale * (factor + factor.swapaxes(-1, -2))

    return draw


def default_draw(parameter: cp.Parameter) -> Draw:
    """Draws values, of order one, that the attributes of the parameter allow."""
    attributes = parameter.attributes
    if attributes["PSD"] or attributes["NSD"]:
        return definite(1.0 if attributes["PSD"] else -1.0)
    if attributes["symmetric"]:
        return symmetric()
    if attributes["nonneg"] or attributes["pos"]:
        return uniform(0.5, 1.5)
    if attributes["nonpos"] or attributes["neg"]:
        return uniform(-1.5, -0.5)
    return normal()


def support(parameter: cp.Parameter) -> np.ndarray:
    """Which entries of the parameter may differ from zero."""
    if parameter.attributes["diag"]:
        return np.eye(parameter.shape[0], dtype=bool)
    mask = np.ones(parameter.shape, dtype=bool)
    if parameter.attributes["sparsity"]:
        mask[...] = False
        mask[parameter.sparse_idx] = True
    return mask


@dataclass(frozen=True)
class Case:
    """A problem of the catalogue, whose solution is unique and strictly complementary at the values drawn.

    Attributes:
        name: what is special about it.
        kind: the hardest cone: LP, QP, SOC, PSD, EXP or POWER.
        build: makes the problem anew; returns it with its parameters and variables, in the order of the layer.
        solvers: the names of the solvers that take it, with default settings.
        draws: how to draw the parameters, by name, where the default for their attributes will not do.
        gp: whether it is a geometric program.
    """

    name: str
    kind: str
    build: Callable[[], Built]
    solvers: tuple[str, ...]
    draws: dict[str, Draw] = field(default_factory=dict)
    gp: bool = False

    @property
    def tolerance(self) -> float:
        """The relative error of gradients that the default settings must reach."""
        return TOLERANCE[self.kind]

    def sample(self, rng: np.random.Generator, batch: Batch = ()) -> list[np.ndarray]:
        """Draws one value per parameter, of shape (*batch, *parameter.shape)."""
        values = []
        for parameter in self.build()[1]:
            draw = self.draws.get(parameter.name(), default_draw(parameter))
            values.append(np.asarray(draw(rng, batch, parameter.shape)) * support(parameter))
        return values

    def __str__(self) -> str:
        return self.name


_POLYHEDRAL = ("PIQP", "CLARABEL", "SCS")
_SYMMETRIC = ("CONTINUATION", "CLARABEL", "SCS")
_CONIC = ("CLARABEL", "SCS")
_USUAL = {"LP": _POLYHEDRAL, "QP": _POLYHEDRAL, "SOC": _SYMMETRIC, "PSD": _SYMMETRIC}


@dataclass(frozen=True)
class Rows:
    """The rows of one file of the catalogue, collected by a decorator."""

    kind: str
    cases: list[Case] = field(default_factory=list)

    def row(self, *more: str, gp: bool = False, **draws: Draw) -> Callable[[Callable[[], Built]], Callable[[], Built]]:
        """Adds the decorated function as a row; `more` names the solvers that take it besides those of its kind."""
        usual = _USUAL.get(self.kind, _CONIC)

        def add(build: Callable[[], Built]) -> Callable[[], Built]:
            self.cases.append(Case(build.__name__, self.kind, build, (*more, *usual), draws, gp))
            return build

        return add
