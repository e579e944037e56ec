"""Every exception and warning of cvxlayers, drawn as one tree.

CvxlayersError (Exception)
├── ProblemError (ValueError)              the CVXPY problem cannot become a layer
│   ├── DPPError                           not disciplined parametrized
│   └── SignatureError                     parameters or variables do not belong to the problem
├── InputError (ValueError)                the values of a call cannot be used
│   ├── ShapeError                         count, shape or batch of the values
│   ├── DtypeError                         complex values for a real parameter, text, objects
│   ├── DomainError                        values that the attributes of the parameter do not allow
│   └── DeviceError                        tensors on different devices
├── OptionError (ValueError, TypeError)    an unknown or ill-typed solver, option or keyword
├── SolverError (RuntimeError)             programs of a batch that no solver solved
├── ArtifactError (ValueError)             a saved layer that cannot be read, or a layer that cannot be saved
├── DerivativeError (RuntimeError)         a derivative that does not exist or is not offered
└── MissingDependencyError (ImportError)   an optional package is not installed

CvxlayersWarning (UserWarning)
└── DerivativeWarning                      a derivative of doubtful accuracy, items named
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

__all__ = [
    "ArtifactError",
    "CvxlayersError",
    "CvxlayersWarning",
    "DPPError",
    "DerivativeError",
    "DerivativeWarning",
    "DeviceError",
    "DomainError",
    "DtypeError",
    "InputError",
    "MissingDependencyError",
    "OptionError",
    "ProblemError",
    "ShapeError",
    "SignatureError",
    "SolverError",
]


class CvxlayersError(Exception):
    """Base class of every exception that cvxlayers raises."""


class ProblemError(CvxlayersError, ValueError):
    """The CVXPY problem cannot be compiled into a layer."""


class DPPError(ProblemError):
    """The problem is not disciplined parametrized (DPP), so its data are not affine in the parameters."""


class SignatureError(ProblemError):
    """The listed parameters or variables do not belong to the problem."""


class InputError(CvxlayersError, ValueError):
    """The values handed to a layer cannot be used."""


class ShapeError(InputError):
    """Wrong number of values, wrong shape, or batch axes that do not agree."""


class DtypeError(InputError):
    """Values of a type that the parameter cannot take."""


class DomainError(InputError):
    """Values that the attributes of their parameter do not allow, as a negative one for `nonneg=True`."""


class DeviceError(InputError):
    """Tensors that live on different devices."""


class OptionError(CvxlayersError, ValueError, TypeError):
    """An unknown or ill-typed solver, option or keyword."""


class SolverError(CvxlayersError, RuntimeError):
    """Some programs of a batch were not solved.

    Attributes:
        items: flat indices, in the batch, of the programs that were not solved.
        statuses: the `Status` of each of them, as integers.
    """

    def __init__(self, message: str, items: Sequence[int] = (), statuses: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.items = tuple(items)
        self.statuses = tuple(statuses)

    def __reduce__(self) -> tuple[type[SolverError], tuple[str, tuple[int, ...], tuple[int, ...]]]:
        return type(self), (str(self), self.items, self.statuses)


class ArtifactError(CvxlayersError, ValueError):
    """A saved layer that cannot be read, or a layer that cannot be saved."""


class DerivativeError(CvxlayersError, RuntimeError):
    """A derivative that does not exist or is not offered."""


class MissingDependencyError(CvxlayersError, ImportError):
    """An optional package is not installed."""


class CvxlayersWarning(UserWarning):
    """Base class of every warning that cvxlayers issues."""


class DerivativeWarning(CvxlayersWarning):
    """A derivative of doubtful accuracy; the message names the items."""


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Returns " (did you mean 'x'?)" for the known word closest to `word`, else ""."""
    close = get_close_matches(word.lower(), [k.lower() for k in known], n=1, cutoff=0.6)
    if not close:
        return ""
    original = next(k for k in known if k.lower() == close[0])
    return f" (did you mean {original!r}?)"
