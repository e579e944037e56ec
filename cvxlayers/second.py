"""Second derivatives of a layer: the tangents of its vjp and of its jvp as the parameters move.

With the parameters' maps to theta (logarithms among them) and the variables' maps from x and y (exponentials among
them), the chain rule adds to the program's own second derivative what these two are curved.
"""

from __future__ import annotations

from collections.abc import Sequence

from cvxlayers.batches import spread_rows
from cvxlayers.derivative import Data, DerivativeInfo, Differential, move, vjp_tangent, worst_of
from cvxlayers.derivative import second_jvp as program_second_jvp
from cvxlayers.forward import Array, Forward, Items, join, split
from cvxlayers.layer import Layer


def hvp(
    layer: Layer,
    forward: Forward,
    cotangents: Sequence[Array | None],
    tangents: Sequence[Array | None],
    directions: int = 0,
) -> tuple[list[Array], DerivativeInfo]:
    """The tangent of `Layer.vjp` as the parameters move: the Hessian of ⟨cotangents, variables⟩ times the tangents.

    The Hessian is symmetric, so this is its own adjoint: also what a vjp's result pulls back to the parameters.

    Args:
        layer: what was called.
        forward: what the call returned.
        cotangents: one per variable, of shape (*batch, *variable.shape); None is zero.
        tangents: one per parameter, of a shape that broadcasts to (*batch, *parameter.shape); None is zero.
        directions: how many axes stand before those shapes, of both.

    Returns:
        One array per parameter, of the shape of the value the caller passed, and how far to trust them.

    Raises:
        DerivativeError: if a cone of the program offers no second derivative.
    """
    compiled = layer.compiled
    _refuse_others(layer)
    lead, dthetas = layer.theta_tangents(forward, tangents, directions)
    rows = split(cotangents, directions, forward.fold)[1]

    def pull(lin: Differential, items: Items | slice, out: Sequence[Array]) -> DerivativeInfo:
        at, infos = (lin.point.x, lin.point.y), []
        for row, dtheta, slope, change in zip(rows, dthetas, out[::2], out[1::2], strict=True):
            mine = [None if cotangent is None else cotangent[items] for cotangent in row]
            motion = move(lin, Data(*compiled.tangent(dtheta[items])))
            x_bar, y_bar = (spread_rows(part, lin.program.batch) for part in forward.map.adjoint(*at, mine))
            moved = forward.map.adjoint_tangent(at, (motion.x, motion.y), mine)
            cotangent, tangent, info = vjp_tangent(lin, (x_bar, y_bar), motion, moved)
            compiled.pull(*cotangent, out=compiled.parameters.split(slope))
            compiled.pull(*tangent, out=compiled.parameters.split(change))
            infos.append(info)
        return worst_of(infos)

    arrays, info = layer.solution_maps(forward).differentiate(pull, [compiled.parameters.width] * 2 * len(rows))
    products = []
    for slope, change, dtheta in zip(arrays[::2], arrays[1::2], dthetas, strict=True):
        bent = compiled.parameters.adjoint_tangent(forward.values, dtheta, slope, forward.batch_shape)
        total = compiled.parameters.split(change + bent)
        products.append(compiled.parameters.adjoint(forward.values, total, forward.batch_shape))
    return join(products, lead), info


def second_jvp(
    layer: Layer,
    forward: Forward,
    first: Sequence[Array | None],
    others: Sequence[Array | None],
    directions: int = 0,
) -> tuple[list[Array], DerivativeInfo]:
    """The tangent of `Layer.jvp` as the parameters move: the second derivative of the variables along two directions.

    Args:
        layer: what was called.
        forward: what the call returned.
        first: one tangent per parameter, of a shape that broadcasts to (*batch, *parameter.shape); None is zero.
        others: further tangents, likewise.
        directions: how many axes stand before those shapes, of both.

    Returns:
        One array per variable, of shape (*batch, *variable.shape), and how far to trust them.

    Raises:
        DerivativeError: if a cone of the program offers no second derivative.
    """
    compiled = layer.compiled
    _refuse_others(layer)
    lead, ones = layer.theta_tangents(forward, first, directions)
    lead, twos = layer.theta_tangents(forward, others, directions)
    pairs = list(zip(ones, twos, strict=True))
    bends = [compiled.parameters.second_tangent(forward.values, *pair, forward.batch_shape) for pair in pairs]

    def push(lin: Differential, items: Items | slice, out: Sequence[Array]) -> DerivativeInfo:
        infos = []
        for index, (pair, bend) in enumerate(zip(pairs, bends, strict=True)):
            one, two = (move(lin, Data(*compiled.tangent(dtheta[items]))) for dtheta in pair)
            x, y, info = program_second_jvp(lin, one, two, Data(*compiled.tangent(bend[items])))
            for target, found in zip(out[6 * index :], (x, y, one.x, one.y, two.x, two.y), strict=False):
                target[:] = found
            infos.append(info)
        return worst_of(infos)

    structure = forward.program.structure
    arrays, info = layer.solution_maps(forward).differentiate(push, [structure.n, structure.m] * 3 * len(pairs))
    at = (forward.point.x, forward.point.y)
    outputs = []
    for k in range(0, len(arrays), 6):
        x, y, *motions = arrays[k : k + 6]
        linear = forward.map.tangent(*at, x, y)
        curved = forward.map.second_tangent(at, (motions[0], motions[1]), (motions[2], motions[3]))
        outputs.append(forward.unfold([a + b for a, b in zip(linear, curved, strict=True)]))
    return join(outputs, lead), info


def _refuse_others(layer: Layer) -> None:
    cone = layer.compiled.structure.cone
    if not cone.twice_differentiable:
        cone.refuse_second_derivative()
