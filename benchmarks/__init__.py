"""This library and its peers, side by side: `python -m benchmarks`, a workload a file in `benchmarks.workloads`."""

from __future__ import annotations

import os

# Waiting threads sleep instead of spinning: else the idle threads of one contender slow the next one down. This has
# to be said before a library starts its threads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# The peers written in JAX have to compute in double precision, as all others do.
os.environ.setdefault("JAX_ENABLE_X64", "1")
