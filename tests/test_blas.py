"""While a batch is worked on, BLAS has one thread; afterwards it has as many as before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import cvxpy as cp
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import cvxlayers.layer
from cvxlayers import CvxpyLayer
from cvxlayers.blas import one_thread
from cvxlayers.solution_maps import SolutionMaps


def threads() -> set[int]:
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return {library["num_threads"] for library in libraries if library.get("threading_layer") != "disabled"}


@pytest.fixture(autouse=True)
def _two():
    with threadpool_limits(2, user_api="blas"):
        if threads() != {2}:
            pytest.skip("this BLAS has no threads to limit")
        yield


def test_a_batch_has_one_and_gives_back_the_others():
    with one_thread():
        assert threads() == {1}
        with one_thread():
            assert threads() == {1}
        assert threads() == {1}
    assert threads() == {2}


def test_it_keeps_them_where_one_is_not_wanted():
    with one_thread(False):
        assert threads() == {2}


def test_an_error_gives_them_back():
    with pytest.raises(RuntimeError, match="inside"), one_thread():
        raise RuntimeError("inside")
    assert threads() == {2}


def test_calls_at_once_give_them_back_after_the_last():
    both = Barrier(2)

    def call() -> None:
        with one_thread():
            both.wait()

    with ThreadPoolExecutor(2) as pool:
        for one in [pool.submit(call), pool.submit(call)]:
            one.result()
    assert threads() == {2}


def projection(n: int, constraint: str) -> CvxpyLayer:
    x, c = cp.Variable(n), cp.Parameter(n)
    constraints = {"simplex": [x >= 0, cp.sum(x) == 1], "dense": [np.ones((n, n)) @ x + x <= 1]}[constraint]
    return CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), constraints), [c], [x])


@pytest.mark.parametrize(
    ("n", "constraint", "batch", "large", "wanted"),
    [
        (100, "dense", (), np.inf, 1),  # on so few rows they only wait for one another
        (100, "dense", (3,), np.inf, 1),
        (10, "dense", (), np.inf, 2),  # BLAS does not use them
        (10, "dense", (3,), np.inf, 1),
        (100, "dense", (), 1e5, 2),  # a large item, for which they pay
        (100, "dense", (3,), 1e5, 1),
        (100, "simplex", (), np.inf, 2),  # a formula has no use for BLAS
    ],
)
def test_one_item_has_them_where_they_do_not_delay_it(
    n: int, constraint: str, batch: tuple[int, ...], large: float, wanted: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("cvxlayers.kernel._LARGE", large)
    layer, seen = projection(n, constraint), []
    forward, derive = cvxlayers.layer.Layer._solve, SolutionMaps._local
    monkeypatch.setattr(cvxlayers.layer.Layer, "_solve", lambda *given: (seen.append(threads()), forward(*given))[1])
    monkeypatch.setattr(SolutionMaps, "_local", lambda *given: (seen.append(threads()), derive(*given))[1])
    layer.vjp([np.zeros((*batch, n))], [np.ones((*batch, n))])
    assert seen == [{wanted}, {wanted}]
    assert threads() == {2}
