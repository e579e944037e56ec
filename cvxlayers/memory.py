"""How much memory there is, and how an amount of it is written."""

from __future__ import annotations

import math
import os
from pathlib import Path

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_CONTAINER = Path("/sys/fs/cgroup/memory.max")


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
