"""The options of a call: one vocabulary, each solver's own names, diffcp's names, and the words of refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cvxlayers.cones import Product
from cvxlayers.errors import OptionError
from cvxlayers.patterns import Pattern
from cvxlayers.program import Structure
from cvxlayers.solvers import SOLVERS, Options, Plan, Request, parse_options, select

DIAGONAL = Pattern((2, 2), np.arange(2), np.arange(3))
STRUCTURE = Structure(DIAGONAL, DIAGONAL, Product(nonnegative=2))
CURVED = Structure(DIAGONAL, DIAGONAL, Product(second_order=(2,)))


def parse(given: Any, name: str = "CLARABEL", base: Options | None = None, structure: Structure = STRUCTURE) -> Request:
    plan = select(structure, name)
    return parse_options(given, base or Options(), plan, structure, threads=3)


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_every_solver_takes_the_vocabulary(name: str) -> None:
    given = {"eps": 1e-6, "max_iters": 7, "time_limit": 2, "verbose": True}
    request = parse_options(given, Options(), Plan(SOLVERS[name]), STRUCTURE, 3)
    assert request.options == Options(eps=1e-6, max_iters=7, time_limit=2.0, verbose=True)
    assert request.plan.primary.name == name
    assert request.threads == 3


def test_a_call_overrides_the_layer_and_changes_nothing() -> None:
    base = Options(eps=1e-4, max_iters=5, native={"tol_ktratio": 1e-7})
    given = {"eps": 1e-6, "max_iters": None, "tol_feas": 1e-5}
    request = parse(given, base=base)
    assert request.options == Options(eps=1e-6, native={"tol_ktratio": 1e-7, "tol_feas": 1e-5})
    assert base == Options(eps=1e-4, max_iters=5, native={"tol_ktratio": 1e-7})
    assert given == {"eps": 1e-6, "max_iters": None, "tol_feas": 1e-5}


def test_numpy_scalars_are_numbers() -> None:
    request = parse({"eps": np.float32(0.5), "max_iters": np.int64(4), "verbose": np.bool_(True)})
    assert request.options == Options(eps=0.5, max_iters=4, verbose=True)


@pytest.mark.parametrize(
    ("name", "native"),
    [
        (
            "CLARABEL",
            {"equilibrate_enable": False, "tol_gap_abs": 1e-6, "max_iter": 20, "direct_solve_method": "qdldl"},
        ),
        ("SCS", {"eps_abs": 1e-5, "alpha": 1.2, "acceleration_lookback": 5, "normalize": False}),
        ("PIQP", {"eps_rel": 1e-5, "rho_init": 1e-5, "check_duality_gap": True}),
        ("DAQP", {"primal_tol": 1e-8, "iter_limit": 30}),
    ],
)
def test_native_names_pass_through(name: str, native: dict[str, object]) -> None:
    assert parse(native, name).options.native == native


@pytest.mark.parametrize("method", ["SCS", "scs", "Clarabel", "PIQP"])
def test_solve_method_chooses_the_solver_of_a_call(method: str) -> None:
    base = Options(eps=1e-7, native={"tol_feas": 1e-5})
    request = parse({"solve_method": method}, base=base)
    assert request.plan.primary.name == method.upper()
    kept = {"tol_feas": 1e-5} if method == "Clarabel" else {}
    assert request.options == Options(eps=1e-7, native=kept)


def test_options_of_the_solver_chosen_by_solve_method_are_known() -> None:
    request = parse({"acceleration_interval": 3, "solve_method": "SCS"})
    assert request.options.native == {"acceleration_interval": 3}


def test_names_of_diffcp_are_translated() -> None:
    given = {"mode": "lsqr", "n_jobs_forward": 2, "n_jobs_backward": 2, "acceleration_lookback": 0, "eps_abs": 1e-5}
    request = parse({**given, "eps_rel": 1e-6})
    assert request.options == Options(eps=1e-6)
    assert request.threads == 2
    assert parse({"eps": 1e-4, "eps_abs": 1e-6}).options.eps == 1e-4


def test_minus_one_job_is_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVXLAYERS_THREADS", "5")
    assert parse({"n_jobs_forward": -1}).threads == 5


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epsilon": 1e-6}, ["unknown option 'epsilon'", "did you mean 'eps'?", "eps, max_iters, time_limit, verbose"]),
        ({"tol_fees": 1e-6}, ["unknown option 'tol_fees'", "did you mean 'tol_feas'?", "CLARABEL itself"]),
        ({"n_job_forward": 1}, ["did you mean 'n_jobs_forward'?"]),
        ({"solver": "SCS"}, ["unknown option 'solver'", "option of the layer, solver=...", "'solve_method'"]),
        ({"threads": 1}, ["unknown option 'threads'", "option of the layer, threads=...", "'n_jobs_forward'"]),
        ({"frobnicate": 1}, ["unknown option 'frobnicate'"]),
        ({7: 1}, ["unknown option 7"]),
        ({"primal_tol": 1e-6}, ["unknown option 'primal_tol'"]),
        ({"eps": 0.0}, ["eps must be a positive number", "0.0"]),
        ({"eps": -1e-9}, ["eps must be a positive number"]),
        ({"eps": float("nan")}, ["eps must be a positive number", "nan"]),
        ({"eps": float("inf")}, ["eps must be a positive number", "inf"]),
        ({"eps": "1e-9"}, ["eps must be a number", "'1e-9'", "str"]),
        ({"eps": True}, ["eps must be a number", "True"]),
        ({"eps": None}, ["eps must be a number", "None"]),
        ({"max_iters": 0}, ["max_iters must be at least 1", "0"]),
        ({"max_iters": 2.5}, ["max_iters must be a whole number", "2.5"]),
        ({"time_limit": -1}, ["time_limit must be a positive number"]),
        ({"verbose": "yes"}, ["verbose must be True or False", "'yes'"]),
        ({"eps_abs": -1}, ["eps_abs must be a positive number"]),
        ({"mode": "dens"}, ["mode must be one of", "did you mean 'dense'?"]),
        ({"mode": 3}, ["mode must be one of", "3"]),
        ({"acceleration_lookback": "x"}, ["acceleration_lookback must be a whole number"]),
        ({"n_jobs_forward": 0}, ["n_jobs_forward", "-1 for all"]),
        ({"n_jobs_backward": "all"}, ["n_jobs_backward must be a whole number"]),
        ({"solve_method": "SGS"}, ["unknown solver 'SGS'", "did you mean 'SCS'?"]),
        ({"solve_method": "DIRECT"}, ["DIRECT does not fit"]),
        ({"tol_feas": "small"}, ["tol_feas must be a number", "'small'"]),
        ({"max_iter": 1.5}, ["max_iter must be a whole number"]),
        ({"equilibrate_enable": 2}, ["equilibrate_enable must be True or False"]),
        ({"direct_solve_method": 1}, ["direct_solve_method must be a string"]),
        ([("eps", 1e-6)], ["solver_args must be a mapping"]),
    ],
)
def test_refusals_name_the_option_and_the_way_out(given: object, words: list[str]) -> None:
    with pytest.raises(OptionError) as caught:
        parse(given)
    for word in words:
        assert word in str(caught.value)


def test_a_refusal_is_a_value_error_and_a_type_error() -> None:
    with pytest.raises(ValueError, match="epsilon"):
        parse({"epsilon": 1})
    with pytest.raises(TypeError, match="epsilon"):
        parse({"epsilon": 1})


def test_a_solver_without_options_says_so() -> None:
    with pytest.raises(OptionError, match="DIRECT has none of its own"):
        parse_options({"rank": 1}, Options(), Plan(SOLVERS["DIRECT"]), STRUCTURE, 1)


def test_a_solver_that_does_not_fit_is_refused_for_a_call() -> None:
    with pytest.raises(OptionError, match=r"PIQP does not fit this problem: it takes linear constraints only.*SCS"):
        parse({"solve_method": "PIQP"}, structure=CURVED)
