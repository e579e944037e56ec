"""A sweep over input limits on Ray: each worker tunes a policy, with the compiled layer sent to it as a file.

`ray.init()` starts workers on this machine; with `RAY_ADDRESS` set, the sweep runs on that cluster as it is.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import cvxlayers
from cvxlayers.torch import CvxpyLayer
from examples.experiment import Context, Experiment, Outcome
from examples.scale.policy import plant, problem, rollouts
from examples.scale.torch_policy import ClosedLoop, train


@dataclass(frozen=True)
class Settings:
    """How many limits are swept, and how long each policy is tuned."""

    limits: int = 8
    batch: int = 32
    steps: int = 20
    epochs: int = 40
    workers: int = 2


def tune(artifact: bytes, limit: float, settings: Settings, seed: int) -> tuple[float, float]:
    """Tunes one policy, and returns its mean costs before and after on rollouts it was not tuned on."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.cvxl"
        path.write_bytes(artifact)
        layer: CvxpyLayer = cvxlayers.load(path).to_torch()
    model = ClosedLoop(plant(), layer, limit)
    fresh = rollouts(settings.batch, settings.steps, seed + 1)
    before = train(model, fresh, 0)[0]
    train(model, rollouts(settings.batch, settings.steps, seed), settings.epochs)
    return before, train(model, fresh, 0)[0]


def run(settings: Settings, context: Context) -> Outcome:
    """Tunes a policy for each limit."""
    import ray

    limits = np.geomspace(0.05, 2.0, settings.limits)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.cvxl"
        CvxpyLayer(*problem(plant())).save(path)
        artifact = path.read_bytes()
    ray.init(num_cpus=settings.workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        remote = ray.remote(tune)
        waiting = {remote.remote(artifact, limit, settings, context.seed): k for k, limit in enumerate(limits)}
        costs = np.empty((settings.limits, 2))
        for _ in context.track(range(settings.limits), "policies"):
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            costs[waiting.pop(done)] = ray.get(done)
    finally:
        ray.shutdown()

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot(limits, costs[:, 0], "o--", label="untuned")
        axes.plot(limits, costs[:, 1], "o-", label="tuned")
        axes.set(xscale="log", xlabel="limit of the inputs", ylabel="mean cost of a step, fresh rollouts")
        axes.legend()

    metrics = {"limits": limits.tolist(), "cost_before": costs[:, 0].tolist(), "cost_after": costs[:, 1].tolist()}
    return Outcome(metrics, [f"{settings.limits} policies, {len(artifact)} bytes sent for each"], draw)


SWEEP = Experiment(
    "sweep",
    "Tune policies for a range of input limits on Ray, the layer shipped as an artifact.",
    run,
    {"ci": Settings(limits=2, batch=8, steps=5, epochs=3), "full": Settings()},
)
