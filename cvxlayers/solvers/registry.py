"""The solvers by name, and the table that chooses one for a program's structure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cvxlayers.errors import OptionError, did_you_mean
from cvxlayers.idioms.coordinates import find_coordinates
from cvxlayers.kkt.band import narrow_band
from cvxlayers.kkt.effort import eliminates, factor_flops
from cvxlayers.program import Structure
from cvxlayers.solvers.bounded import Bounded
from cvxlayers.solvers.clarabel import Clarabel
from cvxlayers.solvers.continuation import Continuation
from cvxlayers.solvers.daqp import DAQP
from cvxlayers.solvers.direct import Direct
from cvxlayers.solvers.ecos import ECOS
from cvxlayers.solvers.entropic import Entropic
from cvxlayers.solvers.exponential import ExponentialPath
from cvxlayers.solvers.least_distance import LeastDistance
from cvxlayers.solvers.piqp import PIQP, prefers_dense
from cvxlayers.solvers.pivoting import Pivoting
from cvxlayers.solvers.projection import Projection
from cvxlayers.solvers.scs import SCS
from cvxlayers.solvers.solver import Solver

# Solvers of recognised forms: closed forms, or one equation for each item.
FORMS: tuple[Solver, ...] = (Bounded(), Entropic(), Projection())
SOLVERS: dict[str, Solver] = {
    solver.name: solver
    for solver in (
        Direct(),
        Pivoting(),
        DAQP(),
        LeastDistance(),
        PIQP(),
        Continuation(),
        ExponentialPath(),
        Clarabel(),
        SCS(),
        ECOS(),
        *FORMS,
    )
}

# Up to so many variables a dense active-set method beats every interior-point method, and the dense ones.
_TINY, _SMALL = 50, 150
# From so many coordinates of cones, or variables and this share of A's entries, dense algebra of a batch is faster.
_COORDINATES, _VARIABLES, _DENSE = 28, 20, 0.3
# Up to so many variables and equalities, and from so many items on, a path is followed faster for all of them at once.
_NARROW, _MANY = 20, 64
# Items from which on variables are eliminated faster for all of them at once.
_BATCH = 16
# From this order on an item takes PIQP more than 100 microseconds. Clarabel takes up to so many times as long where
# PIQP works on sparse matrices, and where on dense ones: measured at orders from 240 to 1500.
_SHORT, _SPARSE_GAP, _DENSE_GAP = 200, 6, 16
# Orders between which the work of a sparse factorisation decides, and how many operations are many.
_SPARSE, _HUGE, _HEAVY = 500, 30_000, 5e6


@dataclass(frozen=True)
class Plan:
    """Which solver serves a layer's programs, and which ones, in order, those items that it does not solve.

    Batches of fewer items than `least` go to the first fallback at once.
    """

    primary: Solver
    fallbacks: tuple[Solver, ...] = ()
    least: int = 1

    @property
    def solvers(self) -> tuple[Solver, ...]:
        """All of them, in order."""
        return (self.primary, *self.fallbacks)

    def of(self, batch: int) -> Plan:
        """Returns the plan of batches of a size."""
        return self if batch >= self.least else Plan(self.fallbacks[0], self.fallbacks[1:])


def solver_named(name: object) -> Solver:
    """Returns a solver by its name in any case.

    Raises:
        OptionError: if there is none.
    """
    known = list(SOLVERS)
    if not isinstance(name, str):
        raise OptionError(f"a solver is chosen by its name, one of {', '.join(known)}; got {name!r}")
    if name.upper() not in SOLVERS:
        raise OptionError(f"unknown solver {name!r}{did_you_mean(name, known)}; the solvers are {', '.join(known)}")
    return SOLVERS[name.upper()]


def select(
    structure: Structure,
    name: object = None,
    *,
    P_values: Float[np.ndarray, "... nnz"] | None = None,
    recognise: bool = False,
) -> Plan:
    """Chooses the solvers for all programs of a structure.

    Args:
        structure: what the programs share.
        name: the solver that the user asked for; None chooses.
        P_values: the stored entries of P where no parameter changes them.
        recognise: whether a recognised form has its own solver go first.

    Raises:
        OptionError: if the solver is unknown, or does not take this structure.
    """
    if name is None:
        primary, *fallbacks = _table(structure, P_values)
        form = recognised(structure) if recognise and primary.name != "DIRECT" else None
        if form is not None:
            return Plan(form, (primary, *fallbacks))
        distance = SOLVERS["LEAST_DISTANCE"]
        if primary.name == "DAQP" and eliminates(structure):
            return Plan(distance, (primary, *fallbacks), _BATCH)
        path = SOLVERS["EXPONENTIAL"]
        if path.refusal(structure) is None and structure.n + structure.cone.zero <= _NARROW:
            return Plan(path, (primary, *fallbacks[:1]), _MANY)
    else:
        primary = solver_named(name)
        refusal = primary.refusal(structure)
        if refusal is not None:
            raise OptionError(
                f"solver {primary.name} does not fit this problem: {refusal}; the solvers that do are "
                f"{', '.join(suitable(structure))}, and without a name one of them is chosen"
            )
        fallbacks = [solver for solver in _table(structure, P_values) if solver is not primary]
    return Plan(primary, tuple(fallbacks[: 3 if primary is SOLVERS["LEAST_DISTANCE"] else 2]))


def better_on_many_processors(plan: Plan, structure: Structure) -> tuple[str, int] | None:
    """Returns the solver that is faster for batches on more than so many processors, and how many; None where none is.

    PIQP holds the interpreter's lock, so that threads over its items wait for one another; Clarabel does not.
    """
    clarabel = SOLVERS["CLARABEL"]
    short = structure.n + structure.m < _SHORT
    if plan.primary.name != "PIQP" or short or clarabel.free_microseconds(structure) == 0:
        return None
    return clarabel.name, _DENSE_GAP if prefers_dense(structure) else _SPARSE_GAP


def recognised(structure: Structure) -> Solver | None:
    """Returns the solver of the form that programs of this structure have, where it is a recognised one."""
    return next((form for form in FORMS if form.refusal(structure) is None), None)


def suitable(structure: Structure) -> list[str]:
    """Returns the names of the solvers that take this structure."""
    return [name for name, solver in SOLVERS.items() if solver.refusal(structure) is None]


def _table(structure: Structure, P_values: Float[np.ndarray, "... nnz"] | None) -> list[Solver]:
    """The table of choice: the first solver serves, the next ones take over what it leaves unsolved.

    DAQP is exact and fastest where P is small and positive definite, but proves nothing where it fails. PIQP is the
    fastest on all other linear constraints, unless its factors fill in: then it is the dual of a diagonal P, dense, if
    the rows are few, else Clarabel, which takes every cone and certifies what it cannot solve.
    """
    direct, pivoting, daqp = (SOLVERS[name] for name in ("DIRECT", "PIVOTING", "DAQP"))
    piqp, clarabel, scs = (SOLVERS[name] for name in ("PIQP", "CLARABEL", "SCS"))
    continuation = SOLVERS["CONTINUATION"]
    if direct.refusal(structure) is None:
        return [direct, clarabel]
    if not structure.cone.polyhedral:
        dense = continuation.refusal(structure) is None and _is_dense(structure)
        return [continuation, clarabel, scs] if dense else [clarabel, scs]
    small = structure.n <= _TINY or (structure.n <= _SMALL and prefers_dense(structure))
    if small and daqp.refusal(structure) is None and _may_be_definite(structure, P_values):
        return [daqp, piqp, clarabel]
    if not _fills_in(structure):
        return [piqp, clarabel, scs]
    few = structure.m <= structure.n and pivoting.refusal(structure) is None
    if few and _may_be_definite(structure, P_values):
        return [pivoting, clarabel, piqp] if daqp.refusal(structure) is not None else [pivoting, daqp, clarabel]
    return [clarabel, piqp, scs]


def _fills_in(structure: Structure) -> bool:
    """Whether a sparse factorisation takes so many operations that PIQP's, column by column, is not the fastest."""
    order = structure.n + structure.m
    return _SPARSE < order < _HUGE and narrow_band(structure) is None and factor_flops(structure) > _HEAVY


def _is_dense(structure: Structure) -> bool:
    """Whether the Newton systems of a program over curved cones are dense, or reduce to few of many coordinates."""
    if find_coordinates(structure) is not None:
        return structure.m >= _COORDINATES
    many = structure.n >= _VARIABLES and structure.n <= structure.m
    return many and structure.A.nnz >= _DENSE * structure.n * structure.m


def _may_be_definite(structure: Structure, P_values: Float[np.ndarray, "... nnz"] | None) -> bool:
    """Whether P is positive definite; where parameters change it, each item decides, and falls back if it is not."""
    if P_values is None:
        return True
    if structure.is_diagonal:
        return bool(P_values.min() > 1e-9 * P_values.max())
    P = structure.P.dense(np.reshape(P_values, (1, -1)))[0]
    eigenvalues = np.linalg.eigvalsh(P)
    return bool(eigenvalues[0] > 1e-9 * eigenvalues[-1])
