"""The experiments that plan with non-linear models."""

from __future__ import annotations

from typing import Any

from examples.control.amortised import AMORTISED
from examples.control.cem import DCEM
from examples.control.gradient import SQP_GRADIENT
from examples.control.identification import SYSID_LINEAR, SYSID_PENDULUM
from examples.control.imitation import IMITATION_COST, IMITATION_DYNAMICS
from examples.control.swing_up import SWING_UP, SWING_UP_CARTPOLE
from examples.experiment import Experiment

NONLINEAR: list[Experiment[Any]] = [
    SQP_GRADIENT,
    SWING_UP,
    SWING_UP_CARTPOLE,
    IMITATION_DYNAMICS,
    IMITATION_COST,
    SYSID_PENDULUM,
    SYSID_LINEAR,
    AMORTISED,
    DCEM,
]
