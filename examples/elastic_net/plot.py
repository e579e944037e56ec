"""The picture: how the errors fall, and which weights and penalties come of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from examples.elastic_net.data import KINDS, Features
from examples.elastic_net.fit import Fit
from examples.elastic_net.tune import Curves

_BASELINE, _TUNED, _TEST = "0.55", "tab:blue", "tab:orange"


def save_plot(path: Path, features: Features, baseline: Fit, tuned: Fit, curves: Curves) -> None:
    """Draws the loss curves above, the weights and the penalties below, averaged over the splits."""
    figure = Figure(figsize=(14, 10), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1)
    _draw_curves(top, baseline, curves)
    _draw_bars(middle, features, baseline.w.mean(dim=0).numpy(), tuned.w.mean(dim=0).numpy())
    middle.set_ylabel("weight")
    middle.axhline(0, color="black", linewidth=0.6)
    # A geometric mean, as penalties are learned through their logarithms.
    _draw_bars(bottom, features, baseline.l1.log().mean(dim=0).exp().numpy(), tuned.l1.log().mean(dim=0).exp().numpy())
    bottom.set_ylabel("ℓ₁ penalty")
    figure.savefig(path, dpi=120)


def _draw_curves(axes: Axes, baseline: Fit, curves: Curves) -> None:
    axes.plot(curves.validation, color=_TUNED, label="validation (tuned)")
    axes.plot(curves.test, color=_TEST, label="test (only watched)")
    axes.plot(curves.fit, color="tab:green", label="training")
    axes.axhline(baseline.validation.mean().item(), color=_TUNED, linestyle="--", label="ElasticNetCV, validation")
    axes.axhline(baseline.test.mean().item(), color=_TEST, linestyle="--", label="ElasticNetCV, test")
    axes.set(xlabel="step of gradient descent", ylabel="mean squared error", title="Penalties tuned through the layer")
    axes.legend(loc="center right")


def _draw_bars(axes: Axes, features: Features, baseline: np.ndarray, tuned: np.ndarray) -> None:
    position = np.arange(len(features.names))
    axes.bar(position - 0.2, baseline, width=0.4, color=_BASELINE, label="ElasticNetCV")
    axes.bar(position + 0.2, tuned, width=0.4, color=_TUNED, label="layer")
    axes.set_xticks(position, features.names, rotation=90, fontsize=7)
    axes.set_xlim(-1, len(position))
    for kind in np.unique(features.kinds):
        first = np.flatnonzero(features.kinds == kind)[0]
        axes.axvline(first - 0.5, color="0.8", linewidth=0.8)
        axes.text(first - 0.3, 0.97, f"{KINDS[kind]}s", transform=axes.get_xaxis_transform(), va="top", fontsize=8)
    axes.legend(loc="upper right", ncols=2)
    axes.margins(y=0.15)
