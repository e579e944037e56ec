"""The PyTorch door: `CvxpyLayer` is a `torch.nn.Module` over the framework-neutral layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, Unpack

from cvxlayers import artifact, standard
from cvxlayers.build import build_layer, call_options
from cvxlayers.describe import describe
from cvxlayers.errors import DeviceError, DtypeError, MissingDependencyError, OptionError
from cvxlayers.gradcheck import GradientCheck, gradcheck
from cvxlayers.layer import Layer
from cvxlayers.result import LayerResult, WarmStart, start_of
from cvxlayers.spy import spy
from cvxlayers.standard import ConicSolution, Keywords, QPSolution, SolveKeywords

try:
    import torch
except ImportError:
    raise MissingDependencyError("cvxlayers.torch needs PyTorch: pip install 'cvxlayers[torch]'") from None
else:
    from cvxlayers import torch_operators as operators
    from cvxlayers.torch_function import Request, solve, to_numpy

__all__ = ["CvxpyLayer", "solve_conic", "solve_qp"]


class CvxpyLayer(torch.nn.Module):
    """A differentiable layer that solves a parametrised convex problem.

        layer = CvxpyLayer(problem, parameters=[A, b], variables=[x])
        (x_star,) = layer(A_tensor, b_tensor)

    Args:
        problem: a disciplined parametrised (DPP) CVXPY problem.
        parameters: its `cvxpy.Parameter`s, in the order in which a call passes their values.
        variables: what a call returns, in order: variables, and dual variables of constraints.
        gp: whether the problem is a geometric program.
        freeze: parameters that are not listed, and stay at the values that they have when the layer is made.
        solver: a solver by name, in any case; by default chosen from the program's class and size.
        solver_args: options of every call: `eps`, `max_iters`, `time_limit`, `verbose`, and the solver's own names.
        on_failure: what a call does about items that cannot be solved: "raise" `SolverError`; "nan", return NaN for
            them; "mask", return their last finite iterate, or zeros, and an exactly zero gradient.
        strict: whether inaccurate solutions and doubtful derivatives raise instead of warning.
        threads: threads over the items of a batch; by default CVXLAYERS_THREADS, or the processors available.
        check: whether each call checks its values against the attributes of the parameters: sign, bounds, symmetry,
            definiteness, support.
        derivative: "exact"; "smoothed", the derivative of the point on the central path with s ∘ y = mu, and "lpgd",
            differences of solutions with perturbed costs: both inform also where the exact one is zero or undefined.
        mu: how strongly: the barrier parameter of "smoothed" (0.01), the size of lpgd's perturbation (0.1).
        ridge: weight of ½‖variables‖² that is added to the cost, in the solution and in its derivatives.
        recognise: whether programs of a form with a faster solution, such as a projection onto a simplex or a softmax,
            are solved and differentiated by it.
        cache: folder that keeps the compiled problem for the next process; by default CVXLAYERS_CACHE, none where that
            is unset.

    Raises:
        ProblemError: if the problem cannot become a layer; its subclass `DPPError` names the expression at fault.
        OptionError: if a solver or an option is unknown, or does not fit the problem.

    References:
        Agrawal, Amos, Barratt, Boyd, Diamond, Kolter, "Differentiable convex optimization layers" (2019); Agrawal,
        Barratt, Boyd, Busseti, Moursi, "Differentiating through a cone program" (2019); Healey, Nobel, Boyd,
        "Differentiating through a quadratic cone program" (2025), arXiv:2508.17522.
    """

    def __init__(
        self,
        problem: object,
        parameters: object,
        variables: object,
        *,
        gp: bool = False,
        freeze: object = (),
        solver: str | None = None,
        solver_args: Mapping[str, object] | None = None,
        on_failure: str = "raise",
        strict: bool = False,
        threads: int | None = None,
        check: bool = True,
        derivative: str = "exact",
        mu: float | None = None,
        ridge: float = 0.0,
        recognise: bool = True,
        cache: str | PathLike[str] | None = None,
    ) -> None:
        torch.nn.Module.__init__(self)
        self.layer = build_layer(
            problem,
            parameters,
            variables,
            gp=gp,
            freeze=freeze,
            solver=solver,
            solver_args=solver_args,
            on_failure=on_failure,
            strict=strict,
            threads=threads,
            check=check,
            derivative=derivative,
            mu=mu,
            ridge=ridge,
            recognise=recognise,
            cache=cache,
        )

    @classmethod
    def from_layer(cls, layer: Layer) -> CvxpyLayer:
        """Returns the module over a layer that is compiled already."""
        module = cls.__new__(cls)
        torch.nn.Module.__init__(module)
        module.layer = layer
        return module

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

    def describe(self) -> str:
        """Says what the layer is made of: the program's class, sizes and cones, what parameters change, the methods."""
        return describe(self.layer)

    def spy(self, axes: Any = None) -> Any:
        """Draws the sparsity of the KKT system on matplotlib axes, new ones by default, and returns them."""
        return spy(self.layer, axes)

    @torch.compiler.assume_constant_result
    def _encoded(self, solver_args: Mapping[str, object] | None, on_failure: str | None) -> str:
        options = call_options(self.layer, solver_args, on_failure)
        return operators.encode(replace(self.layer, options=options))

    def gradcheck(self, *parameters: torch.Tensor, tolerance: float = 1e-5, seed: int = 0) -> GradientCheck:
        """Compares the layer's derivatives with finite differences, per parameter and item of the batch.

        The step of the differences follows from the accuracy of the solutions, and their own error is known: the result
        tells which of the two sides is unreliable. Print it; its `ok` says whether a derivative is wrong.

        Args:
            parameters: as in a call.
            tolerance: relative error up to which derivatives and differences agree.
            seed: of the random directions.
        """
        reals = _parts(self.layer, parameters)
        _check_tensors(self.layer.compiled.parameters.names, reals)
        return gradcheck(self.layer, [to_numpy(real) for real in reals], tolerance, seed=seed)

    def save(self, path: object) -> None:
        """Writes the compiled layer to a file that `cvxlayers.load` reads, also where CVXPY is not installed.

        Raises:
            ArtifactError: if an option of the layer is neither a number nor a text.
        """
        artifact.save(self.layer, path)

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
    flags = [*layer.compiled.parameters.complexes, *(False,) * len(parameters)]
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
    flags = complexes or (False,) * len(tensors)
    return tuple(
        torch.view_as_complex(tensor.contiguous()) if flag else tensor
        for tensor, flag in zip(tensors, flags, strict=True)
    )


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
        if parameter.layout != torch.strided:
            raise DtypeError(f"parameter {label} is a sparse tensor; convert it by .to_dense()")
        first_device = first_device or (label, parameter.device)
        if parameter.device != first_device[1]:
            raise DeviceError(
                f"all parameters must be on one device: {first_device[0]} is on {first_device[1]}, parameter {label} "
                f"on {parameter.device}; move it by .to({str(first_device[1])!r})"
            )
