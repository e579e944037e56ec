"""Gradient descent on the cross-validation error, through the solution of every fold's elastic net."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import torch
from jaxtyping import Float
from tqdm import trange

from cvxlayers.torch import CvxpyLayer
from examples.elastic_net.data import Study
from examples.elastic_net.fit import Fit
from examples.elastic_net.model import Penalty, elastic_net
from examples.elastic_net.moments import Moments


@dataclass(frozen=True)
class Settings:
    """How to tune.

    Attributes:
        epochs: steps of Adam.
        learning_rate: its step size.
        shrinkage: weight of the mean squared deviation of a feature's penalty from the level of its kind.
    """

    epochs: int
    learning_rate: float
    shrinkage: float


@dataclass(frozen=True)
class Curves:
    """Mean squared errors before each step, averaged over the splits.

    Attributes:
        fit: on what the folds fit on.
        validation: on what the folds hold out, which is what is tuned.
        test: of the net refitted to the whole training part. Nothing is chosen by it.
    """

    fit: list[float]
    validation: list[float]
    test: list[float]


def tune(study: Study, settings: Settings) -> tuple[Fit, Curves]:
    """Tunes the penalties of all splits at once: each step solves splits × folds programs as one batch."""
    started = perf_counter()
    layer = elastic_net(len(study.features.names))
    penalty = Penalty(len(study.splits), torch.as_tensor(study.features.kinds))
    optimizer = torch.optim.Adam(penalty.parameters(), lr=settings.learning_rate)
    curves = Curves([], [], [])
    progress = trange(settings.epochs, desc="tuning", unit="step")
    for _ in progress:
        w = solve(layer, study.fit, penalty)
        validation = study.held_out.mean_squared_error(w).mean(dim=-1)
        # The splits are independent, so that the gradient of the sum is each one's own.
        loss = validation.sum() + settings.shrinkage * penalty.deviation.square().mean(dim=-1).sum()
        with torch.no_grad():
            curves.fit.append(study.fit.mean_squared_error(w).mean().item())
            curves.validation.append(validation.mean().item())
            curves.test.append(study.test.mean_squared_error(solve(layer, study.train, penalty)).mean().item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress.set_postfix(validation=f"{curves.validation[-1]:.4f}")
    return _tuned(study, layer, penalty, started), curves


def solve(layer: CvxpyLayer, data: Moments, penalty: Penalty) -> Float[torch.Tensor, "splits folds features"]:
    """Fits one elastic net per split and fold."""
    (w,) = layer(data.gram, data.cross, *penalty())
    return w


@torch.no_grad()
def _tuned(study: Study, layer: CvxpyLayer, penalty: Penalty, started: float) -> Fit:
    w = solve(layer, study.train, penalty)
    l1, _ = penalty()
    return Fit(
        w=w[:, 0],
        l1=l1[:, 0],
        validation=study.held_out.mean_squared_error(solve(layer, study.fit, penalty)).mean(dim=-1),
        test=study.test.mean_squared_error(w)[:, 0],
        seconds=perf_counter() - started,
    )
