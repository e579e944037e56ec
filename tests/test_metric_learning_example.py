"""Metric learning: weighted least squares, an exact hypergradient, decisions from bad to good."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
for package in ("matplotlib", "rich", "sklearn", "skfolio", "vega_datasets"):
    pytest.importorskip(package)

from examples.experiment import Context  # noqa: E402
from examples.metric_learning.__main__ import main  # noqa: E402
from examples.metric_learning.cubic import CUBIC, published_tasks  # noqa: E402
from examples.metric_learning.learn import Plan, train  # noqa: E402
from examples.metric_learning.market import Investor  # noqa: E402
from examples.metric_learning.model import Metric, choice_layer, fit, fit_layer  # noqa: E402
from examples.metric_learning.portfolio import PORTFOLIO, draw_market, quality  # noqa: E402
from examples.metric_learning.regression import REGRESSION, TwoMetrics  # noqa: E402
from examples.metric_learning.regression import quality as quality_of_choices  # noqa: E402
from examples.metric_learning.returns import RETURNS  # noqa: E402
from examples.metric_learning.tables import TABLES  # noqa: E402
from examples.stocks import covariance, load_weeks, walk_forward  # noqa: E402


def drawn(rng, *shape):
    return torch.as_tensor(rng.normal(size=shape))


def test_fit_is_weighted_least_squares(rng):
    features, targets, weights = drawn(rng, 30, 3), drawn(rng, 30), torch.as_tensor(rng.random(30))
    root = weights.sqrt()
    expected = np.linalg.lstsq((root[:, None] * features).numpy(), (root * targets).numpy())[0]
    np.testing.assert_allclose(fit(fit_layer(3), features, targets, weights), expected, atol=1e-12)


def test_hypergradient_through_fit_and_decision(rng):
    """From the cost of decisions to the weights of samples, against finite differences."""
    features, targets, values = drawn(rng, 8, 2), drawn(rng, 8), drawn(rng, 3, 5)
    items, inner, choose = drawn(rng, 3, 5), fit_layer(2), choice_layer(5, 0.7)

    def task(weights):
        slope, intercept = fit(inner, features, targets, weights)
        return (choose(slope * items + intercept)[0] * values).sum()

    weights = torch.as_tensor(rng.random(8) + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(task, weights, eps=1e-6, atol=1e-7)


def test_metric_starts_as_least_squares(rng):
    torch.testing.assert_close(Metric(2, 5, 0)(drawn(rng, 7, 2)), torch.ones(7, dtype=torch.float64))


def test_prices_of_features_are_ridges(rng):
    features, targets, prices = drawn(rng, 30, 3), drawn(rng, 30), torch.as_tensor(rng.random(3))
    x, y = features.numpy(), targets.numpy()
    expected = np.linalg.solve(x.T @ x / 30 + np.diag(prices), x.T @ y / 30)
    found = fit(fit_layer(3), features, targets, torch.ones(30, dtype=torch.float64), prices)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_choice_of_several_fills_the_best(rng):
    y = drawn(rng, 4, 9)
    (p,) = choice_layer(9, 1e-4, 3)(y)
    expected = torch.zeros_like(y).scatter(1, y.topk(3, dim=1).indices, 1.0)
    torch.testing.assert_close(p, expected, atol=1e-8, rtol=0)


def test_training_keeps_the_best_of_the_held_out():
    """The loss falls towards 3, the held-out loss is least near 1."""
    x, seen = torch.zeros(1, dtype=torch.float64, requires_grad=True), []

    def held_out():
        seen.append((x.item() - 1) ** 2)
        return seen[-1]

    train([x], lambda: (x - 3).square().sum(), held_out, Plan(60, 0.1), Context(), "test")
    assert (x.item() - 1) ** 2 == min(seen) < 0.01


def test_published_instances_are_those_of_the_authors_code():
    """As torch.manual_seed and random.seed draw them, which the code published sets."""
    import random

    stream = random.Random(1)
    seeds = [stream.randrange(2**32) for _ in range(2)]
    known, held_out, test = published_tasks(1)
    with torch.random.fork_rng():
        for seed, parts in zip(seeds, ((held_out, known), (test,)), strict=True):
            torch.manual_seed(seed)
            expected = (2 * torch.rand(400, 50, 1) - 1)[..., 0].double()
            torch.testing.assert_close(torch.cat([part.x for part in parts]), expected)


def test_cubic_turns_from_the_worst_line_to_the_best(tmp_path):
    target, picture = tmp_path / "cubic.json", tmp_path / "cubic.png"
    main(["cubic", "--json", str(target), "--plot", str(picture)])
    metrics = json.loads(target.read_text())["metrics"]
    assert metrics["decision_quality_before"] < -0.9
    assert metrics["decision_quality_after"] == metrics["decision_quality_ceiling"] >= 0.96
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_investor_finds_the_best_portfolio(rng):
    days = draw_market(3, 6, rng)
    investor = Investor(np.eye(6) + 0.3, 0.1)
    with torch.no_grad():
        best = investor.worth(days.returns, days.returns)
        for _ in range(50):
            p = torch.as_tensor(rng.dirichlet(np.ones(6), 3))
            worth = (days.returns * p).sum(dim=1) - 0.1 * ((p @ investor.risk) * p).sum(dim=1)
            assert (worth <= best + 1e-9).all()
    assert quality(investor, days.returns, days.returns, torch.rand(3, 6).double()) == 1.0


def test_weeks_look_only_back():
    """A fold learns before it stops, and stops before it is tested; a feature is known when its week ends."""
    weeks = load_weeks()
    folds = list(walk_forward(weeks, 4, 300, 100))
    assert sum(len(fold.test) for fold in folds) == len(weeks) - 400
    for fold in folds:
        assert (len(fold.known), len(fold.held_out)) == (300, 100)
    last_week = weeks.features[1:, :, 0]
    came = weeks.returns[:-1].log1p()
    standard = (came - came.mean(dim=1, keepdim=True)) / came.std(dim=1, keepdim=True, correction=0)
    torch.testing.assert_close(last_week, standard)
    assert np.linalg.eigvalsh(covariance(weeks.returns[:100])).min() > 0


def test_chosen_items_are_judged_by_their_values():
    table = TABLES["cars"]()
    assert table.x.shape == (392, 8)
    table = table.standardised(table.units())
    offers = torch.arange(380).reshape(19, 20)
    truth = torch.linalg.lstsq(table.x, table.y[:, None]).solution[:, 0]
    line = torch.cat([truth, torch.zeros(1, dtype=torch.float64)])
    assert 0.5 < quality_of_choices(line, table, offers) < 1
    assert quality_of_choices(-line, table, offers) < -0.5
    first = TwoMetrics(8, 5, 0)
    torch.testing.assert_close(first.prices(), torch.ones(8, dtype=torch.float64))
    torch.testing.assert_close(first.weights(table), torch.ones(392, dtype=torch.float64))


@pytest.mark.parametrize("experiment", [PORTFOLIO, RETURNS, REGRESSION], ids=lambda known: known.name)
def test_comparisons_report_gains_with_their_spread(experiment, tmp_path):
    target, picture = tmp_path / "found.json", tmp_path / "found.png"
    main([experiment.name, "--json", str(target), "--plot", str(picture)])
    metrics = json.loads(target.read_text())["metrics"]
    assert picture.read_bytes()[:4] == b"\x89PNG"
    prefixes = {"portfolio": [("", "decision_quality")], "returns": [("", "worth")]}
    for prefix, what in prefixes.get(experiment.name, [(f"{table}_", "decision_quality") for table in TABLES]):
        each = {name: np.array(metrics[f"{prefix}{what}_{name}_each"]) for name in ("least_squares", "metric")}
        gains = each["metric"] - each["least_squares"]
        assert len(gains) >= 2
        assert metrics[f"{prefix}gain_metric"] == pytest.approx(gains.mean())
        assert metrics[f"{prefix}gain_metric_standard_error"] == pytest.approx(gains.std(ddof=1) / len(gains) ** 0.5)
        if what == "decision_quality":
            assert 0.3 < min(map(np.min, each.values())) < max(map(np.max, each.values())) < 1


@pytest.mark.full
@pytest.mark.parametrize("seed", range(5))
def test_cubic_at_full_size(seed):
    """On the instances of the published command, from five first metrics."""
    metrics = CUBIC.run(CUBIC.sizes["full"], Context(seed)).metrics
    assert metrics["decision_quality_before"] < -0.9
    assert metrics["decision_quality_after"] == metrics["decision_quality_ceiling"] >= 0.96


@pytest.mark.full
def test_cars_are_chosen_better_under_the_learned_metric():
    metrics = REGRESSION.run(REGRESSION.sizes["full"], Context()).metrics
    assert metrics["cars_gain_metric"] > 0
