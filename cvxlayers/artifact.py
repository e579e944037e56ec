"""Compiled layers as files: documented, versioned, and free of code.

A file is an uncompressed zip archive, whose members carry checksums:

    header.json      what is no array: see `_header`; "format" is "cvxlayers", "version" counts from 1
    <name>.npy       one array each, in numpy's format, without objects:
                     pattern.P.indices, pattern.P.indptr, likewise pattern.A: compressed columns of P and A
                     <map>.data, <map>.indices, <map>.indptr: compressed rows of a sparse matrix, and <map>.constant,
                     for the maps P, q, A, b and offset from theta to the program
                     <map>.x.data, ..., <map>.y.data, ...: those of the maps from x and y, `variables` and `leaves`
                     domain.<k>.lower, .upper, .support: what the values of parameter k are checked against

Reading it runs nothing that is in it, and needs no CVXPY. The version rises when older readers would misread a file.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxlayers.build import assemble, call_options
from cvxlayers.compiled import AffineMap, CompiledProblem, Leaves, Owner, VariableMap
from cvxlayers.cones import Product
from cvxlayers.differentiation import differentiation
from cvxlayers.domain import Domain
from cvxlayers.errors import ArtifactError, OptionError
from cvxlayers.layer import Layer
from cvxlayers.linear_map import LinearMap
from cvxlayers.parameter_map import ParameterMap
from cvxlayers.program import Pattern, Structure
from cvxlayers.solvers import Options, Plan, solver_named

VERSION = 1
_FORMAT, _HEADER = "cvxlayers", "header.json"
_PROGRAM = ("P", "q", "A", "b", "offset")
_OUTPUTS = ("variables", "leaves")
# What of a domain is an array.
_BOUNDS = ("lower", "upper", "support")
# One date for all members: equal layers make equal files.
_DATE = (1980, 1, 1, 0, 0, 0)

Arrays = dict[str, np.ndarray]


def save(layer: Layer, path: object) -> None:
    """Writes a layer to a file."""
    Path(str(path)).write_bytes(dumps(layer))


def load(path: object) -> Layer:
    """Reads a layer from a file.

    Raises:
        ArtifactError: if the file is no layer, is damaged, or was written by a newer version.
        FileNotFoundError: if there is none.
    """
    return loads(Path(str(path)).read_bytes(), str(path))


def dumps(layer: Layer) -> bytes:
    """Returns the bytes of a layer's file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _write(archive, _HEADER, json.dumps(_header(layer), indent=1).encode())
        for name, array in _arrays(layer.compiled).items():
            member = io.BytesIO()
            np.save(member, array, allow_pickle=False)
            _write(archive, f"{name}.npy", member.getvalue())
    return buffer.getvalue()


def loads(data: bytes, name: str = "these bytes") -> Layer:
    """Returns the layer of a file's bytes; `name` is what errors call them."""
    # What NumPy, zipfile and json raise on bytes that nobody has written on purpose has no end: the catch is broad.
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            header = json.loads(archive.read(_HEADER))
            _check_version(header, name)
            members = [member for member in archive.namelist() if member.endswith(".npy")]
            arrays = {member.removesuffix(".npy"): _array(archive.read(member)) for member in members}
        return _layer(header, arrays)
    except (ArtifactError, OptionError):
        raise
    except Exception as error:
        raise ArtifactError(f"{name} is no saved layer, or is damaged: {error}") from error


def _write(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _DATE), data)


def _array(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)


def _check_version(header: Mapping[str, Any], name: str) -> None:
    if header["format"] != _FORMAT:
        raise ArtifactError(f"{name} is no saved layer: its format is {header['format']!r}")
    if header["version"] > VERSION:
        raise ArtifactError(
            f"{name} has version {header['version']} of the file format, written by cvxlayers {header['library']}; "
            f"this cvxlayers reads up to version {VERSION}: upgrade it, or save the layer again"
        )


def _header(layer: Layer) -> dict[str, Any]:
    from cvxlayers import __version__

    compiled, options = layer.compiled, layer.options
    header = {
        "format": _FORMAT,
        "version": VERSION,
        "library": __version__,
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
        "recognise": layer.kernel.method.is_structured,
        "solvers": [solver.name for solver in options.plan.solvers],
        "options": {**asdict(options.solver), "native": dict(options.solver.native)},
        "on_failure": options.on_failure,
        "strict": layer.strict,
        "check": layer.check,
        "differentiation": asdict(layer.differentiation),
    }
    try:
        return json.loads(json.dumps(header))
    except TypeError as error:
        raise ArtifactError(f"the layer cannot be saved: an option is neither a number nor a text ({error})") from None


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


def _layer(header: Mapping[str, Any], arrays: Arrays) -> Layer:
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
    compiled = CompiledProblem(
        structure=structure,
        parameters=parameters,
        variables=variables,
        leaves=Leaves(leaves, _owners(header["owners"]), tuple(header["listed"])),
        maximise=bool(header["maximise"]),
        gp=bool(header["gp"]),
        **maps,
    )
    _require(cone.dim == m, "the cone does not fit the rows")
    primary, *fallbacks = (solver_named(name) for name in header["solvers"])
    layer = assemble(compiled, Plan(primary, tuple(fallbacks)), recognise=bool(header.get("recognise", False)))
    _require(set(header["options"]) == {field.name for field in fields(Options)}, "unknown options")
    asked = {name: value for name, value in header["options"].items() if name != "native" and value is not None}
    options = call_options(layer, asked | header["options"]["native"], header["on_failure"])
    # The ridge stands in P already. Files written before there was a choice are differentiated exactly.
    how = header.get("differentiation", {"kind": "exact", "mu": None, "ridge": 0.0})
    how = differentiation(how["kind"], how["mu"] if how["kind"] != "exact" else None, how["ridge"])
    return replace(
        layer, options=options, strict=bool(header["strict"]), check=bool(header["check"]), differentiation=how
    )


def _domains(
    described: Sequence[Mapping[str, Any] | None], parameters: ParameterMap, arrays: Arrays
) -> tuple[Domain | None, ...]:
    found: list[Domain | None] = []
    for index, (scalars, size) in enumerate(zip(described, parameters.sizes, strict=False)):
        bounds: dict[str, Any] = {name: arrays.get(f"domain.{index}.{name}") for name in _BOUNDS}
        _require(all(array is None or array.shape == (size,) for array in bounds.values()), "a domain has another size")
        found.append(None if scalars is None else _domain(scalars, bounds, size))
    return tuple(found)


def _domain(scalars: Mapping[str, Any], bounds: Mapping[str, Any], size: int) -> Domain:
    """Returns what one parameter allows; matrices must fit into its entries."""
    domain = Domain(**scalars, **bounds)
    _require(all(type(scalars[name]) is bool for name in ("symmetric", "complex", "imaginary")), "wrong flags")
    _require(domain.definite in (-1, 0, 1) and type(domain.order) is int and domain.order >= 0, "a wrong domain")
    entries = size // 2 if domain.complex else size
    matrices = domain.symmetric or domain.definite != 0
    _require(not matrices or (domain.order > 0 and entries % domain.order**2 == 0), "matrices of another order")
    words = domain.words
    _require(all(isinstance(word, str) for word in (*words.keys(), *words.values())), "wrong words")
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
    _require(len(names) == len(shapes) == len(found[flags]) and len(complexes) in (0, len(names)), "wrong lengths")
    _require(all(isinstance(name, str) for name in names), "a name is no text")
    _require(all(isinstance(flag, bool) for flag in (*complexes, *found[flags])), "wrong flags")
    _require(all(type(size) is int and size >= 0 for shape in shapes for size in shape), "a wrong shape")
    parted = all(shape[-1:] == (2,) for shape, flag in zip(shapes, complexes, strict=False) if flag)
    _require(parted, "a complex leaf without its two parts")
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
    _require(indices.dtype.kind == indptr.dtype.kind == "i" and indices.ndim == indptr.ndim == 1, "wrong indices")
    _require(len(indptr) == lines + 1 and indptr[0] == 0 and indptr[-1] == len(indices), "wrong index ranges")
    _require(bool(np.all(np.diff(indptr) >= 0)), "wrong index ranges")
    _require(bool(np.all((indices >= 0) & (indices < length))), "an index is out of range")


def _real(array: np.ndarray, size: int) -> np.ndarray:
    _require(array.dtype == np.float64 and array.shape == (size,), "wrong values")
    return array


def _require(condition: bool | np.bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _tuples(value: Any) -> Any:
    """JSON knows no tuples."""
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value
