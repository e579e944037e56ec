"""Compiled layers as files: documented, versioned, and free of code.

A file is an uncompressed zip archive, whose members carry checksums:

    header.json      what is no array: see `_header`; "format" is "cvxlayers", "version" counts from 1
    <name>.npy       one array each, in numpy's format, without objects:
                     pattern.P.indices, pattern.P.indptr, likewise pattern.A: compressed columns of P and A
                     <map>.data, <map>.indices, <map>.indptr: compressed rows of a sparse matrix, and <map>.constant,
                     for the maps P, q, A, b and offset from theta to the program
                     <map>.x.data, ..., <map>.y.data, ...: those of the maps from x and y, `variables` and `leaves`
                     domain.<k>.lower, .upper, .support, .integer, .boolean: what values of parameter k are checked for

Reading it runs nothing that is in it, and needs no CVXPY. The version rises when older readers would misread a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from cvxlayers.archive import Arrays, pack, rebuild, require, unpack
from cvxlayers.build import assemble, call_options
from cvxlayers.differentiation import differentiation
from cvxlayers.errors import ArtifactError, OptionError
from cvxlayers.layer import Layer
from cvxlayers.solvers import Options, Plan, solver_named

VERSION = 1
_FORMAT = "cvxlayers"


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
    try:
        return pack(_header(layer), layer.compiled)
    except TypeError as error:
        raise ArtifactError(f"the layer cannot be saved: an option is neither a number nor a text ({error})") from None


def loads(data: bytes, name: str = "these bytes") -> Layer:
    """Returns the layer of a file's bytes; `name` is what errors call them."""
    # What NumPy, zipfile and json raise on bytes that nobody has written on purpose has no end: the catch is broad.
    try:
        header, arrays = unpack(data)
        _check_version(header, name)
        return _layer(header, arrays)
    except (ArtifactError, OptionError):
        raise
    except Exception as error:
        raise ArtifactError(f"{name} is no saved layer, or is damaged: {error}") from error


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

    options = layer.options
    return {
        "format": _FORMAT,
        "version": VERSION,
        "library": __version__,
        "recognise": layer.recognises,
        "solvers": [solver.name for solver in options.plan.solvers],
        "least": options.plan.least,
        "options": {**asdict(options.solver), "native": dict(options.solver.native)},
        "on_failure": options.on_failure,
        "strict": layer.strict,
        "check": layer.check,
        "differentiation": asdict(layer.differentiation),
    }


def _layer(header: Mapping[str, Any], arrays: Arrays) -> Layer:
    primary, *fallbacks = (solver_named(name) for name in header["solvers"])
    plan = Plan(primary, tuple(fallbacks), int(header["least"]))
    layer = assemble(rebuild(header, arrays), plan, recognise=bool(header["recognise"]))
    require(set(header["options"]) == {field.name for field in fields(Options)}, "unknown options")
    asked = {name: value for name, value in header["options"].items() if name != "native" and value is not None}
    options = call_options(layer, asked | header["options"]["native"], header["on_failure"])
    how = header["differentiation"]  # the ridge stands in P already
    how = differentiation(how["kind"], how["mu"] if how["kind"] != "exact" else None, how["ridge"])
    return replace(
        layer, options=options, strict=bool(header["strict"]), check=bool(header["check"]), differentiation=how
    )
