"""A layer as pure functions of arrays: what the doors call from compiled programs of their frameworks.

What the derivatives need of a call travels as an array, its *state*: x, v and the status of each item, in float64.
From it and from the parameters' values the call is put together again, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from cvxlayers.forward import Array, Forward, Found
from cvxlayers.layer import Layer
from cvxlayers.program import Solution
from cvxlayers.residual import evaluate
from cvxlayers.result import WarmStart
from cvxlayers.rules import derive
from cvxlayers.solve import CallOptions
from cvxlayers.solvers import Outcome

State = Float[np.ndarray, "..."]


@dataclass(frozen=True, eq=False)
class Host:
    """A layer with the options of a call.

    Attributes:
        layer: what is called.
        options: what the call asks for.
        warm_start: where it starts from.
    """

    layer: Layer
    options: CallOptions
    warm_start: WarmStart | None = None

    @property
    def width(self) -> int:
        """The number of entries of an item's state."""
        return self.layer.compiled.structure.n + self.layer.compiled.structure.m + 1

    def solve(self, values: Sequence[Array]) -> tuple[list[Array], State]:
        """Returns the variables and the state, of shape (*batch, width)."""
        layer = replace(self.layer, lean=None)  # the state is of the full programs
        forward = layer.forward(values, self.options, self.warm_start)
        return list(forward.outputs), self.state(forward)

    def solve_flat(self, *values: Array) -> list[Array]:
        """Returns the variables, and behind them the state."""
        outputs, state = self.solve(values)
        return [*outputs, state]

    def state(self, forward: Forward) -> State:
        """Returns the state of a call."""
        columns = [forward.point.x, forward.point.v, forward.status[:, None].astype(np.float64)]
        return np.concatenate(columns, axis=1).reshape((*forward.batch_shape, self.width))

    def resume(self, values: Sequence[Array], state: State) -> Forward:
        """Returns the call that had this state, without its outputs."""
        layer, structure = self.layer, self.layer.compiled.structure
        theta, batch_shape = layer.compiled.parameters.flatten(values)
        rows = state.reshape((-1, self.width))
        x, v, status = rows[:, : structure.n], rows[:, structure.n : -1], rows[:, -1].astype(np.int64)
        variables = layer.compiled.variables

        def find() -> Found:
            program, offset = layer.compiled.program(theta), layer.compiled.offset.apply(theta)[:, 0]
            # How far derivatives can be trusted follows from the residual too.
            point = evaluate(program, x, v)
            iterations = np.zeros(len(rows), dtype=np.int64)
            outcome = Outcome(Solution(x, point.y, point.s, status, iterations), (), iterations - 1)
            return Found(program, offset, None, None, point, outcome)

        affine = layer.affine_for(variables, self.options)
        return Forward(values, batch_shape, status, [], variables, self.options, find, affine)

    def derive(
        self,
        kind: str,
        values: Sequence[Array],
        state: State,
        groups: Sequence[Sequence[Array | None]],
        directions: int = 0,
    ) -> list[Array]:
        """Computes a derivative: see `cvxlayers.rules`."""
        return derive(self.layer, self.resume(values, state), kind, groups, directions)
