"""PIQP: a proximal interior-point method for quadratic programs, dense or sparse.

References: Schwan, Jiang, Kuhn, Jones, "PIQP: A proximal interior-point quadratic programming solver" (2023).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np
import scipy.sparse as sp

from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.solver import Options, Result, Solver, row, solve_each

if TYPE_CHECKING:
    import piqp

# The dense code is faster up to this order, and beyond it where the matrices are this full.
_ALWAYS_DENSE, _DENSE_FILL, _NEVER_DENSE = 30, 0.4, 1500


@final
class PIQP(Solver):
    """Quadratic and linear programs. Holds the GIL while it solves.

    A new solver object serves each item: after `update`, the bits of a result depend on the item before.
    """

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "PIQP"

    def refusal(self, structure: Structure) -> str | None:
        """Refuses curved cones."""
        return None if structure.cone.polyhedral else "it solves quadratic programs only"

    def native_options(self) -> tuple[str, ...]:
        """PIQP's settings."""
        return (
            *("rho_init", "delta_init", "eps_abs", "eps_rel", "check_duality_gap", "eps_duality_gap_abs"),
            *("eps_duality_gap_rel", "infeasibility_threshold", "reg_lower_limit", "reg_finetune_lower_limit"),
            *("reg_finetune_primal_update_threshold", "reg_finetune_dual_update_threshold", "max_iter"),
            *("max_factor_retires", "preconditioner_scale_cost", "preconditioner_iter", "tau", "kkt_solver"),
            *("iterative_refinement_always_enabled", "iterative_refinement_eps_abs", "iterative_refinement_eps_rel"),
            *("iterative_refinement_max_iter", "iterative_refinement_min_improvement_rate", "verbose"),
            *("iterative_refinement_static_regularization_eps", "iterative_refinement_static_regularization_rel"),
        )

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Solves item by item."""
        import piqp

        structure, zero = program.structure, program.structure.cone.zero
        statuses = {
            piqp.PIQP_SOLVED: Status.SOLVED,
            piqp.PIQP_MAX_ITER_REACHED: Status.ITERATION_LIMIT,
            piqp.PIQP_PRIMAL_INFEASIBLE: Status.INFEASIBLE,
            piqp.PIQP_DUAL_INFEASIBLE: Status.UNBOUNDED,
        }
        dense = _prefers_dense(structure)
        form = np.asfortranarray if dense else sp.csc_matrix
        P, A = (structure.P.dense(program.P), structure.A.dense(program.A)) if dense else (program.P, program.A)

        def solve_item(item: int) -> Result:
            solver = piqp.DenseSolver() if dense else piqp.SparseSolver()
            _configure(solver.settings, options)
            H = row(P, item) if dense else structure.P.matrix(row(P, item))
            rows = row(A, item) if dense else structure.A.matrix(row(A, item)).tocsr()
            b = row(program.b, item)
            equalities = (form(rows[:zero]), b[:zero]) if zero else (None, None)
            bounds = (form(rows[zero:]), None, b[zero:]) if structure.m > zero else ()
            solver.setup(form(H), row(program.q, item), *equalities, *bounds)
            status = solver.solve()
            result = solver.result
            y = np.concatenate([result.y, result.z_u])
            s = np.concatenate([np.zeros(zero), result.s_u])
            return Result(result.x, y, s, statuses.get(status, Status.NUMERICAL_ERROR), result.info.iter)

        return solve_each(program, solve_item)


def _prefers_dense(structure: Structure) -> bool:
    order = structure.n + structure.m
    stored = structure.P.nnz + structure.A.nnz
    full = stored >= _DENSE_FILL * structure.n * order
    return order <= _ALWAYS_DENSE or (full and order <= _NEVER_DENSE)


def _configure(settings: piqp.Settings, options: Options) -> None:
    settings.eps_abs = settings.eps_rel = options.eps
    settings.eps_duality_gap_abs = settings.eps_duality_gap_rel = options.eps
    settings.verbose = options.verbose
    if options.max_iters is not None:
        settings.max_iter = options.max_iters
    for name, value in options.native.items():
        setattr(settings, name, value)
