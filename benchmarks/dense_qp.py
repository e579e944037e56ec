"""Dense quadratic programs with every parameter differentiated, against cvxpylayers with Moreau.

Both layers get the same problem, with `quad_form(x, Q)` and Q a parameter: the fastest form of either.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import cvxpy as cp

from benchmarks.command_line import run
from benchmarks.contest import Answer, Contender
from benchmarks.quadratic import exact_answer, random_programs
from benchmarks.torch_layer import layer_contender, peer_door
from cvxlayers.torch import CvxpyLayer

SIZES = {"batch": 128, "variables": 32, "equalities": 8, "inequalities": 16}


def prepare(
    *, batch: int, variables: int, equalities: int, inequalities: int, seed: int
) -> tuple[Sequence[Contender], Answer]:
    """Makes the programs, both layers, and the exact answer."""
    programs = random_programs(batch, variables, equalities, inequalities, seed)
    # Each layer gets a problem of its own: building one may change what is stored on a CVXPY problem.
    ours = CvxpyLayer(*qp_problem(variables, equalities, inequalities))
    warnings.filterwarnings("ignore", message=r"solver='auto' resolved to ACTIVE_SET")
    peer = peer_door().CvxpyLayer(*qp_problem(variables, equalities, inequalities), solver="MOREAU")
    names = {"cvxlayers": ours, "cvxpylayers + Moreau": peer}
    contenders = [layer_contender(name, layer, programs.parameters, programs.weights) for name, layer in names.items()]
    return contenders, exact_answer(programs)


def qp_problem(n: int, equalities: int, inequalities: int) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
    """Returns the problem, its parameters in the order of `QuadraticPrograms.parameters`, and its variable."""
    Q, p = cp.Parameter((n, n), PSD=True, name="Q"), cp.Parameter(n, name="p")
    A, b = cp.Parameter((equalities, n), name="A"), cp.Parameter(equalities, name="b")
    G, h = cp.Parameter((inequalities, n), name="G"), cp.Parameter(inequalities, name="h")
    x = cp.Variable(n, name="x")
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, Q) + p @ x), [A @ x == b, G @ x <= h])
    return problem, [Q, p, A, b, G, h], [x]


if __name__ == "__main__":
    run("dense_qp", SIZES, prepare)
