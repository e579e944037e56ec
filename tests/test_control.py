"""Policies and the worlds they act in: closed forms, gradients, and improvement over the start."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
for package in ("matplotlib", "rich", "skfolio", "vega_datasets"):
    pytest.importorskip(package)

from examples.control.__main__ import EXPERIMENTS, main  # noqa: E402
from examples.control.adp import BallPolicy, adp_system  # noqa: E402
from examples.control.climate import ClimatePolicy, cost, experience, room, thermostat  # noqa: E402
from examples.control.cocp_box import U_MAX, box_system, lower_bound  # noqa: E402
from examples.control.cocp_lqr import ControlLyapunov, lyapunov_problem  # noqa: E402
from examples.control.imitation_lqr import draw_model, expert  # noqa: E402
from examples.control.inverse import TRUE, Planner, imitation, max_margin, optimality_residual  # noqa: E402
from examples.control.linear import linear_simulator, quadratic_cost, random_system  # noqa: E402
from examples.control.lqr import lqr_layer  # noqa: E402
from examples.control.mpc import backward_problem, layer_solver  # noqa: E402
from examples.control.portfolio import TradingPolicy, load_market  # noqa: E402
from examples.control.riccati import LQR, dare  # noqa: E402
from examples.control.simulator import draw, draw_each, rollout  # noqa: E402
from examples.control.tune import Plan, rollout_costs, tune  # noqa: E402
from examples.experiment import Context, Outcome  # noqa: E402

README = Path(__file__).parents[1] / "examples" / "control" / "README.md"
BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}


def run(name: str, size: str = "ci", **changes: Any) -> Outcome:
    experiment = BY_NAME[name]
    return experiment.run(experiment.settings(size, changes), Context())


def dare_data() -> tuple[torch.Tensor, ...]:
    system = random_system(3, 2, seed=3)
    return torch.as_tensor(system.A), torch.as_tensor(system.B), torch.eye(3).double(), torch.eye(2).double()


# The linear-quadratic regulator and its bounds.


def test_lqr_equals_riccati_and_the_dense_conditions():
    metrics = run("lqr").metrics
    assert metrics["error_riccati"] < 1e-9
    assert metrics["error_kkt"] < 1e-9
    assert metrics["error_gradients"] < 1e-8


def test_box_mpc_has_exact_jacobians_inside_and_at_the_bounds():
    metrics = run("box-mpc").metrics
    assert metrics["error_solution"] < 1e-9
    assert metrics["error_jacobian_inactive"] < 1e-6
    assert metrics["error_jacobian_active"] < 1e-6
    assert metrics["share_inactive"] == 0
    assert 0 < metrics["share_active"] < 1


@pytest.mark.parametrize("bound", [100.0, 0.5])
def test_box_mpc_matches_differences(bound):
    problem, lower, upper = backward_problem(2, bound)
    solve, random = layer_solver(lqr_layer(2, 2, 3, bounded=True), lower, upper), torch.Generator().manual_seed(0)
    fields = vars(problem)
    along = {name: torch.randn(value.shape, generator=random).double() for name, value in fields.items()}
    along["C"] = along["C"] + along["C"].mT

    def value(step: float) -> torch.Tensor:
        return solve(LQR(**{name: fields[name] + step * along[name] for name in fields}))

    data = LQR(**{name: fields[name].clone().requires_grad_() for name in fields})
    weights = torch.randn(value(0.0).shape, generator=random).double()
    gradients = torch.autograd.grad((weights * solve(data)).sum(), list(vars(data).values()))
    slope = sum(float((g * along[name]).sum()) for g, name in zip(gradients, fields, strict=True))
    step = 1e-4
    difference = (8 * (value(step) - value(-step)) - (value(2 * step) - value(-2 * step))) / (12 * step)
    assert slope == pytest.approx(float((weights * difference).sum()), rel=1e-6)


def test_riccati_derivative():
    data = tuple(matrix.requires_grad_() for matrix in dare_data())

    def symmetric(A, B, Q, R):
        return dare(A, B, (Q + Q.mT) / 2, (R + R.mT) / 2)

    assert torch.autograd.gradcheck(symmetric, data, atol=1e-6, rtol=1e-6)


def test_riccati_refuses_a_second_derivative():
    A, B, Q, R = dare_data()
    P = dare(A.requires_grad_(), B, Q, R)
    with pytest.raises(RuntimeError, match="requires grad"):
        torch.autograd.grad(P.sum(), A, create_graph=True)


def test_terminal_cost_makes_every_horizon_optimal_and_stable():
    metrics = run("mpc-terminal").metrics
    assert metrics["error_derivative"] < 1e-6
    assert metrics["error_lqr"] < 1e-9
    assert metrics["spectral_radius"] < 1
    assert metrics["imitation_after"] < metrics["imitation_before"] / 5


# Policies that are tuned.


def test_one_step_policy_learns_lqr():
    metrics = run("cocp-lqr", epochs=2, fresh=1).metrics
    assert metrics["optimal_average_cost"] == pytest.approx(1.8031166, abs=1e-5)
    np.testing.assert_allclose(metrics["curve"], [0.389, 0.173, 0.066], atol=6e-4)
    assert metrics["error_closed_form"] < 1e-9


def test_box_policy_improves_and_stays_above_the_bound():
    metrics = run("cocp-box", epochs=1, fresh=1).metrics
    np.testing.assert_allclose(metrics["curve"], [16.940, 14.257], atol=2e-3)
    assert metrics["lower_bound"] == pytest.approx(10.697, abs=1e-3)
    assert metrics["lower_bound"] < metrics["cost_after"]


def test_lower_bound_without_bounds_is_that_of_lqr():
    system = random_system(4, 2, seed=0)
    bound, P = lower_bound(system, 100.0)
    assert bound == pytest.approx(1.8031166, abs=1e-4)
    np.testing.assert_allclose(P, dare(*map(torch.as_tensor, (system.A, system.B, np.eye(4), np.eye(2)))), atol=1e-3)


def test_gradient_of_a_rollout_of_the_box_policy():
    """Against the policy computed by going through all active sets."""
    from benchmarks.workloads.cocp_box import epoch, exact_layer

    system = box_system()
    exact = epoch(exact_layer(system), 20, 4, 7)()
    found = epoch(ControlLyapunov(system, np.eye(8), U_MAX).layer, 20, 4, 7)()
    np.testing.assert_allclose(found.solution, exact.solution, rtol=1e-9)
    for name, gradient in exact.gradients.items():
        np.testing.assert_allclose(found.gradients[name], gradient, rtol=1e-6, atol=1e-9)


def test_supply_chain_learns():
    metrics = run("cocp-supply-chain", epochs=3, fresh=4).metrics
    np.testing.assert_allclose(metrics["curve"], [-0.27864, -0.28086, -0.28249, -0.28470], atol=2e-4)
    assert metrics["gain_fresh_rollouts"] > 0


def test_vehicle_follows_the_published_run():
    metrics = run("cocp-vehicle", epochs=2, monte_carlo=2).metrics
    np.testing.assert_allclose(metrics["curve"], [3.512, 3.706, 3.693], atol=1e-3)
    assert metrics["monte_carlo_after"] != metrics["monte_carlo_before"]


def test_portfolio_learns_and_pays_for_its_trades():
    metrics = run("cocp-portfolio", epochs=2, horizon=8, test_batch=4, fresh=2).metrics
    assert metrics["utility_after"] > metrics["utility_before"]
    policy = TradingPolicy(load_market())
    h = policy.holdings()[None] * 3.0
    u = policy(h + 0.1).detach()
    shorting, trading = (-(h + 0.1 + u)).clamp(min=0.0).sum(), u.abs().sum()
    assert float(policy.holdings().sum()) == pytest.approx(1.0)
    assert float(u.sum() + 0.001 * (shorting + trading)) <= 1e-6


def test_adp_policy_is_a_projection_and_learns():
    metrics = run("adp", epochs=2, fresh=2).metrics
    assert metrics["cost_after"] < metrics["cost_before"]
    policy = BallPolicy(adp_system())
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)).double()
    u = policy(x).detach()
    free = -torch.linalg.solve(policy.S.mT @ policy.S, (x @ policy.E + policy.q).mT).mT.detach()
    inside = free.norm(dim=1) < 1
    assert float(u.norm(dim=1).max()) < 1 + 1e-7
    torch.testing.assert_close(u[inside], free[inside], atol=1e-6, rtol=1e-6)


def test_climate_model_is_identified_and_policy_heats_ahead():
    metrics = run("climate", horizon=16, imitation=8, epochs=1, fresh=2).metrics
    assert metrics["imitation_after"] < metrics["imitation_before"]
    policy, days = ClimatePolicy("seattle"), experience("seattle", 3, 96, seed=5)
    assert days.states.shape == (97, 3, 3)
    before_work = torch.tensor([[15.0, 15.0, 7.5 * 4]], dtype=torch.float64)
    at_night = torch.tensor([[19.0, 15.0, 20.0 * 4]], dtype=torch.float64)
    assert float(policy(before_work).detach()) > 1
    assert float(policy(at_night).detach()) < 1e-6
    costs = rollout_costs(thermostat, room("sf"), cost, draw_each(room("sf"), [1], 96))
    assert 0.5 < float(costs.mean()) < 6


# Imitation and inverse control.


def test_published_expert():
    p, A, B = draw_model(42)
    np.testing.assert_allclose(p, [2.2082, -0.638, 0.4617, 0.2674, 0.5349, 0.8094], atol=1e-4)
    np.testing.assert_allclose(A[0], [1.2221, -0.338, -0.1978], atol=1e-4)
    np.testing.assert_allclose(B[2], [-0.2384, -0.0499, 0.5263], atol=1e-4)


def test_imitation_learns_the_model():
    metrics = run("imitation-lqr", steps=20).metrics
    after, before = np.array(metrics["model_loss"]), np.array(metrics["model_loss_before"])
    assert (after[1:5] < before[1:5]).all()
    known = expert()
    x0 = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0)).double()
    exact = known.loss(x0, *(value[None] for value in (known.A, known.B, known.q, known.p)))
    assert float(exact) < 1e-20


def test_imitation_learns_the_cost():
    metrics = run("imitation-cost").metrics
    assert (np.array(metrics["trajectory_loss"]) < np.array(metrics["trajectory_loss_before"]) / 2).all()
    assert (np.array(metrics["cost_error"]) < np.array(metrics["cost_error_before"])).all()


def test_inverse_losses_vanish_at_the_truth_and_have_exact_gradients():
    planner = Planner(6)
    x0 = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)).double()
    shown = planner.simulate(x0, planner.plan(x0, TRUE, 6).detach())
    residual = optimality_residual(planner, shown)
    torch.testing.assert_close(residual, TRUE, rtol=1e-6, atol=1e-6)
    direction = torch.tensor([0.3, -0.2, 0.1, 0.4, -0.3, 0.2]).double()
    for loss in (max_margin, imitation):
        assert float(loss(planner, shown, TRUE).detach()) == pytest.approx(0.0, abs=1e-12)
        weights = (1.2 * TRUE + direction).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(planner, shown, weights), weights)
        step = 1e-4
        sides = [loss(planner, shown, (weights + sign * step * direction).detach()) for sign in (1, -1)]
        assert float(gradient @ direction) == pytest.approx(float(sides[0] - sides[1]) / (2 * step), rel=1e-5)


def test_max_margin_turns_towards_the_truth():
    metrics = run("inverse", steps=10).metrics
    assert metrics["angle_residual_exact"] < 1e-3
    assert metrics["angle_max_margin_exact"] < metrics["angle_before"] - 3


# The loop itself.


def test_a_rollout_of_a_seed_can_be_repeated_alone():
    system = random_system(3, 2, seed=5)
    world = linear_simulator(system, start=1.0)

    def policy(x):
        return -0.1 * x[:, :2]

    together = rollout_costs(policy, world, quadratic_cost, draw_each(world, [4, 9], 12))
    alone = [rollout_costs(policy, world, quadratic_cost, draw(world, seed, 1, 12)) for seed in (4, 9)]
    torch.testing.assert_close(together, torch.cat(alone))
    assert rollout(policy, world, quadratic_cost, draw(world, 4, 1, 12)).states.shape == (13, 1, 3)


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    system, plan = random_system(3, 2, seed=5), {"horizon": 5, "batch": 2, "fresh": 2}
    world = linear_simulator(system, start=1.0)

    def tuned(epochs: int, context: Context):
        policy = ControlLyapunov(system, np.eye(3))
        optimiser = torch.optim.SGD(policy.parameters(), lr=0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.StepLR(optimiser, 2, gamma=0.5)
        return tune(policy, world, quadratic_cost, optimiser, Plan(epochs, **plan), schedule=schedule, context=context)

    kept = Context(checkpoint=tmp_path / "run.pt")
    tuned(2, kept)
    resumed, straight = tuned(5, kept), tuned(5, Context())
    assert resumed.curve == straight.curve
    assert resumed.gradients == straight.gradients
    torch.testing.assert_close(resumed.parameters["S"], straight.parameters["S"], rtol=0, atol=0)
    torch.testing.assert_close(resumed.start["S"], torch.eye(3).double())
    assert resumed.best_fixed == "start"
    assert len(resumed.comparison()) == 2


def test_readme_tunes_a_policy_of_ones_own(capsys):
    """Its optimum is known: orders up to the quantile 4/5 of demand, 1.6."""
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, str(README), "exec"), names)
    tuned = names["tuned"]
    assert float(tuned.parameters["q"]) == pytest.approx(-1.7, abs=0.1)
    assert tuned.after < tuned.before
    assert "fresh rollouts" in capsys.readouterr().out
    policy_lines = [line for line in block.splitlines() if line and "import" not in line]
    assert len(policy_lines) <= 20


def test_every_experiment_is_listed_and_described(capsys):
    main(["list"])
    shown, readme = capsys.readouterr().out, README.read_text() + README.with_name("NONLINEAR.md").read_text()
    for name in BY_NAME:
        assert name.split("-")[0] in shown
        assert f"`{name}`" in readme


def test_command_line_writes_a_picture(tmp_path):
    main(["box-mpc", "--plot", str(tmp_path / "mpc.png"), "--json", str(tmp_path / "mpc.json")])
    assert (tmp_path / "mpc.png").read_bytes()[:4] == b"\x89PNG"


def test_problem_of_the_policy_is_shared_with_the_benchmark():
    problem, parameters, (u,) = lyapunov_problem(box_system(), U_MAX)
    assert [parameter.name() for parameter in parameters] == ["x", "S", "q"]
    assert problem.is_dcp(dpp=True)
    assert u.shape == (2,)


# Published sizes, for minutes each; of the portfolio's 400 epochs the bar is at the 30th.

BARS: dict[str, dict[str, tuple[float, float]]] = {
    "lqr": {"error_riccati": (0, 1e-9), "error_kkt": (0, 1e-9), "error_gradients": (0, 1e-8)},
    "box-mpc": {"error_jacobian_inactive": (0, 1e-6), "error_jacobian_active": (0, 1e-6)},
    "cocp-lqr": {"excess_cost": (-0.001, 0.002)},
    "cocp-box": {"cost_before": (16.93, 16.95), "cost_after": (12.9, 13.08), "lower_bound": (10.69, 10.70)},
    "cocp-supply-chain": {"cost_after": (-0.36, -0.338), "gain_fresh_rollouts": (0.15, 0.4)},
    "cocp-vehicle": {
        "cost_after": (1.04, 1.08),
        "monte_carlo_before": (4.05, 4.06),
        "monte_carlo_after": (0.89, 0.93),
    },
    "cocp-portfolio": {"rise_at_30": (0.1, 1.0)},
}
SHORTER = {"cocp-portfolio": {"epochs": 30}}


@pytest.mark.full
@pytest.mark.parametrize("name", BARS)
def test_published_size(name):
    metrics = run(name, "full", **SHORTER.get(name, {})).metrics
    for metric, (low, high) in BARS[name].items():
        assert low <= metrics[metric] <= high, metric


@pytest.mark.full
def test_half_of_the_learners_find_the_model():
    metrics = run("imitation-lqr", "full", steps=1000).metrics
    assert max(itertools.islice(metrics["model_loss"], 1, 5)) < 1e-3
