"""DAQP: a dual active-set method for dense, strictly convex quadratic programs; exact to rounding.

References: Arnström, Bemporad, Axehill, "A dual active-set solver for embedded quadratic programming" (2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, final

import numpy as np
from jaxtyping import Float

from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.items import each, unsolved
from cvxlayers.solvers.solver import Options, Solver

Scales = Float[np.ndarray, "batch 1"]

_LARGEST = 1000
_EQUALITY = 5
_NO_BOUND = -1e30
# Flags for cycling, and for a P that is not positive definite, are missing here: nothing is known of such an item.
_STATUS = {
    1: Status.SOLVED,
    -1: Status.INFEASIBLE,
    -3: Status.UNBOUNDED,
    -4: Status.ITERATION_LIMIT,
    -7: Status.TIME_LIMIT,
}


@final
class DAQP(Solver):
    """Dense quadratic programs with positive definite P. It gives no certificates and keeps no log. Frees the GIL."""

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "DAQP"

    def refusal(self, structure: Structure) -> str | None:
        """Refuses curved cones, and objectives that cannot be strictly convex."""
        if not structure.cone.polyhedral:
            return "it takes linear constraints only"
        if not structure.has_full_diagonal:
            return "it needs a strictly convex objective, and some variables have no quadratic term"
        if structure.n > _LARGEST:
            return f"it works on dense matrices, of at most {_LARGEST} variables"
        return None

    def native_options(self) -> Mapping[str, type]:
        """The settings that bear on these programs."""
        reals = ("primal_tol", "dual_tol", "zero_tol", "pivot_tol", "progress_tol", "fval_bound", "eps_prox")
        reals += ("eta_prox", "sing_tol", "refactor_tol")
        wholes = ("cycle_tol", "iter_limit", "eq_reduction")
        return {**dict.fromkeys(reals, float), **dict.fromkeys(wholes, int)}

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Solves every item from scratch, on data scaled so that DAQP's absolute tolerances are relative ones."""
        import daqp

        structure, batch, equalities = program.structure, program.batch, program.structure.cone.zero
        A = np.ascontiguousarray(structure.A.dense(program.A))
        cost, length = _scales(program, A)
        with np.errstate(over="ignore"):
            # P is symmetric: its transpose is stored row by row, as DAQP wants it.
            P = np.ascontiguousarray(structure.P.dense(program.P * cost).transpose(0, 2, 1))
            q, upper = program.q * (cost / length), program.b / length
        usable = np.isfinite(q).all(axis=1) & np.isfinite(upper).all(axis=1)
        lower = np.full((len(upper), structure.m), _NO_BOUND)
        lower[:, :equalities] = upper[:, :equalities]
        sense = np.where(np.arange(structure.m) < equalities, _EQUALITY, 0).astype(np.int32)
        settings, solve = _settings(options), daqp.solve
        data = (P, q, A, upper, lower, usable)
        results = [
            solve(H, f, G, u, w, sense, **settings) if ok else None
            for H, f, G, u, w, ok in zip(*(each(array, batch) for array in data), strict=True)
        ]
        return _collect(program, A, length, length / cost, results)


def _scales(program: ConeProgram, A: Float[np.ndarray, "leading m n"]) -> tuple[Scales, Scales]:
    """Returns α and σ, powers of two (so that scaling rounds nothing), of the program in x/σ with objective α/σ².

    αP has entries up to 1, and σ is the size of x: of the unconstrained minimiser, or of what the constraints that
    x = 0 violates ask for. Other right-hand sides do not count: a bound may be far away.
    """
    structure = program.structure
    cost = 2.0 ** -_exponent(np.max(np.abs(program.P), axis=1, initial=0.0))
    heights = np.max(np.abs(A), axis=2)
    asked = np.where(np.arange(structure.m) < structure.cone.zero, np.abs(program.b), -program.b)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        reach = np.max(np.where(heights > 0, asked / heights, 0.0), axis=1, initial=0.0)
        length = np.maximum(np.max(np.abs(program.q), axis=1, initial=0.0) * cost, reach)
    return cost[:, None], 2.0 ** _exponent(length)[:, None]


def _exponent(size: Float[np.ndarray, " batch"]) -> Float[np.ndarray, " batch"]:
    """Returns k with 2ᵏ⁻¹ ≤ size < 2ᵏ, or 0 for 0; kept so small that 2ᵏ and 2⁻ᵏ, and their quotients, are finite."""
    return np.clip(np.frexp(size)[1], -500, 500).astype(np.float64)


def _settings(options: Options) -> dict[str, Any]:
    """Proximal iterations are off: they leave x wrong by their own tolerance, and a singular P has better solvers."""
    settings: dict[str, Any] = {"primal_tol": min(options.eps, 1e-6), "eps_prox": 0.0}
    if options.max_iters is not None:
        settings["iter_limit"] = options.max_iters
    if options.time_limit is not None:
        settings["time_limit"] = options.time_limit
    return {**settings, **options.native}


def _collect(
    program: ConeProgram, A: Float[np.ndarray, "leading m n"], length: Scales, price: Scales, results: list[Any]
) -> Solution:
    """Takes x, y and s = b − Ax, zero where y is not, out of DAQP's words, which hold no iterate on a failure."""
    structure, equalities = program.structure, program.structure.cone.zero
    solution = unsolved(structure, program.batch)
    answered = [item for item, result in enumerate(results) if result is not None]
    kept = [results[item] for item in answered]
    solution.status[answered] = [_STATUS.get(flag, Status.NUMERICAL_ERROR) for _, _, flag, _ in kept]
    solution.iterations[answered] = [info["iterations"] for _, _, _, info in kept]
    solved = solution.status == Status.SOLVED
    if not solved.any():
        return solution
    found = [results[item] for item in np.flatnonzero(solved)]
    y = np.full((program.batch, structure.m), np.nan)
    solution.x[solved] = np.array([x for x, _, _, _ in found])
    y[solved] = np.array([info["lam"] for _, _, _, info in found])
    x = solution.x * length
    s = np.where(y == 0, program.b - (A @ x[:, :, None])[:, :, 0], 0.0)
    s[:, :equalities] = 0.0
    s[~solved] = np.nan
    return replace(solution, x=x, y=y * price, s=s)
