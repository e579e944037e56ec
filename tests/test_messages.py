"""Every error of the library has its words asserted by a test; the last few of them are asserted here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest

import cvxlayers
from cvxlayers import CvxpyLayer, errors
from cvxlayers.errors import DtypeError, OptionError, ProblemError, ShapeError
from cvxlayers.solvers import Options
from cvxlayers.solvers.clarabel import Clarabel
from cvxlayers.solvers.scs import SCS
from tests.programs import CONES, known_solution

ROOT = Path(__file__).parents[1]
PUBLIC = set(errors.__all__)
# So many words in a row, of a message that has them, stand in a test too.
RUN = 3


def words(text: str) -> list[str]:
    """The words of a text, without escapes and punctuation."""
    return re.findall(r"[a-z0-9]+", re.sub(r"\\.", " ", text).lower())


def messages() -> Iterator[tuple[str, list[str]]]:
    """Where each public error is raised, and the constant parts of what it says."""
    for path in sorted((ROOT / "cvxlayers").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                name = getattr(node.exc.func, "id", "")
                parts = [
                    n.value for n in ast.walk(node.exc) if isinstance(n, ast.Constant) and isinstance(n.value, str)
                ]
                if name in PUBLIC and any(len(words(part)) >= RUN for part in parts):
                    yield f"{path.relative_to(ROOT)}:{node.lineno} {name}", parts


def test_every_message_is_asserted_somewhere():
    said = [words(path.read_text()) for path in sorted((ROOT / "tests").rglob("*.py"))]
    known = {tuple(text[i : i + RUN]) for text in said for i in range(len(text))}
    missing = [
        f"{where}: {parts}"
        for where, parts in messages()
        if not any(tuple(run) in known for part in parts for run in runs(words(part)))
    ]
    assert not missing, "\n".join(missing)


def runs(text: list[str]) -> Iterator[list[str]]:
    """All runs of words in a row."""
    return (text[i : i + RUN] for i in range(len(text) - RUN + 1))


def test_duals_that_are_not_recovered_are_named(monkeypatch):
    from cvxlayers.canonical import compile as room

    monkeypatch.setattr(room, "dual_ids", lambda conic: set())
    x, b = cp.Variable(2), cp.Parameter(2)
    limit = x >= b
    with pytest.raises(ProblemError, match=r"CVXPY does not recover the dual variables .* of this kind of constraint"):
        CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x)), [limit]), [b], [x, limit.dual_variables[0]])


def test_a_panic_of_clarabel_is_an_error(monkeypatch, rng):
    import clarabel

    class PanicException(BaseException):
        """As the bindings of Rust raise it."""

    def panicking(*arguments):
        raise PanicException("index out of bounds")

    monkeypatch.setattr(clarabel, "DefaultSolver", panicking)
    program, _, _ = known_solution(CONES["second_order"], n=3, rng=rng)
    with pytest.raises(RuntimeError, match="Clarabel panicked: index out of bounds"):
        Clarabel().solve(program, Options())


@pytest.mark.parametrize(("solver", "native"), [(Clarabel(), {"max_iter": "ten"}), (SCS(), {"max_iters": "ten"})])
def test_values_that_a_solver_does_not_take(solver, native, rng):
    program, _, _ = known_solution(CONES["inequalities"], n=3, rng=rng)
    words_of = {"CLARABEL": "CLARABEL does not take max_iter='ten'", "SCS": "SCS does not take {'max_iters': 'ten'}"}
    with pytest.raises(OptionError, match=re.escape(words_of[solver.name])):
        solver.solve(program, Options(native=native))


def test_blocks_of_a_quadratic_program_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"P needs at least 2 axes, got shape \(2,\)"):
        cvxlayers.solve_qp(np.ones(2), np.ones(2))
    with pytest.raises(ShapeError, match="A and b belong together: give both or neither"):
        cvxlayers.solve_qp(np.eye(2), np.ones(2), A=np.ones((1, 2)))


def test_a_problem_that_cvxpy_gives_up_on(monkeypatch):
    def give_up(*arguments, **keywords):
        raise cp.error.SolverError("no chain")

    monkeypatch.setattr(cp.Problem, "get_problem_data", give_up)
    x, b = cp.Variable(2), cp.Parameter(2)
    with pytest.raises(ProblemError, match="CVXPY cannot reduce the problem to a cone program: no chain"):
        CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - b))), [b], [x])


def test_names_and_numbers_of_things_that_are_not_there():
    x, b = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - b)))
    with pytest.raises(ShapeError, match="expected 1 cotangents, one each, got 2"):
        CvxpyLayer(problem, [b], [x]).vjp([np.ones(2)], [np.ones(2), np.ones(2)])
    with pytest.raises(OptionError, match=r"unknown solver 'GLPK'.*; the solvers are DIRECT"):
        CvxpyLayer(problem, [b], [x], solver="GLPK")
    with pytest.raises(OptionError, match=r"unknown cone 'cube'.*; the cones are "):
        cvxlayers.solve_conic(np.eye(2), np.ones(2), np.eye(2), np.ones(2), {"cube": 2})


def test_texts_are_no_tensors_of_tensorflow():
    door = pytest.importorskip("cvxlayers.tensorflow")
    x, b = cp.Variable(2), cp.Parameter(2, name="b")
    layer = door.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - b))), [b], [x])
    with pytest.raises(DtypeError, match="parameter 'b' needs a tensor of real numbers: "):
        layer(object())
