"""What the attributes of a CVXPY parameter say about its values."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from cvxlayers.domain import Domain

_FROM_BELOW, _FROM_ABOVE = ("nonneg", "pos"), ("nonpos", "neg")
_DEFINITE = {"PSD": 1, "NSD": -1, "symmetric": 0, "hermitian": 0}


def domain_of(parameter: cp.Parameter) -> Domain | None:
    """Returns the values that a parameter allows, None where all are. Zero is allowed where a sign is declared."""
    declared = [name for name, value in parameter.attributes.items() if value is not None and value is not False]
    lower, lower_word = _bound(parameter, declared, _FROM_BELOW, 0)
    upper, upper_word = _bound(parameter, declared, _FROM_ABOVE, 1)
    square = [name for name in declared if name in _DEFINITE]
    zeros = [name for name in declared if name in ("diag", "sparsity")]
    integer, boolean = _entries(parameter, "integer"), _entries(parameter, "boolean")
    imaginary = "imag" in declared
    nothing = lower is upper is integer is boolean is None
    if nothing and not square and not zeros and not imaginary:
        return None
    words = {"lower": lower_word, "upper": upper_word}
    words["imaginary"] = _word("imag")
    words |= {name: f"{name}={parameter.attributes[name] is True or '...'}" for name in ("integer", "boolean")}
    words["support"] = "".join(map(_word, zeros))
    words["symmetric"] = words["definite"] = "".join(map(_word, square))
    return Domain(
        words=words,
        lower=lower,
        upper=upper,
        support=_support(parameter) if zeros else None,
        integer=integer,
        boolean=boolean,
        symmetric=bool(square),
        definite=_DEFINITE[square[0]] if square else 0,
        order=parameter.shape[-1] if square else 0,
        complex=parameter.is_complex(),
        imaginary=imaginary,
    )


def _word(attribute: str) -> str:
    return f"{attribute}=..." if attribute in ("bounds", "sparsity") else f"{attribute}=True"


def _bound(
    parameter: cp.Parameter, declared: list[str], signs: tuple[str, ...], side: int
) -> tuple[np.ndarray | None, str]:
    """Returns the bounds of the entries on one side, and the attribute that says so."""
    size = int(np.prod(parameter.shape))
    for sign in signs:
        if sign in declared:
            return np.zeros(size), _word(sign)
    if "bounds" not in declared:
        return None, ""
    bound = parameter.attributes["bounds"][side]
    dense = bound.toarray() if sp.issparse(bound) else bound
    entries = np.broadcast_to(np.asarray(dense, dtype=float), parameter.shape).ravel()
    return (entries if np.isfinite(entries).any() else None), _word("bounds")


def _support(parameter: cp.Parameter) -> np.ndarray:
    if parameter.attributes["diag"]:
        return np.broadcast_to(np.eye(parameter.shape[-1], dtype=bool), parameter.shape).ravel()
    mask = np.zeros(parameter.shape, dtype=bool)
    mask[parameter.sparse_idx] = True
    return mask.ravel()


def _entries(parameter: cp.Parameter, attribute: str) -> np.ndarray | None:
    """Returns which entries are declared integer or boolean: all of them, or those listed."""
    declared = parameter.attributes[attribute]
    if not declared:
        return None
    mask = np.zeros(parameter.shape or (1,), dtype=bool)
    mask[... if declared is True else declared] = True
    return mask.ravel()
