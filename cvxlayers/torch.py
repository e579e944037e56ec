"""The PyTorch door: `CvxpyLayer` is a `torch.nn.Module` over the framework-neutral layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

import numpy as np

from cvxlayers import standard
from cvxlayers.base import BaseLayer
from cvxlayers.build import call_options
from cvxlayers.errors import DeviceError, DtypeError, MissingDependencyError, OptionError
from cvxlayers.layer import Layer
from cvxlayers.result import LayerResult, WarmStart, start_of
from cvxlayers.standard import ConicSolution, Keywords, QPSolution, SolveKeywords

try:
    import torch
except ImportError:
    raise MissingDependencyError("cvxlayers.torch needs PyTorch: pip install 'cvxlayers[torch]'") from None
else:
    from cvxlayers import torch_operators as operators
    from cvxlayers.torch_function import Request, solve, to_numpy

__all__ = ["CvxpyLayer", "solve_conic", "solve_qp"]


class CvxpyLayer(BaseLayer, torch.nn.Module):
    """A differentiable layer that solves a parametrised convex problem.

        layer = CvxpyLayer(problem, parameters=[A, b], variables=[x])
        (x_star,) = layer(A_tensor, b_tensor)

    It is a module without weights: results have the dtype of the values, and are on their device.
    """

    def _take(self, layer: Layer) -> None:
        torch.nn.Module.__init__(self)
        self.layer = layer

    def forward(
        self,
        *parameters: torch.Tensor,
        solver_args: Mapping[str, object] | None = None,
        on_failure: str | None = None,
        warm_start: LayerResult | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Solves the problem for each item of the batch.

        Args:
            parameters: one tensor per parameter, of shape (*batch, *parameter.shape); batch axes broadcast.
            solver_args: options of this call, over those of the layer.
            on_failure: as for the layer, for this call.
            warm_start: a result of `solve` with nearby parameters, for the same batch or for one item.

        Returns:
            One tensor per variable, of shape (*batch, *variable.shape), in the parameters' dtype (computed in float64)
            and on their device.

        Raises:
            InputError: if the number, shapes, dtypes, devices or values of the tensors are wrong.
            SolverError: if items cannot be solved; it names them, their status, and the way out.
        """
        reals, complexes = _parts(self.layer, parameters), self.layer.compiled.variables.complexes
        if torch.compiler.is_compiling():
            if warm_start is not None:
                raise OptionError("a compiled graph keeps no warm start: call the layer without `warm_start`")
            found = operators.solve(self._encoded(solver_args, on_failure), reals)
            return _unparted(tuple(found[:-1]), complexes)
        options, start = call_options(self.layer, solver_args, on_failure), start_of(warm_start)
        _check_tensors(self.layer.compiled.parameters.names, reals)
        return _unparted(solve(Request(self.layer, options, start), reals)[1:], complexes)

    def solve(
        self,
        *parameters: torch.Tensor,
        solver_args: Mapping[str, object] | None = None,
        on_failure: str | None = None,
        warm_start: LayerResult | None = None,
    ) -> LayerResult:
        """Solves as a call does, and returns all there is to know: duals, optimal values, statuses, residuals.

        Args:
            parameters: as in a call.
            solver_args: as in a call.
            on_failure: as in a call.
            warm_start: the result of an earlier call with nearby parameters, for the same batch or for one item.

        Returns:
            A `LayerResult` of tensors. `variables`, `primal`, `dual` and `objective` are differentiable.
        """
        options, leaves = call_options(self.layer, solver_args, on_failure), self.layer.compiled.leaves.map
        reals = _parts(self.layer, parameters)
        _check_tensors(self.layer.compiled.parameters.names, reals)
        request = Request(self.layer, options, start_of(warm_start), leaves, with_objective=True)
        call, *found, objective = solve(request, reals)
        values, device = _unparted(found, leaves.complexes), objective.device
        return self.layer.result(call, values, objective, lambda array: torch.as_tensor(array, device=device))

    def _doubles(self, parameters: tuple[torch.Tensor, ...]) -> list[np.ndarray]:
        reals = _parts(self.layer, parameters)
        _check_tensors(self.layer.compiled.parameters.names, reals)
        return [to_numpy(real) for real in reals]

    @torch.compiler.assume_constant_result
    def _encoded(self, solver_args: Mapping[str, object] | None, on_failure: str | None) -> str:
        options = call_options(self.layer, solver_args, on_failure)
        return operators.encode(replace(self.layer, options=options))

    def extra_repr(self) -> str:
        """Names the parameters and variables with their shapes."""
        compiled = self.layer.compiled
        inputs = ", ".join(
            f"{n}{list(s)}" for n, s in zip(compiled.parameters.names, compiled.parameters.user_shapes, strict=True)
        )
        outputs = ", ".join(
            f"{n}{list(s)}" for n, s in zip(compiled.variables.names, compiled.variables.user_shapes, strict=True)
        )
        return f"{inputs} -> {outputs}, solver={self.layer.options.plan.primary.name}"


def solve_qp(
    P: Any,
    q: Any,
    *,
    A: Any = None,
    b: Any = None,
    G: Any = None,
    h: Any = None,
    lb: Any = None,
    ub: Any = None,
    **keywords: Unpack[SolveKeywords],
) -> QPSolution:
    """Solves quadratic programs by their data, differentiable in all of them: `cvxlayers.solve_qp` on tensors.

        x = solve_qp(P, q, G=G, h=h).x

    Args:
        P: positive semidefinite, of shape (*batch, n, n), both triangles; None for a linear program.
        q: of shape (*batch, n).
        A: of shape (*batch, equalities, n), or sparse, as pair (pattern, values); None without any, as all that follow.
        b: of shape (*batch, equalities).
        G: of shape (*batch, inequalities, n), or sparse, likewise.
        h: of shape (*batch, inequalities).
        lb: lower bounds of shape (*batch, n), or one number.
        ub: upper bounds, likewise.
        keywords: options of the solve, and `warm_start`.

    Returns:
        x, the dual variables y, z and z_box, and all else that a solve found out.

    Raises:
        InputError: if the blocks do not fit together.
        SolverError: if items cannot be solved; it names them, their status, and the way out.

    References:
        Amos, Kolter, "OptNet: differentiable optimization as a layer in neural networks" (2017); derivatives as of
        `CvxpyLayer`.
    """
    given = {"P": P, "q": q, "A": A, "b": b, "G": G, "h": h, "lb": lb, "ub": ub}
    return standard.solve_qp(given, Keywords(**keywords), _door(q))


def solve_conic(
    P: Any,
    q: Any,
    A: Any,
    b: Any,
    cones: Mapping[str, Any],
    **keywords: Unpack[SolveKeywords],
) -> ConicSolution:
    """Solves cone programs by their data, differentiable in all of them: `cvxlayers.solve_conic` on tensors.

    Args:
        P: as of `solve_qp`.
        q: of shape (*batch, n).
        A: of shape (*batch, m, n), or sparse; its rows are ordered as the cones.
        b: of shape (*batch, m).
        cones: the sizes of the cones, as `cvxlayers.solve_conic` lists them.
        keywords: as of `solve_qp`.

    Returns:
        x, the dual variable y, and all else that a solve found out.

    Raises:
        OptionError: if a cone is unknown.
        InputError: if the blocks do not fit together.
        SolverError: if items cannot be solved; it names them, their status, and the way out.

    References:
        Healey, Nobel, Boyd, "Differentiating through a quadratic cone program" (2025), arXiv:2508.17522.
    """
    return standard.solve_conic({"P": P, "q": q, "A": A, "b": b}, cones, Keywords(**keywords), _door(q))


def _door(like: object) -> standard.Door:
    """Takes part in the solve of a standard form, with plain numbers and sparse data as tensors like one of them."""
    if not isinstance(like, torch.Tensor):
        raise DtypeError(f"q needs a torch.Tensor, got {type(like).__name__}; convert it by torch.as_tensor(q)")

    def convert(value: object) -> torch.Tensor:
        if not isinstance(value, torch.Tensor):
            return torch.as_tensor(value, dtype=like.dtype, device=like.device)
        if value.layout != torch.strided:
            raise DtypeError("sparse tensors are not taken: pass (pattern, values), the pattern as a SciPy matrix")
        return value

    return standard.Door(convert, to_numpy, _run_standard)


def _run_standard(layer: Layer, values: Sequence[torch.Tensor], warm_start: WarmStart | None) -> standard.Run:
    _check_tensors(layer.compiled.parameters.names, values)
    request = Request(layer, layer.options, warm_start, layer.compiled.leaves.map, with_objective=True)
    call, *leaves, objective = solve(request, values)
    device = values[0].device
    result = layer.result(call, leaves, objective, lambda array: torch.as_tensor(array, device=device))
    return standard.Run(leaves, result, None)


def _parts(layer: Layer, parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Returns complex parameters as their real and imaginary parts, along a last axis; the others as they are."""
    complexes = layer.compiled.parameters.complexes
    if not any(complexes):
        return list(parameters)
    flags = [*complexes, *(False,) * len(parameters)]
    found = []
    for parameter, flag in zip(parameters, flags, strict=False):
        if not flag or not isinstance(parameter, torch.Tensor):
            found.append(parameter)
        elif parameter.is_complex():
            found.append(torch.view_as_real(parameter.resolve_conj()))
        else:
            found.append(torch.stack([parameter, torch.zeros_like(parameter)], dim=-1))
    return found


def _unparted(tensors: Sequence[torch.Tensor], complexes: Sequence[bool]) -> tuple[torch.Tensor, ...]:
    """Returns those that are complex as complex tensors: the inverse of `_parts`."""
    if not any(complexes):
        return tuple(tensors)
    return tuple(
        torch.view_as_complex(tensor.contiguous()) if flag else tensor
        for tensor, flag in zip(tensors, complexes, strict=True)
    )


def _check_tensors(names: Sequence[str], parameters: Sequence[object]) -> None:
    """Raises unless all are floating-point tensors on one device. Their number and shapes are the maps' to check."""
    first_device = None
    for index, parameter in enumerate(parameters):
        if not isinstance(parameter, torch.Tensor):
            raise DtypeError(
                f"parameter {_label(names, index)} needs a torch.Tensor, got {type(parameter).__name__}; convert it by "
                "torch.as_tensor(value, dtype=torch.float64)"
            )
        if not parameter.dtype.is_floating_point:
            raise DtypeError(
                f"parameter {_label(names, index)} needs a real floating-point tensor, got {parameter.dtype}; convert "
                f"it by .{'real' if parameter.dtype.is_complex else 'to(torch.float64)'}"
            )
        if parameter.layout != torch.strided:
            raise DtypeError(f"parameter {_label(names, index)} is a sparse tensor; convert it by .to_dense()")
        first_device = first_device or parameter.device
        if parameter.device != first_device:
            raise DeviceError(
                f"all parameters must be on one device: {_label(names, 0)} is on {first_device}, parameter "
                f"{_label(names, index)} on {parameter.device}; move it by .to({str(first_device)!r})"
            )


def _label(names: Sequence[str], index: int) -> str:
    return repr(names[index]) if index < len(names) else f"#{index}"
