"""What the TensorFlow door adds to the core: dtypes, errors, graphs of unknown shapes, and models of Keras."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from cvxlayers import SolverError, Status
from cvxlayers.errors import DerivativeError, DtypeError, InputError, ShapeError

tf = pytest.importorskip("tensorflow")
door = pytest.importorskip("cvxlayers.tensorflow")

MODES = pytest.mark.parametrize("mode", [lambda f: f, tf.function], ids=["eager", "graph"])


def boxed(**keywords):
    """min ½‖x‖² + c·x s.t. 1ᵀx = b, x ≥ 0: infeasible for b < 0."""
    x, c, b = cp.Variable(3, name="x"), cp.Parameter(3, name="c"), cp.Parameter(name="b")
    problem = cp.Problem(cp.Minimize(c @ x + 0.5 * cp.sum_squares(x)), [cp.sum(x) == b, x >= 0])
    return door.CvxpyLayer(problem, [c, b], [x], **keywords)


def semidefinite():
    """The projection on the cone of positive semidefinite matrices."""
    A, X = cp.Parameter((2, 2), symmetric=True), cp.Variable((2, 2), PSD=True)
    return door.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(X - A))), [A], [X])


@MODES
def test_results_have_the_widest_dtype_of_the_parameters(mode):
    layer = mode(boxed())
    assert layer(tf.ones(3), tf.ones(()))[0].dtype == tf.float32
    assert layer(tf.ones(3), tf.ones((), tf.float64))[0].dtype == tf.float64
    np.testing.assert_allclose(layer([1, 2, 3], 6)[0], [3, 2, 1], rtol=1e-6)


def test_wrong_inputs_are_refused():
    layer = boxed()
    with pytest.raises(ShapeError, match="parameter 'c'"):
        layer(tf.ones(4), tf.ones(()))
    with pytest.raises(DtypeError, match="'b' needs real numbers"):
        layer(tf.ones(3), tf.ones((), tf.complex64))
    # AutoGraph wraps what is raised while it traces.
    with pytest.raises(Exception, match="parameter 'c'"):
        tf.function(layer)(tf.ones(4), tf.ones(()))


def test_failures_name_the_items():
    layer, b = boxed(), tf.constant([1.0, -1.0])
    with pytest.raises(SolverError, match="item 1: infeasible"):
        layer(tf.ones(3), b)
    with pytest.raises(tf.errors.OpError, match="item 1: infeasible"):
        tf.function(layer)(tf.ones(3), b)


@MODES
def test_masked_items_have_zero_gradients(mode):
    layer, b = boxed(on_failure="mask"), tf.Variable([1.0, -1.0, 2.0])

    def gradient():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(tf.ones(3), b)[0] ** 2)
        return tape.gradient(loss, b)

    np.testing.assert_allclose(mode(gradient)(), [2 / 3, 0, 4 / 3], rtol=1e-6)


def test_graphs_of_unknown_shapes():
    layer = boxed()
    any_batch = tf.function(layer, input_signature=[tf.TensorSpec((None, 3)), tf.TensorSpec((None,))])
    assert any_batch(tf.ones((4, 3)), tf.ones(4))[0].shape == (4, 3)
    any_rank = tf.function(layer, input_signature=[tf.TensorSpec(None), tf.TensorSpec(())])
    assert any_rank(tf.ones((2, 4, 3)), 1.0)[0].shape == (2, 4, 3)


def test_solve_returns_everything_outside_graphs():
    layer = boxed()
    result = layer.solve(tf.ones(3), tf.constant([1.0, -1.0]), on_failure="mask")
    assert result.status.numpy().tolist() == [Status.SOLVED, Status.INFEASIBLE]
    assert result.objective.dtype == tf.float32
    np.testing.assert_allclose(layer(tf.ones(3), 1.5, warm_start=layer.solve(tf.ones(3), 1.0))[0], 0.5, rtol=1e-6)
    with pytest.raises(InputError, match="solve cannot run inside a graph"):
        tf.function(layer.solve)(tf.ones(3), tf.ones(()))


@MODES
def test_second_derivatives_that_are_not_offered_raise_by_name_and_first_ones_do_not(mode):
    layer, A = semidefinite(), tf.constant([[1.0, 2.0], [2.0, -1.0]])

    def gradient(A):
        with tf.GradientTape() as tape:
            tape.watch(A)
            loss = tf.reduce_sum(layer(A)[0] ** 2)
        return tape.gradient(loss, A)

    def tangent(A):
        with tf.autodiff.ForwardAccumulator(A, tf.eye(2)) as accumulator:
            loss = tf.reduce_sum(layer(A)[0] ** 2)
        return accumulator.jvp(loss)

    np.testing.assert_allclose(mode(tangent)(A), tf.linalg.trace(mode(gradient)(A)), rtol=1e-5)
    with tf.GradientTape() as tape:
        tape.watch(A)
        first = mode(gradient)(A)
    with pytest.raises((DerivativeError, tf.errors.OpError), match="Semidefinite cone"):
        tape.gradient(first, A)


@MODES
def test_third_derivatives_raise_by_name(mode):
    layer, b = boxed(), tf.constant(1.0)

    def third(b):
        with tf.GradientTape() as outer:
            outer.watch(b)
            with tf.GradientTape() as middle:
                middle.watch(b)
                with tf.GradientTape() as inner:
                    inner.watch(b)
                    loss = tf.reduce_sum(layer(tf.ones(3), b)[0] ** 2)
                first = inner.gradient(loss, b)
            second = middle.gradient(first, b)
        return outer.gradient(second, b)

    with pytest.raises((DerivativeError, tf.errors.OpError), match="third derivatives"):
        mode(third)(b)


def test_xla_says_why_it_cannot_compile_the_layer():
    compiled = tf.function(boxed(), jit_compile=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="runs_on_the_host_so_it_needs_jit_compile_False"):
        compiled(tf.ones(3), tf.ones(()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_trains_and_survives_saving(tmp_path, rng):
    tf.keras.utils.set_random_seed(0)
    inputs = tf.keras.Input((4,))
    cost, total = tf.keras.layers.Dense(3)(inputs), tf.keras.layers.Dense(1, activation="softplus")(inputs)
    outputs = door.KerasLayer(boxed())(cost, tf.keras.layers.Reshape(())(total))
    model = tf.keras.Model(inputs, outputs)
    model.compile(tf.keras.optimizers.Adam(0.05), "mse")
    features = rng.normal(size=(64, 4)).astype(np.float32)
    targets = np.maximum(features[:, :3], 0)
    losses = model.fit(features, targets, epochs=8, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(features), model(features))
    assert loaded.output_shape == (None, 3)
