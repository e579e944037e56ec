"""How a layer is differentiated: exactly, or informatively where the exact derivative is zero or does not exist."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

from cvxlayers.errors import OptionError, did_you_mean

KINDS = ("exact", "smoothed", "lpgd")
# The barrier parameter, or the size of the perturbation of the costs, where none is given.
_MU = {"exact": 0.0, "smoothed": 1e-2, "lpgd": 1e-1}


@dataclass(frozen=True)
class Differentiation:
    """How a layer is differentiated.

    Attributes:
        kind: "exact"; "smoothed", the derivative of the point of the central path with barrier parameter `mu`; "lpgd",
            differences of solutions with costs perturbed by `mu` along the cotangent.
        mu: how strongly; zero for "exact".
        ridge: the weight of ½‖variables‖² that the program has been given, forward and backward.
    """

    kind: str = "exact"
    mu: float = 0.0
    ridge: float = 0.0

    def describe(self) -> str:
        """Says it in words."""
        match self.kind:
            case "smoothed":
                return f"smoothed: that of the central path at mu = {self.mu:g}"
            case "lpgd":
                return f"lpgd: differences of solutions whose costs are perturbed by mu = {self.mu:g}"
        return "exact"


def differentiation(kind: object, mu: object, ridge: object) -> Differentiation:
    """Checks the keywords of a layer.

    Raises:
        OptionError: if one is unknown or out of range.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        hint = did_you_mean(kind, KINDS) if isinstance(kind, str) else ""
        raise OptionError(f"derivative must be one of {KINDS}, got {kind!r}{hint}")
    if kind == "exact" and mu is not None:
        raise OptionError('mu has a meaning for derivative="smoothed" and "lpgd" only: the exact derivative has none')
    strength = _MU[kind] if mu is None else _number(mu)
    if mu is not None and not strength > 0:
        raise OptionError(f"mu must be a positive number, got {mu!r}")
    weight = _number(ridge)
    if not weight >= 0:
        raise OptionError(f"ridge must be a number that is not negative, got {ridge!r}")
    return Differentiation(kind, strength, weight)


def _number(value: object) -> float:
    """Returns a finite real number as a float, and NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return math.nan
    return float(value)
