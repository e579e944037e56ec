"""The small layers: each equals its closed form; sudoku's rules solve every board, and can be learned."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
for package in ("matplotlib", "rich", "sklearn"):
    pytest.importorskip(package)

from examples.experiment import Context  # noqa: E402
from examples.layers.__main__ import EXPERIMENTS, main  # noqa: E402
from examples.layers.boards import DIGITS, ENTRIES, Puzzles, draw_puzzles, rules, solutions  # noqa: E402
from examples.layers.catalogue import catalogue  # noqa: E402
from examples.layers.lista import LISTA  # noqa: E402
from examples.layers.sudoku import SUDOKU, given_rules  # noqa: E402
from examples.layers.top_k import TOP_K, top_k, top_k_layer  # noqa: E402
from examples.layers.total_variation import total_variation  # noqa: E402
from examples.layers.variation_operator import VARIATION_OPERATOR, denoising_layer, first_differences  # noqa: E402

# locuslab/lml, with numpy's seed 0, ten numbers and k = 2.
LML_Y = [0.187941, 0.214658, 0.196313, 0.187342, 0.16958, 0.203208, 0.171551, 0.245921, 0.259494, 0.163992]
LML_DY0 = [0.137977, -0.016174, -0.015137, -0.014606, -0.013511, -0.015534, -0.013635, -0.017791, -0.018436, -0.013153]


@pytest.mark.parametrize("small", catalogue(), ids=lambda small: small.name)
def test_layer_equals_its_closed_form(small):
    generator = torch.Generator().manual_seed(7)
    for _ in range(3):
        assert max(small.errors(small.sample(generator))) < 1e-10


@pytest.mark.parametrize("small", catalogue(), ids=lambda small: small.name)
def test_closed_form_has_the_derivative_it_claims(small):
    """By finite differences in one direction: the closed forms must not be wrong together with the layers."""
    generator = torch.Generator().manual_seed(11)
    arguments = small.sample(generator)
    direction = tuple(torch.randn(a.shape, dtype=torch.float64, generator=generator) for a in arguments)
    step = 1e-6
    ends = [
        small.closed_form(*(a + sign * step * d for a, d in zip(arguments, direction, strict=True))) for sign in (1, -1)
    ]
    _, slope = torch.autograd.functional.jvp(small.closed_form, arguments, direction)
    torch.testing.assert_close((ends[0] - ends[1]) / (2 * step), slope, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("method", ["cone", "bracketing"])
def test_top_k_reaches_the_published_numbers(method):
    x = torch.as_tensor(np.random.RandomState(0).random_sample(10)).requires_grad_()
    y = top_k_layer(10, 2)(x)[0] if method == "cone" else top_k(x, 2)
    (gradient,) = torch.autograd.grad(y[0], x)
    np.testing.assert_allclose(y.detach(), LML_Y, atol=5.1e-7)
    np.testing.assert_allclose(gradient, LML_DY0, atol=5.1e-7)


def test_top_k_race_agrees():
    metrics = TOP_K.run(TOP_K.sizes["ci"], Context()).metrics
    assert metrics["value_error"] < 1e-7
    assert metrics["gradient_error"] < 1e-7
    assert metrics["published_error"] < 5.1e-6  # they are printed with five digits


def test_sudoku_has_288_solutions_and_40_rules():
    full = np.eye(DIGITS)[solutions()].reshape(-1, ENTRIES)
    assert full.shape == (288, ENTRIES)
    assert rules().shape == (40, ENTRIES)
    np.testing.assert_array_equal(full @ rules().T, 1)
    assert np.linalg.matrix_rank(full - full.mean(axis=0)) == ENTRIES - 40  # no rule is missing


def test_given_rules_solve_boards_with_few_and_with_many_clues(rng):
    hardest = draw_puzzles(rng.integers(288, size=150), rng)
    known = torch.as_tensor(rng.random((150, 16, 1)) < 0.2).expand(-1, -1, DIGITS).flatten(1)
    easier = Puzzles(torch.where(known, hardest.solved, hardest.given), hardest.solved, hardest.grid)
    for puzzles in (hardest, easier):
        assert puzzles.solved_by(given_rules()(puzzles.given)[0]).all()


def test_boards_have_one_solution_and_no_clue_too_many(rng):
    full = np.eye(DIGITS)[solutions()].reshape(-1, ENTRIES)
    given = draw_puzzles(np.arange(20), rng).given.numpy()
    assert ((full @ given.T == given.sum(axis=1)).sum(axis=0) == 1).all()
    board = given[0]
    for entry in np.flatnonzero(board):
        fewer = board - np.eye(ENTRIES)[entry]
        assert (full @ fewer == fewer.sum()).sum() > 1


def test_rules_are_approached_in_a_few_steps():
    start = SUDOKU.run(replace(SUDOKU.sizes["ci"], epochs=1, lr=0.0), Context()).metrics
    after = SUDOKU.run(SUDOKU.sizes["ci"], Context()).metrics
    assert after["accuracy_given_rules"] == 1
    assert after["misfit_of_rules"] < start["misfit_of_rules"] - 0.1


@pytest.mark.full
def test_sudoku_at_full_size():
    metrics = SUDOKU.run(SUDOKU.sizes["full"], Context()).metrics
    assert metrics["accuracy_given_rules"] == 1
    assert metrics["accuracy_learned_rules"] >= 0.95
    assert metrics["accuracy_network"] < metrics["accuracy_learned_rules"]


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_command_writes_numbers_and_a_picture(experiment, tmp_path):
    if experiment.name in ("sudoku", "lista", "tv-operator"):
        pytest.skip("run above")
    target, picture = tmp_path / "numbers.json", tmp_path / "picture.png"
    main([experiment.name, "--json", str(target), "--plot", str(picture)])
    assert json.loads(target.read_text())["metrics"]
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_operator_of_first_differences_denoises_as_total_variation(rng):
    x = torch.as_tensor(rng.normal(size=(3, 5)))
    D = torch.as_tensor(0.3 * np.diff(np.eye(5), axis=0))
    ours = denoising_layer(4, 5)(x, D)[0]
    right = torch.stack([total_variation(row, torch.tensor(0.3, dtype=x.dtype)) for row in x])
    torch.testing.assert_close(ours, right, atol=1e-8, rtol=0)
    assert first_differences().shape == (112, 64)
    np.testing.assert_allclose(first_differences() @ np.ones(64), 0)


def test_denoising_has_the_derivative_of_differences_in_its_operator(rng):
    layer, x = denoising_layer(4, 5), torch.as_tensor(rng.normal(size=5))
    D = torch.as_tensor(0.3 * rng.normal(size=(4, 5))).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, D: layer(x, D)[0], (x.requires_grad_(), D), eps=1e-6, atol=1e-5)


def test_learned_operator_removes_more_noise():
    metrics = VARIATION_OPERATOR.run(VARIATION_OPERATOR.sizes["ci"], Context()).metrics
    assert metrics["psnr_noisy"] + 2 < metrics["psnr_first_differences"] < metrics["psnr_learned"]


def test_lista_imitates_the_layer_better_than_as_many_plain_iterations():
    metrics = LISTA.run(LISTA.sizes["ci"], Context()).metrics
    assert metrics["violation_layer"] < 1e-9
    assert metrics["jacobian_error_layer"] < 1e-7
    assert metrics["error_lista"] < 0.9 * metrics["error_ista"]
