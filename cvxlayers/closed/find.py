"""Which closed form the programs of a structure have."""

from __future__ import annotations

from cvxlayers.closed.entropic import EntropicForm
from cvxlayers.closed.form import ClosedForm
from cvxlayers.program import Structure
from cvxlayers.separable import require
from cvxlayers.solvers import solver_named


def find_form(structure: Structure) -> ClosedForm | None:
    """Returns the closed form of a structure, None where it has none."""
    if solver_named("ENTROPIC").refusal(structure) is None:
        return EntropicForm(require(structure))
    return None
