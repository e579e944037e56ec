"""cvxlayers: a compiler that turns a CVXPY problem into a differentiable layer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from cvxlayers import errors as errors
from cvxlayers.errors import SolverError as SolverError

if TYPE_CHECKING:
    from cvxlayers.canonical.advice import explain as explain
    from cvxlayers.forms import solve_conic as solve_conic
    from cvxlayers.forms import solve_qp as solve_qp
    from cvxlayers.neutral import CvxpyLayer as CvxpyLayer
    from cvxlayers.neutral import load as load
    from cvxlayers.program import Status as Status
    from cvxlayers.result import LayerResult as LayerResult

__version__ = "0.1.0"

__all__ = [
    "CvxpyLayer",
    "LayerResult",
    "SolverError",
    "Status",
    "__version__",
    "errors",
    "explain",
    "load",
    "solve_conic",
    "solve_qp",
]


_HOMES = {
    "CvxpyLayer": "cvxlayers.neutral",
    "LayerResult": "cvxlayers.result",
    "Status": "cvxlayers.program",
    "explain": "cvxlayers.canonical.advice",
    "load": "cvxlayers.neutral",
    "solve_conic": "cvxlayers.forms",
    "solve_qp": "cvxlayers.forms",
}


def __getattr__(name: str) -> object:
    """Loads the heavier names on first use, so that `import cvxlayers` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cvxlayers' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
