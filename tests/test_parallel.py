"""The threads over the items of a batch."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from time import sleep

import numpy as np
import pytest

from cvxlayers.errors import OptionError
from cvxlayers.parallel import chunks, default_threads, map_chunks


@pytest.mark.parametrize("batch", [0, 1, 7, 64])
@pytest.mark.parametrize("count", [1, 3, 100])
@pytest.mark.parametrize("smallest", [1, 4])
def test_chunks_cover_the_batch_in_order(batch, count, smallest):
    pieces = chunks(batch, count, smallest)
    assert [item for piece in pieces for item in range(piece.start, piece.stop)] == list(range(batch))
    assert len(pieces) <= max(1, count)
    assert len(pieces) == 1 or all(piece.stop - piece.start >= smallest for piece in pieces)


def test_results_come_in_order_from_several_threads():
    meeting = threading.Barrier(2, timeout=30)

    def work(piece: slice) -> tuple[int, str]:
        meeting.wait()
        return piece.start, threading.current_thread().name

    found = map_chunks(work, chunks(4, 2), 2)
    assert [start for start, _ in found] == [0, 2]
    assert len({name for _, name in found}) == 2


def test_of_several_errors_the_first_is_raised_once_no_thread_works_any_more():
    meeting, ended = threading.Barrier(2, timeout=30), []

    def fail(piece: slice) -> None:
        meeting.wait()
        sleep(0.05 if piece.start == 0 else 0.0)
        ended.append(piece.start)
        raise ValueError(f"at {piece.start}")

    with pytest.raises(ValueError, match="at 0"):
        map_chunks(fail, chunks(4, 2), 2)
    assert sorted(ended) == [0, 2]


def test_what_numpy_ignores_in_the_caller_it_ignores_in_all_threads():
    meeting = threading.Barrier(2, timeout=30)

    def divide(piece: slice) -> float:
        meeting.wait()
        return float(np.ones(1)[0] / np.zeros(1)[0])

    with np.errstate(all="ignore"):
        assert map_chunks(divide, chunks(2, 2), 2) == [np.inf, np.inf]


def test_a_pool_that_is_busy_is_not_waited_for():
    """Threads that cut their own pieces again would otherwise wait for one another."""
    meeting = threading.Barrier(2, timeout=30)

    def inner(piece: slice) -> int:
        return piece.stop - piece.start

    def outer(piece: slice) -> int:
        meeting.wait()
        return sum(map_chunks(inner, chunks(piece.stop - piece.start, 4), 2))

    assert map_chunks(outer, chunks(16, 2), 2) == [8, 8]


def test_the_number_of_threads_is_configured(monkeypatch):
    monkeypatch.setenv("CVXLAYERS_THREADS", "3")
    assert default_threads() == 3
    monkeypatch.delenv("CVXLAYERS_THREADS")
    assert 1 <= default_threads() <= (os.cpu_count() or 1)
    for wrong in ("0", "-1", "two", ""):
        monkeypatch.setenv("CVXLAYERS_THREADS", wrong)
        with pytest.raises(OptionError, match="CVXLAYERS_THREADS must be a positive whole number"):
            default_threads()


FORKED = """
import os
from cvxlayers.parallel import chunks, map_chunks

def starts():
    return map_chunks(lambda piece: piece.start, chunks(4, 2), 2)

starts()
child = os.fork()
if child == 0:
    os._exit(0 if starts() == [0, 2] else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_forked_child_makes_threads_of_its_own():
    finished = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=False, timeout=60)
    assert finished.stdout.split() == ["0"], finished.stderr
