"""The contest: contenders take turns on the same work, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from statistics import median
from time import perf_counter
from typing import Literal

import numpy as np
from jaxtyping import Float

Array = Float[np.ndarray, "..."]

# Median relative error of the gradient up to which a contender counts.
ACCURATE = 5e-3
# Seconds that a turn lasts at least: a training loop calls a layer again and again, and so does a turn.
_TURN = 0.02


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
        forward: solves, with whatever a backward pass will need.
        step: solves and differentiates; returns a function that hands the answer out, outside the clock.
    """

    forward: Callable[[], object]
    step: Callable[[], Callable[[], Answer]]


@dataclass(frozen=True)
class Entry:
    """A contender that is still to be built.

    Attributes:
        name: shown in the table.
        build: makes it, without arguments; this is timed as its compilation, together with what its first call takes
            longer. Our own also takes options of the layer.
        kind: this library, a peer, or a formula written by hand for this one problem, which never is the best peer.
        imports: modules that it needs, which are loaded before any clock starts.
        finer: the same contender at more accurate settings, fastest first: the first accurate one takes part as well
            where the contender itself is not accurate.
    """

    name: str
    build: Callable[..., Contender]
    kind: Literal["ours", "peer", "by hand"] = "peer"
    imports: Sequence[str] = ()
    finer: Sequence[Entry] = ()


@dataclass(frozen=True)
class Score:
    """What a contender did.

    Attributes:
        name: the contender.
        kind: as of its entry.
        compile: seconds to build it, and what its first calls took longer than later ones.
        forward: seconds of each forward pass.
        step: seconds of each forward and backward pass.
        solution_error: largest relative error of an item's solution.
        gradient_error: largest relative error of an item's gradient with respect to a parameter.
        median_gradient_error: the median of these.
        failure: why it did not take part.
        memory: bytes by which the process had grown at most, while it was called, since before it was built.
        building: likewise while it was built.
        rival: median seconds of our step in the same process.
    """

    name: str
    kind: str
    compile: float = 0.0
    forward: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    solution_error: float = float("nan")
    gradient_error: float = float("nan")
    median_gradient_error: float = float("nan")
    failure: str = ""
    memory: int | None = None
    building: int | None = None
    rival: float | None = None

    @property
    def median_step(self) -> float:
        """Median seconds of a forward and backward pass."""
        return median(self.step)

    @property
    def accurate(self) -> bool:
        """Whether it took part, and its gradients can be used."""
        return not self.failure and self.median_gradient_error <= ACCURATE


@dataclass
class _Runner:
    """A contender in the contest."""

    entry: Entry
    contender: Contender
    answer: Answer
    building: float
    first: float
    forward: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    used: float = 0.0

    def turn(self, counts: bool, seconds: float) -> None:
        """Does the work, short work as often as a turn allows; it counts after the warm-up, or if it is the last."""
        stop = min(self.used + _TURN, seconds)
        while True:
            forward, step = _clock(self.contender.forward), _clock(self.contender.step)
            self.used += forward + step
            if counts or self.used >= seconds:
                self.forward.append(forward)
                self.step.append(step)
            if self.used >= stop:
                return


def race(
    entries: Sequence[Entry],
    reference: Answer,
    *,
    repetitions: int,
    warmup: int,
    seconds: float = float("inf"),
    announce: Callable[[str], object] = str,
) -> list[Score]:
    """Builds the contenders, lets them take turns, and measures each against the reference.

    Args:
        entries: the contenders.
        reference: the exact answer.
        repetitions: rounds that count.
        warmup: rounds before them.
        seconds: a contender that has used as many, and has been measured, drops out.
        announce: is told the name of each contender before it is built, and before each of its turns.
    """
    runners: list[_Runner] = []
    failures: list[Score] = []
    for entry in entries:
        _enter(entry, reference, runners, failures, announce)
    gc.collect()
    gc.disable()
    try:
        for round_ in range(warmup + repetitions):
            left = [runner for runner in runners if runner.used < seconds or not runner.step]
            # Whoever goes first finds the caches as the last round left them: the first place goes round.
            shift = round_ % max(len(left), 1)
            for runner in [*left[shift:], *left[:shift]]:
                announce(runner.entry.name)
                runner.turn(round_ >= warmup, seconds)
            gc.collect()
    finally:
        gc.enable()
    ours = [median(runner.step) for runner in runners if runner.entry.kind == "ours"]
    return [_score(runner, reference, ours[0] if ours else None) for runner in runners] + failures


def _enter(
    entry: Entry, reference: Answer, runners: list[_Runner], failures: list[Score], announce: Callable[[str], object]
) -> None:
    """Builds a contender and, where it is not accurate, the first of its finer settings that is."""
    failed = False
    for candidate in (entry, *entry.finer):
        announce(candidate.name)
        try:
            runner = start(candidate)
            error = np.median(_gradient_errors(runner.answer, reference))
        # A peer may fail in any way whatever, even by ending the process: the table says how.
        except (Exception, SystemExit) as problem:
            if entry.kind == "ours":
                raise
            failures.append(Score(candidate.name, candidate.kind, failure=_words(problem)))
            failed = True
            continue
        if candidate is entry or failed or error <= ACCURATE:
            runners.append(runner)
        if error <= ACCURATE:
            return


def start(entry: Entry) -> _Runner:
    """Builds a contender, and calls it once in either way: some compile on their first call."""
    for module in entry.imports:
        import_module(module)
    started = perf_counter()
    contender = entry.build()
    built = perf_counter()
    contender.forward()
    hand_out = contender.step()
    return _Runner(entry, contender, hand_out(), built - started, perf_counter() - built)


def _words(problem: BaseException) -> str:
    text = " ".join(str(problem).split())
    return f"{type(problem).__name__}: {text}"[:160]


def _clock(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


def _score(runner: _Runner, reference: Answer, ours: float | None) -> Score:
    solution = _item_errors(runner.answer.solution, reference.solution)
    gradients = _gradient_errors(runner.answer, reference)
    return Score(
        runner.entry.name,
        runner.entry.kind,
        runner.building + max(0.0, runner.first - median(runner.forward) - median(runner.step)),
        runner.forward,
        runner.step,
        solution.max().item(),
        gradients.max().item(),
        float(np.median(gradients)),
        rival=ours,
    )


def _gradient_errors(answer: Answer, reference: Answer) -> Float[np.ndarray, " errors"]:
    return np.concatenate([_item_errors(answer.gradients[key], value) for key, value in reference.gradients.items()])


def _item_errors(computed: Array, exact: Array) -> Float[np.ndarray, " batch"]:
    """Returns each item's error relative to its exact value or, if that is more, to a thousandth of the largest."""
    batch = len(exact)
    size = np.linalg.norm(exact.reshape(batch, -1), axis=-1)
    scale = np.maximum(size, 1e-3 * np.max(size, initial=0.0))
    scale = np.where(scale > 0, scale, 1.0)
    errors = np.linalg.norm((computed - exact).reshape(batch, -1), axis=-1) / scale
    return np.where(np.isnan(errors), np.inf, errors)
