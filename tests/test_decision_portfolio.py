"""The portfolio trained on growth: its accounts are right, its gradient too, and it is tested on later weeks."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
for package in ("matplotlib", "rich", "sklearn", "skfolio"):
    pytest.importorskip(package)

from examples.decision.__main__ import main  # noqa: E402
from examples.decision.portfolio import AVERSION, COST, POLICIES, UNIT, simulate, trading_layer  # noqa: E402


def risk(rng, stocks):
    root = rng.normal(size=(stocks, stocks))
    return 1e-3 * (root @ root.T / stocks + np.eye(stocks))


def test_trades_are_worth_their_cost(rng):
    C, mu = risk(rng, 4), torch.as_tensor(0.01 * rng.normal(size=4))
    before, price = torch.as_tensor(rng.dirichlet(np.ones(4))), torch.tensor(0.002, dtype=torch.float64)
    (best,) = trading_layer(C)(UNIT * mu, before, UNIT * price)

    def worth(p):
        return mu @ p - AVERSION * p @ torch.as_tensor(C) @ p - price * (p - before).abs().sum()

    for _ in range(200):
        assert worth(torch.as_tensor(rng.dirichlet(np.ones(4)))) <= worth(best) + 1e-9


def test_nothing_is_traded_where_trading_is_dear(rng):
    before = torch.as_tensor(rng.dirichlet(np.ones(20), 3))
    mu, dear = torch.as_tensor(rng.normal(size=(3, 20))), torch.full((3,), 1e3, dtype=torch.float64)
    (after,) = trading_layer(risk(rng, 20))(mu, before, dear)
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)


def test_accounts_of_two_weeks(rng):
    layer, mu = trading_layer(risk(rng, 3)), torch.as_tensor(0.01 * rng.normal(size=(1, 2, 3)))
    came, price = torch.as_tensor(0.05 * rng.normal(size=(1, 2, 3))), torch.tensor([COST], dtype=torch.float64)
    wealth, held = 1.0, torch.full((1, 3), 1 / 3, dtype=torch.float64)
    for week in range(2):
        (wanted,) = layer(UNIT * mu[:, week], held / held.sum(), UNIT * price)
        wealth *= 1 - COST * (wanted - held / held.sum()).abs().sum().item()
        held = wealth * wanted * (1 + came[:, week])
        wealth = held.sum().item()
    net = simulate(layer, mu, came, price)
    assert (1 + net).prod().item() == pytest.approx(wealth)


def test_gradient_through_weeks(rng):
    layer, mu = trading_layer(risk(rng, 3)), torch.as_tensor(0.02 * rng.normal(size=(2, 2, 3))).requires_grad_()
    came = torch.as_tensor(0.05 * rng.normal(size=(2, 2, 3)))
    price = torch.full((2,), 5e-4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda mu, price: simulate(layer, mu, came, price), (mu, price), eps=1e-7, atol=1e-4
    )


def test_comparison_out_of_sample(tmp_path):
    target, picture = tmp_path / "found.json", tmp_path / "found.png"
    main(["portfolio", "--json", str(target), "--plot", str(picture)])
    metrics = json.loads(target.read_text())["metrics"]
    assert picture.read_bytes()[:4] == b"\x89PNG"
    growth = {name: np.array(metrics[f"growth_{name}_each"]) for name in POLICIES}
    gains = growth["trained"] - growth["two_step"]
    assert metrics["gain_over_two_step"] == pytest.approx(gains.mean())
    assert metrics["gain_over_two_step_standard_error"] == pytest.approx(gains.std(ddof=1) / len(gains) ** 0.5)
    assert all(-20 < value < 40 for values in growth.values() for value in values)  # per cent a year
