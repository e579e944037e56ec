"""Layers in the graphs of `torch.compile` and `torch.export`, as a program that prints what has passed."""

from __future__ import annotations

import io

import cvxpy as cp
import pytest
import torch

from cvxlayers.torch import CvxpyLayer


def boxed() -> CvxpyLayer:
    """min ½‖x‖² + c·x s.t. 1ᵀx = b, x ≥ 0: infeasible for b < 0."""
    x, c, b = cp.Variable(3), cp.Parameter(3), cp.Parameter()
    return CvxpyLayer(cp.Problem(cp.Minimize(c @ x + 0.5 * cp.sum_squares(x)), [cp.sum(x) == b, x >= 0]), [c, b], [x])


def check_compiled(layer: CvxpyLayer) -> None:
    """Without graph breaks, also where the size of the batch is a symbol: outputs and gradients to the bit."""
    for batch, dynamic in (((), False), ((4,), False), ((6,), True), ((7,), True)):
        compiled = torch.compile(layer, fullgraph=True, dynamic=dynamic)
        c = torch.randn(*batch, 3, dtype=torch.float64, requires_grad=True)
        b = torch.full(batch, 1.5, dtype=torch.float64, requires_grad=True)
        (got,), (want,) = compiled(c, b), layer(c, b)
        assert torch.equal(got, want)
        pairs = zip(*(torch.autograd.grad(x.square().sum(), (c, b)) for x in (got, want)), strict=True)
        assert all(torch.equal(mine, other) for mine, other in pairs)


def check_options(layer: CvxpyLayer) -> None:
    """Options of a call stay in the graph, and a warm start is refused."""
    c, b = torch.ones(2, 3), torch.tensor([1.0, -1.0])
    compiled = torch.compile(lambda c, b: layer(c, b, on_failure="nan")[0], fullgraph=True)
    assert compiled(c, b).isnan().any(dim=1).tolist() == [False, True]
    start = layer.solve(c[0], b[0])
    with pytest.raises(Exception, match="keeps no warm start"):
        torch.compile(lambda c, b: layer(c, b, warm_start=start), fullgraph=True)(c, b)


def check_twice(layer: CvxpyLayer) -> None:
    """A second derivative through a compiled graph raises: PyTorch differentiates such graphs once."""
    b = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    c = torch.ones(3, dtype=torch.float64)
    compiled = torch.compile(lambda b: layer(c, b)[0].square().sum(), fullgraph=True)
    (slope,) = torch.autograd.grad(compiled(b), b, create_graph=True)
    with pytest.raises(RuntimeError, match=r"double backward|does not require grad"):
        torch.autograd.grad(slope, b)


def check_exported(layer: CvxpyLayer) -> None:
    """A saved program holds the layer."""
    c, b = torch.ones(2, 3), torch.ones(())
    shapes = {"parameters": ({0: torch.export.Dim("batch")}, None)}
    program = torch.export.export(layer, (c, b), dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded, wide = torch.export.load(file).module(), torch.randn(5, 3)
    assert torch.equal(loaded(wide, b)[0], layer(wide, b)[0])


if __name__ == "__main__":
    check_compiled(boxed())
    print("compiled")
    check_options(boxed())
    print("options")
    check_twice(boxed())
    print("twice")
    check_exported(boxed())
    print("exported")
