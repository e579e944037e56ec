"""The pendulum and the cart-pole of differentiable MPC, for one state and control.

Constants: https://github.com/locuslab/mpc.pytorch (env_dx/pendulum.py, env_dx/cartpole.py). Angles are from the top.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

DT = 0.05
PENDULUM = (10.0, 1.0, 1.0)  # gravity, mass, length
TORQUE = 2.0
CARTPOLE = (9.8, 1.0, 0.1, 0.5)  # gravity, mass of the cart, mass of the pole, half its length
FORCE = 100.0


def pendulum(x: Tensor, u: Tensor, theta: Tensor) -> Tensor:
    """The next (angle, speed) of a pendulum with theta = (gravity, mass, length)."""
    angle, speed = x[0], x[1]
    speed = speed + DT * pendulum_acceleration(angle, u[0], theta)
    return torch.stack([angle + DT * speed, speed])


def pendulum_acceleration(angle: Tensor, torque: Tensor, theta: Tensor) -> Tensor:
    """3g/(2l) sin(angle) + 3u/(ml²)."""
    gravity, mass, length = theta[..., 0], theta[..., 1], theta[..., 2]
    return 1.5 * gravity / length * angle.sin() + 3.0 * torque / (mass * length**2)


def embedded_pendulum(x: Tensor, u: Tensor, theta: Tensor) -> Tensor:
    """The same pendulum with the state (cos, sin, speed)."""
    angle = torch.atan2(x[1], x[0])
    speed = x[2] + DT * pendulum_acceleration(angle, u[0], theta)
    angle = angle + DT * speed
    return torch.stack([angle.cos(), angle.sin(), speed])


def embed(x: Tensor) -> Tensor:
    """Returns (cos, sin, speed) of states (angle, speed)."""
    return torch.stack([x[..., 0].cos(), x[..., 0].sin(), x[..., 1]], dim=-1)


def cartpole(x: Tensor, u: Tensor, theta: Tensor) -> Tensor:
    """The next (position, speed, angle, angular speed) of a cart-pole; theta as CARTPOLE."""
    gravity, cart, pole, half = theta[0], theta[1], theta[2], theta[3]
    total, sin, cos = cart + pole, x[2].sin(), x[2].cos()
    push = (u[0] + pole * half * x[3] ** 2 * sin) / total
    turn = (gravity * sin - cos * push) / (half * (4.0 / 3.0 - pole * cos**2 / total))
    slide = push - pole * half * turn * cos / total
    return x + DT * torch.stack([x[1], slide, x[3], turn])


def random_pendulum(count: int, generator: torch.Generator, widest: float = math.pi) -> Tensor:
    """Draws states: angles uniform up to the widest, speeds uniform in ±1."""
    scale = torch.tensor([widest, 1.0], dtype=torch.float64)
    return (2.0 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 1.0) * scale


def random_cartpole(count: int, generator: torch.Generator) -> Tensor:
    """Draws states: position and speed uniform in ±0.5, angle in ±π, angular speed in ±1."""
    scale = torch.tensor([0.5, 0.5, math.pi, 1.0], dtype=torch.float64)
    return (2.0 * torch.rand(count, 4, generator=generator, dtype=torch.float64) - 1.0) * scale
