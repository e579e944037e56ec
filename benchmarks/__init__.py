"""This library and its peers, side by side in one process: `python -m benchmarks.WORKLOAD`, one workload a file."""

from __future__ import annotations

import os

# Waiting threads sleep instead of spinning: else the idle threads of one contender slow the next one down. This has
# to be said before a library starts its threads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
