"""The policy in JAX, trained on a batch that is sharded over the devices there are.

    XLA_FLAGS=--xla_force_host_platform_device_count=2 python -m examples.scale.jax_policy --out policy.npz

On several hosts the same script runs once on each, after `jax.distributed.initialize()`.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cvxlayers.jax import CvxpyLayer
from examples.scale.policy import STATES, Plant, Rollouts, plant, problem, rollouts

Weights = dict[str, Any]


def mean_cost(layer: CvxpyLayer, system: Plant, weights: Weights, starts: Any, noise: Any, limit: float = 0.5) -> Any:
    """Returns the mean over items and steps of ‖x‖² + ‖u‖²."""

    def step(x: Any, disturbance: Any) -> tuple[Any, Any]:
        (u,) = layer(x, weights["root"], weights["slope"], limit)
        cost = jnp.mean(jnp.sum(x**2, axis=1) + jnp.sum(u**2, axis=1))
        return x @ system.A.T + u @ system.B.T + disturbance, cost

    return jnp.mean(jax.lax.scan(step, starts, noise)[1])


def train(drawn: Rollouts, epochs: int, devices: list[Any], lr: float = 0.1) -> tuple[Weights, list[float]]:
    """Trains on rollouts shared among devices, and returns the weights and the costs before each step."""
    system = plant()
    layer = CvxpyLayer(*problem(system))
    over_items = partial(NamedSharding, Mesh(np.array(devices), ("data",)))
    starts = jax.device_put(drawn.starts, over_items(PartitionSpec("data")))
    noise = jax.device_put(drawn.noise, over_items(PartitionSpec(None, "data")))
    weights: Weights = {"root": jnp.eye(STATES), "slope": jnp.zeros(STATES)}
    weights = jax.device_put(weights, over_items(PartitionSpec()))
    descend, costs = jax.jit(jax.value_and_grad(partial(mean_cost, layer, system))), []
    for _ in range(epochs):
        cost, gradient = descend(weights, starts, noise)
        weights = jax.tree.map(lambda weight, slope: weight - lr * slope, weights, gradient)
        costs.append(float(cost))
    return weights, costs


def main() -> None:
    """Trains the policy on all devices."""
    parser = argparse.ArgumentParser(description=main.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--batch", type=int, default=32, help="rollouts, over all devices")
    parser.add_argument("--steps", type=int, default=10, help="steps of a rollout")
    parser.add_argument("--epochs", type=int, default=20, help="steps of gradient descent")
    parser.add_argument("--devices", type=int, default=0, help="how many devices to use; 0 for all")
    parser.add_argument("--out", type=Path, default=Path("outputs/policy.npz"), help="file for the trained policy")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    devices = jax.devices()[: options.devices or None]
    weights, costs = train(rollouts(options.batch, options.steps), options.epochs, devices)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(options.out, costs=costs, **weights)
    print(f"{len(devices)} devices, cost {costs[0]:.4f} to {costs[-1]:.4f}")


if __name__ == "__main__":
    main()
