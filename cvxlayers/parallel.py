"""One pool of threads for the whole process, over which batches are cut into contiguous chunks."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import pairwise
from threading import Lock
from typing import TypeVar

from cvxlayers.errors import OptionError

T = TypeVar("T")

# Microseconds: foreign calls that are shorter make threads queue for the interpreter's lock, which costs more than they
# share; and a chunk that is shorter is not worth waking a thread for.
_CALL, _CHUNK = 100.0, 1000.0

_lock = Lock()
_pools: dict[int, ThreadPoolExecutor] = {}


def default_threads() -> int:
    """Returns CVXLAYERS_THREADS where it is set, else the number of processors this process may run on."""
    configured = os.environ.get("CVXLAYERS_THREADS")
    if configured is None:
        return len(os.sched_getaffinity(0)) if "sched_getaffinity" in dir(os) else os.cpu_count() or 1
    if not configured.isdigit() or int(configured) < 1:
        raise OptionError(f"CVXLAYERS_THREADS must be a positive whole number, got {configured!r}")
    return int(configured)


def chunks(batch: int, count: int, smallest: int = 1) -> list[slice]:
    """Returns at most `count` contiguous slices of nearly equal length that cover range(batch)."""
    count = max(1, min(count, batch // max(1, smallest)))
    if count == 1:
        return [slice(0, batch)]
    edges = [batch * k // count for k in range(count + 1)]
    return [slice(low, high) for low, high in pairwise(edges)]


def worthwhile_chunks(batch: int, threads: int, call: float, least: float = _CALL) -> list[slice]:
    """Returns chunks for at most `threads` threads, one where threads do not pay.

    Args:
        batch: the number of items.
        threads: the number of threads.
        call: microseconds, roughly, for which an item's work leaves the interpreter to others.
        least: microseconds below which that does not pay.
    """
    return chunks(batch, threads, math.ceil(_CHUNK / call)) if call >= least else chunks(batch, 1)


def map_chunks(function: Callable[[slice], T], pieces: list[slice], threads: int) -> list[T]:
    """Returns [function(piece) for piece in pieces], over at most `threads` threads, of which the caller's is one.

    Of several errors, that of the first piece is raised, as on one thread. What a thread does not come to, because the
    pool has other work, the caller does: it never waits for what has not begun.
    """
    if threads <= 1 or len(pieces) <= 1:
        return [function(piece) for piece in pieces]
    left, found, errors = deque(range(len(pieces))), dict[int, T](), dict[int, BaseException]()

    def work() -> None:
        while left and not errors:
            try:
                index = left.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                found[index] = function(pieces[index])
            except BaseException as error:
                errors[index] = error

    # What NumPy ignores in the caller's thread, it ignores in all.
    helpers = [_pool(threads).submit(copy_context().run, work) for _ in range(min(threads, len(pieces)) - 1)]
    work()
    for helper in helpers:
        if not helper.cancel():
            helper.result()
    if errors:
        raise errors[min(errors)]
    return [found[index] for index in range(len(pieces))]


def _pool(threads: int) -> ThreadPoolExecutor:
    with _lock:
        if threads not in _pools:
            _pools[threads] = ThreadPoolExecutor(threads - 1, thread_name_prefix="cvxlayers")
        return _pools[threads]


def _forget_pools() -> None:
    """A forked child has none of its parent's threads: it must not wait for them."""
    global _lock
    _lock = Lock()
    _pools.clear()


if "register_at_fork" in dir(os):
    os.register_at_fork(after_in_child=_forget_pools)
