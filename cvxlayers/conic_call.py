"""The derivatives of calls whose programs were solved, by the solution maps of these programs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cvxlayers.batches import Vectors, largest, spread_rows
from cvxlayers.compiled import CompiledProblem
from cvxlayers.derivative import TRUSTED, Data, DerivativeInfo, Needs, jvp, vjp, worst_of
from cvxlayers.forward import Array, Items
from cvxlayers.lpgd import Differences
from cvxlayers.parameter_map import UNDERFLOW
from cvxlayers.solution_maps import Local, SolutionMaps


def pull(
    maps: SolutionMaps, compiled: CompiledProblem, rows: Sequence[Sequence[Array | None]]
) -> tuple[list[Array], DerivativeInfo]:
    """Returns the cotangents of theta's blocks for each row of cotangents of the outputs, one after another."""
    forward, parameters, tell = maps.forward, compiled.parameters, maps.kernel.tell
    batch, point = forward.program.batch, forward.point
    count, widths = len(parameters.names), [block.stop - block.start for block in parameters.blocks]
    pulled = [forward.map.adjoint(point.x, point.y, row) for row in rows]
    pulled = [(spread_rows(x, batch), spread_rows(y, batch)) for x, y in pulled]
    needs, listed = Needs(*compiled.depends), forward.map.y.inputs
    faint = parameters.faint(forward.values, forward.batch_shape)

    def local(lin: Local, items: Items | slice, out: Sequence[Array]) -> DerivativeInfo:
        infos = []
        for k, (x, y) in enumerate(pulled):
            if isinstance(lin, Differences):
                data, info = lin.vjp(x[items], y[items])
            else:
                data, info = vjp(lin, x[items], y[items], needs=needs)
            blocks = out[k * count : (k + 1) * count]
            compiled.pull(*data, out=blocks)
            if faint is not None:
                lost = faint[items] & (TRUSTED * np.abs(np.concatenate(blocks, axis=1)) <= UNDERFLOW)
                info = info.doubted(np.logical_and(lost.any(axis=1), x[items].any(axis=1) | y[items].any(axis=1)))
            infos.append(tell(info, listed, point.y[items], y[items]))
        return worst_of(infos)

    return maps.differentiate(local, widths * len(pulled))


def push(
    maps: SolutionMaps, compiled: CompiledProblem, dthetas: Sequence[Vectors]
) -> tuple[list[list[Array]], DerivativeInfo]:
    """Returns the tangents of the outputs for each tangent of theta."""
    forward, structure = maps.forward, maps.forward.program.structure
    point, listed = forward.point, forward.map.y.inputs
    faint = compiled.parameters.faint(forward.values, forward.batch_shape)

    def local(lin: Local, items: Items | slice, out: Sequence[Array]) -> DerivativeInfo:
        infos = []
        for dtheta, dx, dy in zip(dthetas, out[::2], out[1::2], strict=True):
            tangent = Data(*compiled.tangent(dtheta[items]))
            if isinstance(lin, Differences):
                dx[:], dy[:], info = lin.jvp(tangent)
            else:
                dx[:], dy[:], _, info = jvp(lin, tangent)
            if faint is not None:
                moved, lost = np.maximum(largest(dx), largest(dy)), largest(faint * dtheta)[items] * UNDERFLOW
                info = info.doubted(~(lost <= TRUSTED * moved))
            infos.append(maps.kernel.tell(info, listed, point.y[items]))
        return worst_of(infos)

    moved, info = maps.differentiate(local, [structure.n, structure.m] * len(dthetas))
    pairs = zip(moved[::2], moved[1::2], strict=True)
    return [forward.map.tangent(point.x, point.y, dx, dy) for dx, dy in pairs], info
