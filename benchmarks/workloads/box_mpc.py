"""Model predictive control with bounded controls; costs, dynamics and the first state are parameters."""

from __future__ import annotations

from functools import partial

from benchmarks.workload import Bar, Row, Workload
from benchmarks.workloads import control

BOUND = 0.5
_SIZES = [{"n": n, "m": m, "horizon": T} for n, m in ((4, 2), (12, 4)) for T in (20, 100)]

WORKLOAD = Workload(
    "model predictive control with bounded controls",
    [
        *(
            Row("box_mpc", sizes, batch, [Bar(3, 3)] if (sizes["n"], sizes["horizon"], batch) == (4, 20, 32) else [])
            for sizes in _SIZES
            for batch in (1, 32)
        ),
        *(Row("box_mpc", {"n": 4, "m": 2, "horizon": T}, 4) for T in (20, 50, 100, 200, 500)),
    ],
    prepare=partial(control.prepare, bound=BOUND),
)
