"""What a layer says of itself, in words and as a picture."""

from __future__ import annotations

import sys
from typing import Any

import cvxpy
import numpy as np
import pytest

from cvxlayers import CvxpyLayer
from cvxlayers.describe import memory_per_item, program_class
from cvxlayers.errors import MissingDependencyError
from cvxlayers.spy import kkt_pattern
from tests.problems import CASES, Case

cp: Any = cvxpy

WORDS = {"LP": "LP", "QP": "QP", "SOC": "SOCP", "PSD": "SDP", "EXP": "exponential", "POWER": "power"}
pytestmark = [
    pytest.mark.filterwarnings("ignore:The problem has an expression with dimension greater than 2"),
    pytest.mark.filterwarnings("ignore:.*sparse CVXPY expression"),
]


def layer_of(case: Case) -> CvxpyLayer:
    problem, parameters, variables = case.build()
    return CvxpyLayer(problem, parameters, variables, gp=case.gp)


@pytest.mark.parametrize("case", CASES.values(), ids=str)
def test_every_layer_describes_itself(case):
    layer = layer_of(case)
    text = layer.describe()
    rows = dict(line.split("  ", 1) for line in text.splitlines())
    core = layer.layer
    assert program_class(core.compiled.structure) in rows["program"].strip()
    assert WORDS[case.kind] in rows["program"] or "mixed" in rows["program"]
    for name in core.compiled.parameters.names:
        assert name in text
    assert core.options.plan.primary.name in text
    assert core.kernel.method.value in text


def test_a_description():
    x, A, b = cp.Variable(3, name="x"), cp.Parameter((5, 3), name="A"), cp.Parameter(5, name="b")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [x >= 0, cp.norm(x) <= 1])
    text = CvxpyLayer(problem, [A, b], [x], solver="CLARABEL").describe()
    for line in (
        "program     SOCP with a quadratic objective",
        "inputs      A (5, 3), b (5,)",
        "outputs     x (3,)",
        "cones       zero 5, nonnegative 4, second-order 1 (rows 4)",
        "b           5 of 13 entries from b",
        "q           constant",
        "solver      CLARABEL; for what it leaves unsolved SCS",
    ):
        assert line in text.splitlines(), text
    assert "reduced to  " in text
    assert "15 of " in text
    assert "dense" in text


def test_memory_follows_the_size():
    sizes = []
    for n in (40, 80, 160):
        x, b = cp.Variable(n), cp.Parameter(n)
        sizes.append(
            memory_per_item(CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - b)), [x >= 0]), [b], [x]).layer)
        )
    assert sizes[0] < sizes[1] < sizes[2]


def test_the_pattern_is_that_of_the_kkt_system():
    structure = layer_of(CASES["bounds"]).layer.kernel.structure
    matrix = kkt_pattern(structure).toarray()
    np.testing.assert_array_equal(matrix, matrix.T)
    assert np.count_nonzero(matrix) == structure.P.nnz + 2 * structure.A.nnz + structure.m


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_picture():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    layer = layer_of(CASES["bounds"])
    axes = layer.spy()
    assert axes.get_title().startswith("QP: 8 variables")
    assert layer.spy(axes) is axes


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"cvxlayers\[plot\]"):
        layer_of(CASES["bounds"]).spy()


def test_the_torch_layer_says_the_same():
    door = pytest.importorskip("cvxlayers.torch")
    problem, parameters, variables = CASES["bounds"].build()
    layer = door.CvxpyLayer(problem, parameters, variables)
    assert layer.describe() == CvxpyLayer(problem, parameters, variables).describe()


@pytest.mark.parametrize("framework", ["torch", "jax", "tensorflow"])
def test_every_framework_describes_the_same(framework):
    pytest.importorskip(framework)
    layer = layer_of(CASES[next(iter(CASES))])
    taken = getattr(layer, f"to_{framework}")()
    assert taken.describe() == layer.describe()
    assert len(taken.spy().get_children()) == len(layer.spy().get_children())


@pytest.mark.parametrize(("n", "said"), [(20, ""), (120, "more than 16 processors"), (300, "more than 6 processors")])
def test_it_names_the_solver_that_uses_many_processors(n, said):
    """PIQP holds the interpreter: on small programs that is no loss, on dense ones it takes many to make up for it."""
    x, c = cp.Variable(n), cp.Parameter(n)
    A = np.random.default_rng(0).normal(size=(n, n)) if n == 120 else np.eye(n) - np.eye(n, k=1)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [A @ x <= 1, x >= -1, x <= 1]), [c], [x])
    assert layer.layer.options.plan.primary.name == "PIQP"
    lines = [line for line in layer.describe().splitlines() if line.startswith("threads")]
    assert len(lines) == bool(said)
    assert all(said in line and "CLARABEL" in line for line in lines)
    named = CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [A @ x <= 1, x >= -1, x <= 1]), [c], [x], solver="CLARABEL")
    assert "processors" not in named.describe()
