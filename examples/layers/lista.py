"""LISTA, a lasso solver unrolled and learned, against the lasso as a layer: value, Jacobian and time.

References: Gregor and LeCun (2010), Learning fast approximations of sparse coding; Beck and Teboulle (2009), FISTA.
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


def fista(A: Dictionary, b: Signals, penalty: float, iterations: int) -> Codes:
    """Returns the codes by the accelerated proximal gradient method."""
    size = 1 / torch.linalg.matrix_norm(A, 2) ** 2
    x = moved = b.new_zeros(*b.shape[:-1], A.shape[1])
    inertia = 1.0
    for _ in range(iterations):
        following = _shrink(moved - size * (moved @ A.T - b) @ A, size * penalty)
        faster = (1 + (1 + 4 * inertia**2) ** 0.5) / 2
        moved = following + (inertia - 1) / faster * (following - x)
        x, inertia = following, faster
    return x


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
    some = test[: settings.jacobians]
    jacobian = torch.func.vmap(torch.func.jacrev(exact))(some)
    metrics: dict[str, Any] = {}
    methods: dict[str, Callable[[Signals], Codes]] = {
        "ista": plain,
        "lista": learned,
        "fista": lambda b: fista(A, b, settings.penalty, 2000),
    }
    for name, method in methods.items():
        with torch.no_grad():
            metrics[f"error_{name}"] = _relative(method(test), right)
        slope = torch.stack([torch.autograd.functional.jacobian(method, b) for b in some])
        metrics[f"jacobian_error_{name}"] = _relative(slope, jacobian)
    metrics["milliseconds_layer"], metrics["milliseconds_lista"] = (_milliseconds(m, test) for m in (exact, learned))
    notes = ["relative errors against the layer, on images not learned from; ista and lista are equally deep"]
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
    names = "ista", "lista", "fista"
    for offset, kind in ((-0.2, "error"), (0.2, "jacobian_error")):
        heights = [max(metrics[f"{kind}_{name}"], 1e-16) for name in names]
        right.bar(np.arange(3) + offset, heights, 0.38, label=kind.replace("_", " "))
    right.set_xticks(range(3), ["ISTA", "LISTA", "FISTA, 2000 steps"])
    right.set(yscale="log", title="Against the layer, on new images")
    right.legend()


LISTA = Experiment(
    "lista",
    "The lasso unrolled and learned (LISTA) against the lasso as a layer: value, Jacobian and time.",
    run,
    {"ci": Settings(30, 100, 30, 0.1, 8, 200, 50, 0.003, 4), "full": Settings()},
)
