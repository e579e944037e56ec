"""The example that learns costs of a linear program: the exact derivative stands still, the others learn."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
paths = pytest.importorskip("examples.smoothing.paths")
Context = pytest.importorskip("examples.experiment").Context


def test_paths_are_the_cheapest():
    """Against dynamic programming."""
    rng = np.random.default_rng(0)
    costs = rng.uniform(0.1, 1.0, size=(10, len(paths.edges(4))))
    (found,) = paths.path_layer(4)(torch.tensor(costs))
    for cost, path in zip(costs, found.numpy(), strict=True):
        best = {0: 0.0}
        for (start, end), length in sorted(zip(paths.edges(4), cost, strict=True)):
            best[end] = min(best.get(end, np.inf), best[start] + length)
        assert cost @ path == pytest.approx(best[15], abs=1e-8)


def test_only_informative_derivatives_learn():
    metrics = paths.run(paths.EXPERIMENT.sizes["ci"], Context()).metrics
    before = metrics["regret_untrained"]
    assert metrics["regret_exact"] == pytest.approx(before, abs=1e-6)
    for name in ("smoothed", "lpgd", "ridge"):
        assert metrics[f"regret_{name}"] < 0.7 * before, name


@pytest.mark.full
def test_the_published_size_learns_most_of_the_costs():
    metrics = paths.run(paths.EXPERIMENT.sizes["full"], Context()).metrics
    assert metrics["regret_exact"] == pytest.approx(metrics["regret_untrained"], abs=1e-6)
    for name in ("smoothed", "lpgd", "ridge"):
        assert metrics[f"regret_{name}"] < 0.25 * metrics["regret_untrained"], name
