"""The experiments whose policies are convex problems."""

from __future__ import annotations

from typing import Any

from examples.control.adp import ADP
from examples.control.climate import CLIMATE
from examples.control.cocp_box import COCP_BOX
from examples.control.cocp_lqr import COCP_LQR
from examples.control.imitation_lqr import IMITATION_COST, IMITATION_LQR
from examples.control.inverse import INVERSE
from examples.control.lqr import LQR_LAYER
from examples.control.mpc import BOX_MPC
from examples.control.portfolio import PORTFOLIO
from examples.control.supply_chain import SUPPLY_CHAIN
from examples.control.terminal import TERMINAL
from examples.control.vehicle import VEHICLE
from examples.experiment import Experiment

CONVEX: list[Experiment[Any]] = [
    LQR_LAYER,
    COCP_LQR,
    COCP_BOX,
    SUPPLY_CHAIN,
    VEHICLE,
    PORTFOLIO,
    IMITATION_LQR,
    IMITATION_COST,
    BOX_MPC,
    TERMINAL,
    ADP,
    INVERSE,
    CLIMATE,
]
