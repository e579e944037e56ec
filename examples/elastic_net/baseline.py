"""The baseline: scikit-learn's elastic net, with its two penalties chosen from a grid on the same folds."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import ElasticNetCV

from examples.elastic_net.data import Split, Study
from examples.elastic_net.fit import Fit

# Four shares of the ℓ₁ penalty times fifty sizes, down to a hundredth of the one that leaves no weight. Predictors that
# are products of each other are correlated, and coordinate descent needs more than its usual thousand rounds.
_GRID: dict[str, Any] = {"l1_ratio": [0.1, 0.5, 0.9, 1.0], "alphas": 50, "eps": 1e-2, "max_iter": 50_000}


def search_grid(study: Study) -> Fit:
    """Chooses penalties for each split by `ElasticNetCV`, which refits to the whole training part."""
    started = perf_counter()
    models = [_search(split) for split in study.splits]
    seconds = perf_counter() - started
    w = torch.as_tensor(np.stack([model.coef_ for model in models]))
    l1 = torch.tensor([model.alpha_ * model.l1_ratio_ for model in models], dtype=torch.float64)
    return Fit(
        w=w,
        l1=l1[:, None].expand_as(w),
        validation=torch.tensor([model.mse_path_.mean(axis=-1).min() for model in models], dtype=torch.float64),
        test=study.test.mean_squared_error(w[:, None])[:, 0],
        seconds=seconds,
    )


def _search(split: Split) -> ElasticNetCV:
    return ElasticNetCV(cv=split.folds, **_GRID).fit(split.X, split.y)
