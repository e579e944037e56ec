"""Closed forms: programs whose solutions, their certificates and their derivatives are formulas for the whole batch."""

from cvxlayers.closed.find import find_form as find_form
from cvxlayers.closed.form import ClosedForm as ClosedForm
from cvxlayers.closed.form import solve_by as solve_by
