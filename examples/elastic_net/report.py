"""The closing table."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from rich.console import Console
from rich.table import Table

from examples.elastic_net.fit import Fit


def print_report(console: Console, baseline: Fit, tuned: Fit) -> None:
    """Prints both ways of choosing penalties side by side, and what the difference between them is worth."""
    splits = len(tuned.test)
    table = Table(title=f"Elastic net on the diabetes data, mean of {splits} random splits", caption=_caption(splits))
    for heading in ("", "validation", "test", "weights", "seconds"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("ElasticNetCV", *_cells(baseline))
    table.add_row("layer", *_cells(tuned))
    differences = (_mean(tuned.validation - baseline.validation, "+"), _mean(tuned.test - baseline.test, "+"))
    table.add_section()
    table.add_row("difference", *differences, "", "")
    console.print(table)
    console.print(_verdict(tuned.test - baseline.test))


def _cells(fit: Fit) -> tuple[str, ...]:
    support = (fit.w.abs() > 1e-8).sum(dim=-1).double().mean()
    return _mean(fit.validation), _mean(fit.test), f"{support:.0f} of {fit.w.shape[-1]}", f"{fit.seconds:.1f}"


def _mean(values: Float[torch.Tensor, " splits"], sign: str = "") -> str:
    return f"{values.mean():{sign}.4f} ± {_standard_error(values):.4f}"


def _standard_error(values: Float[torch.Tensor, " splits"]) -> float:
    return values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _caption(splits: int) -> str:
    errors = "Errors are mean squared, in units of the response's variance (1 = predicting the mean)."
    return errors + (" ± is one standard error over the splits, which share people." if splits > 1 else "")


def _verdict(difference: Float[torch.Tensor, " splits"]) -> str:
    """Says in words what the test error shows, and does not."""
    mean, error = difference.mean().item(), _standard_error(difference)
    if math.isnan(error):
        return "One split says little about the test error: run with --splits 16."
    if abs(mean) < 2 * error:
        return "The test errors differ by less than two standard errors: this run does not tell the two apart."
    better, worse = ("tuning through the layer", "the grid") if mean < 0 else ("the grid", "tuning through the layer")
    return (
        f"On people that no choice has seen, {better} predicts better than {worse}, by {abs(mean):.4f} ± {error:.4f}."
    )
