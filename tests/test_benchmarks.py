"""The benchmarks' exact answers, and the contest, without the peer."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("rich")

from benchmarks import least_squares, square_root
from benchmarks.contest import Answer, race
from benchmarks.dense_qp import qp_problem
from benchmarks.quadratic import exact_answer, random_programs
from benchmarks.report import print_scores, save_scores
from benchmarks.torch_layer import layer_contender
from cvxlayers.torch import CvxpyLayer


def test_exact_gradients_match_differences():
    """Along one random direction of all data, to fourth order."""
    programs = random_programs(1, 6, 2, 4, seed=3)
    answer, rng, step = exact_answer(programs), np.random.default_rng(0), 1e-3
    direction = {name: rng.normal(size=value.shape) for name, value in programs.parameters.items()}
    direction["Q"] = direction["Q"] + direction["Q"].mT
    along = sum((answer.gradients[name] * direction[name]).sum() for name in direction)

    def value(distance: float) -> float:
        moved = {name: data + distance * direction[name] for name, data in programs.parameters.items()}
        return float(
            (exact_answer(type(programs)(**moved, weights=programs.weights)).solution * programs.weights).sum()
        )

    difference = (8 * (value(step) - value(-step)) - (value(2 * step) - value(-2 * step))) / (12 * step)
    assert along == pytest.approx(difference, rel=1e-7)


def test_contest_scores_the_layer(tmp_path, capsys):
    programs = random_programs(4, 6, 2, 4, seed=0)
    contender = layer_contender("cvxlayers", CvxpyLayer(*qp_problem(6, 2, 4)), programs.parameters, programs.weights)
    (score,) = race([contender], exact_answer(programs), repetitions=3, warmup=1)
    assert len(score.forward) == len(score.step) == 3
    assert score.solution_error < 1e-10
    assert score.gradient_error < 1e-9
    print_scores("dense_qp", [score])
    assert "cvxlayers" in capsys.readouterr().out
    record = json.loads(save_scores(tmp_path, "dense_qp", {"batch": 4}, [score]).read_text())
    assert record["scores"][0]["step"] == score.step


def test_contest_sees_a_wrong_answer():
    programs = random_programs(3, 4, 1, 2, seed=0)
    exact = exact_answer(programs)
    wrong = Answer(exact.solution * [[1.1], [1.0], [1.0]], {**exact.gradients, "p": 1.01 * exact.gradients["p"]})
    contender = layer_contender("wrong", CvxpyLayer(*qp_problem(4, 1, 2)), programs.parameters, programs.weights)
    contender = type(contender)("wrong", contender.forward, lambda: lambda: wrong)
    (score,) = race([contender], exact, repetitions=1, warmup=0)
    assert score.solution_error == pytest.approx(0.1)
    assert score.gradient_error == pytest.approx(0.01)


def test_the_square_root_is_the_same_program():
    contenders, exact = square_root.prepare(batch=3, variables=5, equalities=1, inequalities=3, seed=0)
    for score in race(contenders, exact, repetitions=1, warmup=0):
        assert score.solution_error <= 1e-10
        assert score.gradient_error <= 1e-9


def test_least_squares_against_its_closed_form():
    rng = np.random.default_rng(0)
    data = {"A": rng.normal(size=(3, 9, 2)), "b": rng.normal(size=(3, 9))}
    weights = rng.normal(size=(3, 2))
    contender = layer_contender("cvxlayers", CvxpyLayer(*least_squares.problem(9, 2)), data, weights)
    (score,) = race([contender], least_squares.closed_form(data, weights), repetitions=1, warmup=0)
    assert score.solution_error <= 1e-12
    assert score.gradient_error <= 1e-12
