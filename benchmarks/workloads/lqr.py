"""The linear-quadratic regulator over a finite horizon; costs, dynamics and the first state are parameters."""

from __future__ import annotations

from functools import partial

from benchmarks.workload import Bar, Row, Workload
from benchmarks.workloads import control

_SIZES = [{"n": n, "m": m, "horizon": T} for n, m in ((4, 2), (12, 4)) for T in (20, 100)]
_BARS = [Bar(3, 3, "cvxpylayers + Moreau"), Bar(5, 5, "mpc.pytorch"), Bar(1, 1, "torch, Riccati")]

WORKLOAD = Workload(
    "the linear-quadratic regulator",
    [
        *(
            Row("lqr", sizes, batch, _BARS if (sizes["n"], sizes["horizon"], batch) == (4, 20, 32) else [])
            for sizes in _SIZES
            for batch in (1, 32)
        ),
        *(Row("lqr", {"n": 4, "m": 2, "horizon": T}, 4) for T in (20, 50, 100, 200, 500)),
    ],
    prepare=partial(control.prepare, bound=None),
)
