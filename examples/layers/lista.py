"""LISTA, a lasso solver unrolled and learned, against the lasso as a layer: value, Jacobian and time.

References: Gregor and LeCun (2010), Learning fast approximations of sparse coding.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from examples.experiment import Context, Experiment, Outcome
from examples.layers.lasso import lasso_layer

Signals = Float[torch.Tensor, "*batch rows"]
Codes = Float[torch.Tensor, "*batch atoms"]
Dictionary = Float[torch.Tensor, "rows atoms"]


@dataclass(frozen=True)
class Settings:
    """Images that serve as atoms, to learn from and to test on, the penalty, and how deep a network is trained."""

    atoms: int = 80
    images: int = 600
    tests: int = 100
    penalty: float = 0.1
    layers: int = 16
    steps: int = 3000
    batch: int = 100
    lr: float = 0.001
    jacobians: int = 20


class Lista(torch.nn.Module):
    """x ↦ soft threshold of S x + W b, a given number of times from zero; it starts as the proximal gradient method."""

    def __init__(self, A: Dictionary, penalty: float, layers: int) -> None:
        torch.nn.Module.__init__(self)
        size = 1 / torch.linalg.matrix_norm(A, 2) ** 2
        self.layers = layers
        self.W = torch.nn.Parameter(size * A.T)
        self.S = torch.nn.Parameter(torch.eye(A.shape[1], dtype=A.dtype) - size * A.T @ A)
        self.threshold = torch.nn.Parameter((size * penalty).repeat(layers, 1))

    def forward(self, b: Signals) -> Codes:
        """Returns the codes of some signals."""
        drive = b @ self.W.T
        x = torch.zeros_like(drive)
        for threshold in self.threshold:
            x = _shrink(x @ self.S.T + drive, threshold)
        return x


def lasso_jacobian(A: Dictionary, x: Codes) -> Float[torch.Tensor, "*batch atoms rows"]:
    """Returns dx/db where the signs stay: (AₛᵀAₛ)⁻¹ Aₛᵀ on the support s of the code x, zero elsewhere."""
    used = (x.abs() > 1e-7).to(x.dtype)
    gram = used[..., None] * (A.T @ A) * used[..., None, :] + torch.diag_embed(1 - used)
    return torch.linalg.solve(gram, used[..., None] * A.T)


def violation(A: Dictionary, b: Signals, x: Codes, penalty: float) -> float:
    """Returns how far codes are from optimal: Aᵀ(b − A x) is penalty sign(x), and within ± penalty where x is zero."""
    force = (b - x @ A.T) @ A
    return (
        (torch.where(x.abs() > 1e-7, force - penalty * x.sign(), torch.relu(force.abs() - penalty))).abs().max().item()
    )


def run(settings: Settings, context: Context) -> Outcome:
    """Learns to imitate the layer, and compares what was learned with it on images not learned from."""
    A, train, test = _data(settings, context.seed)
    layer = lasso_layer(*A.shape)
    penalty = torch.full((settings.atoms,), settings.penalty, dtype=A.dtype)

    def exact(b: Signals) -> Codes:
        return layer(A, b, penalty)[0]

    codes, right = exact(train), exact(test)
    plain, learned = (Lista(A, settings.penalty, settings.layers) for _ in range(2))
    curve = _train(learned, train, codes, test, right, settings, context)
    some, closed = test[: settings.jacobians], lasso_jacobian(A, right[: settings.jacobians])
    metrics: dict[str, Any] = {
        "violation_layer": violation(A, test, right, settings.penalty),
        "jacobian_error_layer": _relative(torch.func.vmap(torch.func.jacrev(exact))(some), closed),
    }
    for name, method in (("ista", plain), ("lista", learned)):
        slope = torch.func.vmap(torch.func.jacrev(method))(some).detach()
        metrics[f"error_{name}"] = _relative(method(test).detach(), right)
        metrics[f"jacobian_error_{name}"] = _relative(slope, closed)
    metrics["milliseconds_layer"], metrics["milliseconds_lista"] = (_milliseconds(m, test) for m in (exact, learned))
    notes = [
        "relative errors on images not learned from: of codes against the layer, of Jacobians against the closed form"
    ]
    return Outcome(metrics, notes, lambda figure: _draw(figure, curve, metrics))


def _data(settings: Settings, seed: int) -> tuple[Dictionary, Signals, Signals]:
    """Returns images as atoms, of norm one, and others to code."""
    from sklearn.datasets import load_digits

    images = load_digits().data / 16
    order = np.random.default_rng(seed).permutation(len(images))
    atoms, train, test = torch.as_tensor(images[order])[: settings.atoms + settings.images + settings.tests].split(
        [settings.atoms, settings.images, settings.tests]
    )
    scaled = [part / part.norm(dim=1, keepdim=True) for part in (atoms, train, test)]
    return scaled[0].T.contiguous(), scaled[1], scaled[2]


def _train(
    model: Lista, b: Signals, codes: Codes, test: Signals, right: Codes, settings: Settings, context: Context
) -> list[tuple[int, float]]:
    """Lowers the distance to the layer's codes by Adam with falling steps; returns relative errors on the test."""
    generator, curve = torch.Generator().manual_seed(context.seed), []
    optimizer = torch.optim.Adam(model.parameters(), settings.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    for step in context.track(range(settings.steps), "training"):
        if step % max(settings.steps // 50, 1) == 0:
            with torch.no_grad():
                curve.append((step, _relative(model(test), right)))
        batch = torch.randint(len(b), (settings.batch,), generator=generator)
        optimizer.zero_grad()
        (model(b[batch]) - codes[batch]).square().sum(dim=1).mean().backward()
        optimizer.step()
        schedule.step()
    return curve


def _shrink(x: Codes, threshold: torch.Tensor) -> Codes:
    return torch.sign(x) * torch.relu(x.abs() - threshold)


def _relative(found: torch.Tensor, right: torch.Tensor) -> float:
    return ((found - right).norm() / right.norm()).item()


@torch.no_grad()
def _milliseconds(method: Callable[[Signals], Codes], b: Signals) -> float:
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        method(b)
        times.append(time.perf_counter() - begin)
    return 1e3 * float(np.median(times))


def _draw(figure: Any, curve: list[tuple[int, float]], metrics: dict[str, Any]) -> None:
    left, right = figure.subplots(1, 2)
    left.semilogy(*zip(*curve, strict=True), color="tab:blue", label="LISTA")
    left.axhline(metrics["error_ista"], color="tab:orange", label="ISTA, as deep")
    left.set(xlabel="training step", ylabel="relative error of the codes", title="Learning to imitate the layer")
    left.legend()
    names = "ista", "lista"
    for offset, kind in ((-0.2, "error"), (0.2, "jacobian_error")):
        heights = [metrics[f"{kind}_{name}"] for name in names]
        right.bar(np.arange(2) + offset, heights, 0.38, label=kind.replace("_", " "))
    right.set_xticks(range(2), ["ISTA, as deep", "LISTA"])
    right.set(ylim=(0, 1.4), title="Relative errors on new images")
    right.legend()


LISTA = Experiment(
    "lista",
    "The lasso unrolled and learned (LISTA) against the lasso as a layer: value, Jacobian and time.",
    run,
    {"ci": Settings(30, 100, 30, 0.1, 8, 200, 50, 0.003, 4), "full": Settings()},
)
