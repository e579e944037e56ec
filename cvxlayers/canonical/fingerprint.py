"""A digest of all that the compiled problem depends on: equal digests, equal problems, in whatever process.

Identities and names are left out: variables, parameters and constraints are known by their positions. Constants are
digested with their values, and so are the attributes of leaves. What could hold more than can be seen here, as an atom
of the user's own, has no digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.constraints.constraint import Constraint
from cvxpy.expressions.leaf import Leaf

from cvxlayers.canonical.leaves import Output
from cvxlayers.canonical.signature import Signature

_LEAVES = (cp.Variable, cp.Parameter, cp.Constant)
_SCALARS = (bool, int, float, str, Fraction)
# Identities and names, what has its own place in the digest, what follows from the rest, and what CVXPY remembers.
_SKIPPED = {"id", "constr_id", "_label", "args", "dual_variables", "tree", "_lazy_canonical_form"}
_REMEMBERED = "__cache__"
_PACKAGES = ("cvxpy", "numpy", "scipy")


class _Unknown(Exception):
    """Something whose state cannot be seen."""


def fingerprint(signature: Signature, gp: bool) -> str | None:
    """Returns the digest of a problem with its parameters and outputs in order, of the versions, and of this code.

    Returns:
        The digest; None where the problem has none.
    """
    problem = signature.fixed
    positions = {leaf.id: f"variable {k}" for k, leaf in enumerate(signature.problem.variables())}
    positions |= {leaf.id: f"parameter {k}" for k, leaf in enumerate(signature.parameters)}
    tree = _Tree(positions)
    try:
        parts = [tree.node(problem.objective), *map(tree.node, problem.constraints)]
        parts += [_output(signature, output) for output in signature.outputs]
    except _Unknown:
        return None
    return _digest([_code(), str(gp).encode(), *parts])


@cache
def _code() -> bytes:
    """A digest of the versions, of the modules that compile, and of those that say what a compiled problem is."""
    from cvxlayers import __version__

    versions, here = [__version__, *map(version, _PACKAGES)], Path(__file__).parent
    sources = [path for folder in (here, here.parent, here.parent / "cones") for path in sorted(folder.glob("*.py"))]
    return _digest([*map(str.encode, versions), *(path.read_bytes() for path in sources)]).encode()


def _output(signature: Signature, output: Output) -> bytes:
    identities = [leaf.id for leaf in signature.problem.variables()]
    if output.constraint is None:
        return f"variable {identities.index(output.leaf.id)}".encode()
    position = next(k for k, own in enumerate(signature.problem.constraints) if own is output.constraint)
    return f"dual {position} {output.index}".encode()


class _Tree:
    """Digests of expressions; what occurs several times is digested once."""

    def __init__(self, positions: dict[int, str]) -> None:
        self.positions = positions
        self.known: dict[int, bytes] = {}
        # As long as a node is known by its address, it may not go.
        self.alive: list[Any] = []

    def node(self, node: Any) -> bytes:
        """Returns the digest of an objective, a constraint or an expression."""
        if id(node) not in self.known:
            self.known[id(node)] = self._node(node).encode()
            self.alive.append(node)
        return self.known[id(node)]

    def _node(self, node: Any) -> str:
        kind = type(node)
        if not kind.__module__.startswith("cvxpy."):
            raise _Unknown
        head = [f"{kind.__module__}.{kind.__qualname__}".encode(), str(getattr(node, "shape", None)).encode()]
        if kind in _LEAVES:
            return _digest([*head, *self._leaf(node)])
        if isinstance(node, Leaf):
            raise _Unknown
        data = list(node.get_data() or ())
        # A constraint's data end with its identity.
        if isinstance(node, Constraint) and data and data[-1] == node.id:
            data.pop()
        return _digest([*head, self.value(data), self.value(_state(node)), *map(self.node, node.args)])

    def _leaf(self, leaf: Any) -> Iterable[bytes]:
        if isinstance(leaf, cp.Constant):
            return [self.value(leaf.value)]
        if leaf.id not in self.positions:
            raise _Unknown
        return [self.positions[leaf.id].encode(), self.value(dict(leaf.attributes))]

    def value(self, value: Any) -> bytes:
        """Returns the digest of a datum."""
        if value is None or isinstance(value, _SCALARS):
            return _digest([type(value).__name__.encode(), repr(value).encode()]).encode()
        if isinstance(value, np.ndarray | np.generic):
            return _array(np.asarray(value))
        if sp.issparse(value):
            entries: Any = sp.coo_array(value)
            entries.sum_duplicates()
            parts = (entries.data, *entries.coords)
            return _digest([b"sparse", str(value.shape).encode(), *map(_array, parts)]).encode()
        if isinstance(value, cp.Expression):
            return self.node(value)
        if isinstance(value, slice):
            return _digest([b"slice", self.value([value.start, value.stop, value.step])]).encode()
        if isinstance(value, list | tuple):
            return _digest([type(value).__name__.encode(), *map(self.value, value)]).encode()
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return _digest([b"dict", *(self.value([key, value[key]]) for key in sorted(value))]).encode()
        raise _Unknown


def _state(node: Any) -> dict[str, Any]:
    """What a node holds beside its arguments, whether or not its data name it: all of it, or atoms could differ."""
    found = {name: value for name, value in vars(node).items() if name not in _SKIPPED}
    return {name: value for name, value in found.items() if not name.endswith(_REMEMBERED)}


def _array(array: np.ndarray) -> bytes:
    if array.dtype == object:
        raise _Unknown
    head = json.dumps([array.dtype.str, array.shape]).encode()
    return _digest([b"array", head, np.ascontiguousarray(array).tobytes()]).encode()


def _digest(parts: Sequence[bytes]) -> str:
    """Returns a digest from which no two lists of parts can be confused."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "little"))
        sha.update(part)
    return sha.hexdigest()
