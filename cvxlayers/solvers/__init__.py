"""Solvers of cone programs, the table that chooses among them, and the driver that runs them over a batch."""

from cvxlayers.solvers.bounded import Bounded as Bounded
from cvxlayers.solvers.driver import Outcome as Outcome
from cvxlayers.solvers.driver import solve_batch as solve_batch
from cvxlayers.solvers.entropic import Optimum as Optimum
from cvxlayers.solvers.entropic import find_optimum as find_optimum
from cvxlayers.solvers.options import Request as Request
from cvxlayers.solvers.options import parse_options as parse_options
from cvxlayers.solvers.projection import Projection as Projection
from cvxlayers.solvers.registry import SOLVERS as SOLVERS
from cvxlayers.solvers.registry import Plan as Plan
from cvxlayers.solvers.registry import better_on_many_processors as better_on_many_processors
from cvxlayers.solvers.registry import select as select
from cvxlayers.solvers.registry import solver_named as solver_named
from cvxlayers.solvers.registry import suitable as suitable
from cvxlayers.solvers.response import Response as Response
from cvxlayers.solvers.response import Weights as Weights
from cvxlayers.solvers.response import read_weights as read_weights
from cvxlayers.solvers.solver import Options as Options
from cvxlayers.solvers.solver import Solver as Solver
