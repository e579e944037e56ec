"""What is eliminated from a program before the solver, and how it comes back."""

from cvxlayers.reduction.find import find_reduction as find_reduction
from cvxlayers.reduction.reduced import Reduced as Reduced
from cvxlayers.reduction.reduced import Reduction as Reduction
