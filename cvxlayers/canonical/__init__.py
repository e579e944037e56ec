"""From CVXPY problems to compiled problems: the only room that imports CVXPY."""

from cvxlayers.canonical.compile import compile_problem as compile_problem
