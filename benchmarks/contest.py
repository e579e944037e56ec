"""The contest: contenders take turns on the same work, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np
from jaxtyping import Float

Array = Float[np.ndarray, "..."]


@dataclass(frozen=True)
class Answer:
    """What a contender computes.

    Attributes:
        solution: the solutions of the batch.
        gradients: gradient with respect to each parameter, by its name.
    """

    solution: Array
    gradients: dict[str, Array]


@dataclass(frozen=True)
class Contender:
    """One way of doing the work.

    Attributes:
        name: shown in the table.
        forward: solves, with whatever a backward pass will need.
        step: solves and differentiates; returns a function that hands the answer out, outside the clock.
    """

    name: str
    forward: Callable[[], object]
    step: Callable[[], Callable[[], Answer]]


@dataclass(frozen=True)
class Score:
    """What a contender did.

    Attributes:
        name: the contender.
        forward: seconds of each forward pass.
        step: seconds of each forward and backward pass.
        solution_error: largest relative error of an item's solution.
        gradient_error: largest relative error of an item's gradient with respect to a parameter.
        median_gradient_error: the median of these.
    """

    name: str
    forward: list[float]
    step: list[float]
    solution_error: float
    gradient_error: float
    median_gradient_error: float

    @property
    def median_step(self) -> float:
        """Median seconds of a forward and backward pass."""
        return median(self.step)


def race(contenders: Sequence[Contender], reference: Answer, *, repetitions: int, warmup: int) -> list[Score]:
    """Lets the contenders take turns and measures each against the reference."""
    forward: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    step: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    answers = {contender.name: contender.step()() for contender in contenders}
    gc.collect()
    gc.disable()
    try:
        for round_ in range(warmup + repetitions):
            # Whoever goes first finds the caches as the last round left them: the first place goes round.
            shift = round_ % len(contenders)
            for contender in [*contenders[shift:], *contenders[:shift]]:
                seconds = _clock(contender.forward), _clock(contender.step)
                if round_ >= warmup:
                    forward[contender.name].append(seconds[0])
                    step[contender.name].append(seconds[1])
            gc.collect()
    finally:
        gc.enable()
    return [_score(name, forward[name], step[name], answers[name], reference) for name in forward]


def _clock(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


def _score(name: str, forward: list[float], step: list[float], answer: Answer, reference: Answer) -> Score:
    solution = _item_errors(answer.solution, reference.solution)
    gradients = np.concatenate(
        [_item_errors(answer.gradients[key], value) for key, value in reference.gradients.items()]
    )
    return Score(name, forward, step, solution.max().item(), gradients.max().item(), float(np.median(gradients)))


def _item_errors(computed: Array, exact: Array) -> Float[np.ndarray, " batch"]:
    """Returns each item's error relative to its exact value or, if that is more, to a thousandth of the largest."""
    batch = len(exact)
    size = np.linalg.norm(exact.reshape(batch, -1), axis=-1)
    scale = np.maximum(size, 1e-3 * np.max(size, initial=0.0))
    scale = np.where(scale > 0, scale, 1.0)
    return np.linalg.norm((computed - exact).reshape(batch, -1), axis=-1) / scale
