"""Every example runs, on a small size, and does what its README says."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
for package in ("sklearn", "matplotlib", "rich", "tqdm"):
    pytest.importorskip(package)

from sklearn.linear_model import ElasticNet  # noqa: E402

from examples.elastic_net.data import Study, load_study  # noqa: E402
from examples.elastic_net.model import Penalty, elastic_net  # noqa: E402
from examples.elastic_net.moments import moments  # noqa: E402
from examples.elastic_net.tune import Settings, solve, tune  # noqa: E402

# The smallest run of each that still goes through all its code. Packages of experiments have test files of their own.
SMALL = {"elastic_net": "--splits 2 --folds 2 --epochs 2 --features measured".split()}
EXAMPLES = [Path(__file__).parents[1] / "examples" / name for name in SMALL]


@pytest.fixture(scope="module")
def study() -> Study:
    """Two splits of the ten measurements in three folds."""
    return load_study(2, 3, seed=0, expand=False)


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_runs_and_draws(folder, tmp_path, capsys):
    main = importlib.import_module(f"examples.{folder.name}.__main__").main
    main([*SMALL[folder.name], "--out", str(tmp_path)])
    (picture,) = tmp_path.glob("*.png")
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert "test" in capsys.readouterr().out
    assert (folder / "README.md").exists()


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_explains_its_options(folder, capsys):
    main = importlib.import_module(f"examples.{folder.name}.__main__").main
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "--seed" in capsys.readouterr().out


def test_elastic_net_equals_scikit_learns(study):
    """With equal penalties alpha·ratio and alpha (1 − ratio) the layer fits scikit-learn's elastic net."""
    alpha, ratio = 0.1, 0.6
    layer = elastic_net(10)
    l1 = torch.full((10,), alpha * ratio, dtype=torch.float64)
    (w,) = layer(study.train.gram, study.train.cross, l1, torch.tensor(alpha * (1 - ratio), dtype=torch.float64))
    for index, split in enumerate(study.splits):
        model = ElasticNet(alpha=alpha, l1_ratio=ratio, tol=1e-12, max_iter=100_000).fit(split.X, split.y)
        np.testing.assert_allclose(w[index, 0], model.coef_, atol=1e-8)


def test_moments_give_the_mean_squared_error(rng):
    X_fit, y_fit, X, y, w = (rng.normal(size=shape) for shape in [(30, 4), 30, (20, 4), 20, 4])
    intercept = y_fit.mean() - X_fit.mean(axis=0) @ w
    expected = np.mean((y - intercept - X @ w) ** 2)
    computed = moments(X, y, X_fit, y_fit).mean_squared_error(torch.as_tensor(w))
    np.testing.assert_allclose(computed, expected, rtol=1e-12)


def test_gradient_of_the_validation_error(study):
    """Against a central difference in every penalty of the first split at once."""
    layer, kinds = elastic_net(10), torch.as_tensor(study.features.kinds)
    penalty = Penalty(2, kinds)

    def validation():
        return study.held_out.mean_squared_error(solve(layer, study.fit, penalty)).mean(dim=-1)

    validation()[0].backward()
    gradients = [parameter.grad for parameter in penalty.parameters() if parameter.grad is not None]
    slope = sum(gradient.sum().item() for gradient in gradients)
    step, values = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter in penalty.parameters():
                parameter += sign * step
            values.append(validation()[0].item())
            for parameter in penalty.parameters():
                parameter -= sign * step
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)


def test_tuning_lowers_the_validation_error(study):
    settings = Settings(epochs=6, learning_rate=0.1, shrinkage=0.1)
    tuned, curves = tune(study, settings)
    again, _ = tune(study, settings)
    assert tuned.validation.mean() < curves.validation[0]
    torch.testing.assert_close(tuned.w, again.w, rtol=0, atol=0)


def test_expanded_features_are_those_of_the_paper():
    features = load_study(1, 2, seed=0, expand=True).features
    assert features.values.shape == (442, 64)
    assert len(features.names) == 64
    assert [int((features.kinds == kind).sum()) for kind in range(3)] == [10, 9, 45]
    column = features.names.index("bmi·bp")
    product = features.values[:, features.names.index("bmi")] * features.values[:, features.names.index("bp")]
    np.testing.assert_array_equal(features.values[:, column], product)
