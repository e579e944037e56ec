"""The functions of a problem, by a framework's transforms: an `Oracle` at given parameters.

`Formulas` are written once, for one item, in terms of an `Autodiff`; `Bound` maps them over the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from cvxlayers.sqp.autodiff import Arguments, Array, Autodiff, Function
from cvxlayers.sqp.model import Functions, Layout, Model, Multipliers, Sizes
from cvxlayers.sqp.pattern import Pattern, Vectors


@runtime_checkable
class Formulas(Protocol):
    """One item's functions of z and the parameters."""

    def values(self, z: Array, *theta: Any) -> tuple[Array, Array, Array]:
        """Returns f, g and h."""
        ...

    def model(self, hessian: str) -> Function:
        """Returns (z, y, w, *theta) ↦ ∇f, g, h, the entries of A and G, and the Hessian's blocks."""
        ...


@dataclass(frozen=True, eq=False)
class Dense:
    """A problem without structure: dense derivatives of the user's functions.

    Attributes:
        autodiff: the framework.
        objective: f, or the residuals r whose ½|r|² it is.
        equalities: g, or None.
        inequalities: h, or None.
    """

    autodiff: Autodiff
    objective: Function
    equalities: Function | None
    inequalities: Function | None

    def values(self, z: Array, *theta: Any) -> tuple[Array, Array, Array]:
        """Returns f, g and h."""
        found = self.objective(z, *theta)
        f = 0.5 * (found * found).sum() if found.ndim else found
        g, h = (rule(z, *theta) if rule else z[:0] for rule in (self.equalities, self.inequalities))
        return f, g, h

    def model(self, hessian: str) -> Function:
        """Returns the dense model."""
        grad, jacobian, second = self.autodiff.grad, self.autodiff.jacobian, self.autodiff.hessian

        def lagrangian(z: Array, y: Array, w: Array, *theta: Any) -> Array:
            f, g, h = self.values(z, *theta)
            return f + (y * g).sum() + (w * h).sum()

        def gauss_newton(z: Array, *theta: Any) -> Array:
            slopes = jacobian(self.objective)(z, *theta)
            return slopes.T @ slopes if slopes.ndim == 2 else second(self.objective)(z, *theta)

        def model(z: Array, y: Array, w: Array, *theta: Any) -> tuple[Any, ...]:
            _, g, h = self.values(z, *theta)
            gradient = grad(lambda at: self.values(at, *theta)[0])(z)
            A, G = (
                jacobian(lambda at, k=k: self.values(at, *theta)[k])(z).reshape(-1) if len(part) else part
                for k, part in ((1, g), (2, h))
            )
            exact = hessian == "exact"
            H = second(lagrangian)(z, y, w, *theta) if exact else gauss_newton(z, *theta)
            return gradient, g, h, A, G, (H[None],)

        return model


@dataclass(frozen=True, eq=False)
class Compiled:
    """Formulas mapped over a batch whose arguments have given axes, compiled once."""

    autodiff: Autodiff
    formulas: Formulas
    axes: tuple[int | None, ...]
    rebuild: Callable[[Sequence[Any]], tuple[Any, ...]]
    ready: dict[str, Function] = field(default_factory=dict)

    def call(self, name: str, build: Callable[[], Function], *arguments: Any) -> Any:
        """Calls a function that is built, and compiled, on its first use."""
        if name not in self.ready:
            self.ready[name] = self.autodiff.ready(build())
        return self.ready[name](*arguments)

    def mapped(self, function: Function, count: int) -> Function:
        """Maps (count batched arguments, *leaves) over the batch."""

        def on_leaves(*arguments: Any) -> Any:
            return function(*arguments[:count], *self.rebuild(arguments[count:]))

        return self.autodiff.vmap(on_leaves, (0,) * count + self.axes)


@dataclass(frozen=True, eq=False)
class Bound:
    """An `Oracle`: formulas at the parameters of a call."""

    layout: Layout
    compiled: Compiled
    arguments: Arguments

    def values(self, trials: Float[np.ndarray, "trials batch n"]) -> Functions:
        """Returns f, g and h at several points of each item."""
        compiled, leaves = self.compiled, self.arguments.leaves

        def build() -> Function:
            inner = compiled.mapped(compiled.formulas.values, 1)
            return compiled.autodiff.vmap(inner, (0, *(None,) * len(leaves)))

        with compiled.autodiff.scope():
            found = compiled.call("values", build, compiled.autodiff.array(trials), *leaves)
            return Functions(*(compiled.autodiff.numpy(part) for part in found))

    def model(self, z: Vectors, multipliers: Multipliers, hessian: str) -> Model:
        """Returns the model at z."""
        compiled = self.compiled
        with compiled.autodiff.scope():
            found = compiled.call(
                f"model {hessian}", lambda: self._model(hessian), *self._point(z, multipliers), *self.arguments.leaves
            )
            gradient, g, h, A, G = map(compiled.autodiff.numpy, found[:-1])
            return Model(gradient, g, h, A, G, tuple(map(compiled.autodiff.numpy, found[-1])))

    def pull_model(
        self, z: Vectors, multipliers: Multipliers, hessian: str, cotangents: Model
    ) -> tuple[Vectors, Multipliers, list[np.ndarray]]:
        """Pulls cotangents of the model back to z, the multipliers and the leaves."""
        autodiff = self.compiled.autodiff

        def build() -> Function:
            return lambda arguments, cotangents: autodiff.pull(self._model(hessian), arguments, cotangents)

        with autodiff.scope():
            parts = (cotangents.gradient, cotangents.g, cotangents.h, cotangents.A, cotangents.G)
            dual = (*map(autodiff.array, parts), tuple(map(autodiff.array, cotangents.hessian)))
            arguments = (*self._point(z, multipliers), *self.arguments.leaves)
            pulled = self.compiled.call(f"pull {hessian}", build, arguments, dual)
            dz, dy, dw, *gradients = map(autodiff.numpy, pulled)
        return dz, Multipliers(dy, dw, np.zeros_like(dz)), gradients

    def pull_conditions(self, z: Vectors, at: Multipliers, dz: Vectors, dual: Multipliers) -> list[np.ndarray]:
        """Pulls cotangents of ∇L, g and h back: the gradient of L's slope along dz, and of dual·(g, h)."""
        compiled = self.compiled
        values = compiled.formulas.values

        def item(z: Array, y: Array, w: Array, dz: Array, dy: Array, dw: Array, *theta: Any) -> Array:
            def lagrangian(at: Array) -> Array:
                f, g, h = values(at, *theta)
                return f + (y * g).sum() + (w * h).sum()

            _, g, h = values(z, *theta)
            return (compiled.autodiff.grad(lagrangian)(z) * dz).sum() + (dy * g).sum() + (dw * h).sum()

        parts = (z, at.g, at.h, dz, dual.g, dual.h)
        return self._gradient("conditions", item, parts)

    def pull_lagrangian(self, z: Vectors, at: Multipliers, weights: Sizes) -> list[np.ndarray]:
        """Returns the gradient in the leaves of the weighted sum of the items' Lagrangians."""
        values = self.compiled.formulas.values

        def item(z: Array, y: Array, w: Array, weight: Array, *theta: Any) -> Array:
            f, g, h = values(z, *theta)
            return weight * (f + (y * g).sum() + (w * h).sum())

        return self._gradient("lagrangian", item, (z, at.g, at.h, weights))

    def _gradient(self, name: str, item: Function, parts: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        compiled, autodiff = self.compiled, self.compiled.autodiff

        def build() -> Function:
            mapped = compiled.mapped(item, len(parts))
            total = autodiff.grad(lambda leaves, *fixed: mapped(*fixed, *leaves).sum())
            return lambda leaves, *fixed: total(leaves, *fixed)

        with autodiff.scope():
            found = compiled.call(name, build, self.arguments.leaves, *map(autodiff.array, parts))
            return [autodiff.numpy(gradient) for gradient in found]

    def _model(self, hessian: str) -> Function:
        return self.compiled.mapped(self.compiled.formulas.model(hessian), 3)

    def _point(self, z: Vectors, multipliers: Multipliers) -> tuple[Array, ...]:
        return tuple(map(self.compiled.autodiff.array, (z, multipliers.g, multipliers.h)))


def dense_layout(lower: np.ndarray, upper: np.ndarray, equalities: int, inequalities: int) -> Layout:
    """Returns the layout of a problem without structure."""
    n = len(lower)
    return Layout(lower, upper, Pattern.full(equalities, n), Pattern.full(inequalities, n), ((1, n),))
