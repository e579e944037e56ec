"""What a call frees serves the next call, and what nobody holds any more is freed."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from cvxlayers import CvxpyLayer

CALLS = """
import resource
import cvxpy as cp, numpy as np
import cvxlayers
x, Q, A = cp.Variable(32), cp.Parameter((32, 32), PSD=True), cp.Parameter((24, 32))
problem = cp.Problem(cp.Minimize(cp.quad_form(x, Q) - cp.sum(x)), [A @ x <= 1])
layer = cvxlayers.CvxpyLayer(problem, [Q, A], [x])
rng = np.random.default_rng(0)
values = [np.broadcast_to(np.eye(32), (128, 32, 32)).copy(), rng.normal(size=(128, 24, 32))]
faults = []
for _ in range(20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    layer.vjp(values, [np.ones((128, 32))])
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sorted(faults)[10])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other rules")
def test_calls_reuse_memory_without_page_faults() -> None:
    result = subprocess.run([sys.executable, "-c", CALLS], capture_output=True, text=True, check=True)
    # The arrays of a call fill about 1500 pages.
    assert int(result.stdout) < 100


def _simplex() -> tuple[cp.Problem, cp.Parameter, cp.Variable]:
    x, z = cp.Variable(5), cp.Parameter(5)
    return cp.Problem(cp.Minimize(cp.sum_squares(x - z)), [x >= 0, cp.sum(x) == 1]), z, x


def _softmax() -> tuple[cp.Problem, cp.Parameter, cp.Variable]:
    x, z = cp.Variable(5), cp.Parameter(5)
    return cp.Problem(cp.Minimize(z @ x - cp.sum(cp.entr(x))), [cp.sum(x) == 1]), z, x


def _semidefinite() -> tuple[cp.Problem, cp.Parameter, cp.Variable]:
    x, z = cp.Variable((3, 3), PSD=True), cp.Parameter((3, 3), symmetric=True)
    return cp.Problem(cp.Minimize(cp.sum_squares(x - z))), z, x


def _stages() -> tuple[cp.Problem, cp.Parameter, cp.Variable]:
    x, z = cp.Variable((60, 2)), cp.Parameter(2)
    steps = [x[0] == z, x[1:, 0] - x[:-1, 1] == 0, x <= 1]
    return cp.Problem(cp.Minimize(cp.sum_squares(x[1:] - x[:-1]) + cp.sum_squares(x)), steps), z, x


def _dense() -> tuple[cp.Problem, cp.Parameter, cp.Variable]:
    x, z = cp.Variable(32), cp.Parameter((32, 32))
    return cp.Problem(cp.Minimize(cp.sum_squares(z @ x) - cp.sum(x)), [x[:4] <= 0.01, cp.sum(x) == 1]), z, x


@pytest.mark.parametrize("form", [_simplex, _softmax, _semidefinite, _stages, _dense])
def test_a_call_leaves_nothing_to_the_garbage_collector(form: Callable[[], Any], rng: np.random.Generator) -> None:
    """A cycle of references would hold megabytes of factors until it is found."""
    problem, z, x = form()
    layer = CvxpyLayer(problem, [z], [x])
    value = 0.1 * rng.normal(size=(20, *z.shape))
    values = [value + value.swapaxes(-1, -2) if z.attributes["symmetric"] else value]
    layer.vjp(values, [np.ones((20, *x.shape))])
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        layer.vjp(values, [np.ones((20, *x.shape))])
        gc.collect()
        assert not [kept for kept in gc.garbage if type(kept).__module__.startswith("cvxlayers")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("form", [_simplex, _softmax, _semidefinite, _stages])
def test_a_layer_that_nobody_holds_is_freed(form: Callable[[], tuple[cp.Problem, cp.Parameter, cp.Variable]]) -> None:
    problem, z, x = form()
    layer = CvxpyLayer(problem, [z], [x])
    layer.vjp([np.zeros((2, *z.shape))], [np.ones((2, *x.shape))])
    structure = weakref.ref(layer.layer.kernel.structure)
    del layer, problem, z, x
    gc.collect()
    assert structure() is None
