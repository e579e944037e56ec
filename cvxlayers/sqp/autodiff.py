"""What the algorithm needs of a framework: its transforms, its arrays, and how a result joins its gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

Array = Any
# What numpy makes a float64 array of.
Numbers = Any
Function = Callable[..., Any]
# Cotangents of the solution (numpy) → cotangents of the leaves (numpy).
Pullback = Callable[[np.ndarray], Sequence[np.ndarray]]


@runtime_checkable
class Autodiff(Protocol):
    """A framework, as far as sequential quadratic programming meets it."""

    def scope(self) -> AbstractContextManager[Any]:
        """Returns the context in which functions are evaluated: double precision, nothing recorded."""
        ...

    def array(self, value: np.ndarray) -> Array:
        """Returns a float64 array of the framework."""
        ...

    def numpy(self, value: Array) -> np.ndarray:
        """Returns a float64 numpy array."""
        ...

    def flatten(self, tree: Any) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
        """Returns the leaves of a tree, and how such leaves become a tree again."""
        ...

    def vmap(self, function: Function, axes: tuple[Any, ...]) -> Function:
        """Maps a function over axis 0 of the arguments whose entry is 0."""
        ...

    def grad(self, function: Function, argument: int = 0) -> Function:
        """Returns the gradient of a scalar function."""
        ...

    def jacobian(self, function: Function) -> Function:
        """Returns the Jacobian in the first argument."""
        ...

    def hessian(self, function: Function) -> Function:
        """Returns the Hessian in the first argument."""
        ...

    def pull(self, function: Function, arguments: Sequence[Any], cotangents: Any) -> Sequence[Any]:
        """Pulls cotangents of a function's outputs back to its arguments."""
        ...

    def concatenate(self, parts: Sequence[Array]) -> Array:
        """Joins vectors, or matrices along their last axis."""
        ...

    def ready(self, function: Function) -> Function:
        """Returns the function as it is fastest to call again."""
        ...

    def join(self, leaves: Sequence[Any], solve: Callable[[list[np.ndarray]], tuple[np.ndarray, Pullback]]) -> Array:
        """Solves at the leaves, and returns the solution with its gradients attached."""
        ...

    def check(self, function: Function, point: np.ndarray, theta: Sequence[Any]) -> None:
        """Raises if a function holds a quantity that needs a gradient without being an argument."""
        ...


@dataclass(frozen=True, eq=False)
class Arguments:
    """The parameters of a call: leaves of one batch, or shared by it.

    Attributes:
        leaves: float64 arrays of the framework.
        batched: which of them have a leading batch axis.
        rebuild: makes the user's arguments of leaves.
    """

    leaves: tuple[Array, ...]
    batched: tuple[bool, ...]
    rebuild: Callable[[Sequence[Any]], tuple[Any, ...]]

    @property
    def axes(self) -> tuple[int | None, ...]:
        """The axes to map over."""
        return tuple(0 if batched else None for batched in self.batched)
