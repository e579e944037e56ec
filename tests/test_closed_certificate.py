"""The certificate of closed forms: what is no solution is not certified, whichever condition it violates."""

from __future__ import annotations

from dataclasses import replace

import cvxpy as cp
import numpy as np

from cvxlayers import CvxpyLayer
from cvxlayers.closed.entropic import certified
from cvxlayers.idioms.separable import require
from cvxlayers.solvers import find_optimum


def test_points_beside_a_solution_are_not_certified(rng):
    x, p, limit = cp.Variable(5), cp.Parameter(5), cp.Parameter()
    cost = cp.Minimize(p @ x - cp.sum(cp.entr(x)) - cp.sum(cp.entr(1 - x)))
    layer = CvxpyLayer(cp.Problem(cost, [cp.sum(x) == limit]), [p, limit], [x]).layer
    theta, _ = layer.compiled.parameters.flatten([rng.normal(size=(6, 5)), np.full(6, 2.0)])
    program = layer.compiled.program(theta)
    optimum = find_optimum(program, require(program.structure))
    assert certified(program, optimum)[1].all()
    step = 1e-9
    beside = {
        "another multiplier": replace(optimum, nu=optimum.nu + step),
        "another x": replace(optimum, x=optimum.x + step),
        "another entropy": replace(optimum, sigma=[optimum.sigma[0] * (1 + step), optimum.sigma[1]]),
    }
    for what, point in beside.items():
        assert not certified(program, point)[1].any(), what


def test_a_row_with_a_multiplier_and_slack_is_not_certified(rng):
    """The best points for another price of the row: right but for that, with slack or too little of it."""
    x, p, limit = cp.Variable(5), cp.Parameter(5), cp.Parameter()
    layer = CvxpyLayer(cp.Problem(cp.Minimize(p @ x - cp.sum(cp.entr(x))), [cp.sum(x) <= limit]), [p, limit], [x]).layer
    theta, _ = layer.compiled.parameters.flatten([np.zeros((4, 5)), np.array([1.0, 1.0, 1.0, 3.0])])
    program = layer.compiled.program(theta)
    optimum = find_optimum(program, require(program.structure))
    assert certified(program, optimum)[1].all()
    assert (optimum.nu > 0).tolist() == [True, True, True, False]
    nu = optimum.nu + np.array([0.0, 1e-9, -1e-9, -1e-9])
    z = optimum.response.exponent(program.q[:, optimum.parts.main] + optimum.row * nu[:, None])
    sigma = optimum.response.sigma(z)
    logs, at = optimum.response.logs(z, sigma), optimum.response.x(sigma)
    beside = replace(optimum, nu=nu, sigma=sigma, logs=logs, x=at)
    assert certified(program, beside)[1].tolist() == [True, False, False, False]
