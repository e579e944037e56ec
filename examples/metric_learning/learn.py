"""How everything here is trained: by Adam, keeping what is best on instances that are not learned from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from examples.experiment import Context


@dataclass(frozen=True)
class Plan:
    """How many steps, how long they are, and how often to look at the held-out instances."""

    steps: int
    lr: float
    check: int = 1


def train(
    parameters: Sequence[torch.Tensor],
    loss: Callable[[], torch.Tensor],
    held_out: Callable[[], float],
    plan: Plan,
    context: Context,
    label: str,
) -> None:
    """Lowers a loss by Adam; of all parameters passed, those of the smallest held-out loss stay.

    Args:
        parameters: leaves that the loss depends on; written to.
        loss: of a batch that it draws itself.
        held_out: the loss of instances that are not learned from.
        plan: the steps.
        context: shows the progress.
        label: of the progress bar.
    """
    optimizer, best, least = torch.optim.Adam(list(parameters), plan.lr), _copies(parameters), _value(held_out)
    for step in context.track(range(1, plan.steps + 1), label):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        if step % plan.check == 0 and (value := _value(held_out)) < least:
            best, least = _copies(parameters), value
    with torch.no_grad():
        for parameter, kept in zip(parameters, best, strict=True):
            parameter.copy_(kept)


def draw_batch(count: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Returns the numbers of `size` of `count` instances, or of all where there are not so many."""
    return torch.randperm(count, generator=generator)[:size]


def _value(held_out: Callable[[], float]) -> float:
    with torch.no_grad():
        return held_out()


def _copies(parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in parameters]
