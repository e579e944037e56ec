"""The control examples on the command line: `python -m examples.control list`."""

from __future__ import annotations

from examples.control.nonlinear import NONLINEAR
from examples.experiment import main

EXPERIMENTS = [*NONLINEAR]

if __name__ == "__main__":
    main("control", EXPERIMENTS)
