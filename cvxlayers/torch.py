"""The PyTorch door: `CvxpyLayer` is a `torch.nn.Module` over the framework-neutral layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cvxlayers.build import build_layer, call_options
from cvxlayers.errors import DeviceError, DtypeError, MissingDependencyError
from cvxlayers.layer import CallOptions, Forward, Layer

try:
    import torch
except ImportError:
    raise MissingDependencyError("cvxlayers.torch needs PyTorch: pip install 'cvxlayers[torch]'") from None

__all__ = ["CvxpyLayer"]


class CvxpyLayer(torch.nn.Module):
    """A differentiable layer that solves a parametrised convex problem.

        layer = CvxpyLayer(problem, parameters=[A, b], variables=[x])
        (x_star,) = layer(A_tensor, b_tensor)

    Args:
        problem: a disciplined parametrised (DPP) CVXPY problem.
        parameters: its `cvxpy.Parameter`s, in the order in which a call passes their values.
        variables: what a call returns, in order: variables, and dual variables of constraints.
        gp: whether the problem is a geometric program.
        solver: a solver by name, in any case; by default chosen from the program's class and size.
        solver_args: options of every call: `eps`, `max_iters`, `time_limit`, `verbose`, and the solver's own names.
        on_failure: what a call does about items that cannot be solved: "raise" `SolverError`; "nan", return NaN for
            them; "mask", return their last finite iterate, or zeros, and an exactly zero gradient.
        strict: whether inaccurate solutions and doubtful derivatives raise instead of warning.
        threads: threads over the items of a batch; by default CVXLAYERS_THREADS, or the processors available.

    Raises:
        ProblemError: if the problem cannot become a layer; its subclass `DPPError` names the expression at fault.
        OptionError: if a solver or an option is unknown, or does not fit the problem.
    """

    def __init__(
        self,
        problem: object,
        parameters: Sequence[object],
        variables: Sequence[object],
        *,
        gp: bool = False,
        solver: str | None = None,
        solver_args: Mapping[str, object] | None = None,
        on_failure: str = "raise",
        strict: bool = False,
        threads: int | None = None,
    ) -> None:
        torch.nn.Module.__init__(self)
        self.layer = build_layer(
            problem,
            parameters,
            variables,
            gp=gp,
            solver=solver,
            solver_args=solver_args,
            on_failure=on_failure,
            strict=strict,
            threads=threads,
        )

    def forward(
        self,
        *parameters: torch.Tensor,
        solver_args: Mapping[str, object] | None = None,
        on_failure: str | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Solves the problem for each item of the batch.

        Args:
            parameters: one tensor per parameter, of shape (*batch, *parameter.shape); batch axes broadcast.
            solver_args: options of this call, over those of the layer.
            on_failure: as for the layer, for this call.

        Returns:
            One tensor per variable, of shape (*batch, *variable.shape), in the parameters' dtype (computed in float64)
            and on their device.

        Raises:
            InputError: if the number, shapes, dtypes or devices of the tensors are wrong.
            SolverError: if items cannot be solved; it names them, their status, and the way out.
        """
        names = self.layer.compiled.parameters.names
        options = call_options(self.layer, solver_args, on_failure)
        _check_tensors(names, parameters)
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters):
            return _Solve.apply(self.layer, options, *parameters)
        forward = self.layer.forward([_to_numpy(parameter) for parameter in parameters], options)
        return _outputs(forward, parameters)

    def extra_repr(self) -> str:
        """Names the parameters and variables with their shapes."""
        compiled = self.layer.compiled
        inputs = ", ".join(f"{n}{list(s)}" for n, s in zip(compiled.parameters.names, compiled.parameters.shapes, strict=True))
        outputs = ", ".join(f"{n}{list(s)}" for n, s in zip(compiled.variables.names, compiled.variables.shapes, strict=True))
        return f"{inputs} -> {outputs}, solver={self.layer.options.plan.primary.name}"


class _Solve(torch.autograd.Function):
    """Solve and, backwards, the vjp at the solution. All state travels with the call."""

    @staticmethod
    def forward(ctx, layer: Layer, options: CallOptions, *parameters: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.layer = layer
        ctx.forward = layer.forward([_to_numpy(parameter) for parameter in parameters], options)
        ctx.like = [(parameter.dtype, parameter.device) for parameter in parameters]
        ctx.set_materialize_grads(False)
        return _outputs(ctx.forward, parameters)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        arrays = [None if cotangent is None else _to_numpy(cotangent) for cotangent in cotangents]
        gradients, _ = ctx.layer.vjp(ctx.forward, arrays)
        tensors = [
            torch.as_tensor(gradient, dtype=dtype, device=device)
            for gradient, (dtype, device) in zip(gradients, ctx.like, strict=True)
        ]
        return None, None, *tensors


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).numpy()


def _outputs(forward: Forward, parameters: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    dtype, device = torch.get_default_dtype(), torch.device("cpu")
    if parameters:
        dtype, device = parameters[0].dtype, parameters[0].device
        for parameter in parameters[1:]:
            dtype = torch.promote_types(dtype, parameter.dtype)
    return tuple(torch.as_tensor(output, dtype=dtype, device=device) for output in forward.outputs)


def _check_tensors(names: Sequence[str], parameters: Sequence[object]) -> None:
    """Raises unless all are floating-point tensors on one device. Their number and shapes are the maps' to check."""
    labels = [repr(name) for name in names] + [f"#{index}" for index in range(len(names), len(parameters))]
    first_device = None
    for label, parameter in zip(labels, parameters, strict=False):
        if not isinstance(parameter, torch.Tensor):
            raise DtypeError(
                f"parameter {label} needs a torch.Tensor, got {type(parameter).__name__}; convert it by "
                "torch.as_tensor(value, dtype=torch.float64)"
            )
        if not parameter.dtype.is_floating_point:
            raise DtypeError(
                f"parameter {label} needs a real floating-point tensor, got {parameter.dtype}; convert it by "
                f".{'real' if parameter.dtype.is_complex else 'to(torch.float64)'}"
            )
        first_device = first_device or (label, parameter.device)
        if parameter.device != first_device[1]:
            raise DeviceError(
                f"all parameters must be on one device: {first_device[0]} is on {first_device[1]}, parameter {label} "
                f"on {parameter.device}; move it by .to({str(first_device[1])!r})"
            )
