"""Compiled problems on disk, so that the next process need not compile them again.

A file is named by the fingerprint of its problem, and holds arrays and JSON, as saved layers do: reading it runs
nothing that is in it. It is written under another name first, so that no reader ever sees half of one.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cvxlayers.archive import pack, rebuild, require, unpack
from cvxlayers.canonical.fingerprint import fingerprint
from cvxlayers.canonical.leaves import Output, real_shape
from cvxlayers.canonical.signature import Signature
from cvxlayers.compiled import CompiledProblem
from cvxlayers.errors import CvxlayersWarning, OptionError
from cvxlayers.variable_map import Leaves, VariableMap

_FORMAT, _SUFFIX, _VARIABLE = "cvxlayers compiled problem", ".cvxc", "CVXLAYERS_CACHE"


def cache_folder(cache: object) -> Path | None:
    """Returns the folder of a `cache` option: by default CVXLAYERS_CACHE, none where that is unset or empty.

    Raises:
        OptionError: if it is no path.
    """
    if cache is None:
        cache = os.environ.get(_VARIABLE) or None
    if cache is None:
        return None
    if not isinstance(cache, str | os.PathLike):
        raise OptionError(f"cache must be the path of a folder, got {cache!r}")
    return Path(os.fspath(cache)).expanduser()


def cached(
    signature: Signature, gp: bool, folder: Path | None, compile_: Callable[[], CompiledProblem]
) -> CompiledProblem:
    """Returns what an earlier call has left in the folder or, where there is nothing, compiles and leaves it there.

    A file that cannot be read, and a folder that cannot be written, are warned about; the problem is compiled then.
    """
    key = None if folder is None else fingerprint(signature, gp)
    if folder is None or key is None:
        return compile_()
    path = folder / f"{key}{_SUFFIX}"
    found = _read(path, key, signature)
    if found is None:
        found = compile_()
        _write(path, key, signature, found)
    return found


def _read(path: Path, key: str, signature: Signature) -> CompiledProblem | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn(f"{path} cannot be read ({error}): the problem is compiled anew")
        return None
    # What numpy, zipfile and json raise on damaged bytes has no end: the catch is broad.
    try:
        header, arrays = unpack(data)
        require(header["format"] == _FORMAT and header["fingerprint"] == key, "it is of another problem")
        return _named(rebuild(header, arrays), signature, header["with_duals"])
    except Exception as error:
        _warn(f"{path} is damaged, or is no compiled problem ({error}): the problem is compiled anew, and replaces it")
        return None


def _write(path: Path, key: str, signature: Signature, compiled: CompiledProblem) -> None:
    owners = {owner.identity for owner in compiled.leaves.owners if owner.dual}
    with_duals = [k for k, constraint in enumerate(signature.problem.constraints) if constraint.id in owners]
    data = pack({"format": _FORMAT, "fingerprint": key, "with_duals": with_duals}, compiled)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).replace(path)
        except OSError:
            with suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        _warn(f"{path} cannot be written ({error}): the compiled problem is not kept")


def _named(compiled: CompiledProblem, signature: Signature, with_duals: list[int]) -> CompiledProblem:
    """Returns the compiled problem with the names and identities of this process."""
    problem, parameters = signature.problem, signature.parameters
    outputs = [Output(variable) for variable in problem.variables()]
    for constraint in (problem.constraints[position] for position in with_duals):
        outputs += [Output(dual, constraint, index) for index, dual in enumerate(constraint.dual_variables)]
    shapes = tuple(real_shape(parameter.shape, parameter.is_complex()) for parameter in parameters)
    require(compiled.parameters.shapes == shapes, "its parameters have other shapes")
    require(compiled.leaves.map.shapes == tuple(output.shape for output in outputs), "its variables have other shapes")
    names = tuple(output.name for output in outputs)
    listed = tuple(output.name for output in signature.outputs)
    return replace(
        compiled,
        parameters=replace(compiled.parameters, names=tuple(parameter.name() for parameter in parameters)),
        variables=_renamed(compiled.variables, listed),
        leaves=Leaves(
            _renamed(compiled.leaves.map, names), tuple(output.owner for output in outputs), compiled.leaves.listed
        ),
    )


def _renamed(variables: VariableMap, names: tuple[str, ...]) -> VariableMap:
    require(len(names) == len(variables.names), "it has other variables")
    return replace(variables, names=names)


def _warn(message: str) -> None:
    warnings.warn(f"cache: {message}", CvxlayersWarning, stacklevel=2)
