"""One policy trained twice: by one process, and data-parallel; the parameters are the same to rounding."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from examples.experiment import Context, Experiment, Outcome, Size

TORCHRUN = (
    "-m",
    "torch.distributed.run",
    "--nproc_per_node",
    "2",
    "--rdzv_backend",
    "c10d",
    "--rdzv_endpoint",
    "localhost:0",
)
HOST_DEVICES = "--xla_force_host_platform_device_count=2"


@dataclass(frozen=True)
class Settings:
    """The size of the training."""

    batch: int = 256
    steps: int = 20
    epochs: int = 40

    def options(self, out: Path) -> list[str]:
        """The command line of a training script."""
        sizes = {"batch": self.batch, "steps": self.steps, "epochs": self.epochs}
        return [*(word for name, size in sizes.items() for word in (f"--{name}", str(size))), "--out", str(out)]


def run_torch(settings: Settings, context: Context) -> Outcome:
    """Trains in one process, and in two with DistributedDataParallel."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("one.pt", "two.pt")]
        for path, launcher in zip(context.track(paths, "trainings"), ((), TORCHRUN), strict=True):
            _python([*launcher, "-m", "examples.scale.torch_policy", *settings.options(path)])
        one, two = (torch.load(path, weights_only=True) for path in paths)
    difference = max((one[key] - two[key]).abs().max().item() for key in ("root", "slope"))
    return Outcome({"largest_difference": difference}, ["two processes under torchrun, gloo, against one"])


def run_jax(settings: Settings, context: Context) -> Outcome:
    """Trains on one host device, and with the batch sharded over two."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("one.npz", "two.npz")]
        for count, path in enumerate(context.track(paths, "trainings"), start=1):
            options = [*settings.options(path), "--devices", str(count)]
            _python(["-m", "examples.scale.jax_policy", *options], XLA_FLAGS=HOST_DEVICES)
        one, two = (dict(np.load(path)) for path in paths)
    difference = max(np.abs(one[key] - two[key]).max().item() for key in ("root", "slope"))
    costs = {"cost_before": float(two["costs"][0]), "cost_after": float(two["costs"][-1])}
    return Outcome({"largest_difference": difference, **costs}, ["the batch on two devices, against one"])


def _python(arguments: list[str], **environment: str) -> None:
    """Runs a script in a process of its own; what it said is shown if it fails."""
    finished = subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{finished.stderr[-2000:]}")


SIZES: dict[Size, Settings] = {"ci": Settings(batch=8, steps=5, epochs=3), "full": Settings()}
PROCESSES = Experiment(
    "torch", "Train a policy under torchrun on two processes, and compare it with one.", run_torch, SIZES
)
DEVICES = Experiment(
    "jax", "Train a policy on a batch sharded over two devices, and compare it with one.", run_jax, SIZES
)
