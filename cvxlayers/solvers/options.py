"""The options of a call: one vocabulary over all solvers, each solver's own names, and those that diffcp users pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np

from cvxlayers.errors import OptionError, did_you_mean
from cvxlayers.parallel import default_threads
from cvxlayers.program import Structure
from cvxlayers.solvers.registry import FORMS, Plan, select
from cvxlayers.solvers.solver import Options

_VOCABULARY = ("eps", "max_iters", "time_limit", "verbose")
_TRANSLATED = (
    "mode",
    "solve_method",
    "n_jobs_forward",
    "n_jobs_backward",
    "eps_abs",
    "eps_rel",
    "acceleration_lookback",
)
# Options of a layer, and their names among those of a call.
_OF_LAYERS = {"solver": "solve_method", "threads": "n_jobs_forward"}
_MODES = ("dense", "lsqr", "lsmr", "lpgd", "lpgd_left", "lpgd_right")


@dataclass(frozen=True)
class Request:
    """What a mapping of options asks for: options, solvers, and threads."""

    options: Options
    plan: Plan
    threads: int


def parse_options(given: object, base: Options, plan: Plan, structure: Structure, threads: int) -> Request:
    """Puts the options given over those of the layer.

    `eps`, `max_iters`, `time_limit` and `verbose` mean the same for every solver, and a solver's own names are passed
    on to it. diffcp's names are translated: `solve_method` is the solver, `n_jobs_forward` and `n_jobs_backward` the
    threads (−1 is all), `eps_abs` and `eps_rel` the tolerance where the solver has none of that name. `mode` chooses
    between diffcp's derivatives and `acceleration_lookback` tunes SCS: elsewhere they are checked and change nothing.

    Args:
        given: a mapping from names to values.
        base: those of the layer.
        plan: the solvers of the layer.
        structure: the structure of its programs.
        threads: the threads of the layer.

    Raises:
        OptionError: if a name is unknown or a value ill-typed or out of range.
    """
    if not isinstance(given, Mapping):
        raise OptionError(f"solver_args must be a mapping from names to values, got {given!r}")
    if given.get("solve_method") is not None:
        plan = _with_solver(plan, structure, given["solve_method"])
    plan = _with_solver_of(plan, given)
    known = plan.primary.native_options()
    kept = {name: value for name, value in base.native.items() if name in known}
    options = replace(base, native=kept)
    tolerances: list[float] = []
    for name, value in given.items():
        if not isinstance(name, str):
            raise _unknown(name, plan, known)
        if name in _VOCABULARY:
            options = replace(options, **{name: _CHECKS[name](name, value)})
        elif name in known:
            options = replace(options, native={**options.native, name: _native(name, value, known[name])})
        elif name in ("n_jobs_forward", "n_jobs_backward"):
            threads = _jobs(name, value)
        elif name in ("eps_abs", "eps_rel"):
            tolerances.append(_positive(name, value))
        elif name in _TRANSLATED:
            _check_ignored(name, value)
        else:
            raise _unknown(name, plan, known)
    if tolerances and "eps" not in given:
        options = replace(options, eps=min(tolerances))
    return Request(options, plan, threads)


def _with_solver(plan: Plan, structure: Structure, name: object) -> Plan:
    chosen = select(structure, name)
    return plan if chosen.primary is plan.primary else chosen


def _with_solver_of(plan: Plan, given: Mapping[object, object]) -> Plan:
    """A recognised form has no options of its own: those of the solver behind it are meant for that one."""
    if not plan.fallbacks or (plan.primary not in FORMS and plan.least == 1):
        return plan
    behind = plan.fallbacks[0].native_options()
    meant = any(name in behind and name not in (*_VOCABULARY, *_TRANSLATED) for name in given)
    return Plan(plan.fallbacks[0], plan.fallbacks[1:]) if meant else plan


def _unknown(name: object, plan: Plan, known: Mapping[str, type]) -> OptionError:
    solver, hint = plan.primary.name, ""
    if isinstance(name, str):
        hint = did_you_mean(name, [*_VOCABULARY, *known, *_TRANSLATED])
        if name in _OF_LAYERS:
            hint = f": it is an option of the layer, {name}=..., and {_OF_LAYERS[name]!r} that of one call"
    own = f"the options of {solver} itself are {', '.join(sorted(known))}" if known else f"{solver} has none of its own"
    return OptionError(
        f"unknown option {name!r} in solver_args{hint}; every solver takes {', '.join(_VOCABULARY)}, and {own}"
    )


def _positive(name: str, value: object) -> float:
    number = _number(name, value)
    if not (number > 0 and isfinite(number)):
        raise OptionError(f"{name} must be a positive number, got {value!r}")
    return number


def _number(name: str, value: object) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise OptionError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
    return float(value)


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise OptionError(f"{name} must be a whole number, got {value!r} of type {type(value).__name__}")
    return int(value)


def _count(name: str, value: object) -> int:
    if _whole(name, value) < 1:
        raise OptionError(f"{name} must be at least 1, got {value!r}")
    return _whole(name, value)


def _switch(name: str, value: object) -> bool:
    if not (isinstance(value, bool | np.bool_) or (isinstance(value, int) and value in (0, 1))):
        raise OptionError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def _word(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise OptionError(f"{name} must be a string, got {value!r} of type {type(value).__name__}")
    return value


def _native(name: str, value: object, kind: type) -> object:
    return _KINDS[kind](name, value)


def _jobs(name: str, value: object) -> int:
    jobs = _whole(name, value)
    if jobs != -1 and jobs < 1:
        raise OptionError(f"{name} must be a number of threads, or -1 for all, got {value!r}")
    return default_threads() if jobs == -1 else jobs


def _check_ignored(name: str, value: object) -> None:
    if name == "mode" and (not isinstance(value, str) or value.lower() not in _MODES):
        hint = did_you_mean(value, _MODES) if isinstance(value, str) else ""
        raise OptionError(f"mode must be one of {', '.join(_MODES)}, got {value!r}{hint}")
    if name == "acceleration_lookback":
        _whole(name, value)


def _optional(check: Callable[[str, object], Any]) -> Callable[[str, object], Any]:
    """Lets None stand for "no limit of this call"."""
    return lambda name, value: None if value is None else check(name, value)


_CHECKS: Mapping[str, Callable[[str, object], Any]] = {
    "eps": _positive,
    "max_iters": _optional(_count),
    "time_limit": _optional(_positive),
    "verbose": _switch,
}
_KINDS: Mapping[type, Callable[[str, object], Any]] = {float: _number, int: _whole, bool: _switch, str: _word}
