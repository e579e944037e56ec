"""Layers that are given the problem as CVXPY text: this library, and cvxpylayers with its solvers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import cvxpy as cp

from benchmarks.contest import Array, Contender, Entry
from benchmarks.torch_layer import layer_contender
from cvxlayers.torch import CvxpyLayer

# A problem, its parameters in the order of the data, and its variable.
Text = tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]

# The first is what it does by itself: SCS. Its gradient by LSQR is rough: mode "dense" factorises.
_CLARABEL = {"solve_method": "Clarabel"}
_DIFFCP = {
    "cvxpylayers + diffcp": {},
    "cvxpylayers + diffcp, Clarabel": _CLARABEL,
    "cvxpylayers + diffcp, SCS 1e-8": {"eps": 1e-8, "max_iters": 10_000, "acceleration_lookback": 0},
    "cvxpylayers + diffcp, Clarabel, dense": {**_CLARABEL, "mode": "dense"},
}
_MOREAU = ("cvxpylayers.torch", "moreau.torch")


def our_entry(
    text: Callable[[], Text], data: Mapping[str, Array], weights: Array, *, name: str = "cvxlayers", **keywords: Any
) -> Entry:
    """Returns this library's layer, which may be built with further options."""
    return Entry(name, lambda **more: layer_contender(CvxpyLayer(*text(), **keywords, **more), data, weights), "ours")


def moreau_entries(
    text: Callable[[], Text], data: Mapping[str, Array], weights: Array, *, gp: bool = False, quadratic: bool = True
) -> list[Entry]:
    """Returns cvxpylayers with Moreau: with the method that it chooses, and for quadratic costs with interior points.

    Its choice for a quadratic cost is its active-set method, many times slower where the program is sparse.
    """
    choices = {"cvxpylayers + Moreau": {}}
    if quadratic:
        choices["cvxpylayers + Moreau, interior point"] = {"solver": "ipm"}
    return [
        Entry(
            name,
            partial(_peer, text, data, weights, gp, {"solver": "MOREAU", "solver_args": arguments}),
            imports=_MOREAU,
        )
        for name, arguments in choices.items()
    ]


def diffcp_entry(
    text: Callable[[], Text], data: Mapping[str, Array], weights: Array, *, gp: bool = False, dense: bool = True
) -> Entry:
    """Returns cvxpylayers with diffcp, its default, and diffcp's more accurate settings."""
    entries = [
        Entry(
            name,
            partial(_peer, text, data, weights, gp, {"solver_args": arguments}),
            imports=("cvxpylayers.torch", "diffcp"),
        )
        for name, arguments in _DIFFCP.items()
        if dense or "mode" not in arguments
    ]
    first = entries[0]
    return Entry(first.name, first.build, imports=first.imports, finer=entries[1:])


def _peer(
    text: Callable[[], Text], data: Mapping[str, Array], weights: Array, gp: bool, keywords: Mapping[str, Any]
) -> Contender:
    """Builds a layer of cvxpylayers. To be called after our layers are built: its import replaces parts of CVXPY."""
    warnings.filterwarnings("ignore", message=r"solver='auto' resolved to ACTIVE_SET")
    warnings.filterwarnings("ignore", message="Solved/Inaccurate")
    layer = import_module("cvxpylayers.torch").CvxpyLayer(*text(), gp=gp, **keywords)
    return layer_contender(layer, data, weights)


def entries_of(
    text: Callable[[], Text],
    data: Mapping[str, Array],
    weights: Array,
    *,
    peer_text: Callable[[], Text] | None = None,
    gp: bool = False,
    quadratic: bool = True,
    dense: bool = True,
) -> Sequence[Entry]:
    """Returns this library, and cvxpylayers with both of its solvers, on one problem.

    Args:
        text: makes the problem; each layer gets one of its own, since building one may change what is stored on it.
        data: parameters by name, in the order of the text's.
        weights: what the solution is multiplied by; the sum of the products is differentiated.
        peer_text: the same program for cvxpylayers, where it does not take the first.
        gp: whether it is a geometric program.
        quadratic: whether the cost is quadratic.
        dense: whether diffcp's dense mode fits into memory.
    """
    theirs = text if peer_text is None else peer_text
    ours = our_entry(text, data, weights, gp=gp)
    return [
        ours,
        *moreau_entries(theirs, data, weights, gp=gp, quadratic=quadratic),
        diffcp_entry(theirs, data, weights, gp=gp, dense=dense),
    ]
