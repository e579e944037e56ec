"""The derivatives of a layer as four maps that are closed under transformation: what every door's rules rest on.

At parameters θ they are linear in their tangents u, w and cotangents c:

    push(u)         tangents of the variables              transposed: pull
    pull(c)         cotangents of the parameters           transposed: push
    push_push(u, w) second derivative of the variables     transposed: push_pull
    push_pull(c, u) Hessian of ⟨c, variables⟩ times u      transposed: push_push in c, push_pull in u

and the derivatives of the first two in θ are the last two. So these give every mode and order that the core offers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cvxlayers import second
from cvxlayers.errors import DerivativeError
from cvxlayers.forward import Array, Forward
from cvxlayers.layer import Layer

Group = Sequence[Any]

# What each takes besides the parameters, and what it returns: tangents or cotangents of parameters or of variables.
TAKES = {"push": ("p",), "pull": ("v",), "push_push": ("p", "p"), "push_pull": ("v", "p")}
RETURNS = {"push": "v", "pull": "p", "push_push": "v", "push_pull": "p"}


def derive(
    layer: Layer, forward: Forward, kind: str, groups: Sequence[Sequence[Array | None]], directions: int = 0
) -> list[Array]:
    """Computes one of the maps; None in a group is zero."""
    match kind, groups:
        case "push", [tangents]:
            return layer.jvp(forward, tangents, directions)[0]
        case "pull", [cotangents]:
            return layer.vjp(forward, cotangents, None, directions)[0]
        case "push_push", [first, others]:
            return second.second_jvp(layer, forward, first, others, directions)[0]
        case _, [cotangents, tangents]:
            return second.hvp(layer, forward, cotangents, tangents, directions)[0]
    raise DerivativeError(f"there is no derivative {kind!r} of {len(groups)} groups")


def transpose(kind: str, linear: int, groups: Sequence[Group], back: Group) -> tuple[str, list[Group]]:
    """Returns the map, and what it takes, that pulls `back` to group number `linear`."""
    others = [group for index, group in enumerate(groups) if index != linear]
    match kind, linear:
        case "push", _:
            return "pull", [back]
        case "pull", _:
            return "push", [back]
        case "push_push", _:
            return "push_pull", [back, *others]
        case _, 0:
            return "push_push", [back, *others]
    return "push_pull", [*others, back]


def moving(layer: Layer, kind: str, groups: Sequence[Group], dvalues: Group) -> tuple[str, list[Group]]:
    """Returns the map, and what it takes, that is the derivative of another as the parameters move by `dvalues`.

    Raises:
        DerivativeError: if a cone of the program offers no second derivative, or if this were a third one.
    """
    require_second(layer, kind)
    return "push_" + kind, [*groups, dvalues]


def require_second(layer: Layer, kind: str) -> None:
    """Raises DerivativeError if a map has no derivative in the parameters."""
    if kind not in ("push", "pull"):
        raise DerivativeError("third derivatives of a layer are not offered")
    if layer.differentiation.kind != "exact":
        raise DerivativeError(
            f'derivative="{layer.differentiation.kind}" has no second derivatives: they are those of the exact map'
        )
    cone = layer.compiled.structure.cone
    if not cone.twice_differentiable:
        cone.refuse_second_derivative()
