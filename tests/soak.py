"""Thousands of calls from eight threads at once: `python -m tests.soak PROGRAM CALLS` prints what they left behind.

It is a process of its own, for what is measured is the library: not the checks of its annotations in the tests, nor
the memory of the tests before.
"""

from __future__ import annotations

import gc
import hashlib
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cvxpy as cp
import numpy as np

from cvxlayers import CvxpyLayer

_THREADS, _JOBS, _ROUND = 8, 16, 250


def quadratic(x: Any, p: Any) -> cp.Problem:
    """Projects on a simplex, by an active-set solver."""
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - p)), [x >= 0, cp.sum(x) <= 1])


def conic(x: Any, p: Any) -> cp.Problem:
    """Projects on a ball, by an interior-point solver."""
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - p)), [cp.norm(x) <= 1])


PROGRAMS: dict[str, Callable[..., cp.Problem]] = {"quadratic": quadratic, "conic": conic}


def digest(arrays: list[np.ndarray]) -> str:
    """Of the bits of some arrays."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def resident() -> float:
    """Bytes of memory that the process holds."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return float(file.read().split()[1]) * 4096


def soak(program: str, calls: int) -> dict[str, float]:
    """Calls a layer, every other time for its derivative; returns how many bits differ, and the growth of memory."""
    x, p = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(PROGRAMS[program](x, p), [p], [x], threads=1)
    rng = np.random.default_rng(0)
    jobs = [(rng.normal(size=(4, 2)) + 0.5, rng.normal(size=(4, 2))) for _ in range(_JOBS)]

    def work(index: int) -> str:
        value, weight = jobs[index % _JOBS]
        return digest([*layer.vjp([value], [weight])[0]] if index % 2 else [*layer(value)])

    serial, different = [work(index) for index in range(_JOBS)], 0
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(work, range(_ROUND)))
        gc.collect()
        before = peak = resident()
        for start in range(0, calls, _ROUND):
            indices = range(start, min(start + _ROUND, calls))
            different += sum(
                bits != serial[k % _JOBS] for bits, k in zip(pool.map(work, indices), indices, strict=True)
            )
            gc.collect()
            peak = max(peak, resident())
    return {"different": different, "growth": resident() - before, "peak": peak - before}


if __name__ == "__main__":
    print(json.dumps(soak(sys.argv[1], int(sys.argv[2]))))
