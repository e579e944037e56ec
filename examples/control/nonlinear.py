"""The experiments that plan with non-linear models."""

from __future__ import annotations

from typing import Any

from examples.control.swing_up import SWING_UP, SWING_UP_CARTPOLE
from examples.experiment import Experiment

NONLINEAR: list[Experiment[Any]] = [SWING_UP, SWING_UP_CARTPOLE]
