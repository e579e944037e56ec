"""One thread of linear algebra while a batch is worked on: the threads over its items are threads enough."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from threading import Lock

from threadpoolctl import LibController, ThreadpoolController


@dataclass
class _Limit:
    """How many calls ask for one thread at this moment, and how many threads each library had before the first one."""

    lock: Lock = field(default_factory=Lock)
    calls: int = 0
    before: list[int | None] = field(default_factory=list)

    def begin(self) -> None:
        """Counts a call, before the first of which all libraries are left one thread."""
        if not self.calls:
            self.before = [library.get_num_threads() for library in _libraries()]
            for library in _libraries():
                library.set_num_threads(1)
        self.calls += 1

    def end(self) -> None:
        """Gives the threads back after the last call."""
        self.calls -= 1
        if not self.calls:
            self.restore()

    def restore(self) -> None:
        """Gives the threads back."""
        for library, threads in zip(_libraries(), self.before, strict=True):
            library.set_num_threads(threads)


_limit = _Limit()


def one_thread(wanted: bool = True) -> AbstractContextManager[None]:
    """Holds BLAS at one thread for as long as any call is inside, if that is wanted.

    Its own threads would compete with the pool's. On matrices of a few hundred rows they also cost more than they
    share: many times the work itself where NumPy and SciPy have a BLAS each, whose threads wait for one another on few
    processors. OpenBLAS heeds the thread that first set its number of threads, as a rule the main one: in others this
    may change nothing.
    """
    return _one_thread() if wanted else nullcontext()


@contextmanager
def _one_thread() -> Iterator[None]:
    with _limit.lock:
        _limit.begin()
    try:
        yield
    finally:
        with _limit.lock:
            _limit.end()


@cache
def _libraries() -> list[LibController]:
    """Those of numpy and scipy, which are loaded before the first call."""
    return ThreadpoolController().select(user_api="blas").lib_controllers


def _forget_calls() -> None:
    """A forked child has none of its parent's calls, and may not wait for their lock."""
    global _limit
    if _limit.calls:
        _limit.restore()
    _limit = _Limit()


if "register_at_fork" in dir(os):
    os.register_at_fork(after_in_child=_forget_calls)
