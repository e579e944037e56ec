"""Which closed form the programs of a structure have."""

from __future__ import annotations

from cvxlayers.closed.bounded import BoundedForm
from cvxlayers.closed.entropic import EntropicForm
from cvxlayers.closed.form import ClosedForm
from cvxlayers.closed.projection import ProjectionForm
from cvxlayers.idioms.isotropic import find_isotropic
from cvxlayers.idioms.separable import require
from cvxlayers.program import Structure
from cvxlayers.reduction import Reduction
from cvxlayers.solvers import solver_named


def find_form(full: Structure, reduction: Reduction | None) -> ClosedForm | None:
    """Returns the closed form of programs, None where they have none.

    Args:
        full: their structure.
        reduction: what is eliminated of them.
    """
    structure = full if reduction is None else reduction.structure
    if not structure.n:
        return None
    isotropic = find_isotropic(structure)
    if isotropic is not None:
        return ProjectionForm(isotropic, reduction)
    if solver_named("BOUNDED").refusal(structure) is None:
        return BoundedForm(require(structure), reduction)
    rows_only = reduction is None or len(reduction.kept_variables) == full.n
    if rows_only and solver_named("ENTROPIC").refusal(structure) is None:
        return EntropicForm(require(structure), reduction)
    return None
