"""A layer inside the modules of JAX's libraries: a pytree whose leaves are the weights; the layer is static.

Both learn a price predictor through the decision that is made with its predictions.
"""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx

from cvxlayers.jax import CvxpyLayer


def allocation(count: int) -> CvxpyLayer:
    """Returns shares of a budget, by predicted returns: maximise returnsᵀx − ½‖x‖² over the simplex."""
    x, returns = cp.Variable(count, nonneg=True), cp.Parameter(count)
    budget: Any = cp.sum(x) == 1
    return CvxpyLayer(cp.Problem(cp.Maximize(returns @ x - 0.5 * cp.sum_squares(x)), [budget]), [returns], [x])


class EquinoxAllocator(eqx.Module):
    """Features in, shares out."""

    predictor: eqx.nn.Linear
    layer: CvxpyLayer = eqx.field(static=True)

    def __init__(self, features: int, count: int, key: Any) -> None:
        self.predictor = eqx.nn.Linear(features, count, key=key)
        self.layer = allocation(count)

    def __call__(self, features: Any) -> Any:
        """Returns the shares for one item's features; `jax.vmap` maps it over a batch."""
        return self.layer(self.predictor(features))[0]


class FlaxAllocator(nnx.Module):
    """Features in, shares out."""

    def __init__(self, features: int, count: int, rngs: nnx.Rngs) -> None:
        self.predictor = nnx.Linear(features, count, rngs=rngs)
        self.layer = allocation(count)

    def __call__(self, features: Any) -> Any:
        """Returns the shares for a batch of features."""
        return self.layer(self.predictor(features))[0]


def loss_of(shares: Any, returns: Any) -> Any:
    """Returns the mean loss of the shares, minus their return."""
    return -jnp.mean(jnp.sum(shares * returns, axis=-1))


def train_equinox(model: EquinoxAllocator, features: Any, returns: Any, steps: int, lr: float = 0.5) -> list[float]:
    """Trains by gradient descent, and returns the losses."""

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def descend(model: EquinoxAllocator) -> Any:
        return loss_of(jax.vmap(model)(features), returns)

    losses = []
    for _ in range(steps):
        loss, slope = descend(model)
        model = eqx.apply_updates(model, jax.tree.map(lambda g: -lr * g, slope))
        losses.append(float(loss))
    return losses


def train_flax(model: FlaxAllocator, features: Any, returns: Any, steps: int, lr: float = 0.5) -> list[float]:
    """Trains by gradient descent, and returns the losses."""

    @nnx.jit
    def descend(model: FlaxAllocator) -> Any:
        loss, slope = nnx.value_and_grad(lambda model: loss_of(model(features), returns))(model)
        nnx.update(model, jax.tree.map(lambda weight, g: weight - lr * g, nnx.state(model, nnx.Param), slope))
        return loss

    return [float(descend(model)) for _ in range(steps)]
