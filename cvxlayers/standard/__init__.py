"""Programs whose data are given as they are: no CVXPY problem, and no map but a permutation."""

from cvxlayers.standard.conic import ConicSolution as ConicSolution
from cvxlayers.standard.conic import solve_conic as solve_conic
from cvxlayers.standard.form import Door as Door
from cvxlayers.standard.form import Keywords as Keywords
from cvxlayers.standard.form import Run as Run
from cvxlayers.standard.form import SolveKeywords as SolveKeywords
from cvxlayers.standard.qp import QPSolution as QPSolution
from cvxlayers.standard.qp import solve_qp as solve_qp
