"""The examples of estimation: derivatives of a fit in four ways, and weights learned through a pose graph."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("rich")

from examples.estimation.__main__ import EXPERIMENTS, main  # noqa: E402
from examples.estimation.curve_fit import PARABOLA, Settings, fit, sample, solver_of  # noqa: E402
from examples.estimation.gauss_newton import MODES  # noqa: E402
from examples.estimation.pose_graph import dead_reckoning, pose_solver, position_error  # noqa: E402
from examples.estimation.pose_graph import sample as sample_graphs  # noqa: E402
from examples.experiment import Context  # noqa: E402

NAMED = {experiment.name: experiment for experiment in EXPERIMENTS}
EACH_MODE = pytest.mark.parametrize("mode", MODES)


def metrics_of(name: str, size: str) -> dict[str, float]:
    experiment = NAMED[name]
    outcome = experiment.run(experiment.sizes[size], Context())
    return {key: float(value) for key, value in outcome.metrics.items()}


def test_list(capsys):
    main(["list"])
    assert "curve-fit" in capsys.readouterr().out


@EACH_MODE
def test_the_parabola_has_a_closed_form(mode):
    """In y the fit is linear: z = (AᵀA)⁻¹Aᵀ y with the rows (x², 1)."""
    settings = Settings()
    x, y = sample(PARABOLA, settings, seed=1)
    A = torch.stack([x**2, torch.ones_like(x)], dim=1)
    leaf = y.clone().requires_grad_()
    z = fit(solver_of(PARABOLA, settings), PARABOLA, x, leaf, mode)
    torch.testing.assert_close(z[0], torch.linalg.pinv(A) @ y, rtol=0, atol=1e-10)
    (gradient,) = torch.autograd.grad(z[0, 0], leaf)
    torch.testing.assert_close(gradient, torch.linalg.pinv(A)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "sharp", "loose"), [("curve-fit", 1e-6, 1e-3), ("decay-fit", 1e-5, 2e-3)])
def test_modes_agree_with_differences(name, sharp, loose, tmp_path):
    picture = tmp_path / "fit.png"
    main([name, "--repetitions", "1", "--iterations", "6", "--plot", str(picture)])
    assert picture.read_bytes()[:4] == b"\x89PNG"
    metrics = metrics_of(name, "ci")
    assert metrics["error_implicit"] < sharp
    assert metrics["error_unroll"] < sharp
    assert metrics["error_truncated"] < loose
    assert metrics["error_dlm"] < loose


def test_exact_measurements_give_exact_poses():
    graphs = sample_graphs(3, torch.Generator().manual_seed(0))
    exact = type(graphs)(_moves(graphs.poses), graphs.overlap, graphs.poses)
    torch.testing.assert_close(dead_reckoning(exact.moves), graphs.poses, rtol=0, atol=1e-10)
    assert position_error(pose_solver(), exact, graphs.overlap + 0.1).max() < 1e-20


def _moves(poses):
    from examples.estimation.pose_graph import _between

    return _between(poses)


def test_pose_graph_learns_weights():
    metrics = metrics_of("pose-graph", "ci")
    assert metrics["gradient_error"] < 1e-6
    assert metrics["test_error_learned"] < metrics["test_error_uniform"]


@pytest.mark.full
def test_curve_fit_at_full_size():
    metrics = metrics_of("curve-fit", "full")
    assert all(metrics[f"error_{mode}"] < 1e-3 for mode in MODES)


@pytest.mark.full
def test_pose_graph_at_full_size():
    metrics = metrics_of("pose-graph", "full")
    assert metrics["gain"] > 3 * metrics["gain_standard_error"]
