"""Predict-then-optimise: the oracle finds shortest paths, the gradients are right, and training on cost lowers cost."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

torch = pytest.importorskip("torch")
for package in ("demandlib", "matplotlib", "rich", "sklearn"):
    pytest.importorskip(package)

from examples.decision.__main__ import main  # noqa: E402
from examples.decision.grid import EDGES, draw_map, draw_trips, incidence, path_layer  # noqa: E402
from examples.decision.loads import load_days  # noqa: E402
from examples.decision.matching import MATCHING, matching_layer  # noqa: E402
from examples.decision.max_margin import MAX_MARGIN, max_margin_loss, regret_margin_loss  # noqa: E402
from examples.decision.newsvendor import DEMANDS, NEWSVENDOR, cost, stock_layer  # noqa: E402
from examples.decision.scheduling import RAMP, SCHEDULING, expected_cost, scheduler  # noqa: E402
from examples.decision.scheduling import cost as cost_of_schedule  # noqa: E402
from examples.decision.shortest_path import SHORTEST_PATH, spo_plus_loss  # noqa: E402
from examples.experiment import Context  # noqa: E402


def shortest_lengths(costs):
    """By dynamic programming, node after node."""
    balance, lengths = incidence(), np.full((25, len(costs)), np.inf)
    lengths[0] = 0
    for node in range(1, 25):
        for edge in np.flatnonzero(balance[node] == -1):
            (before,) = np.flatnonzero(balance[:, edge] == 1)
            lengths[node] = np.minimum(lengths[node], lengths[before] + costs[:, edge])
    return lengths[-1]


def test_oracle_finds_shortest_paths(rng):
    costs = draw_trips(draw_map(rng), 50, 8, rng).costs
    (flow,) = path_layer()(costs)
    np.testing.assert_allclose((costs * flow).sum(dim=1), shortest_lengths(costs.numpy()), rtol=1e-4)
    assert ((flow - flow.round()).abs().amax(dim=1) < 1e-9).double().mean() > 0.95  # the rest has equally short paths
    assert path_layer(0.0)(costs[:2])[0].shape == (2, EDGES)


def test_spo_plus_loss_bounds_the_regret_and_has_the_gradient_it_claims(rng):
    true = draw_trips(draw_map(rng), 4, 2, rng).costs
    predicted = (true + 0.3 * torch.as_tensor(rng.normal(size=true.shape))).requires_grad_()
    loss, direction = spo_plus_loss(), torch.as_tensor(rng.normal(size=true.shape))
    value = loss(predicted, true)
    chosen, best = (path_layer()(costs.detach())[0] for costs in (predicted, true))
    assert value.item() >= (true * (chosen - best)).sum(dim=1).mean().item() - 1e-6
    (gradient,) = torch.autograd.grad(value, predicted)
    step = 1e-5
    ends = [loss(predicted.detach() + sign * step * direction, true).item() for sign in (1, -1)]
    assert (gradient * direction).sum().item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-3, abs=1e-4)


def test_smoothed_paths_have_the_derivative_of_finite_differences(rng):
    layer, costs = path_layer(0.5), draw_trips(draw_map(rng), 3, 2, rng).costs
    assert torch.autograd.gradcheck(lambda c: layer(c)[0], costs.requires_grad_(), eps=1e-6, atol=1e-5)


def test_order_has_the_least_expected_cost(rng):
    p = torch.softmax(torch.as_tensor(rng.normal(size=(20, len(DEMANDS)))), dim=1)
    (order,) = stock_layer()(p)
    least = (p * cost(order)).sum(dim=1)
    for other in np.linspace(0, 20, 200):
        assert (least <= (p * cost(torch.full_like(order, other))).sum(dim=1) + 1e-9).all()
    assert torch.autograd.gradcheck(lambda p: stock_layer()(p)[0], p[:3].requires_grad_(), eps=1e-6, atol=1e-5)


def test_spo_plus_halves_the_regret(tmp_path):
    target, picture = tmp_path / "spo.json", tmp_path / "spo.png"
    main(["spo-shortest-path", "--trials", "1", "--json", str(target), "--plot", str(picture)])
    metrics = json.loads(target.read_text())["metrics"]
    assert metrics["ratio"] > 2
    assert metrics["regret_smoothed"] < metrics["regret_least_squares"]
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_newsvendor_lies_between_its_bounds(tmp_path):
    target, picture = tmp_path / "news.json", tmp_path / "news.png"
    main(["newsvendor", "--json", str(target), "--plot", str(picture)])
    metrics = json.loads(target.read_text())["metrics"]
    assert metrics["cost_true_model"] < metrics["cost_task"] < metrics["cost_likelihood"]
    assert picture.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.full
def test_shortest_path_at_full_size():
    metrics = SHORTEST_PATH.run(SHORTEST_PATH.sizes["full"], Context()).metrics
    assert metrics["ratio"] > 2


@pytest.mark.full
def test_newsvendor_at_full_size():
    metrics = NEWSVENDOR.run(NEWSVENDOR.sizes["full"], Context()).metrics
    assert metrics["cost_true_model"] < metrics["cost_task"] < metrics["cost_likelihood"]


def test_max_margin_and_spo_plus_are_differentiated_by_their_optimal_values(rng):
    true = draw_trips(draw_map(rng), 4, 2, rng).costs
    predicted = (true + 0.3 * torch.as_tensor(rng.normal(size=true.shape))).requires_grad_()
    shown = path_layer()(true)[0]
    rival = path_layer()(predicted.detach() - 0.3 * (1 - 2 * shown))[0]
    (slope,) = torch.autograd.grad(max_margin_loss(0.3)(predicted, true), predicted)
    torch.testing.assert_close(slope, (shown - rival) / 4, atol=1e-8, rtol=0)
    ours, published = (loss(predicted, true) for loss in (regret_margin_loss(), spo_plus_loss()))
    assert ours.item() == pytest.approx(published.item(), abs=1e-3)  # of paths smoothed by 1e-5
    slopes = [torch.autograd.grad(loss, predicted)[0] for loss in (ours, published)]
    torch.testing.assert_close(slopes[0], slopes[1], atol=1e-8, rtol=0)


def test_max_margin_loss_is_zero_only_beyond_the_margin(rng):
    true = draw_trips(draw_map(rng), 3, 2, rng).costs
    shown = path_layer()(true)[0].round()
    assert max_margin_loss(0.3)(1 - shown, true).item() == pytest.approx(0, abs=1e-4)  # every other edge costs one more
    assert max_margin_loss(0.3)(torch.ones_like(true), true).item() > 0.1


def test_max_margin_learns_costs_from_paths_alone(tmp_path):
    target, picture = tmp_path / "margin.json", tmp_path / "margin.png"
    main(["max-margin", "--json", str(target), "--plot", str(picture)])
    metrics = json.loads(target.read_text())["metrics"]
    assert metrics["regret_max_margin"] < 0.6 * metrics["regret_least_squares"]
    assert metrics["regret_spo_plus"] < 0.6 * metrics["regret_least_squares"]
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_expected_cost_of_a_schedule_is_the_mean_over_loads():
    z, mean, deviation = (torch.tensor([value], dtype=torch.float64) for value in (1.3, 1.1, 0.2))
    grid = torch.linspace(-0.9, 3.1, 400001, dtype=torch.float64)
    density = torch.distributions.Normal(mean, deviation).log_prob(grid).exp()
    integral = torch.trapezoid(density * cost_of_schedule(z, grid[:, None]), grid)
    assert expected_cost(z, mean, deviation).item() == pytest.approx(integral.item(), rel=1e-7)


def test_schedules_keep_the_ramp_limit_and_have_the_derivative_of_differences(rng):
    solver = scheduler()
    mean = torch.as_tensor(1.5 + 2 * np.sin(np.arange(24) / 3) + 0.05 * rng.normal(size=(2, 24)))
    deviation, w = torch.full_like(mean, 0.1), torch.as_tensor(rng.normal(size=(2, 24)))
    direction = torch.as_tensor(rng.normal(size=(2, 24)))

    def value(mean, deviation):
        return (w * solver(mean.detach() + 0.2, mean, deviation)).sum()

    z = solver(mean + 0.2, mean, deviation)
    steps = z.diff(dim=1).abs()
    assert steps.max().item() < RAMP + 1e-8
    assert (steps > RAMP - 1e-8).any()
    leaves = [tensor.clone().requires_grad_() for tensor in (mean, deviation)]
    slopes = torch.autograd.grad(value(*leaves), leaves)
    step = 1e-5
    for index, slope in enumerate(slopes):
        moved = [
            [t + sign * step * direction * (i == index) for i, t in enumerate((mean, deviation))] for sign in (1, -1)
        ]
        difference = (value(*moved[0]) - value(*moved[1])).item() / (2 * step)
        assert (slope * direction).sum().item() == pytest.approx(difference, rel=1e-5)


def test_loads_follow_the_calendar_and_the_weather():
    days = load_days()
    assert days.load.shape == (15 * 363, 24)
    assert days.load.mean().item() == pytest.approx(1.5, abs=0.05)
    assert torch.linalg.matrix_rank(days.x).item() == days.x.shape[1]
    sunday = (np.arange(2, 365) + 4) % 7 == 6  # 2010 began on a Friday
    load = days.load.reshape(15, 363, 24).mean(dim=(0, 2)).numpy()
    assert load[sunday].mean() < 0.9 * load[~sunday].mean()


def test_scheduling_lies_between_its_bounds(tmp_path):
    target, picture = tmp_path / "loads.json", tmp_path / "loads.png"
    main(["scheduling", "--json", str(target), "--plot", str(picture)])
    metrics = json.loads(target.read_text())["metrics"]
    assert metrics["cost_known_load"] < metrics["cost_task"] < 0.9 * metrics["cost_least_squares"]
    assert metrics["cost_known_load"] < metrics["cost_likelihood"] < metrics["cost_least_squares"]
    assert picture.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.full
def test_training_on_cost_schedules_better_than_likelihood(tmp_path):
    """On one fold of few days, as at size ci, it need not: two regions are kept aside to stop by."""
    target = tmp_path / "loads.json"
    main(["scheduling", "--size", "full", "--json", str(target)])
    metrics = json.loads(target.read_text())["metrics"]
    assert metrics["gain_mean"] > 0.01
    assert metrics["gain_least"] > -0.02


def test_smoothed_matching_is_near_the_best_and_differentiable(rng):
    worth = torch.as_tensor(rng.random((3, 4, 4)))
    (X,) = matching_layer(1e-3, 4)(worth)
    for weights, plan in zip(worth.numpy(), X.numpy(), strict=True):
        rows, columns = linear_sum_assignment(weights, maximize=True)
        assert (weights * plan).sum() == pytest.approx(weights[rows, columns].sum(), abs=1e-2)
    layer = matching_layer(0.5, 4)
    assert torch.autograd.gradcheck(lambda C: layer(C)[0], worth[:1].requires_grad_(), eps=1e-6, atol=1e-5)


def test_matching_learns_to_pair_digits(tmp_path):
    target, picture = tmp_path / "pairs.json", tmp_path / "pairs.png"
    main(["matching", "--json", str(target), "--plot", str(picture)])
    metrics = json.loads(target.read_text())["metrics"]
    assert metrics["matched_decision"] > 0.6  # of pairs drawn at random, about a quarter
    assert picture.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.full
@pytest.mark.parametrize("experiment", [MAX_MARGIN, SCHEDULING, MATCHING], ids=lambda experiment: experiment.name)
def test_gains_at_full_size(experiment):
    metrics = experiment.run(experiment.sizes["full"], Context()).metrics
    if experiment is MAX_MARGIN:
        assert metrics["regret_max_margin"] < 0.5 * metrics["regret_least_squares"]
    else:
        assert metrics["gain_mean"] > 0
