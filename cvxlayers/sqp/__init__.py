"""Sequential quadratic programming around a convex layer: non-linear programs, and model predictive control."""

from __future__ import annotations

from cvxlayers.sqp.mpc import MPC as MPC
from cvxlayers.sqp.mpc import Plan as Plan
from cvxlayers.sqp.mpc import receding_horizon as receding_horizon
from cvxlayers.sqp.options import Record as Record
from cvxlayers.sqp.sqp import SQP as SQP
from cvxlayers.sqp.sqp import SQPResult as SQPResult

__all__ = ["MPC", "SQP", "Plan", "Record", "SQPResult", "receding_horizon"]
