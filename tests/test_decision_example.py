"""Predict-then-optimise: the oracle finds shortest paths, the gradients are right, and training on cost lowers cost."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
for package in ("matplotlib", "rich"):
    pytest.importorskip(package)

from examples.decision.__main__ import main  # noqa: E402
from examples.decision.grid import EDGES, draw_map, draw_trips, incidence, path_layer  # noqa: E402
from examples.decision.newsvendor import DEMANDS, NEWSVENDOR, cost, stock_layer  # noqa: E402
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
