"""The sentences in which a layer tells that something went wrong: which items, how badly, and the way out."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from cvxlayers.program import Status

Items = Int[np.ndarray, " items"]

_HINTS = {
    Status.INFEASIBLE: "Infeasible: no point satisfies all constraints at these parameters; relax or penalise them.",
    Status.UNBOUNDED: "Unbounded: the objective has no optimum at these parameters; bound the variables.",
    Status.ITERATION_LIMIT: 'Iteration limit: raise solver_args={"max_iters": ...}.',
    Status.TIME_LIMIT: 'Time limit: raise solver_args={"time_limit": ...}.',
    Status.NUMERICAL_ERROR: 'Numerical error: rescale the data, or try another solver, as solver="CLARABEL" or "SCS".',
    Status.INVALID_INPUT: "Invalid input: the data of these items hold NaN or infinite entries{culprits}.",
}

_DOUBTS = {
    "exact": "The solution is probably not unique, or its active constraints are dependent; what is returned is the "
    "least-squares derivative of smallest norm, and of constraints that repeat one another the "
    "first bears the whole multiplier. A small quadratic term in the objective makes a solution unique.",
    "smoothed": "The central path was not reached: the program, or its dual, has probably no interior point, or mu is "
    "too small. A ridge bounds the solutions; equal constraints may be written once.",
    "lpgd": "Neither of the perturbed programs has a solution: choose a smaller mu, or bound the variables.",
}


def failures(
    items: Items,
    status: Int[np.ndarray, " batch"],
    residual: Float[np.ndarray, " batch"],
    solvers: list[str],
    iterations: Int[np.ndarray, " batch"],
    not_finite: list[str],
) -> str:
    """Says which items of a batch were not solved, how each ended, and which parameters hold NaN or infinities."""
    shown = []
    for item in items[:5].tolist():
        word = Status(int(status[item])).name.lower().replace("_", " ")
        how = f" ({solvers[item]}, {iterations[item]} iterations, relative KKT residual {residual[item]:.1e})"
        shown.append(f"item {item}: {word}{how if solvers[item] else ''}")
    more = f"; and {len(items) - 5} more" if len(items) > 5 else ""
    hints = " ".join(_HINTS[kind] for kind in sorted({Status(int(code)) for code in status[items]}))
    culprits = f", from {', '.join(map(repr, not_finite))}" if not_finite else ""
    return (
        f"{len(items)} of {len(status)} programs were not solved: {'; '.join(shown)}{more}. "
        f"{hints.replace('{culprits}', culprits)} "
        'on_failure="mask" or "nan" keeps the other items of the batch.'
    )


def inaccurate(items: Items, residual: Float[np.ndarray, " batch"]) -> str:
    """Says which items were solved less accurately than asked for."""
    return (
        f"{len(items)} of {len(residual)} programs were solved inaccurately: items {_listed(items)} have relative KKT "
        f"residuals up to {residual[items].max():.1e}. Rescale the data, choose another solver, or accept this "
        'accuracy by solver_args={"eps": ...}.'
    )


def doubtful(items: Items, batch: int, residual: Float[np.ndarray, " items"], kind: str) -> str:
    """Says which items' derivatives rest on equations that could not be solved, for a kind of derivative."""
    return (
        f"the derivative of {len(items)} of {batch} programs is unreliable: items {_listed(items)} have linear solves "
        f"with relative residuals up to {residual.max():.1e}{_each(items, residual)}. {_DOUBTS[kind]}"
    )


def constant_in_costs(names: list[str]) -> str:
    """Says that a linear program's solution has no informative derivative in its costs."""
    return (
        "the solution of a linear program is constant almost everywhere in its costs: its exact derivative in "
        f"{', '.join(map(repr, names))} is zero, and gradient descent on costs learns nothing from it. Pass "
        'derivative="smoothed" or "lpgd", or ridge=... for a quadratic term, to train costs (said once a problem)'
    )


def _each(items: Items, residual: Float[np.ndarray, " items"]) -> str:
    """Says the residuals of the first items, where there are several."""
    if len(items) < 2:
        return ""
    shown = ", ".join(
        f"{item}: {size:.1e}" for item, size in zip(items[:8].tolist(), residual[:8].tolist(), strict=True)
    )
    return f" ({shown}{', ...' if len(items) > 8 else ''})"


def _listed(items: Items) -> str:
    names = ", ".join(str(item) for item in items[:8].tolist())
    return f"[{names}, ...]" if len(items) > 8 else f"[{names}]"
