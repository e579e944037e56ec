"""While a batch is worked on, BLAS has one thread; afterwards it has as many as before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from cvxlayers.blas import one_thread_each


def threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def _two():
    with threadpool_limits(2, user_api="blas"):
        if threads() != {2}:
            pytest.skip("this BLAS has no threads to limit")
        yield


def test_a_batch_has_one_and_gives_back_the_others():
    with one_thread_each(2):
        assert threads() == {1}
        with one_thread_each(2):
            assert threads() == {1}
        assert threads() == {1}
    assert threads() == {2}


def test_a_single_item_keeps_them():
    with one_thread_each(1):
        assert threads() == {2}


def test_an_error_gives_them_back():
    with pytest.raises(RuntimeError, match="inside"), one_thread_each(2):
        raise RuntimeError("inside")
    assert threads() == {2}


def test_calls_at_once_give_them_back_after_the_last():
    both = Barrier(2)

    def call() -> None:
        with one_thread_each(2):
            both.wait()

    with ThreadPoolExecutor(2) as pool:
        for one in [pool.submit(call), pool.submit(call)]:
            one.result()
    assert threads() == {2}
