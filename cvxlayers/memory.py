"""How much memory there is, how an amount of it is written, and how what calls free is kept."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_CONTAINER = Path("/sys/fs/cgroup/memory.max")
# Bytes: half of the largest block from whose size glibc learns.
_KEPT = 2**24


def memory_limit() -> float:
    """Returns the bytes of memory of this machine, or of the container; infinite where it cannot be found out."""
    try:
        physical = float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf
    try:
        return min(physical, float(_CONTAINER.read_text()))
    except (ValueError, OSError):
        return physical


def amount(size: float) -> str:
    """Returns a number of bytes with two digits and a unit."""
    exponent = min(int(math.log10(max(size, 1.0)) / 3), len(_UNITS) - 1)
    value = size / 1000**exponent
    return f"{value:.0f} {_UNITS[exponent]}" if value >= 10 or exponent == 0 else f"{value:.1f} {_UNITS[exponent]}"


def keep_freed_memory() -> None:
    """Has the C library keep the arrays that a call frees, of up to 32 MB in all, for the next call.

    Otherwise glibc gives arrays of 128 kB and more back to the system, and every page of the next ones costs a fault:
    a fifth of the time of a call on small programs. It adapts to the largest block that was freed (mallopt(3), on
    M_MMAP_THRESHOLD); this one is never touched, so it takes no memory. Other C libraries do nothing here.
    """
    np.empty(_KEPT, dtype=np.uint8)
