"""What is reported of every comparison: means over folds, gains over least squares, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def summary(what: str, values: Mapping[str, Sequence[float]], errors: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Returns means, each fold's value, mean gains over least squares with their standard errors, and errors."""
    metrics: dict[str, Any] = {f"{what}_{name}": float(np.mean(found)) for name, found in values.items()}
    for name in ("metric", "direct"):
        gains = np.subtract(values[name], values["least_squares"])
        metrics[f"gain_{name}"] = float(gains.mean())
        metrics[f"gain_{name}_standard_error"] = float(gains.std(ddof=1) / np.sqrt(len(gains)))
    metrics |= {f"squared_error_{name}": float(np.mean(found)) for name, found in errors.items()}
    return metrics | {f"{what}_{name}_each": list(found) for name, found in values.items()}
