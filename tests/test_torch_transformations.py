"""What the torch door adds to the core: higher derivatives, compiled graphs, and the habits of modules."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest

from cvxlayers.errors import DerivativeError
from tests.problems import CASES

torch = pytest.importorskip("torch")
CvxpyLayer = pytest.importorskip("cvxlayers.torch").CvxpyLayer

ROOT = Path(__file__).parents[1]
# PyTorch's forward mode compiles some of its own formulas in a way that it has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
SMOOTH = pytest.mark.parametrize("name", ["qp_all_data", "qp_simplex", "soc_sizes", "soc_portfolio"])


def boxed(**keywords):
    """min ½‖x‖² + c·x s.t. 1ᵀx = b, x ≥ 0: infeasible for b < 0."""
    x, c, b = cp.Variable(3, name="x"), cp.Parameter(3, name="c"), cp.Parameter(name="b")
    problem = cp.Problem(cp.Minimize(c @ x + 0.5 * cp.sum_squares(x)), [cp.sum(x) == b, x >= 0])
    return CvxpyLayer(problem, [c, b], [x], **keywords)


def double(*values, requires_grad=True):
    return [torch.tensor(value, dtype=torch.float64, requires_grad=requires_grad) for value in values]


def of_case(name, batch=()):
    """A problem's layer on symmetrised parameters, and values for it."""
    problem, parameters, variables = CASES[name].build()
    layer = CvxpyLayer(problem, parameters, variables)
    symmetric = [p.attributes["PSD"] for p in parameters]

    def call(*tensors):
        return layer(*(0.5 * (t + t.mT) if s else t for t, s in zip(tensors, symmetric, strict=True)))

    return call, double(*CASES[name].sample(np.random.default_rng(0), batch))


@SMOOTH
def test_gradcheck_in_both_modes(name):
    call, values = of_case(name)
    assert torch.autograd.gradcheck(call, values, eps=1e-5, atol=1e-5, check_forward_ad=True)


@SMOOTH
def test_gradgradcheck(name):
    call, values = of_case(name)
    assert torch.autograd.gradgradcheck(call, values, eps=1e-5, atol=1e-5, check_fwd_over_rev=True)


def test_gradgradcheck_of_a_batch_with_shared_parameters():
    call, values = of_case("soc_sizes", (2,))
    shared = [values[0], values[1][0].detach().requires_grad_(), values[2]]
    assert torch.autograd.gradgradcheck(call, shared, eps=1e-5, atol=1e-5)


def test_forward_mode_through_solve():
    layer, (c, b) = boxed(), double([1.0, 2.0, 0.0], 1.0, requires_grad=False)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(b, torch.ones_like(b))
        tangent = torch.autograd.forward_ad.unpack_dual(layer.solve(c, dual).objective).tangent
    price = layer.solve(c, b.requires_grad_()).objective
    np.testing.assert_allclose(tangent, torch.autograd.grad(price, b)[0], rtol=1e-9)


def test_second_derivatives_that_are_not_offered_raise_by_name():
    A, X = cp.Parameter((2, 2), symmetric=True), cp.Variable((2, 2), PSD=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(X - A))), [A], [X])
    (value,) = double([[1.0, 2.0], [2.0, -1.0]])
    (gradient,) = torch.autograd.grad(layer(value)[0].square().sum(), value, create_graph=True)
    with pytest.raises(DerivativeError, match="not offered for the Semidefinite cone"):
        torch.autograd.grad(gradient.sum(), value)
    c, b = double([1.0, 2.0, 0.0], 1.0)
    (slope,) = torch.autograd.grad(boxed().solve(c, b).objective, b, create_graph=True)
    with pytest.raises(DerivativeError, match="optimal value"):
        torch.autograd.grad(slope, b)
    third = torch.func.grad(torch.func.grad(torch.func.grad(lambda b: boxed()(c, b)[0].square().sum())))
    with pytest.raises(DerivativeError, match="third derivatives"):
        third(b)


def test_layers_in_compiled_and_exported_graphs():
    """In an interpreter of its own: Dynamo would trace the run-time checks of types that these tests switch on."""
    code = [sys.executable, "-m", "tests.torch_graphs"]
    finished = subprocess.run(code, capture_output=True, text=True, check=False, cwd=ROOT)
    assert finished.stdout.split() == ["compiled", "options", "twice", "exported"], finished.stderr[-3000:]


def test_checkpoint_recomputes():
    layer, (c, b) = boxed(), double([1.0, 2.0, 0.0], 1.0)
    loss = torch.utils.checkpoint.checkpoint(lambda c: layer(c, b)[0].square().sum(), c, use_reentrant=False)
    want = torch.autograd.grad(layer(c, b)[0].square().sum(), c)[0]
    torch.testing.assert_close(torch.autograd.grad(loss, c)[0], want, rtol=0, atol=0)


def test_autocast_leaves_the_dtype_of_the_parameters():
    layer, linear = boxed(), torch.nn.Linear(2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (x,) = layer(linear(torch.ones(2)), torch.ones((), dtype=torch.bfloat16))
        assert x.dtype == torch.bfloat16
    x.sum().backward()
    assert linear.weight.grad.isfinite().all()


def test_modules_are_copied_and_saved():
    layer, (c, b) = boxed(), double([1.0, 2.0, 0.0], 1.0)
    file = io.BytesIO()
    torch.save(torch.nn.Sequential(layer), file)
    file.seek(0)
    for twin in (torch.load(file, weights_only=False)[0], copy.deepcopy(layer)):
        torch.testing.assert_close(twin(c, b)[0], layer(c, b)[0], rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_of_a_loader_solve(context):
    code = [sys.executable, "-m", "tests.torch_loader", context]
    finished = subprocess.run(code, capture_output=True, text=True, check=False, cwd=ROOT)
    assert finished.stdout.split() == ["right"], finished.stderr[-3000:]


@pytest.mark.parametrize("used", [(0,), (1,), (0, 1)])
def test_second_derivatives_where_not_every_output_is_used(used):
    x, y, p = cp.Variable(3), cp.Variable(3), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p) + cp.sum_squares(y - 2 * x)), [cp.norm(x) <= 1])
    layer = CvxpyLayer(problem, [p], [x, y])
    point = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)

    def loss(value):
        return sum((layer(value)[k] ** 3).sum() for k in used)

    assert torch.autograd.gradgradcheck(loss, (point,), eps=1e-5, atol=1e-6)
