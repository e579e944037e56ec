"""Sequential quadratic programming in JAX: eagerly, with the user's functions compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from cvxlayers.errors import InputError, MissingDependencyError
from cvxlayers.sqp.autodiff import Function, Pullback

try:
    import jax
    import jax.numpy as jnp
except ImportError:
    raise MissingDependencyError("cvxlayers.sqp needs JAX: pip install 'cvxlayers[jax]'") from None


class JaxAutodiff:
    """JAX by its transforms, in float64 inside a scope; x64 is not switched on outside it."""

    def scope(self) -> AbstractContextManager[Any]:
        """Computes in float64."""
        return jax.enable_x64(True)

    def array(self, value: np.ndarray) -> jax.Array:
        """Returns a float64 array; only inside the scope."""
        return jnp.asarray(value, dtype=jnp.float64)

    def numpy(self, value: Any) -> np.ndarray:
        """Returns a float64 numpy array."""
        if isinstance(value, jax.core.Tracer):
            raise InputError(
                "starts and guesses have no gradient and cannot be traced: pass values, outside jit and vmap"
            )
        return np.asarray(value, dtype=np.float64)

    def flatten(self, tree: Any) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
        """Flattens any tree."""
        leaves, spec = jax.tree.flatten(tree)
        for leaf in leaves:
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                raise InputError(f"parameters are floating-point arrays, or trees of them; got {type(leaf).__name__}")
        return leaves, lambda new: jax.tree.unflatten(spec, list(new))

    def vmap(self, function: Function, axes: tuple[Any, ...]) -> Function:
        """Maps by `jax.vmap`."""
        return jax.vmap(function, in_axes=axes)

    def grad(self, function: Function, argument: int = 0) -> Function:
        """Returns the gradient."""
        return jax.grad(function, argnums=argument)

    def jacobian(self, function: Function) -> Function:
        """Returns the Jacobian."""
        return jax.jacrev(function)

    def hessian(self, function: Function) -> Function:
        """Returns the Hessian."""
        return jax.hessian(function)

    def pull(self, function: Function, arguments: Sequence[Any], cotangents: Any) -> Sequence[Any]:
        """Pulls back by `jax.vjp`."""
        return jax.vjp(function, *arguments)[1](cotangents)

    def concatenate(self, parts: Sequence[jax.Array]) -> jax.Array:
        """Joins along the last axis."""
        return jnp.concatenate(list(parts), axis=-1)

    def ready(self, function: Function) -> Function:
        """Compiles the function."""
        return jax.jit(function)

    def join(
        self, leaves: Sequence[Any], solve: Callable[[list[np.ndarray]], tuple[np.ndarray, Pullback]]
    ) -> jax.Array:
        """Solves with a custom gradient; outside `jit`, as the iterations run on the host."""
        dtype = jnp.result_type(*leaves) if leaves else jnp.result_type(float)
        kept: dict[str, Pullback] = {}

        @jax.custom_vjp
        def solved(*leaves: Any) -> jax.Array:
            return forward(*leaves)[0]

        def forward(*leaves: Any) -> tuple[jax.Array, None]:
            if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
                raise InputError(
                    "sequential quadratic programs are solved eagerly: call them outside jit and vmap; batches are "
                    "leading axes, and the functions are compiled by themselves"
                )
            z, kept["pullback"] = solve([np.asarray(leaf, dtype=np.float64) for leaf in leaves])
            return jnp.asarray(z, dtype=dtype), None

        def backward(_: None, dz: jax.Array) -> tuple[jax.Array, ...]:
            gradients = kept["pullback"](np.asarray(dz, dtype=np.float64))
            pairs = zip(gradients, leaves, strict=True)
            return tuple(jnp.asarray(gradient, dtype=jnp.result_type(leaf)) for gradient, leaf in pairs)

        solved.defvjp(forward, backward)
        return solved(*leaves)

    def check(self, function: Function, point: np.ndarray, theta: Sequence[Any]) -> None:
        """Does nothing: JAX itself refuses gradients of what a function closes over."""
