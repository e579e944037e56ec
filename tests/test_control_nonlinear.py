"""The experiments that plan with non-linear models: at their small sizes, and their bars at full size."""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from examples.control import plants  # noqa: E402
from examples.control.cem import soft_top_k  # noqa: E402
from examples.control.nonlinear import NONLINEAR  # noqa: E402
from examples.control.swing_up import CARTPOLE, PENDULUM  # noqa: E402
from examples.experiment import Context, Outcome, Size  # noqa: E402

BY_NAME = {experiment.name: experiment for experiment in NONLINEAR}


def outcome(name: str, size: Size = "ci", **changes: Any) -> Outcome:
    experiment = BY_NAME[name]
    return experiment.run(experiment.settings(size, changes), Context())


def drawn(found: Outcome) -> bool:
    from matplotlib.figure import Figure

    figure = Figure()
    assert found.draw is not None
    found.draw(figure)
    return len(figure.axes) > 0


def test_the_pendulum_keeps_its_energy():
    """Without torque: ½ speed² + 3g/(2l) cos(angle), up to the error of the step."""
    theta = torch.tensor(plants.PENDULUM, dtype=torch.float64)
    x, u = torch.tensor([2.0, 0.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    energies = []
    for _ in range(100):
        energies.append(0.5 * x[1] ** 2 + 15.0 * x[0].cos())
        x = plants.pendulum(x, u, theta)
    assert max(energies) - min(energies) < 3.0
    embedded = plants.embedded_pendulum(plants.embed(x), u, theta)
    torch.testing.assert_close(embedded, plants.embed(plants.pendulum(x, u, theta)))


@pytest.mark.parametrize("plant", [PENDULUM, CARTPOLE], ids=["pendulum", "cartpole"])
def test_the_top_is_an_equilibrium(plant):
    theta, top = torch.tensor(plant.theta, dtype=torch.float64), torch.zeros(plant.states, dtype=torch.float64)
    still = torch.zeros(1, dtype=torch.float64)
    torch.testing.assert_close(plant.step(top, still, theta), top)
    assert plant.stage_cost(top, still, theta) == 0.0


def test_soft_top_k_by_bisection():
    scores = torch.tensor([[2.0, 1.0, 0.5, -1.0]], dtype=torch.float64)
    (weights,) = soft_top_k(4, 2)(scores)
    low, high = -10.0, 10.0  # y = σ(score + ν), with ν from Σy = 2
    for _ in range(80):
        middle = (low + high) / 2.0
        low, high = (middle, high) if torch.sigmoid(scores + middle).sum() < 2.0 else (low, middle)
    torch.testing.assert_close(weights, torch.sigmoid(scores + low), atol=1e-6, rtol=0)


def test_sqp_gradient():
    found = outcome("sqp-gradient")
    assert found.metrics["error_implicit"] < 1e-5
    assert found.metrics["error_unroll"] < 1e-5
    assert found.metrics["error_dlm"] < 1e-5
    assert found.metrics["error_gauss_newton"] == pytest.approx(0.0626, abs=1e-3)
    assert drawn(found)


@pytest.mark.parametrize(("name", "steps"), [("swing-up", 110), ("swing-up-cartpole", 80)])
def test_swing_up(name, steps):
    found = outcome(name, starts=2, steps=steps)
    assert found.metrics["success_rate"] == 1.0
    assert found.metrics["max_violation"] <= 1e-6
    assert drawn(found)


def test_imitation_learns_what_can_be_identified():
    found = outcome("imitation-pendulum", steps=25)
    assert found.metrics["imitation_loss"] < 0.2 * found.metrics["imitation_loss_start"]
    assert found.metrics["error_g_over_l"] < 0.5  # from 2: g/l starts at 30, where it is 10
    assert drawn(found)


def test_imitation_learns_a_cost():
    found = outcome("imitation-pendulum-cost", steps=15)
    assert found.metrics["imitation_loss"] < 0.5 * found.metrics["imitation_loss_start"]
    assert found.metrics["error_speed"] < 1.0  # from 0.3, where it is 0.1
    assert drawn(found)


def test_the_best_predictor_is_not_the_best_for_the_task():
    found = outcome("sysid-pendulum", steps=8).metrics
    assert found["imitation_task"] < found["imitation_sysid"]
    assert found["prediction_task"] > found["prediction_sysid"]
    linear = outcome("sysid-linear", steps=4).metrics
    assert linear["task_task"] < linear["task_sysid"]
    assert linear["prediction_task"] > linear["prediction_sysid"]


def test_a_distilled_network_controls():
    found = outcome("amortised")
    assert found.metrics["suboptimality"] < 0.1 * found.metrics["suboptimality_untrained"]
    assert found.metrics["iterations_warm"] <= found.metrics["iterations_cold"]
    assert found.metrics["max_violation"] == 0.0
    assert found.metrics["time_ratio"] > 1.0
    assert drawn(found)


def test_a_cross_entropy_search_is_differentiable():
    found = outcome("dcem")
    assert all(math.isfinite(float(value)) for value in found.metrics.values())
    assert found.metrics["cost_controls_many_samples"] <= found.metrics["cost_controls"]
    assert drawn(found)


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "bars"),
    [
        ("swing-up", {"success_rate": (1.0, 1.0), "max_violation": (0.0, 1e-6)}),
        ("swing-up-cartpole", {"success_rate": (0.9, 1.0), "max_violation": (0.0, 1e-6)}),
        ("imitation-pendulum", {"error_g_over_l": (0.0, 0.01), "error_m_l2": (0.0, 0.01)}),
        ("sqp-gradient", {"error_implicit": (0.0, 1e-3), "error_gauss_newton": (0.06, 0.065)}),
        ("sysid-linear", {"test_ratio": (0.0, 0.95)}),
        ("amortised", {"suboptimality": (0.0, 0.02)}),
    ],
)
def test_bars_at_full_size(name, bars):
    metrics = outcome(name, "full").metrics
    for metric, (low, high) in bars.items():
        assert low <= float(metrics[metric]) <= high, (metric, metrics[metric])  # type: ignore[arg-type]
