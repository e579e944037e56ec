"""What the JAX door adds to the core: dtypes, errors, devices, and calls inside compiled programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest

from cvxlayers import SolverError, Status
from cvxlayers.errors import DerivativeError, DtypeError, InputError, ShapeError
from tests.problems import CASES

jax = pytest.importorskip("jax")
jnp = jax.numpy
CvxpyLayer = pytest.importorskip("cvxlayers.jax").CvxpyLayer

ROOT = Path(__file__).parents[1]


def boxed(**keywords):
    """min ½‖x‖² + c·x s.t. 1ᵀx = b, x ≥ 0: infeasible for b < 0."""
    x, c, b = cp.Variable(3, name="x"), cp.Parameter(3, name="c"), cp.Parameter(name="b")
    problem = cp.Problem(cp.Minimize(c @ x + 0.5 * cp.sum_squares(x)), [cp.sum(x) == b, x >= 0])
    return CvxpyLayer(problem, [c, b], [x], **keywords)


def semidefinite():
    """The projection on the cone of positive semidefinite matrices."""
    A, X = cp.Parameter((2, 2), symmetric=True), cp.Variable((2, 2), PSD=True)
    return CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(X - A))), [A], [X])


def test_results_have_the_dtype_of_the_parameters_and_x64_stays_off():
    (x,) = boxed()(jnp.ones(3), jnp.ones(()))
    assert x.dtype == jnp.float32
    assert not jax.config.jax_enable_x64
    (half,) = boxed()(jnp.ones(3, jnp.bfloat16), jnp.ones((), jnp.bfloat16))
    assert half.dtype == jnp.bfloat16


def test_numbers_and_integers_are_taken():
    np.testing.assert_allclose(boxed()([1, 2, 3], 6)[0], [3, 2, 1], rtol=1e-6)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_wrong_inputs_are_refused_when_traced(transform):
    layer = transform(boxed())
    with pytest.raises(ShapeError, match="parameter 'c'"):
        layer(jnp.ones(4), jnp.ones(()))
    with pytest.raises(DtypeError, match="'b' needs real numbers"):
        layer(jnp.ones(3), jnp.ones((), jnp.complex64))


def test_text_is_refused():
    with pytest.raises(DtypeError, match="parameter 'c' needs an array"):
        boxed()("abc", 1.0)


def test_failures_name_the_items():
    layer, b = boxed(), jnp.asarray([1.0, -1.0])
    with pytest.raises(SolverError, match="item 1: infeasible"):
        layer(jnp.ones(3), b)
    with pytest.raises(Exception, match="item 1: infeasible"):
        jax.block_until_ready(jax.jit(layer)(jnp.ones(3), b))


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_masked_items_have_zero_gradients(transform):
    layer = boxed(on_failure="mask")
    gradient = jax.grad(lambda b: jnp.sum(layer(jnp.ones(3), b)[0] ** 2))
    got = transform(gradient)(jnp.asarray([1.0, -1.0, 2.0]))
    np.testing.assert_allclose(got, [2 / 3, 0, 4 / 3], rtol=1e-6)


def test_solve_returns_everything_outside_transformations():
    layer = boxed()
    result = layer.solve(jnp.ones(3), jnp.asarray([1.0, -1.0]), on_failure="mask")
    assert result.status.tolist() == [Status.SOLVED, Status.INFEASIBLE]
    assert result.objective.dtype == jnp.float32
    with pytest.raises(InputError, match="solve cannot be transformed"):
        jax.jit(lambda b: layer.solve(jnp.ones(3), b).objective)(jnp.ones(()))


def test_a_warm_start_is_taken():
    layer = boxed()
    start = layer.solve(jnp.ones(3), jnp.ones(()))
    np.testing.assert_allclose(layer(jnp.ones(3), 1.5, warm_start=start)[0], 0.5, rtol=1e-6)


def test_second_derivatives_that_are_not_offered_raise_by_name():
    layer, A = semidefinite(), jnp.asarray([[1.0, 2.0], [2.0, -1.0]])
    with pytest.raises(DerivativeError, match="not offered for the Semidefinite cone"):
        jax.hessian(lambda A: jnp.sum(layer(A)[0] ** 2))(A)
    third = jax.grad(jax.grad(jax.grad(lambda b: jnp.sum(boxed()(jnp.ones(3), b)[0] ** 2))))
    with pytest.raises(DerivativeError, match="third derivatives"):
        third(1.0)


def test_the_layer_is_a_static_pytree():
    layer = boxed()
    assert jax.tree.leaves(layer) == []
    x = jax.jit(lambda layer, b: layer(jnp.ones(3), b)[0])(layer, jnp.ones(()))
    np.testing.assert_allclose(x, 1 / 3, rtol=1e-6)


def test_the_state_loses_nothing_on_its_way():
    """The gradient at a float32 call is the core's at the same numbers, to float32's rounding."""
    case = CASES["soc_robust_least_squares"]
    problem, parameters, variables = case.build()
    layer = CvxpyLayer(problem, parameters, variables)
    values = [jnp.asarray(value, jnp.float32) for value in case.sample(np.random.default_rng(0))]
    outputs, pull = jax.vjp(layer, *values)
    cotangents = tuple(jnp.ones_like(output) for output in outputs)
    exact = [np.asarray(value, np.float64) for value in values]
    forward = layer.layer.forward(exact, layer.layer.options)
    wanted, _ = layer.layer.vjp(forward, [np.ones(output.shape) for output in forward.outputs])
    for got, want in zip(jax.jit(pull)(cotangents), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-7)


def test_large_batches_do_not_block():
    layer = boxed()
    c = jnp.asarray(np.random.default_rng(0).normal(size=(20000, 3)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda c: jnp.sum(layer(c, 1.0)[0] ** 2)))
    assert np.isfinite(gradient(c)).all()


DEVICES = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from tests.test_jax import boxed
layer, c = boxed(), jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)))
gradient = jax.grad(lambda c: jnp.sum(layer(c, 1.0)[0] ** 2))
alone = np.asarray(gradient(c))
mesh = Mesh(np.array(jax.devices()), ("data",))
sharded = jax.device_put(c, NamedSharding(mesh, P("data")))
np.testing.assert_array_equal(gradient(sharded), alone)
np.testing.assert_array_equal(jax.jit(gradient)(sharded) + 0 * c, alone)
np.testing.assert_array_equal(jax.pmap(gradient)(c.reshape(2, 4, 3)).reshape(8, 3), alone)
mapped = jax.shard_map(gradient, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False)
np.testing.assert_array_equal(jax.jit(mapped)(sharded), alone)
print(len(jax.devices()))
"""


def test_two_devices_share_a_batch():
    finished = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, text=True, check=False, cwd=ROOT)
    assert finished.stdout.strip() == "2", finished.stderr[-2000:]
