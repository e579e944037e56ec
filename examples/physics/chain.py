"""A chain of masses on rigid rods, and a ball that hits it: every time step is a quadratic program.

References: Anitescu, Potra, "Formulating dynamic multi-rigid-body contact problems with friction" (1997);
de Avila Belbute-Peres et al., "End-to-end differentiable physics for learning and control" (2018), whose experiment
with a chain this one follows, without friction.
"""

from __future__ import annotations

from dataclasses import dataclass

import cvxpy as cp
import torch
from jaxtyping import Float

from cvxlayers.torch import CvxpyLayer

Bodies = Float[torch.Tensor, "*batch bodies 2"]
Masses = Float[torch.Tensor, "*batch bodies"]
Rows = Float[torch.Tensor, "*batch rows size"]

GRAVITY = 9.81
# The share of a rod's error in length that a step takes back.
_CORRECTION = 0.5


@dataclass(frozen=True)
class Scene:
    """A chain that hangs from the origin, and a ball to its left. Bodies are the links, from the top, then the ball.

    Attributes:
        links: masses of the chain.
        steps: of time.
        duration: of the trajectory, in seconds.
        ball: mass of the ball.
        speed: of the ball, to the right.
        radius: of the ball.
    """

    links: int
    steps: int
    duration: float = 1.0
    ball: float = 3.0
    speed: float = 4.0
    radius: float = 0.2

    @property
    def time_step(self) -> float:
        """Seconds of a step."""
        return self.duration / self.steps

    @property
    def rod(self) -> float:
        """Length of a rod: the chain is a metre long."""
        return 1.0 / self.links

    def start(self) -> tuple[Bodies, Bodies]:
        """Returns positions and velocities: a chain at rest, and a ball that touches its middle after a tenth."""
        heights = -self.rod * torch.arange(1, self.links + 1, dtype=torch.float64)
        gap = 0.1 * self.duration * self.speed
        ball = torch.tensor([[-self.radius - gap, -0.6]], dtype=torch.float64)
        velocities = torch.zeros(self.links + 1, 2, dtype=torch.float64)
        velocities[-1, 0] = self.speed
        return torch.cat([torch.stack([torch.zeros_like(heights), heights], dim=-1), ball]), velocities


def step_layer(links: int) -> CvxpyLayer:
    """Returns the layer (m, f, E, e, C, c) ↦ v that minimises ½ Σ mᵢ vᵢ² − fᵀv subject to E v = e and C v ≥ c.

    v holds the velocities after a step, f = m (velocity before + time step · gravity). Of all velocities that keep the
    rods (E) and let nothing overlap (C), v is the one nearest to free flight, as the masses measure it.
    """
    size = 2 * (links + 1)
    m, f = cp.Parameter(size, nonneg=True, name="m"), cp.Parameter(size, name="f")
    E, e = cp.Parameter((links, size), name="E"), cp.Parameter(links, name="e")
    C, c = cp.Parameter((links, size), name="C"), cp.Parameter(links, name="c")
    v = cp.Variable(size, name="v")
    objective = cp.Minimize(0.5 * m @ cp.square(v) - f @ v)
    return CvxpyLayer(cp.Problem(objective, [E @ v == e, C @ v >= c]), parameters=[m, f, E, e, C, c], variables=[v])


def simulate(layer: CvxpyLayer, scene: Scene, links: Float[torch.Tensor, "*batch"]) -> tuple[Bodies, Masses]:
    """Returns the positions at all times, (*batch, steps, bodies, 2), and the gaps of the contacts, never quite closed.

    Args:
        layer: of `step_layer`.
        scene: what moves.
        links: mass of each link, equal along a chain.
    """
    ball = torch.full_like(links, scene.ball)
    masses = torch.cat([links[..., None].expand(*links.shape, scene.links), ball[..., None]], dim=-1)
    weight = masses.repeat_interleave(2, dim=-1)
    positions, velocities = (part.expand(*links.shape, *part.shape) for part in scene.start())
    gravity = torch.tensor([0.0, -GRAVITY], dtype=links.dtype)
    path, gaps = [], []
    for _ in range(scene.steps):
        momentum = weight * (velocities + scene.time_step * gravity).flatten(-2)
        gap, contacts = contact_rows(positions, scene)
        stretch, rods = rod_rows(positions, scene)
        (v,) = layer(weight, momentum, rods, -_CORRECTION * stretch / scene.time_step, contacts, -gap / scene.time_step)
        velocities = v.unflatten(-1, (scene.links + 1, 2))
        positions = positions + scene.time_step * velocities
        path.append(positions)
        gaps.append((contacts @ v[..., None])[..., 0] + gap / scene.time_step)
    return torch.stack(path, dim=-3), torch.stack(gaps, dim=-2)


def rod_rows(positions: Bodies, scene: Scene) -> tuple[Masses, Rows]:
    """Returns by how much each rod is too long, and the rows that give its rate; the first hangs from the origin."""
    above = torch.cat([torch.zeros_like(positions[..., :1, :]), positions[..., : scene.links - 1, :]], dim=-2)
    incidence = torch.eye(scene.links, scene.links + 1, dtype=positions.dtype)
    incidence -= torch.diag_embed(torch.ones(scene.links, dtype=positions.dtype), offset=-1)[:-1]
    distance, rows = _rates(positions[..., :-1, :] - above, incidence)
    return distance - scene.rod, rows


def contact_rows(positions: Bodies, scene: Scene) -> tuple[Masses, Rows]:
    """Returns the gap between each link and the ball, and the rows that give its rate."""
    incidence = torch.eye(scene.links, scene.links + 1, dtype=positions.dtype)
    incidence[:, -1] = -1.0
    distance, rows = _rates(positions[..., :-1, :] - positions[..., -1:, :], incidence)
    return distance - scene.radius, rows


def _rates(between: Bodies, incidence: Float[torch.Tensor, "links bodies"]) -> tuple[Masses, Rows]:
    """Returns distances, and the rows that give their rates: who moves by how much is the incidence's to say."""
    distance = between.norm(dim=-1)
    rows = (between / distance[..., None])[..., None, :] * incidence[..., None]
    return distance, rows.flatten(-2)
