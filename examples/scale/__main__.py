"""Command line: `python -m examples.scale torch|jax|sweep`."""

from __future__ import annotations

from examples.experiment import main
from examples.scale.processes import DEVICES, PROCESSES
from examples.scale.sweep import SWEEP

EXPERIMENTS = [PROCESSES, DEVICES, SWEEP]

if __name__ == "__main__":
    main("scale", EXPERIMENTS)
