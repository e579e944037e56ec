"""Compiled problems as bytes: a zip archive of JSON and arrays, free of code; see `artifact` for the members."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxlayers.affine_map import AffineMap
from cvxlayers.compiled import CompiledProblem
from cvxlayers.cones import Product
from cvxlayers.domain import Domain
from cvxlayers.linear_map import LinearMap
from cvxlayers.parameter_map import ParameterMap
from cvxlayers.patterns import Pattern
from cvxlayers.program import Structure
from cvxlayers.variable_map import Leaves, Owner, VariableMap

_HEADER = "header.json"
_PROGRAM = ("P", "q", "A", "b", "offset")
_OUTPUTS = ("variables", "leaves")
# What of a domain is an array.
_BOUNDS = ("lower", "upper", "support", "integer", "boolean")
# One date for all members: equal problems make equal files.
_DATE = (1980, 1, 1, 0, 0, 0)

Arrays = dict[str, np.ndarray]


def pack(header: Mapping[str, Any], compiled: CompiledProblem) -> bytes:
    """Returns the bytes of a compiled problem; the header says what else there is to say."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _write(archive, _HEADER, json.dumps({**header, **_words(compiled)}, indent=1).encode())
        for name, array in _arrays(compiled).items():
            member = io.BytesIO()
            np.save(member, array, allow_pickle=False)
            _write(archive, f"{name}.npy", member.getvalue())
    return buffer.getvalue()


def unpack(data: bytes) -> tuple[dict[str, Any], Arrays]:
    """Returns the header and the arrays; on damaged bytes numpy, zipfile and json raise whatever they raise."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        header = json.loads(archive.read(_HEADER))
        members = [member for member in archive.namelist() if member.endswith(".npy")]
        return header, {member.removesuffix(".npy"): _array(archive.read(member)) for member in members}


def rebuild(header: Mapping[str, Any], arrays: Arrays) -> CompiledProblem:
    """Returns the compiled problem of a header and arrays.

    Raises:
        ValueError: if they do not fit one another.
    """
    m, n = header["shape"]
    cone_sizes: dict[str, Any] = {key: _tuples(value) for key, value in header["cone"].items()}
    cone = Product(**cone_sizes)
    structure = Structure(_pattern("P", (n, n), arrays), _pattern("A", (m, n), arrays), cone)
    parameters = ParameterMap(**_checked(header["parameters"], "logs"))
    parameters = replace(parameters, domains=_domains(header["domains"], parameters, arrays))
    sizes = {"P": structure.P.nnz, "q": n, "A": structure.A.nnz, "b": m, "offset": 1}
    maps = {
        name: AffineMap(
            _linear(name, (rows, parameters.width), arrays),
            _real(arrays[f"{name}.constant"], rows),
            parameters.blocks,
        )
        for name, rows in sizes.items()
    }
    variables, leaves = (_variable_map(name, header, structure, arrays) for name in _OUTPUTS)
    require(cone.dim == m, "the cone does not fit the rows")
    return CompiledProblem(
        structure=structure,
        parameters=parameters,
        variables=variables,
        leaves=Leaves(leaves, _owners(header["owners"]), tuple(header["listed"])),
        maximise=bool(header["maximise"]),
        gp=bool(header["gp"]),
        **maps,
    )


def require(condition: bool | np.bool, message: str) -> None:
    """Raises ValueError unless the condition holds."""
    if not condition:
        raise ValueError(message)


def _words(compiled: CompiledProblem) -> dict[str, Any]:
    """What of a compiled problem is no array."""
    return {
        "shape": [compiled.structure.m, compiled.structure.n],
        "cone": asdict(compiled.structure.cone),
        "parameters": {name: getattr(compiled.parameters, name) for name in ("names", "shapes", "logs", "complexes")},
        "domains": [None if domain is None else _scalars(domain) for domain in compiled.parameters.domains],
        "variables": _described(compiled.variables),
        "leaves": _described(compiled.leaves.map),
        "owners": _anonymous(compiled.leaves.owners),
        "listed": compiled.leaves.listed,
        "maximise": compiled.maximise,
        "gp": compiled.gp,
    }


def _write(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _DATE), data)


def _array(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)


def _described(variables: VariableMap) -> dict[str, Any]:
    return {name: getattr(variables, name) for name in ("names", "shapes", "exps", "complexes")}


def _scalars(domain: Domain) -> dict[str, Any]:
    described = {field.name: getattr(domain, field.name) for field in fields(Domain)}
    return {name: value for name, value in described.items() if name not in _BOUNDS}


def _arrays(compiled: CompiledProblem) -> Arrays:
    arrays: Arrays = {}
    for name, pattern in (("P", compiled.structure.P), ("A", compiled.structure.A)):
        arrays |= {f"pattern.{name}.indices": pattern.indices, f"pattern.{name}.indptr": pattern.indptr}
    for name in _PROGRAM:
        affine = getattr(compiled, name)
        arrays |= _sparse(name, affine.linear) | {f"{name}.constant": affine.constant}
    for name, variables in zip(_OUTPUTS, (compiled.variables, compiled.leaves.map), strict=True):
        arrays |= _sparse(f"{name}.x", variables.x) | _sparse(f"{name}.y", variables.y)
    for index, domain in enumerate(compiled.parameters.domains):
        bounds = {name: getattr(domain, name, None) for name in _BOUNDS}
        arrays |= {f"domain.{index}.{name}": array for name, array in bounds.items() if array is not None}
    return arrays


def _sparse(name: str, linear: LinearMap) -> Arrays:
    matrix = linear.matrix
    return {f"{name}.data": matrix.data, f"{name}.indices": matrix.indices, f"{name}.indptr": matrix.indptr}


def _domains(
    described: Sequence[Mapping[str, Any] | None], parameters: ParameterMap, arrays: Arrays
) -> tuple[Domain | None, ...]:
    found: list[Domain | None] = []
    for index, (scalars, size) in enumerate(zip(described, parameters.sizes, strict=False)):
        bounds: dict[str, Any] = {name: arrays.get(f"domain.{index}.{name}") for name in _BOUNDS}
        found.append(None if scalars is None else _domain(scalars, bounds, size))
    return tuple(found)


def _domain(scalars: Mapping[str, Any], bounds: Mapping[str, Any], size: int) -> Domain:
    """Returns what one parameter allows; matrices must fit into its entries."""
    domain = Domain(**scalars, **bounds)
    require(all(type(scalars[name]) is bool for name in ("symmetric", "complex", "imaginary")), "wrong flags")
    require(domain.definite in (-1, 0, 1) and type(domain.order) is int and domain.order >= 0, "a wrong domain")
    entries = size // 2 if domain.complex else size
    given = {name: array for name, array in bounds.items() if array is not None}
    require(all(array.shape == (entries,) for array in given.values()), "a domain has another size")
    kinds = {name: np.float64 if name in ("lower", "upper") else np.bool_ for name in given}
    require(all(array.dtype == kinds[name] for name, array in given.items()), "a domain of another type")
    matrices = domain.symmetric or domain.definite != 0
    require(not matrices or (domain.order > 0 and entries % domain.order**2 == 0), "matrices of another order")
    words = domain.words
    require(all(isinstance(word, str) for word in (*words.keys(), *words.values())), "wrong words")
    return domain


def _anonymous(owners: Sequence[Owner]) -> list[dict[str, Any]]:
    """CVXPY's identities mean nothing in another process: negative ones take their place, and names remain."""
    known: dict[int, int] = {}
    return [{**asdict(owner), "identity": known.setdefault(owner.identity, -1 - len(known))} for owner in owners]


def _owners(described: Sequence[Mapping[str, Any]]) -> tuple[Owner, ...]:
    return tuple(Owner(owner["identity"], tuple(owner["names"]), bool(owner["dual"])) for owner in described)


def _variable_map(name: str, header: Mapping[str, Any], structure: Structure, arrays: Arrays) -> VariableMap:
    described = _checked(header[name], "exps")
    rows = sum(int(np.prod(shape)) for shape in described["shapes"])
    x, y = (
        _linear(f"{name}.{letter}", (rows, width), arrays) for letter, width in (("x", structure.n), ("y", structure.m))
    )
    return VariableMap(**described, x=x, y=y)


def _checked(described: Mapping[str, Any], flags: str) -> dict[str, Any]:
    """Returns the names, shapes and flags of some leaves, which must fit one another."""
    found = {key: _tuples(value) for key, value in described.items()}
    names, shapes, complexes = found["names"], found["shapes"], found["complexes"]
    require(len(names) == len(shapes) == len(found[flags]) and len(complexes) in (0, len(names)), "wrong lengths")
    require(all(isinstance(name, str) for name in names), "a name is no text")
    require(all(isinstance(flag, bool) for flag in (*complexes, *found[flags])), "wrong flags")
    require(all(type(size) is int and size >= 0 for shape in shapes for size in shape), "a wrong shape")
    parted = all(shape[-1:] == (2,) for shape, flag in zip(shapes, complexes, strict=False) if flag)
    require(parted, "a complex leaf without its two parts")
    return found


def _pattern(name: str, shape: tuple[int, int], arrays: Arrays) -> Pattern:
    indices, indptr = arrays[f"pattern.{name}.indices"], arrays[f"pattern.{name}.indptr"]
    _check_indices(indices, indptr, shape[1], shape[0])
    return Pattern(shape, indices, indptr)


def _linear(name: str, shape: tuple[int, int], arrays: Arrays) -> LinearMap:
    data, indices, indptr = (arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
    _check_indices(indices, indptr, *shape)
    return LinearMap(sp.csr_array((_real(data, len(indices)), indices, indptr), shape=shape))


def _check_indices(indices: np.ndarray, indptr: np.ndarray, lines: int, length: int) -> None:
    """Compiled code trusts these: a position outside the matrix must not reach it."""
    require(indices.dtype.kind == indptr.dtype.kind == "i" and indices.ndim == indptr.ndim == 1, "wrong indices")
    require(len(indptr) == lines + 1 and indptr[0] == 0 and indptr[-1] == len(indices), "wrong index ranges")
    require(bool(np.all(np.diff(indptr) >= 0)), "wrong index ranges")
    require(bool(np.all((indices >= 0) & (indices < length))), "an index is out of range")


def _real(array: np.ndarray, size: int) -> np.ndarray:
    require(array.dtype == np.float64 and array.shape == (size,), "wrong values")
    return array


def _tuples(value: Any) -> Any:
    """JSON knows no tuples."""
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value
