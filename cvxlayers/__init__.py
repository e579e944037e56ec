"""cvxlayers: a compiler that turns a CVXPY problem into a differentiable layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvxlayers import errors as errors
from cvxlayers.errors import SolverError as SolverError

if TYPE_CHECKING:
    from cvxlayers.neutral import CvxpyLayer as CvxpyLayer
    from cvxlayers.neutral import load as load
    from cvxlayers.program import Status as Status
    from cvxlayers.result import LayerResult as LayerResult

__version__ = "0.1.0"

__all__ = ["CvxpyLayer", "LayerResult", "SolverError", "Status", "__version__", "errors", "load"]


def __getattr__(name: str) -> object:
    """Loads the heavier names on first use, so that `import cvxlayers` stays light."""
    if name == "CvxpyLayer":
        from cvxlayers.neutral import CvxpyLayer

        return CvxpyLayer
    if name == "load":
        from cvxlayers.neutral import load

        return load
    if name == "Status":
        from cvxlayers.program import Status

        return Status
    if name == "LayerResult":
        from cvxlayers.result import LayerResult

        return LayerResult
    raise AttributeError(f"module 'cvxlayers' has no attribute {name!r}")
