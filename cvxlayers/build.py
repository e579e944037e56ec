"""From a compiled problem to a layer, and from keywords to the options of its calls: what all doors share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cvxlayers.affine import find_affine
from cvxlayers.closed import find_form
from cvxlayers.compiled import CompiledProblem
from cvxlayers.derivative import choose_method
from cvxlayers.errors import OptionError, did_you_mean
from cvxlayers.kernel import Kernel
from cvxlayers.layer import Layer
from cvxlayers.lean import find_lean
from cvxlayers.memory import keep_freed_memory
from cvxlayers.parallel import default_threads
from cvxlayers.reduction import find_reduction
from cvxlayers.solve import CallOptions
from cvxlayers.solvers import Options, Plan, parse_options, select

ON_FAILURE = ("raise", "nan", "mask")


def assemble(compiled: CompiledProblem, solver: str | Plan | None = None, *, recognise: bool = True) -> Layer:
    """Chooses the methods for a compiled problem; the rest is as a layer has it by default.

    Args:
        compiled: the problem.
        solver: the name of the solver, or the solvers; None chooses.
        recognise: whether programs of a recognised form are solved, and separable ones differentiated, as such.
    """
    keep_freed_memory()
    reduction = find_reduction(compiled)
    structure = compiled.structure if reduction is None else reduction.structure
    closed = find_form(compiled.structure, reduction) if recognise else None
    kernel = Kernel(compiled.structure, reduction, choose_method(structure, recognise), closed)
    P_values = compiled.P.constant_values if reduction is None else None
    plan = solver if isinstance(solver, Plan) else select(structure, solver, P_values=P_values, recognise=recognise)
    options = CallOptions(Options(), plan, "raise", default_threads())
    affine = find_affine(compiled, kernel, options) if recognise else None
    return Layer(compiled, kernel, options, strict=False, affine=affine, lean=find_lean(compiled, kernel))


def with_keywords(
    layer: Layer, solver_args: Mapping[str, object] | None, on_failure: str, threads: int | None
) -> Layer:
    """Returns the layer with other options for its calls."""
    threads = default_threads() if threads is None else _threads(threads)
    layer = replace(layer, options=replace(layer.options, threads=threads))
    return replace(layer, options=call_options(layer, solver_args, on_failure))


def call_options(layer: Layer, solver_args: Mapping[str, object] | None, on_failure: str | None) -> CallOptions:
    """Returns the layer's options with those of one call put over them."""
    options = layer.options
    if on_failure is not None:
        if not isinstance(on_failure, str) or on_failure not in ON_FAILURE:
            raise OptionError(f"on_failure must be one of {ON_FAILURE}, got {on_failure!r}{_hint(on_failure)}")
        options = replace(options, on_failure=on_failure)
    if not solver_args:
        return options
    parsed = parse_options(solver_args, options.solver, options.plan, layer.kernel.structure, options.threads)
    return replace(options, solver=parsed.options, plan=parsed.plan, threads=parsed.threads)


def _hint(word: object) -> str:
    return did_you_mean(word, ON_FAILURE) if isinstance(word, str) else ""


def _threads(threads: object) -> int:
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer) or threads < 1:
        raise OptionError(f"threads must be a positive whole number, got {threads!r}")
    return int(threads)
