"""Factors that are kept from the forward pass for the derivative."""

from __future__ import annotations

from dataclasses import astuple, replace

import cvxpy as cp
import numpy as np
import pytest

from cvxlayers import CvxpyLayer, kernel, solve
from cvxlayers.derivative import Known


def regulator(bound: float | None):
    """Eight stages with parametric dynamics and costs."""
    x, u = cp.Variable((3, 9)), cp.Variable((2, 8))
    A, B, Q, x0 = cp.Parameter((3, 3)), cp.Parameter((3, 2)), cp.Parameter((3, 3), PSD=True), cp.Parameter(3)
    cost = sum(cp.quad_form(x[:, k + 1], Q) for k in range(8)) + cp.sum_squares(u)
    rows = [x[:, 0] == x0, x[:, 1:] == A @ x[:, :-1] + B @ u]
    rows += [] if bound is None else [u <= bound, u >= -bound]
    return cp.Problem(cp.Minimize(cost), rows), [A, B, Q, x0], [u]


def lasso():
    """A dense program that an interior point solves and a Newton step polishes."""
    x, F, g, weight = cp.Variable(4), cp.Parameter((12, 4)), cp.Parameter(12), cp.Parameter(nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(F @ x - g) + weight * cp.norm1(x)))
    return problem, [F, g, weight], [x]


def data(kind: str, rng: np.random.Generator, batch: int = 6):
    """Values for one of them."""
    if kind == "lasso":
        return [rng.normal(size=(batch, 12, 4)), rng.normal(size=(batch, 12)), rng.uniform(2, 9, size=batch)]
    Q = rng.normal(size=(batch, 3, 3))
    A, B = 0.5 * rng.normal(size=(batch, 3, 3)), rng.normal(size=(batch, 3, 2))
    return [A, B, Q @ Q.mT + np.eye(3), rng.normal(size=(batch, 3))]


BUILDS = {"lasso": lasso, "regulator": lambda: regulator(None), "bounded": lambda: regulator(0.3)}


@pytest.mark.parametrize("kind", BUILDS)
def test_kept_factors_give_the_same_gradients_without_another_factorisation(kind, rng, monkeypatch):
    counts, factorise = [], kernel.factorise
    monkeypatch.setattr(
        kernel,
        "factorise",
        lambda system, *rest: counts.append(len(system.derivative.eigenvalues)) or factorise(system, *rest),
    )
    layer = CvxpyLayer(*BUILDS[kind](), solver="PIQP" if kind == "bounded" else None).layer
    call = layer.forward(data(kind, rng), layer.options)
    cotangents = [rng.normal(size=output.shape) for output in call.outputs]
    assert call.found.known is not None
    forward = sum(counts)
    kept, _ = layer.vjp(call, cotangents)
    again = sum(counts) - forward
    anew, _ = layer.vjp(without(call), cotangents)
    assert again <= 2 < 6 == sum(counts) - forward - again
    for one, other in zip(kept, anew, strict=True):
        np.testing.assert_array_equal(one, other)


def test_items_whose_active_rows_are_others_are_factorised_again(rng):
    layer = CvxpyLayer(*regulator(0.3), solver="PIQP").layer
    call = layer.forward(data("bounded", rng), layer.options)
    cotangents = [rng.normal(size=output.shape) for output in call.outputs]
    eigenvalues = call.found.known.eigenvalues.copy()
    eigenvalues[2, -5:] = 1.0 - eigenvalues[2, -5:]
    wrong = layer.kernel.plain(1)
    small = call.found.reduced.program
    stale = Known(eigenvalues, wrong(kernel.System(small, replace(_derivative(call, layer), eigenvalues=eigenvalues))))
    got, told = layer.vjp(replace(call, find=lambda: replace(call.found, known=stale)), cotangents)
    want, known = layer.vjp(without(call), cotangents)
    for one, other in zip((*got, *astuple(told)), (*want, *astuple(known)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_items_that_are_factorised_again_have_residuals_of_their_own(rng):
    layer = CvxpyLayer(*regulator(0.3), solver="PIQP").layer
    call = layer.forward(data("bounded", rng), layer.options)
    system = kernel.System(call.found.reduced.program, _derivative(call, layer))
    factors = layer.kernel.plain(1)
    eigenvalues = system.derivative.eigenvalues.copy()
    eigenvalues[2, -5:] = 1.0 - eigenvalues[2, -5:]
    first, second = rng.normal(size=system.program.q.shape), rng.normal(size=eigenvalues.shape)

    def rough(other):
        made = factors(other)
        exact = made.solve
        object.__setattr__(made, "solve", lambda *rhs: replace(exact(*rhs), residual=np.full(1, 0.5)))
        return made

    patched = Known(eigenvalues, factors(system)).factorise(system, rough)
    residual = patched.solve(first, second).residual
    assert residual[2] == 0.5
    assert np.delete(residual, 2).max() < 1e-9


def _derivative(call, layer):
    rows = layer.kernel.reduction.kept_rows
    return layer.kernel.structure.cone.derivative(-call.point.v[:, rows]).complement()


def test_programs_without_inequalities_need_no_solver(rng, monkeypatch):
    layer = CvxpyLayer(*regulator(None)).layer
    values = data("regulator", rng)
    want = layer.forward(values, layer.options).outputs[0]

    def refuse(*_):
        raise AssertionError("a solver was asked")

    monkeypatch.setattr(solve, "solve_batch", refuse)
    call = layer.forward(values, layer.options)
    np.testing.assert_array_equal(call.outputs[0], want)
    assert call.found.outcome.solvers == ["DIRECT"] * 6
    assert call.point.merit.max() < 1e-13


def test_factors_of_large_batches_are_not_kept(rng, monkeypatch):
    monkeypatch.setattr(solve, "_KEPT", 1000)
    layer = CvxpyLayer(*regulator(0.3), solver="PIQP").layer
    assert layer.forward(data("bounded", rng), layer.options).found.known is None


def without(call):
    """The call without the factors that it kept."""
    return replace(call, find=lambda: replace(call.found, known=None))
