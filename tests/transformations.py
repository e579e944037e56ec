"""What each framework does to functions, done to one layer: the cells of the table in the README.

The layer maps p in R³ to x in R³, and is curved: minimise ‖x − p‖² + ‖x‖ subject to 1ᵀx = 1, x ≥ −0.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from cvxlayers import CvxpyLayer

P, V, W = np.array([0.9, -0.7, 0.6]), np.array([0.3, -1.0, 0.5]), np.array([1.0, 0.4, -0.8])
BATCH = np.stack([P, 0.5 * P, P[::-1]])
STEPS = 50
FRAMEWORKS = ("numpy", "torch", "jax", "tensorflow")


@cache
def layer() -> CvxpyLayer:
    """The layer of all cells."""
    x, p = cp.Variable(3), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p) + cp.norm(x)), [cp.sum(x) == 1, x >= -0.2])
    return CvxpyLayer(problem, [p], [x])


def rollout(step: Callable[[Any], Any], p: Any) -> Any:
    """Fifty calls of one layer, each of which starts from the last."""
    x = p
    for _ in range(STEPS):
        x = step(p + 0.5 * x)
    return x


def twice(step: Callable[[Any], Any], p: Any) -> Any:
    """Two calls before one derivative."""
    first, second = step(p), step(2.0 * p)
    return first * second


def solve(p: np.ndarray) -> np.ndarray:
    """The layer on arrays."""
    return layer()(p)[0]


def differences(function: Callable[[np.ndarray], np.ndarray], p: np.ndarray = P, step: float = 1e-5) -> np.ndarray:
    """The Jacobian by central differences: the last axis is p's."""
    columns = [(function(p + step * e) - function(p - step * e)) / (2 * step) for e in np.eye(len(p))]
    return np.stack(columns, axis=-1)


def weighted_gradient(p: np.ndarray) -> np.ndarray:
    """The gradient of ⟨W, x⟩ by the core, whose differences are the Hessian."""
    return layer().vjp([p], [W])[0][0]


# What each row of the table must give.
WANTED: dict[str, Callable[[], np.ndarray]] = {
    "gradient": lambda: W @ differences(solve),
    "Jacobian, reverse": lambda: differences(solve),
    "Jacobian, forward": lambda: differences(solve),
    "tangent": lambda: differences(solve) @ V,
    "batch": lambda: np.stack([solve(p) for p in BATCH]),
    "gradients of a batch": lambda: np.stack([W @ differences(solve, p) for p in BATCH]),
    "Hessian": lambda: differences(weighted_gradient),
    "Hessian times vector": lambda: differences(weighted_gradient) @ V,
    "compiled gradient": lambda: W @ differences(solve),
    "compiled Hessian": lambda: differences(weighted_gradient),
    "checkpoint": lambda: W @ differences(solve),
    "two calls, one gradient": lambda: W @ differences(partial(twice, solve)),
    "rollout of 50 steps": lambda: W @ differences(partial(rollout, solve)),
    "Jacobian of the rollout": lambda: differences(partial(rollout, solve)),
}


@dataclass(frozen=True)
class Cell:
    """How a framework spells a transformation; `refusal` is what it raises instead, by words of its message."""

    spelling: str
    run: Callable[[], Any] | None
    refusal: str = ""


def cells(framework: str) -> dict[str, Cell]:
    """The cells of one framework, by row."""
    return {"numpy": numpy_cells, "torch": torch_cells, "jax": jax_cells, "tensorflow": tensorflow_cells}[framework]()


def numpy_cells() -> dict[str, Cell]:
    """Explicit calls: numpy has no transformations."""
    neutral = layer()

    def gradients() -> np.ndarray:
        return neutral.vjp([BATCH], [np.tile(W, (3, 1))])[0][0]

    return {
        "gradient": Cell("`vjp`", lambda: weighted_gradient(P)),
        "Jacobian, reverse": Cell("`jacobian`", lambda: neutral.jacobian([P])[0][0][0]),
        "tangent": Cell("`jvp`", lambda: neutral.jvp([P], [V])[0][0]),
        "batch": Cell("leading axes", lambda: neutral(BATCH)[0]),
        "gradients of a batch": Cell("leading axes", gradients),
    }


def torch_cells() -> dict[str, Cell]:
    """PyTorch's."""
    torch = pytest.importorskip("torch")
    func, module = torch.func, layer().to_torch()
    p, v, w = (torch.tensor(array) for array in (P, V, W))

    def step(p: Any) -> Any:
        return module(p)[0]

    def loss(p: Any) -> Any:
        return step(p) @ w

    def backward(function: Callable[[Any], Any]) -> Any:
        leaf = p.clone().requires_grad_()
        return torch.autograd.grad(function(leaf), leaf)[0]

    def double_backward() -> Any:
        leaf = p.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
        return torch.autograd.grad(slope, leaf, v)[0]

    checkpointed = partial(torch.utils.checkpoint.checkpoint, loss, use_reentrant=False)
    return {
        "gradient": Cell("`backward`, `func.grad`", lambda: 0.5 * (backward(loss) + func.grad(loss)(p))),
        "Jacobian, reverse": Cell("`func.jacrev`", lambda: func.jacrev(step)(p)),
        "Jacobian, forward": Cell("`func.jacfwd`", lambda: func.jacfwd(step)(p)),
        "tangent": Cell("`func.jvp`, forward-mode AD", lambda: func.jvp(step, (p,), (v,))[1]),
        "batch": Cell("leading axes, `func.vmap`", lambda: func.vmap(step)(torch.tensor(BATCH))),
        "gradients of a batch": Cell("`func.vmap(grad)`", lambda: func.vmap(func.grad(loss))(torch.tensor(BATCH))),
        "Hessian": Cell("`func.hessian`", lambda: func.hessian(loss)(p)),
        "Hessian times vector": Cell("double backward", double_backward),
        "compiled gradient": Cell("`torch.compile(fullgraph=True)`, `torch.export`", None),
        "compiled Hessian": Cell("raises: compiled graphs are differentiated once", None),
        "checkpoint": Cell("`utils.checkpoint`", lambda: backward(checkpointed)),
        "two calls, one gradient": Cell("yes", lambda: backward(lambda p: twice(step, p) @ w)),
        "rollout of 50 steps": Cell("yes", lambda: backward(lambda p: rollout(step, p) @ w)),
        "Jacobian of the rollout": Cell("`func.jacrev`", lambda: func.jacrev(partial(rollout, step))(p)),
    }


def jax_cells() -> dict[str, Cell]:
    """JAX's."""
    jax = pytest.importorskip("jax")
    door = layer().to_jax()

    def step(p: Any) -> Any:
        return door(p)[0]

    def loss(p: Any) -> Any:
        return step(p) @ W

    def scanned(p: Any) -> Any:
        return jax.lax.scan(lambda x, _: (step(p + 0.5 * x), None), p, None, length=STEPS)[0]

    def hvp() -> Any:
        return jax.jvp(jax.grad(loss), (jax.numpy.asarray(P),), (jax.numpy.asarray(V),))[1]

    def in64(function: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with jax.enable_x64(True):
                return np.asarray(function())

        return run

    found = {
        "gradient": ("`grad`, `value_and_grad`, `vjp`", lambda: jax.grad(loss)(P)),
        "Jacobian, reverse": ("`jacrev`", lambda: jax.jacrev(step)(P)),
        "Jacobian, forward": ("`jacfwd`", lambda: jax.jacfwd(step)(P)),
        "tangent": ("`jvp`, `linearize`", lambda: jax.linearize(step, jax.numpy.asarray(P))[1](V)),
        "batch": ("leading axes, `vmap`", lambda: jax.vmap(step)(BATCH)),
        "gradients of a batch": ("`vmap(grad)`", lambda: jax.vmap(jax.grad(loss), in_axes=1)(BATCH.T)),
        "Hessian": ("`hessian`", lambda: jax.hessian(loss)(P)),
        "Hessian times vector": ("`jvp(grad)`, `grad(jvp)`", hvp),
        "compiled gradient": ("`jit`, `pmap`, sharded `jit`", lambda: jax.jit(jax.grad(loss))(P)),
        "compiled Hessian": ("`jit(hessian)`", lambda: jax.jit(jax.hessian(loss))(P)),
        "checkpoint": ("`checkpoint`", lambda: jax.grad(jax.checkpoint(loss))(P)),
        "two calls, one gradient": ("yes", lambda: jax.grad(lambda p: twice(step, p) @ W)(P)),
        "rollout of 50 steps": ("`lax.scan`, `lax.cond`", lambda: jax.grad(lambda p: scanned(p) @ W)(P)),
        "Jacobian of the rollout": ("`jacrev`", lambda: jax.jacrev(scanned)(P)),
    }
    return {row: Cell(spelling, in64(run)) for row, (spelling, run) in found.items()}


def tensorflow_cells() -> dict[str, Cell]:
    """TensorFlow's."""
    tf = pytest.importorskip("tensorflow")
    door = layer().to_tensorflow()
    p, v, w, batch = (tf.constant(array) for array in (P, V, W, BATCH))

    def step(p: Any) -> Any:
        return door(p)[0]

    def loss(p: Any) -> Any:
        return tf.reduce_sum(step(p) * w)

    def taped(function: Callable[[Any], Any], method: str = "gradient", at: Any = p) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(at)
            result = function(at)
        return {"gradient": tape.gradient, "jacobian": tape.jacobian}[method](result, at)

    def hessian() -> Any:
        return taped(lambda p: taped(loss, at=p), "jacobian")

    def forward(function: Callable[[Any], Any]) -> Any:
        with tf.autodiff.ForwardAccumulator(p, v) as accumulator:
            result = function(p)
        return accumulator.jvp(result)

    def xla() -> Any:
        return tf.function(lambda: taped(loss), jit_compile=True)()

    hvp = partial(forward, lambda p: taped(loss, at=p))
    checkpointed = tf.recompute_grad(loss)
    return {
        "gradient": Cell("`GradientTape`", lambda: taped(loss)),
        "Jacobian, reverse": Cell("`tape.jacobian`, `batch_jacobian`", lambda: taped(step, "jacobian")),
        "tangent": Cell("`ForwardAccumulator`", lambda: forward(step)),
        "batch": Cell("leading axes, `vectorized_map`", lambda: tf.vectorized_map(step, batch)),
        "gradients of a batch": Cell("leading axes", lambda: taped(lambda p: tf.reduce_sum(step(p) * w), at=batch)),
        "Hessian": Cell("nested tapes", hessian),
        "Hessian times vector": Cell("accumulator over tape", hvp),
        "compiled gradient": Cell("`tf.function`", lambda: tf.function(lambda: taped(loss))()),
        "compiled with XLA": Cell("raises: it runs on the host", xla, "needs_jit_compile_False"),
        "compiled Hessian": Cell("`tf.function`", lambda: tf.function(hessian)()),
        "checkpoint": Cell("`recompute_grad`", lambda: taped(checkpointed)),
        "two calls, one gradient": Cell("yes", lambda: taped(lambda p: tf.reduce_sum(twice(step, p) * w))),
        "rollout of 50 steps": Cell("yes", lambda: taped(lambda p: tf.reduce_sum(rollout(step, p) * w))),
        "Jacobian of the rollout": Cell("`tape.jacobian`", lambda: taped(partial(rollout, step), "jacobian")),
    }


ROWS = (*WANTED, "compiled with XLA")
# What a framework does not have.
NOTHING = Cell("–", None)


def table() -> str:
    """The table as Markdown."""
    columns = [cells(framework) for framework in FRAMEWORKS]
    lines = ["| | numpy | PyTorch | JAX | TensorFlow |", "|---|---|---|---|---|"]
    for row in ROWS:
        lines.append(f"| {row} | {' | '.join(column.get(row, NOTHING).spelling for column in columns)} |")
    return "\n".join(lines)
