"""The baseline: scikit-learn's elastic net, with its two penalties chosen from a grid on the same folds."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import torch
from sklearn.linear_model import ElasticNetCV

from examples.elastic_net.data import Split, Study
from examples.elastic_net.fit import Fit

L1_RATIOS = [0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 1.0]


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
    # The squares of a measurement and the measurement itself are correlated: coordinate descent is slow to settle.
    model = ElasticNetCV(l1_ratio=L1_RATIOS, alphas=100, cv=split.folds, max_iter=50_000)
    return model.fit(split.X, split.y)
