"""Sequential quadratic programming in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvxlayers.errors import InputError, MissingDependencyError
from cvxlayers.sqp.autodiff import Function, Pullback

try:
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.utils import _pytree as pytree
except ImportError:
    raise MissingDependencyError("cvxlayers.sqp needs PyTorch: pip install 'cvxlayers[torch]'") from None


@dataclass(frozen=True)
class TorchAutodiff:
    """PyTorch by `torch.func`.

    Attributes:
        traced: whether functions are traced to graphs of plain operations, once for each shape of their arguments.
    """

    traced: bool = False

    def scope(self) -> AbstractContextManager[Any]:
        """Records nothing."""
        return torch.no_grad()

    def array(self, value: np.ndarray) -> torch.Tensor:
        """Returns a float64 tensor."""
        return torch.tensor(value, dtype=torch.float64)

    def numpy(self, value: torch.Tensor) -> np.ndarray:
        """Returns a float64 array on the host."""
        return value.detach().to("cpu", torch.float64).numpy()

    def flatten(self, tree: Any) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
        """Flattens tuples, lists and mappings."""
        leaves, spec = pytree.tree_flatten(tree)
        for leaf in leaves:
            if not isinstance(leaf, torch.Tensor) or not leaf.dtype.is_floating_point:
                raise InputError(f"parameters are floating-point tensors, or trees of them; got {type(leaf).__name__}")
        return leaves, lambda new: pytree.tree_unflatten(list(new), spec)

    def vmap(self, function: Function, axes: tuple[Any, ...]) -> Function:
        """Maps by `torch.func.vmap`."""
        return torch.func.vmap(function, in_dims=axes)

    def grad(self, function: Function, argument: int = 0) -> Function:
        """Returns the gradient."""
        return torch.func.grad(function, argnums=argument)

    def jacobian(self, function: Function) -> Function:
        """Returns the Jacobian, by reverse mode: every operation has one."""
        return torch.func.jacrev(function)

    def hessian(self, function: Function) -> Function:
        """Returns the Hessian, in reverse mode twice: forward mode is missing for some operations."""
        return torch.func.jacrev(torch.func.grad(function))

    def pull(self, function: Function, arguments: Sequence[Any], cotangents: Any) -> Sequence[Any]:
        """Pulls back by `torch.func.vjp`."""
        return torch.func.vjp(function, *arguments)[1](cotangents)

    def concatenate(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Joins along the last axis."""
        return torch.cat(list(parts), dim=-1)

    def ready(self, function: Function) -> Function:
        """Returns the function, traced on its first call for each shape of its arguments where that is wished."""
        return _traced(function) if self.traced else function

    def join(
        self, leaves: Sequence[torch.Tensor], solve: Callable[[list[np.ndarray]], tuple[np.ndarray, Pullback]]
    ) -> torch.Tensor:
        """Solves inside an autograd function; the result has the dtype and device of the first leaf."""
        return _Solve.apply(solve, *leaves)

    def check(self, function: Function, point: np.ndarray, theta: Sequence[Any]) -> None:
        """Raises if a closure would lose its gradient."""
        if not torch.is_grad_enabled():
            return
        plain = pytree.tree_map(lambda leaf: leaf.detach().to("cpu", torch.float64), list(theta))
        found = pytree.tree_leaves(function(self.array(point), *plain))
        if any(leaf.requires_grad for leaf in found if isinstance(leaf, torch.Tensor)):
            raise InputError(
                "a function closes over tensors that require gradients, which would be lost: pass them as a parameter; "
                "for a module, `torch.func.functional_call` with dict(module.named_parameters())"
            )


def _traced(function: Function) -> Function:
    graphs: dict[tuple[torch.Size, ...], Function] = {}

    def call(*arguments: Any) -> Any:
        key = tuple(leaf.shape for leaf in pytree.tree_leaves(arguments))
        if key not in graphs:
            traced = make_fx(function)(*arguments)
            traced.graph.eliminate_dead_code()
            traced.recompile()
            graphs[key] = traced
        return graphs[key](*arguments)

    return call


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, solve: Any, *leaves: torch.Tensor) -> torch.Tensor:
        values = [leaf.detach().to("cpu", torch.float64).numpy() for leaf in leaves]
        z, ctx.pullback = solve(values)
        ctx.kinds = [(leaf.dtype, leaf.device) for leaf in leaves]
        dtype, device = ctx.kinds[0] if ctx.kinds else (torch.float64, torch.device("cpu"))
        return torch.as_tensor(z).to(device, dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        gradients = ctx.pullback(grad_outputs[0].detach().to("cpu", torch.float64).numpy())
        kinds = zip(gradients, ctx.kinds, strict=True)
        return (None, *(torch.as_tensor(gradient).to(device, dtype) for gradient, (dtype, device) in kinds))
