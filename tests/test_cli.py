"""The command line: what it writes, and its exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cvxlayers import CvxpyLayer, __version__, load
from cvxlayers.cli.command import main
from cvxlayers.cli.sample import random_directions, sample
from cvxlayers.solvers import SOLVERS
from tests.problems import CASES, Case

ROOT = Path(__file__).parents[1]
FILE = """
import cvxpy as cp
import numpy as np

x = cp.Variable(3, name="x")
A, b = cp.Parameter((4, 3), name="A"), cp.Parameter(4, name="b", value=np.ones(4))
gamma = cp.Parameter(nonneg=True, name="gamma", value=0.3)
problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + gamma * cp.norm1(x)))
product = cp.Problem(cp.Minimize(cp.sum_squares(gamma * (A @ x) - b)))
empty = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= 1 + cp.sum(b), x <= -1])
free = cp.Problem(cp.Minimize(cp.square(cp.sum(x) - b[0])), [x <= 5])
kink = cp.Problem(cp.Minimize(cp.sum_squares(x - b[:3])), [x <= 1])
c, z = cp.Parameter((2, 2), hermitian=True, name="c"), cp.Variable((2, 2), hermitian=True, name="z")
waves = cp.Problem(cp.Minimize(cp.sum_squares(z - c) + cp.norm(z, "nuc")))
number = 3


def made():
    return problem
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "problems.py"
    path.write_text(FILE)
    return path


@pytest.fixture(params=["rich", "plain"])
def screen(request, monkeypatch):
    """With rich, and as if it were not installed."""
    if request.param == "rich":
        pytest.importorskip("rich")
    else:
        for name in ("rich", "rich.console", "rich.table"):
            monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("screen")
def test_info(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for word in (__version__, "cvxpy", "torch", *SOLVERS, "built in"):
        assert word in out


@pytest.mark.usefixtures("screen")
@pytest.mark.parametrize("name", ["problem", "made", "waves"])
def test_check(file, name, capsys):
    assert main(["check", f"{file}:{name}"]) == 0
    out = capsys.readouterr().out
    words = ["without a value", "solved by", "relative residuals", "derivatives agree"]
    words += ["(2, 2) complex"] if name == "waves" else ["QP", "gamma"]
    for word in words:
        assert word in out


def test_the_problem_is_named_problem_by_default(file, capsys):
    assert main(["describe", str(file)]) == 0
    assert "inputs" in capsys.readouterr().out


def test_check_of_what_is_not_dpp(file, capsys):
    assert main(["check", f"{file}:product"]) == 1
    assert "Problem must be DPP" in capsys.readouterr().out
    assert main(["check", f"{file}:product", "--freeze", "gamma"]) == 0


def test_check_of_what_has_no_solution(file, capsys):
    assert main(["check", f"{file}:empty"]) == 1
    assert "not solved: infeasible" in capsys.readouterr().out


def test_check_says_what_is_degenerate(file, capsys):
    main(["check", f"{file}:free", "--solver", "clarabel"])
    assert "degenerate" in capsys.readouterr().out


def test_check_says_where_a_kink_is(file, capsys):
    assert main(["check", f"{file}:kink"]) == 1
    out = capsys.readouterr().out
    assert "only just active" in out
    assert "derivative unreliable" in out
    assert "proves nothing" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "nowhere.py:problem"], "there is no file nowhere.py"),
        (["check", "{file}:problme"], "did you mean 'problem'?"),
        (["describe", "{file}:number"], "'number' in"),
        (["check", "{file}:problem", "--solver", "clarabell"], "did you mean 'CLARABEL'?"),
        (["check", "{file}:problem", "--freeze", "gama"], "did you mean 'gamma'?"),
        (["check", "{file}:problem", "--freeze", "A"], "set A.value"),
    ],
)
def test_what_cannot_be_understood(file, arguments, words, capsys):
    assert main([argument.format(file=file) for argument in arguments]) == 2
    assert words in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("arguments", [[], ["chek"], ["check"]])
def test_usage(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert "usage: python -m cvxlayers" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["info"], ["check"], ["describe"]])
def test_help_names_the_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as raised:
        main([*command, "--help"])
    assert raised.value.code == 0
    assert "exit codes: 0" in capsys.readouterr().out


def test_the_module_runs(file):
    command = [sys.executable, "-m", "cvxlayers", "check", f"{file}:product"]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert finished.returncode == 1
    assert "Compute the product" in " ".join(finished.stdout.split())


@pytest.mark.filterwarnings("ignore:.*sparse CVXPY expression")
@pytest.mark.filterwarnings("ignore:The problem has an expression with dimension greater than 2")
@pytest.mark.parametrize("case", CASES.values(), ids=str)
def test_samples_and_directions_are_allowed(case: Case, rng: np.random.Generator):
    problem, parameters, variables = case.build()
    layout = CvxpyLayer(problem, parameters, variables, gp=case.gp).layer.compiled.parameters
    values = sample(layout, [None] * len(parameters), rng)
    steps = random_directions(layout, rng)
    layout.check(values)
    layout.check([np.asarray(value + 1e-6 * step) for value, step in zip(values, steps, strict=True)])


def test_export_writes_a_file_that_load_reads(file, tmp_path, capsys):
    out = tmp_path / "layer.cvxl"
    assert main(["export", f"{file}:problem", str(out), "--freeze", "gamma"]) == 0
    assert "takes A, b" in capsys.readouterr().out
    layer = load(out)
    A, b = np.eye(4, 3), np.array([1.0, -2.0, 0.1, 0.0])
    np.testing.assert_allclose(layer(A, b)[0], [0.85, -1.85, 0.0], atol=1e-8)


def test_export_where_nothing_can_be_written(file, tmp_path, capsys):
    assert main(["export", f"{file}:problem", str(tmp_path / "nowhere" / "layer.cvxl")]) == 1
    assert "cannot write" in capsys.readouterr().out
