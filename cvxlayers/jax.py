"""The JAX door: `CvxpyLayer` is a function of arrays that every transformation of JAX goes through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np

from cvxlayers import standard
from cvxlayers.base import BaseLayer
from cvxlayers.build import call_options
from cvxlayers.errors import DtypeError, InputError, MissingDependencyError
from cvxlayers.host import Host
from cvxlayers.layer import Layer
from cvxlayers.result import LayerResult, WarmStart, start_of
from cvxlayers.standard import ConicSolution, Keywords, QPSolution, SolveKeywords

try:
    import jax
    import jax.numpy as jnp
except ImportError:
    raise MissingDependencyError("cvxlayers.jax needs JAX: pip install 'cvxlayers[jax]'") from None
else:
    from cvxlayers.jax_primitives import solve

__all__ = ["CvxpyLayer", "solve_conic", "solve_qp"]


class CvxpyLayer(BaseLayer):
    """A differentiable layer that solves a parametrised convex problem.

        layer = CvxpyLayer(problem, parameters=[A, b], variables=[x])
        (x_star,) = layer(A_array, b_array)
        gradient = jax.grad(lambda A: layer(A, b_array)[0].sum())(A_array)

    It goes through jit, vmap, grad, jvp, vjp, jacfwd, jacrev, linearize, checkpoint, scan and cond, nested as one
    likes; hessian where all cones are zero, nonnegative or second-order. It is a static (leafless) pytree.
    """

    def __call__(
        self,
        *parameters: Any,
        solver_args: Mapping[str, object] | None = None,
        on_failure: str | None = None,
        warm_start: LayerResult | None = None,
    ) -> tuple[jax.Array, ...]:
        """Solves the problem for each item of the batch.

        Args:
            parameters: one array per parameter, of shape (*batch, *parameter.shape); batch axes broadcast.
            solver_args: options of this call, over those of the layer.
            on_failure: as for the layer, for this call.
            warm_start: a result of `solve` with nearby parameters, for the same batch or for one item.

        Returns:
            One array per variable, of shape (*batch, *variable.shape), in the parameters' dtype (computed in float64).

        Raises:
            InputError: if the number, shapes or dtypes of the arrays are wrong.
            SolverError: if items cannot be solved; it names them, their status, and the way out.
        """
        values = self._values(parameters)
        start = start_of(warm_start)
        host = Host(self.layer, call_options(self.layer, solver_args, on_failure), start)
        return _unparted(solve(host, values), self.layer.compiled.variables.complexes)

    def solve(
        self,
        *parameters: Any,
        solver_args: Mapping[str, object] | None = None,
        on_failure: str | None = None,
        warm_start: LayerResult | None = None,
    ) -> LayerResult:
        """Solves as a call does, and returns all there is to know: duals, optimal values, statuses, residuals.

        Its results are read in Python, so it runs outside jit and the other transformations, and has no derivative.

        Args:
            parameters: as in a call.
            solver_args: as in a call.
            on_failure: as in a call.
            warm_start: the result of an earlier call with nearby parameters, for the same batch or for one item.

        Returns:
            A `LayerResult` of arrays.
        """
        values = self._values(parameters)
        if any(isinstance(value, jax.core.Tracer) for value in values):
            raise InputError("solve cannot be transformed by JAX: call the layer itself, with duals among `variables`")
        dtype = jnp.result_type(*values) if values else jnp.result_type(float)
        start = start_of(warm_start)
        options, leaves = call_options(self.layer, solver_args, on_failure), self.layer.compiled.leaves.map
        forward = self.layer.forward([np.asarray(v).astype(np.float64) for v in values], options, start, leaves)
        outputs = _unparted([jnp.asarray(output, dtype) for output in forward.outputs], leaves.complexes)
        return self.layer.result(forward, outputs, jnp.asarray(self.layer.objective(forward), dtype), jnp.asarray)

    def _doubles(self, parameters: tuple[Any, ...]) -> list[np.ndarray]:
        return [np.asarray(value).astype(np.float64) for value in self._values(parameters)]

    def _values(self, parameters: Sequence[Any]) -> list[jax.Array]:
        names = self.layer.compiled.parameters.names
        labels = [repr(name) for name in names] + [f"#{index}" for index in range(len(names), len(parameters))]
        maps = self.layer.compiled.parameters
        complexes = [*maps.complexes, *(False,) * len(parameters)]
        values = [
            _real(label, parameter, flag) for label, parameter, flag in zip(labels, parameters, complexes, strict=False)
        ]
        maps.batch_shape(maps.leads([value.shape for value in values]))
        return values


def solve_qp(
    P: Any,
    q: Any,
    *,
    A: Any = None,
    b: Any = None,
    G: Any = None,
    h: Any = None,
    lb: Any = None,
    ub: Any = None,
    **keywords: Unpack[SolveKeywords],
) -> QPSolution:
    """Solves quadratic programs by their data, differentiable in all of them: `cvxlayers.solve_qp` on JAX arrays.

        x = solve_qp(P, q, G=G, h=h).x

    Inside jit and the other transformations `result` is None, and a row whose bound is infinite cannot be left out: it
    is invalid data there.

    Args:
        P: positive semidefinite, of shape (*batch, n, n), both triangles; None for a linear program.
        q: of shape (*batch, n).
        A: of shape (*batch, equalities, n), or sparse, as pair (pattern, values); None without any, as all that follow.
        b: of shape (*batch, equalities).
        G: of shape (*batch, inequalities, n), or sparse, likewise.
        h: of shape (*batch, inequalities).
        lb: lower bounds of shape (*batch, n), or one number.
        ub: upper bounds, likewise.
        keywords: options of the solve, and `warm_start`.

    Returns:
        x, the dual variables y, z and z_box, and all else that a solve found out.

    Raises:
        InputError: if the blocks do not fit together.
        SolverError: if items cannot be solved; it names them, their status, and the way out.

    References:
        Amos, Kolter, "OptNet: differentiable optimization as a layer in neural networks" (2017); derivatives as of
        `CvxpyLayer`.
    """
    given = {"P": P, "q": q, "A": A, "b": b, "G": G, "h": h, "lb": lb, "ub": ub}
    return standard.solve_qp(given, Keywords(**keywords), _DOOR)


def solve_conic(
    P: Any,
    q: Any,
    A: Any,
    b: Any,
    cones: Mapping[str, Any],
    **keywords: Unpack[SolveKeywords],
) -> ConicSolution:
    """Solves cone programs by their data, differentiable in all of them: `cvxlayers.solve_conic` on JAX arrays.

    Inside jit and the other transformations `result` is None, and a row whose bound is infinite cannot be left out: it
    is invalid data there.

    Args:
        P: as of `solve_qp`.
        q: of shape (*batch, n).
        A: of shape (*batch, m, n), or sparse; its rows are ordered as the cones.
        b: of shape (*batch, m).
        cones: the sizes of the cones, as `cvxlayers.solve_conic` lists them.
        keywords: as of `solve_qp`.

    Returns:
        x, the dual variable y, and all else that a solve found out.

    Raises:
        OptionError: if a cone is unknown.
        InputError: if the blocks do not fit together.
        SolverError: if items cannot be solved; it names them, their status, and the way out.

    References:
        Healey, Nobel, Boyd, "Differentiating through a quadratic cone program" (2025), arXiv:2508.17522.
    """
    return standard.solve_conic({"P": P, "q": q, "A": A, "b": b}, cones, Keywords(**keywords), _DOOR)


def _run_standard(layer: Layer, values: Sequence[Any], warm_start: WarmStart | None) -> standard.Run:
    if any(isinstance(value, jax.core.Tracer) for value in values):
        return standard.Run(solve(Host(layer, layer.options, warm_start), values), None, None)
    dtype = jnp.result_type(*values)
    doubles = [np.asarray(value).astype(np.float64) for value in values]
    forward = layer.forward(doubles, layer.options, warm_start, layer.compiled.leaves.map)
    leaves = [jnp.asarray(output, dtype) for output in forward.outputs]
    objective = jnp.asarray(layer.objective(forward), dtype)
    return standard.Run(leaves, layer.result(forward, leaves, objective, jnp.asarray), None)


def _known(value: Any) -> np.ndarray | None:
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def _real(label: str, parameter: Any, parted: bool) -> jax.Array:
    """Returns an array of real numbers: of a complex parameter the real and imaginary parts, along a last axis."""
    try:
        array = jnp.asarray(parameter)
    except (TypeError, ValueError) as error:
        raise DtypeError(f"parameter {label} needs an array of real numbers: {error}") from None
    if parted:
        array = array if jnp.iscomplexobj(array) else array.astype(jnp.result_type(array.dtype, jnp.complex64))
        return jnp.stack([array.real, array.imag], axis=-1)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise DtypeError(f"parameter {label} needs real numbers, got {array.dtype}; convert it by .real")
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.result_type(float))


def _unparted(arrays: Sequence[Any], complexes: Sequence[bool]) -> tuple[jax.Array, ...]:
    """Returns those that are complex as complex arrays."""
    flags = complexes or (False,) * len(arrays)
    return tuple(
        jax.lax.complex(array[..., 0], array[..., 1]) if flag else array
        for array, flag in zip(arrays, flags, strict=True)
    )


_DOOR = standard.Door(lambda value: _real("of the program", value, parted=False), _known, _run_standard)

jax.tree_util.register_static(CvxpyLayer)
