"""The commands, their arguments, and their exit codes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from cvxlayers import __version__
from cvxlayers.cli import screen
from cvxlayers.cli.check import check
from cvxlayers.cli.info import info
from cvxlayers.cli.load import load_problem
from cvxlayers.errors import CvxlayersError, OptionError, SignatureError, did_you_mean
from cvxlayers.neutral import CvxpyLayer

_EXIT = "exit codes: 0, all is well; 1, something is not; 2, the command cannot be understood"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command, and returns its exit code."""
    given = _parser().parse_args(arguments)
    if given.command == "info":
        return info()
    try:
        problem = load_problem(given.target)
        layer, parameters = _layer(problem, given)
        if given.command == "describe":
            screen.line(layer.describe())
            return 0
        if given.command == "export":
            return _export(layer, given.out)
        return check(layer, parameters, given.seed)
    except (OptionError, SignatureError) as error:
        screen.line(str(error), "bad")
        return 2
    except CvxlayersError as error:
        screen.line(str(error), "bad")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cvxlayers", description="Differentiable layers of CVXPY problems.", epilog=_EXIT
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("info", help="versions, and which solvers and frameworks are found", epilog=_EXIT)
    checked = _about_a_problem(
        commands, "check", "compile a problem, solve it, and compare its gradients with finite differences"
    )
    checked.add_argument("--seed", type=int, default=0, help="of the random values of parameters that have none")
    _about_a_problem(commands, "describe", "say what the layer of a problem is made of")
    exported = _about_a_problem(commands, "export", "save the layer of a problem, for use without CVXPY")
    exported.add_argument("out", metavar="OUT.cvxl", help="the file to write; `cvxlayers.load` reads it")
    return parser


def _about_a_problem(commands: Any, name: str, help: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.", epilog=_EXIT)
    parser.add_argument("target", metavar="FILE.py:NAME", help="a cvxpy.Problem, or a function that returns one")
    parser.add_argument("--gp", action="store_true", help="it is a geometric program")
    parser.add_argument("--solver", help="a solver by name; by default chosen for the program")
    parser.add_argument(
        "--freeze", nargs="+", default=[], metavar="PARAMETER", help="parameters, by name, that keep their values"
    )
    return parser


def _layer(problem: Any, given: argparse.Namespace) -> tuple[CvxpyLayer, list[Any]]:
    """Returns the layer of all variables, and the parameters that are left."""
    named = {parameter.name(): parameter for parameter in problem.parameters()}
    for name in given.freeze:
        if name not in named:
            raise OptionError(f"the problem has no parameter {name!r}{did_you_mean(name, list(named))}")
    parameters = [parameter for parameter in problem.parameters() if parameter.name() not in given.freeze]
    frozen = [named[name] for name in given.freeze]
    # Differences step over the border of what a parameter allows.
    keywords = {"gp": given.gp, "solver": given.solver, "freeze": frozen, "check": given.command != "check"}
    return CvxpyLayer(problem, parameters, problem.variables(), **keywords), parameters


def _export(layer: CvxpyLayer, out: str) -> int:
    try:
        layer.save(out)
    except OSError as error:
        screen.line(f"cannot write {out}: {error.strerror}", "bad")
        return 1
    names = ", ".join(layer.layer.compiled.parameters.names)
    screen.line(f"{out}: takes {names or 'no parameters'}; read it by cvxlayers.load({out!r})", "good")
    return 0
