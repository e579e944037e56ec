"""The examples of relaxations: certificates, gradients, and what a local solver misses."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("rich")

from examples.experiment import Context  # noqa: E402
from examples.relaxation.__main__ import EXPERIMENTS, main  # noqa: E402
from examples.relaxation.local import global_minimiser, local_minimiser  # noqa: E402
from examples.relaxation.moments import evaluate, moment_layer  # noqa: E402
from examples.relaxation.polynomial import random_polynomials  # noqa: E402
from examples.relaxation.rotations import agreement, rotation_layer, sample  # noqa: E402

NAMED = {experiment.name: experiment for experiment in EXPERIMENTS}


def metrics_of(name: str, size: str, seed: int = 0) -> dict[str, float]:
    experiment = NAMED[name]
    outcome = experiment.run(experiment.sizes[size], Context(seed))
    return {key: float(value) for key, value in outcome.metrics.items()}


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_list(capsys):
    main(["list"])
    assert "polynomial" in capsys.readouterr().out


def test_evaluate_is_a_polynomial_with_its_derivatives():
    a, x = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor(2.0)
    assert [evaluate(a, x, order).item() for order in range(4)] == [49.0, 62.0, 54.0, 24.0]


def test_random_polynomials_have_five_real_stationary_points(generator):
    a = random_polynomials(4, generator)
    grid = torch.linspace(-1.5, 1.5, 4001, dtype=torch.float64)
    slopes = evaluate(a[:, None], grid.expand(4, -1), 1)
    assert (slopes[:, 0] < 0).all()
    assert (slopes[:, -1] > 0).all()
    best = global_minimiser(a)
    values = evaluate(a[:, None], grid.expand(4, -1))
    assert (evaluate(a, best) <= values.min(dim=1).values + 1e-9).all()


def test_the_layer_finds_the_global_minimiser(generator):
    a = random_polynomials(10, generator)
    (moments,) = moment_layer(6)(a)
    torch.testing.assert_close(moments[:, 1], global_minimiser(a), rtol=0, atol=1e-8)


def test_the_local_solver_is_stationary_and_differentiable(generator):
    a = random_polynomials(5, generator).requires_grad_()
    start = torch.zeros(5, dtype=torch.float64)
    x = local_minimiser(a, start)
    assert evaluate(a, x, 1).abs().max() < 1e-9
    assert torch.autograd.gradcheck(lambda a: local_minimiser(a, start), (a,), eps=1e-7, atol=1e-3)


def test_polynomial_succeeds_where_the_local_solver_is_trapped(tmp_path):
    picture = tmp_path / "polynomial.png"
    main(["polynomial", "--starts", "3", "--steps", "2", "--plot", str(picture)])
    assert picture.read_bytes()[:4] == b"\x89PNG"
    metrics = metrics_of("polynomial", "ci")
    assert metrics["success_rate"] == 1.0
    assert metrics["success_rate_local"] < 1.0
    assert metrics["eigenvalue_ratio"] < 1e-6
    assert metrics["gradient_error"] < 1e-6


def test_exact_measurements_give_exact_rotations(generator):
    graphs = sample(3, generator)
    rotations = graphs.rotations.flatten(1, 2)
    products = graphs.rotations[:, :, None] @ graphs.rotations.mT[:, None]
    assert torch.linalg.det(graphs.rotations).sub(1).abs().max() < 1e-12
    exact = type(graphs)(products[:, *torch.triu_indices(5, 5, offset=1)], graphs.overlap, graphs.rotations)
    (X,) = rotation_layer(5)(agreement(exact, graphs.overlap))
    torch.testing.assert_close(X, rotations @ rotations.mT, rtol=0, atol=1e-9)


def test_rotations_learns_weights_and_certifies():
    metrics = metrics_of("rotations", "ci")
    assert metrics["gradient_error"] < 1e-6
    assert metrics["test_error_learned"] < metrics["test_error_uniform"]
    assert metrics["eigenvalue_ratio"] < 1e-6


@pytest.mark.full
@pytest.mark.parametrize("seed", range(5))
def test_polynomial_at_full_size(seed):
    metrics = metrics_of("polynomial", "full", seed)
    assert metrics["success_rate"] == 1.0  # of 20 starts
    assert metrics["success_rate_local"] <= 0.9
    assert metrics["eigenvalue_ratio"] < 1e-6
    assert metrics["gradient_error"] < 1e-6


@pytest.mark.full
def test_rotations_at_full_size():
    metrics = metrics_of("rotations", "full")
    assert metrics["tight"] == 1.0
    assert metrics["gain"] > 3 * metrics["gain_standard_error"]
