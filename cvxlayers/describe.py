"""What a layer is made of, in words: its program, its cones, what its parameters change, and how it is solved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cvxlayers.affine_map import AffineMap
from cvxlayers.compiled import CompiledProblem
from cvxlayers.cones import Product
from cvxlayers.derivative import Method
from cvxlayers.layer import Layer
from cvxlayers.memory import amount
from cvxlayers.parameter_map import ParameterMap
from cvxlayers.program import Structure
from cvxlayers.solvers import better_on_many_processors
from cvxlayers.variable_map import VariableMap

_DOUBLE = 8
_METHODS = {
    Method.DENSE: "dense factorisation of the KKT system (LAPACK)",
    Method.BANDED: "banded factorisation of the KKT system (LAPACK)",
    Method.ARROW: "arrow factorisation: elimination of all but the few rows that couple the variables",
    Method.ISOTROPIC: "isotropic: in the eigenbasis of the projection on the cone, where the KKT system is diagonal",
    Method.COORDINATES: "few constraints on the coordinates of cones, in the eigenbasis of the projection on them",
    Method.CONDENSED: "dense factorisation of what the cones' directions leave of the KKT system (LAPACK)",
    Method.SCHUR: "Schur complement of the active rows (LAPACK), with a diagonal P",
    Method.CHOLESKY: "Cholesky factors of P and of what it leaves of active rows (LAPACK); dense below 8 items",
    Method.SPARSE: "sparse factorisation of the KKT system (QDLDL)",
}
# What programs are that have a solver of their own.
_FORMS = {
    "BOUNDED": "a diagonal quadratic cost over bounds and at most one constraint: as projections onto boxes, simplices",
    "ENTROPIC": "entropies and linear costs over at most one constraint: as softmax, soft top-k",
    "PROJECTION": "a diagonal quadratic cost over cones with one variable in each row, or a bounded norm: a projection",
}


def describe(layer: Layer) -> str:
    """Returns one line for each property of a layer."""
    rows = list(_rows(layer))
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)


def program_class(structure: Structure) -> str:
    """Returns the class of a program: LP, QP, SOCP, SDP, exponential, power, or mixed."""
    cone = structure.cone
    curved = {"SOCP": cone.second_order, "SDP": cone.semidefinite, "exponential": cone.exponential, "power": cone.power}
    found = [name for name, factors in curved.items() if factors]
    if len(found) > 1:
        return f"mixed ({', '.join(found)})"
    quadratic = bool(structure.P.nnz)
    if found:
        return f"{found[0]} with a quadratic objective" if quadratic else found[0]
    return "QP" if quadratic else "LP"


def _rows(layer: Layer) -> Iterator[tuple[str, str]]:
    compiled, kernel = layer.compiled, layer.kernel
    yield "program", f"{program_class(compiled.structure)}{', geometric' if compiled.gp else ''}"
    yield "inputs", _shapes(compiled.parameters)
    yield "outputs", _shapes(compiled.variables)
    yield "size", _size(compiled.structure)
    if kernel.reduction is not None:
        yield "reduced to", f"{_size(kernel.structure)}, after eliminating what only names an expression"
    yield "cones", _cones(compiled.structure.cone)
    yield from _data(compiled)
    form = _FORMS.get(layer.options.plan.primary.name)
    if form is not None:
        yield "recognised", form
    if layer.affine is not None:
        yield "recognised", "an affine function of the parameters: a call is a product with a matrix"
    names = [solver.name for solver in layer.options.plan.solvers]
    least = layer.options.plan.least
    first = names[0] if least == 1 else f"{names[0]} for batches of {least} and more, {names[1]} for smaller ones"
    yield "solver", f"{first}; for what it leaves unsolved {', '.join(names[1:])}" if names[1:] else first
    better = better_on_many_processors(layer.options.plan, kernel.structure)
    if better is not None:
        yield "threads", _threads(names[0], *better)
    how = layer.differentiation
    if how.ridge:
        yield "ridge", f"{how.ridge:g} / 2 times the squares of all variables, added to the cost"
    kind = "" if how.kind == "exact" else f"{how.describe()}; "
    formula = "a formula for the whole batch; next to a kink " if kernel.closed is not None and not kind else ""
    yield "derivative", f"{kind}{formula}{_METHODS[kernel.method]}"
    if layer.strict:
        yield "strict", "inaccurate solutions and doubtful derivatives raise"
    yield "memory", f"about {amount(memory_per_item(layer))} for each item of a batch"


def _threads(held: str, free: str, processors: int) -> str:
    return (
        f"{held} uses one: for batches on more than {processors} processors solver={free!r}, which uses all, is faster"
    )


def _shapes(map: ParameterMap | VariableMap) -> str:
    flags = map.complexes or (False,) * len(map.names)
    rows = zip(map.names, map.user_shapes, flags, strict=True)
    return ", ".join(f"{name} {shape}{' complex' if flag else ''}" for name, shape, flag in rows) or "none"


def _size(structure: Structure) -> str:
    return f"{structure.n} variables, {structure.m} rows"


def _cones(cone: Product) -> str:
    words = [f"zero {cone.zero}"] if cone.zero else []
    words += [f"nonnegative {cone.nonnegative}"] if cone.nonnegative else []
    words += [_listed("second-order", "rows", cone.second_order)] if cone.second_order else []
    words += [_listed("semidefinite", "order", cone.semidefinite)] if cone.semidefinite else []
    words += [f"exponential {cone.exponential}"] if cone.exponential else []
    words += [_listed("power", "exponent", cone.power)] if cone.power else []
    return ", ".join(words) or "none"


def _listed(name: str, measure: str, sizes: Sequence[int] | Sequence[float]) -> str:
    smallest, largest = min(sizes), max(sizes)
    reach = f"{smallest:g}" if smallest == largest else f"{smallest:g} to {largest:g}"
    return f"{name} {len(sizes)} ({measure} {reach})"


def _data(compiled: CompiledProblem) -> Iterator[tuple[str, str]]:
    structure = compiled.structure
    matrices = {"P": (structure.P, compiled.P), "A": (structure.A, compiled.A)}
    for name, (pattern, affine) in matrices.items():
        rows, cols = pattern.shape
        filled = f" ({100 * pattern.nnz / (rows * cols):.3g}%)" if rows * cols else ""
        yield name, f"{rows} x {cols}, {pattern.nnz} non-zeros{filled}, {_origin(affine, compiled)}"
    for name, affine in (("q", compiled.q), ("b", compiled.b)):
        yield name, _origin(affine, compiled)


def _origin(affine: AffineMap, compiled: CompiledProblem) -> str:
    if affine.constant_values is not None:
        return "constant"
    parametric = int((affine.linear.matrix.indptr[1:] > affine.linear.matrix.indptr[:-1]).sum())
    names = [name for name, enters in zip(compiled.parameters.names, affine.depends, strict=True) if enters]
    return f"{parametric} of {len(affine.constant)} entries from {', '.join(names)}"


def memory_per_item(layer: Layer) -> float:
    """Returns about how many bytes one item keeps from a call to its derivative, the factorisation included."""
    compiled, maps = layer.compiled, (layer.compiled.P, layer.compiled.q, layer.compiled.A, layer.compiled.b)
    data = sum(len(affine.constant) for affine in maps if affine.constant_values is None)
    points = 2 * compiled.structure.n + 5 * compiled.structure.m
    return float(_DOUBLE * (compiled.parameters.width + data + points) + layer.kernel.factor_bytes)
