"""One dense quadratic program written in two ways: with `quad_form(x, Q)`, and with `sum_squares(L @ x)`, Q = LᵀL.

The second names t = L x: as many variables and equalities more, unless they are eliminated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cvxpy as cp
import numpy as np

from benchmarks.command_line import run
from benchmarks.contest import Answer, Contender
from benchmarks.dense_qp import SIZES, qp_problem
from benchmarks.quadratic import exact_answer, random_programs
from benchmarks.torch_layer import layer_contender
from cvxlayers.torch import CvxpyLayer


def prepare(
    *, batch: int, variables: int, equalities: int, inequalities: int, seed: int
) -> tuple[Sequence[Contender], Answer]:
    """Makes the programs and both layers. The answers have the parameters that both have in common."""
    programs = random_programs(batch, variables, equalities, inequalities, seed)
    exact = exact_answer(programs)
    rest = {name: value for name, value in programs.parameters.items() if name != "Q"}
    root = {"L": np.linalg.cholesky(programs.Q).mT, **rest}
    forms = {
        "quad_form": (CvxpyLayer(*qp_problem(variables, equalities, inequalities)), programs.parameters),
        "sum_squares": (CvxpyLayer(*root_problem(variables, equalities, inequalities)), root),
    }
    contenders = [
        _comparable(layer_contender(name, layer, data, programs.weights)) for name, (layer, data) in forms.items()
    ]
    return contenders, _common(exact)


def root_problem(
    n: int, equalities: int, inequalities: int
) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
    """Returns the problem of `dense_qp` with ½‖Lx‖² in place of ½xᵀQx."""
    L, p = cp.Parameter((n, n), name="L"), cp.Parameter(n, name="p")
    A, b = cp.Parameter((equalities, n), name="A"), cp.Parameter(equalities, name="b")
    G, h = cp.Parameter((inequalities, n), name="G"), cp.Parameter(inequalities, name="h")
    x = cp.Variable(n, name="x")
    objective = cp.Minimize(0.5 * cp.sum_squares(L @ x) + p @ x)
    return cp.Problem(objective, [A @ x == b, G @ x <= h]), [L, p, A, b, G, h], [x]


def _comparable(contender: Contender) -> Contender:
    def step() -> Callable[[], Answer]:
        answer = contender.step()
        return lambda: _common(answer())

    return Contender(contender.name, contender.forward, step)


def _common(answer: Answer) -> Answer:
    return Answer(answer.solution, {name: g for name, g in answer.gradients.items() if name not in ("Q", "L")})


if __name__ == "__main__":
    run("square_root", SIZES, prepare)
