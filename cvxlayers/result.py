"""Everything that one call found out: variables, duals, the optimal value, and how each item's solve ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.batches import Vectors
from cvxlayers.errors import OptionError
from cvxlayers.variable_map import Owner


@dataclass(frozen=True, eq=False)
class WarmStart:
    """A point to start from: x and v = y − s of the cone program."""

    x: Vectors
    v: Vectors


@dataclass(frozen=True, eq=False)
class SolveInfo:
    """How the solves went, per item of the batch.

    Attributes:
        iterations: the solver's iterations.
        primal: relative primal residual of the returned point, ‖Ax + s − b‖∞ by its largest term.
        dual: relative dual residual, ‖Px + Aᵀy + q‖∞ by its largest term.
        gap: relative duality gap.
        solver: the name of the solver whose result it is; "" where a warm start made it unnecessary.
        fell_back: whether it is a fallback's, after the layer's own solver had failed.
    """

    iterations: Int[np.ndarray, "*batch"]
    primal: Float[np.ndarray, "*batch"]
    dual: Float[np.ndarray, "*batch"]
    gap: Float[np.ndarray, "*batch"]
    solver: np.ndarray
    fell_back: Bool[np.ndarray, "*batch"]


class LeafValues(Mapping[Any, Any]):
    """Values by CVXPY object, or by name; a constraint with several dual variables has a tuple of them."""

    def __init__(self, owners: Sequence[Owner], values: Sequence[Any]) -> None:
        """Pairs owners with values."""
        self._entries = tuple(zip(owners, values, strict=True))

    def __getitem__(self, key: object) -> Any:
        """Returns the value of a variable or constraint, or of a name."""
        found = [value for owner, value in self._entries if _owns(owner, key)]
        if not found:
            raise KeyError(f"{key}; known are {', '.join(self)}")
        return found[0] if len(found) == 1 else tuple(found)

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names, one for each variable or constraint."""
        return iter(dict.fromkeys(owner.names[0] for owner, _ in self._entries))

    def __len__(self) -> int:
        """Returns the number of variables or constraints."""
        return len({owner.identity for owner, _ in self._entries})


@dataclass(frozen=True, eq=False)
class LayerResult:
    """Everything that one call found out; arrays are of the caller's kind.

    Attributes:
        variables: the values of the layer's `variables`, in order, of shape (*batch, *variable.shape).
        primal: the values of all variables, by `cvxpy.Variable` or by name.
        dual: the values of all dual variables, by constraint or by name, with the signs of CVXPY's `dual_value`; those
            of a geometric program belong to its log-log form.
        objective: the optimal value, of shape batch; NaN where there is none. Its derivative is that of the Lagrangian
            at fixed primal and dual solutions (envelope theorem), exact also where solutions are not unique.
        status: how each item ended, a `Status` as an integer, of shape batch.
        ok: which items have a solution; what `on_failure="mask"` has masked is the rest.
        info: iterations, residuals and solvers.
        warm_start: where the next call may start from.
    """

    variables: tuple[Any, ...]
    primal: LeafValues
    dual: LeafValues
    objective: Any
    status: Any
    ok: Any
    info: SolveInfo
    warm_start: WarmStart


def _owns(owner: Owner, key: object) -> bool:
    return key in owner.names if isinstance(key, str) else owner.identity == getattr(key, "id", None)


def start_of(result: object) -> WarmStart | None:
    """Returns the point of an earlier result to start from.

    Raises:
        OptionError: if it is no result.
    """
    if result is None or isinstance(result, LayerResult):
        return None if result is None else result.warm_start
    raise OptionError(f"warm_start must be what an earlier solve returned, a LayerResult, got {type(result).__name__}")
