"""How a solution is differentiated: the cotangent of z* pulled back to the parameters.

- implicit: the KKT system of the non-linear program, with the Lagrangian's Hessian: exact.
- gauss_newton: the same with the Gauss-Newton Hessian, as by differentiating the last convex approximation (Amos,
  Rodriguez, Sacks, Boots, Kolter 2018): biased where the dropped curvature matters.
- unroll, truncated(k): through all, or the last k, iterations; biased by what the start still matters.
- dlm: differences of two solutions tilted by ±ε times the cotangent (direct loss minimisation): biased by O(ε²).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from cvxlayers.errors import DerivativeWarning
from cvxlayers.program import Status
from cvxlayers.sqp.iterate import Run, Tape, run
from cvxlayers.sqp.kkt import System
from cvxlayers.sqp.model import Functions, Layout, Model, Multipliers, Oracle, Sizes
from cvxlayers.sqp.options import Options, unrolled
from cvxlayers.sqp.pattern import Values, Vectors

_TRUSTED = 1e-6


def pullback(oracle: Oracle, solved: Run, options: Options, dz: Vectors) -> list[Any]:
    """Returns the cotangents of the parameters for a cotangent of the solutions; failed items have none."""
    ok = (solved.status == Status.SOLVED) | (solved.status == Status.INACCURATE)
    dz = np.where(ok[:, None], dz, 0.0)
    if options.backward in ("implicit", "gauss_newton"):
        hessian = "exact" if options.backward == "implicit" else "gauss_newton"
        return list(_implicit(oracle, solved, hessian, dz))
    if options.backward == "dlm":
        return _direct_loss(oracle, solved, options, dz)
    return _unrolled(oracle, solved, options, dz)


def _implicit(oracle: Oracle, solved: Run, hessian: str, dz: Vectors) -> Sequence[Any]:
    layout, at = oracle.layout, solved.multipliers
    model = oracle.model(solved.z, at, hessian)
    active = at.h + model.h > 0.0
    bound = _bound(layout, solved.z, at)
    system = System(layout, entries(model), model.A, model.G, active, bound)
    lam, mu, residual = system.solve(dz, Multipliers.zeros(layout, len(dz)))
    _warn_of(residual)
    return oracle.pull_conditions(solved.z, at, -lam, Multipliers(-mu.g, -mu.h, -mu.box))


def entries(model: Model) -> Values:
    """Returns the stored entries of the Hessian."""
    return np.concatenate([block.reshape(len(block), -1) for block in model.hessian], axis=1)


def _bound(layout: Layout, z: Vectors, at: Multipliers) -> Bool[np.ndarray, "batch n"]:
    """Returns which variables are held by a bound: those whose multiplier is larger than their distance."""
    return (at.box > layout.upper - z) | (-at.box > z - layout.lower)


def _unrolled(oracle: Oracle, solved: Run, options: Options, dz: Vectors) -> list[Any]:
    """Goes back through the iterations on tape, from the last to the first."""
    layout, total = oracle.layout, None
    carried = Multipliers.zeros(layout, len(dz))
    depth, gone_back = unrolled(options.backward), np.zeros(len(dz), dtype=int)
    for tape in reversed(solved.tapes):
        dz, carried = _kept(gone_back < depth, dz, carried)
        gone_back[tape.items] += 1
        whole, before = _through_step(layout, tape, dz, carried)
        at = _spread_multipliers(layout, tape.items, tape.before, len(dz))
        z_part, multiplier_part, gradients = oracle.pull_model(tape.z, at, options.hessian, whole)
        dz = before[0] + z_part
        carried = Multipliers(before[1].g + multiplier_part.g, before[1].h + multiplier_part.h, before[1].box)
        total = gradients if total is None else [a + b for a, b in zip(total, gradients, strict=True)]
        if tape.elastic.any():
            dz, carried = _cut(tape.items[tape.elastic], dz, carried)
    if total is None:
        nothing = Multipliers.zeros(layout, len(dz))
        return list(oracle.pull_conditions(solved.z, nothing, np.zeros_like(dz), nothing))
    return list(total)


def _through_step(
    layout: Layout, tape: Tape, dz: Vectors, carried: Multipliers
) -> tuple[Model, tuple[Vectors, Multipliers]]:
    """Returns the cotangents of the model, and what reaches the iterate before without it."""
    items, length = tape.items, tape.length[:, None]
    ends = tape.z[items] + tape.d
    after, model = tape.after, tape.model
    linear = model.h + layout.G.matvec(model.G, tape.d)
    system = System(layout, tape.curvature, model.A, model.G, after.h + linear > 0.0, _bound(layout, ends, after))
    live = ~tape.elastic[:, None]
    inner = carried.item(items)
    lam, mu, residual = system.solve(
        np.where(live, length * dz[items], 0.0),
        Multipliers(*(np.where(live, length * part, 0.0) for part in (inner.g, inner.h, inner.box))),
    )
    _warn_of(residual)
    d, A, G = tape.d, layout.A, layout.G
    batch = len(dz)
    A_bar = -(after.g[:, A.rows] * lam[:, A.cols] + mu.g[:, A.rows] * d[:, A.cols])
    G_bar = -(after.h[:, G.rows] * lam[:, G.cols] + mu.h[:, G.rows] * d[:, G.cols])
    P = layout.P
    P_bar = -0.5 * (lam[:, P.rows] * d[:, P.cols] + d[:, P.rows] * lam[:, P.cols])
    parts = {"gradient": -lam, "g": -mu.g, "h": -mu.h, "A": A_bar, "G": G_bar}
    spread = {name: _spread(items, part, batch) for name, part in parts.items()}
    whole = Model(**spread, hessian=_blocks(layout, _spread(items, P_bar, batch)))
    passed = dz.copy()
    passed[items] -= mu.box  # the bounds of the step are those of z, less z
    stay = [part.copy() for part in (carried.g, carried.h, carried.box)]
    for part in stay:
        part[items] *= 1.0 - length
    return whole, (passed, Multipliers(*stay))


def _cut(items: np.ndarray, dz: Vectors, carried: Multipliers) -> tuple[Vectors, Multipliers]:
    """Ends the derivative of items whose step was elastic, and says so."""
    warnings.warn(
        f"items {items.tolist()} took elastic steps: their derivative ends there, as with a truncated backward pass",
        DerivativeWarning,
        stacklevel=2,
    )
    return _kept(~np.isin(np.arange(len(dz)), items), dz, carried)


def _kept(alive: Bool[np.ndarray, " batch"], dz: Vectors, carried: Multipliers) -> tuple[Vectors, Multipliers]:
    """Returns cotangents without those of the items that are not alive."""
    keep = alive[:, None].astype(float)
    return dz * keep, Multipliers(carried.g * keep, carried.h * keep, carried.box * keep)


@dataclass(frozen=True, eq=False)
class _Tilted:
    """A problem with a linear term added to its objective."""

    oracle: Oracle
    tilt: Vectors

    @property
    def layout(self) -> Layout:
        return self.oracle.layout

    def values(self, trials: Float[np.ndarray, "trials batch n"]) -> Functions:
        found = self.oracle.values(trials)
        return replace(found, f=found.f + (self.tilt * trials).sum(axis=-1))

    def model(self, z: Vectors, multipliers: Multipliers, hessian: str) -> Model:
        found = self.oracle.model(z, multipliers, hessian)
        return replace(found, gradient=found.gradient + self.tilt)

    def pull_model(self, z: Vectors, multipliers: Multipliers, hessian: str, cotangents: Model) -> Any:
        return self.oracle.pull_model(z, multipliers, hessian, cotangents)

    def pull_conditions(self, z: Vectors, at: Multipliers, dz: Vectors, dual: Multipliers) -> Sequence[Any]:
        return self.oracle.pull_conditions(z, at, dz, dual)

    def pull_lagrangian(self, z: Vectors, at: Multipliers, weights: Sizes) -> Sequence[Any]:
        return self.oracle.pull_lagrangian(z, at, weights)


def _direct_loss(oracle: Oracle, solved: Run, options: Options, dz: Vectors) -> list[Any]:
    epsilon = options.dlm_epsilon
    size = np.maximum(np.abs(dz).max(axis=1, keepdims=True, initial=0.0), 1e-300)
    sides = []
    for sign in (1.0, -1.0):
        tilted = _Tilted(oracle, sign * epsilon * dz / size)
        found = run(tilted, solved.z, solved.multipliers, replace(options, progress=None))
        _warn_of(np.where(found.status == Status.SOLVED, 0.0, found.residual))
        sides.append(found)
    # The items' scales differ, and the Lagrangian's gradient is a sum over them: each side's is taken item by item.
    return list(_difference(oracle, sides[0], sides[1], size[:, 0] / (2.0 * epsilon)))


def _difference(oracle: Oracle, plus: Run, minus: Run, scale: np.ndarray) -> Sequence[Any]:
    ahead = oracle.pull_lagrangian(plus.z, plus.multipliers, scale)
    behind = oracle.pull_lagrangian(minus.z, minus.multipliers, scale)
    return [a - b for a, b in zip(ahead, behind, strict=True)]


def _blocks(layout: Layout, values: Values) -> tuple[np.ndarray, ...]:
    sizes = [count * k * k for count, k in layout.blocks]
    pieces = np.split(values, np.cumsum(sizes)[:-1], axis=1)
    return tuple(
        piece.reshape(len(values), count, k, k) for piece, (count, k) in zip(pieces, layout.blocks, strict=True)
    )


def _spread(items: np.ndarray, part: np.ndarray, batch: int) -> np.ndarray:
    whole = np.zeros((batch, *part.shape[1:]))
    whole[items] = part
    return whole


def _spread_multipliers(layout: Layout, items: np.ndarray, part: Multipliers, batch: int) -> Multipliers:
    return Multipliers(*(_spread(items, value, batch) for value in (part.g, part.h, part.box)))


def _warn_of(residual: np.ndarray) -> None:
    doubtful = np.flatnonzero(~(residual <= _TRUSTED))
    if len(doubtful):
        warnings.warn(
            f"the derivative of items {doubtful.tolist()} is doubtful: relative residual "
            f"{np.nanmax(residual[doubtful]):.1e} above {_TRUSTED:.0e}; the solution may not be unique, or its "
            "constraints dependent",
            DerivativeWarning,
            stacklevel=3,
        )
