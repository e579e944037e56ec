"""Random cone programs of every mix and every kind of trouble, with gradients by other equations than the library's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np

from cvxlayers.cones import Product, project_dual
from cvxlayers.derivative import Data, choose_method, linearise, vjp
from cvxlayers.kernel import Kernel
from cvxlayers.program import ConeProgram, Status, Structure
from cvxlayers.solve import CallOptions, solve_programs
from cvxlayers.solvers import Options, select
from tests.complementarity import Boundary, Zero, faces
from tests.programs import pattern_of, values_of
from tests.reference import Program, _equations, _newton

# What gradients may differ by, relative to the largest entry of all of them.
TOLERANCE = 1e-5
# The reference calls a derivative undefined where its equations are singular to rounding, or not strictly
# complementary; a point that it cannot make a solution of its equations it says nothing of.
_SINGULAR, _KINK, _SOLVED = 1e-13, 1e-11, 1e-10

Array = np.ndarray


@dataclass(frozen=True)
class Trial:
    """One random program: where it came from, and a solution by construction.

    Where it is badly scaled, P = diag(columns) P₀ diag(columns) and A = diag(rows) A₀ diag(columns) for the unscaled P₀
    and A₀, for which the reference is exact.
    """

    kind: str
    program: ConeProgram
    x: Array
    v: Array
    columns: Array | float = 1.0
    rows: Array | float = 1.0
    unscaled: Trial | None = None


@dataclass(frozen=True)
class Found:
    """What became of it: the largest relative error of the gradient, and what the library said of it.

    `error` is infinite where the derivative is undefined, and None where the reference says nothing.
    """

    kind: str
    error: float | None
    flags: tuple[str, ...]

    @property
    def silent(self) -> bool:
        """Whether a gradient is wrong, or undefined, without a word of the library's."""
        return not self.flags and self.error is not None and self.error > TOLERANCE


def random_cone(rng: np.random.Generator, curved: bool = True) -> Product:
    """A random mix of cones."""
    if not curved:
        return Product(zero=int(rng.integers(0, 3)), nonnegative=int(rng.integers(1, 7)))
    return Product(
        zero=int(rng.integers(0, 3)),
        nonnegative=int(rng.integers(0, 5)),
        second_order=tuple(rng.integers(1, 5, size=rng.integers(0, 3)).tolist()),
        semidefinite=tuple(rng.integers(1, 5, size=rng.integers(0, 2)).tolist()),
        exponential=int(rng.integers(0, 2)),
        power=tuple(rng.uniform(0.1, 0.9, size=rng.integers(0, 2)).tolist()),
    )


def build(kind: str, P: Array, A: Array, cone: Product, x: Array, v: Array) -> Trial:
    """The program with these matrices whose solution is (x, v)."""
    y = project_dual(cone, v[None])[0]
    q, b = -P @ x - A.T @ y, A @ x + y - v
    structure = Structure(pattern_of(P), pattern_of(A), cone)
    values = values_of(structure.P, P[None]), q[None], values_of(structure.A, A[None]), b[None]
    return Trial(kind, ConeProgram(structure, 1, *values), x, v)


def _parts(rng: np.random.Generator, cone: Product, rank: int | None = None) -> tuple[Array, Array, Array, Array]:
    m = cone.dim
    n = int(rng.integers(1, m + 5))
    factor = rng.normal(size=(n, n if rank is None else rank))
    P = factor @ factor.T + (0.5 * np.eye(n) if rank is None else 0.0)
    return P, rng.normal(size=(m, n)), rng.normal(size=n), rng.normal(size=m)


def regular(rng: np.random.Generator) -> Trial:
    """A positive definite P."""
    cone = random_cone(rng)
    P, A, x, v = _parts(rng, cone)
    return build("regular", P, A, cone, x, v)


def low_rank(rng: np.random.Generator) -> Trial:
    """A singular P."""
    cone = random_cone(rng)
    P, A, x, v = _parts(rng, cone, rank=int(rng.integers(0, 4)))
    return build("low rank", P, A, cone, x, v)


def linear(rng: np.random.Generator) -> Trial:
    """No P at all, and no curved cone."""
    cone = random_cone(rng, curved=False)
    P, A, x, v = _parts(rng, cone, rank=0)
    return build("linear", P, A, cone, x, v)


def duplicated(rng: np.random.Generator) -> Trial:
    """An equality and an active inequality are written twice."""
    cone = replace(random_cone(rng), zero=2, nonnegative=3)
    P, A, x, v = _parts(rng, cone)
    A[1] = A[0]
    A[3], v[3], v[2] = A[2], abs(v[2]), abs(v[2])
    return build("duplicated rows", P, A, cone, x, v)


def weakly_active(rng: np.random.Generator) -> Trial:
    """An inequality holds with equality and a zero multiplier, or a curved cone is at a kink."""
    cone = replace(random_cone(rng), nonnegative=2, second_order=(3,), semidefinite=(2,))
    P, A, x, v = _parts(rng, cone)
    start = cone.zero + 2
    kink = int(rng.integers(3))
    if kink == 0:
        v[start - 1] = 0.0
    elif kink == 1:
        v[start] = np.linalg.norm(v[start + 1 : start + 3]) * rng.choice([-1.0, 1.0])
    else:
        v[start + 3 : start + 6] = [rng.choice([-1.0, 1.0]), 0.0, 0.0]
    return build("weakly active", P, A, cone, x, v)


def scaled(rng: np.random.Generator) -> Trial:
    """Variables and polyhedral rows of sizes between 1e-4 and 1e4."""
    cone = random_cone(rng)
    P, A, x, v = _parts(rng, cone)
    columns, rows = 10.0 ** rng.uniform(-4, 4, size=len(x)), np.ones(len(v))
    flat = cone.zero + cone.nonnegative
    rows[:flat] = 10.0 ** rng.uniform(-4, 4, size=flat)
    y = project_dual(cone, v[None])[0]
    moved = y / rows - (y - v) * rows
    P_scaled, A_scaled = P * np.outer(columns, columns), A * np.outer(rows, columns)
    trial = build("badly scaled", P_scaled, A_scaled, cone, x / columns, moved)
    return replace(trial, columns=columns, rows=rows, unscaled=build("unscaled", P, A, cone, x, v))


def inactive(rng: np.random.Generator) -> Trial:
    """No inequality is active."""
    cone = random_cone(rng, curved=False)
    P, A, x, v = _parts(rng, cone)
    v[cone.zero :] = -np.abs(v[cone.zero :]) - 0.1
    return build("no active row", P, A, cone, x, v)


def active(rng: np.random.Generator) -> Trial:
    """Every inequality is active."""
    cone = random_cone(rng, curved=False)
    P, A, x, v = _parts(rng, cone)
    v[cone.zero :] = np.abs(v[cone.zero :]) + 0.1
    return build("all rows active", P, A, cone, x, v)


MAKERS: tuple[Callable[[np.random.Generator], Trial], ...] = (
    regular,
    low_rank,
    linear,
    duplicated,
    weakly_active,
    scaled,
    inactive,
    active,
)


def judge(trial: Trial, rng: np.random.Generator) -> Found:
    """Solves and differentiates a program, and compares."""
    program = trial.program
    structure = program.structure
    kernel = Kernel(structure, None, choose_method(structure))
    options = CallOptions(Options(), select(structure, None), "raise", 1)
    outcome, point, _ = solve_programs(kernel, program, None, options, None)
    flags = [Status(int(code)).name.lower() for code in outcome.solution.status if code > Status.SOLVED]
    if not point.accuracy(program)[0] <= 1e-8:
        flags.append("inaccurate")
    x_bar, y_bar = rng.normal(size=point.x.shape), rng.normal(size=point.y.shape)
    data, info = vjp(linearise(program, point, kernel.factoriser(1)), x_bar, y_bar, np.zeros(point.y.shape))
    flags += [name for name in ("not_unique", "dependent", "weakly_active") if getattr(info, name)[0]]
    flags += ["residual"] if not info.residual[0] <= 1e-6 else []
    flags += ["condition"] if not info.reliable[0] and not flags else []
    try:
        with np.errstate(all="ignore"):
            want = reference(trial, x_bar[0], y_bar[0])
    except ArithmeticError as error:
        return Found(trial.kind, np.inf if isinstance(error, ZeroDivisionError) else None, tuple(flags))
    return Found(trial.kind, difference(structure, data, want), tuple(flags))


def difference(structure: Structure, got: Data, want: tuple[Array, Array, Array, Array]) -> float:
    """The largest difference of any entry, relative to the largest of its block's or a thousandth of all."""
    P = structure.P.dense(got.P)[0]
    mask = structure.A.dense(np.ones((1, structure.A.nnz)))[0]
    mask_P = structure.P.dense(np.ones((1, structure.P.nnz)))[0]
    pairs = [
        (0.5 * (P + P.T), want[0] * mask_P),
        (got.q[0], want[1]),
        (structure.A.dense(got.A)[0], want[2] * mask),
        (got.b[0], want[3]),
    ]
    sizes = [np.max(np.abs(expected), initial=0.0) for _, expected in pairs]
    scales = np.maximum(sizes, 1e-3 * max(sizes))
    gaps = [np.max(np.abs(found - expected), initial=0.0) for found, expected in pairs]
    return float(max(gap / scale if scale > 0 else gap for gap, scale in zip(gaps, scales, strict=True)))


def reference(trial: Trial, x_bar: Array, y_bar: Array) -> tuple[Array, Array, Array, Array]:
    """Cotangents of P, q, A, b by the smooth equations of the face on which the solution lies.

    Raises:
        ZeroDivisionError: if the derivative is undefined there.
        ArithmeticError: if these equations cannot be solved.
    """
    if trial.unscaled is not None:
        c, r = trial.columns, trial.rows
        P, q, A, b = reference(trial.unscaled, x_bar / c, y_bar / r)
        return P / np.outer(c, c), q / c, A / np.outer(r, c), b / r
    structure = trial.program.structure
    n, m = structure.n, structure.m
    dense = Program(
        structure.P.dense(trial.program.P)[0],
        trial.program.q[0],
        structure.A.dense(trial.program.A)[0],
        trial.program.b[0],
    )
    y = project_dual(structure.cone, trial.v[None])[0]
    s = y - trial.v
    found = [
        Zero(face.rows) if isinstance(face, Boundary) and np.abs(s[face.rows]).max() < 1e-12 else face
        for face in faces(_dims(structure.cone), s, y)
    ]
    for face in found:
        if not face.margin(s[face.rows], y[face.rows]) > _KINK:
            # On the flat parts of exponential and power cones these equations are not those of the face.
            raise (ArithmeticError if isinstance(face, Boundary) else ZeroDivisionError)("no smooth face")
    try:
        x, s, y, residual = _newton(dense, found, trial.x, s, y)
    except np.linalg.LinAlgError:
        residual = np.inf
    if not residual <= _SOLVED:
        raise ArithmeticError("not solved")
    multipliers = [face.start(s[face.rows], y[face.rows]) for face in found]
    jacobian = _equations(dense, found, x, s, y, multipliers)[1]
    if not np.isfinite(jacobian).all():
        raise ArithmeticError("not smooth")
    scale = [1.0 / np.where((size := np.abs(jacobian).max(axis=axis)) > 0, size, 1.0) for axis in (1, 0)]
    singular = np.linalg.svd(scale[0][:, None] * jacobian, compute_uv=False)
    if singular.size and singular[-1] < _SINGULAR * singular[0]:
        raise ZeroDivisionError("singular")
    cotangent = np.zeros(jacobian.shape[1])
    cotangent[:n], cotangent[n + m : n + 2 * m] = x_bar, y_bar
    w = scale[0] * np.linalg.lstsq((scale[0][:, None] * jacobian).T, cotangent, rcond=None)[0]
    lam, mu = -w[:n], w[n : n + m]
    return 0.5 * (np.outer(lam, x) + np.outer(x, lam)), lam, np.outer(y, lam) - np.outer(mu, x), mu


def _dims(cone: Product) -> SimpleNamespace:
    return SimpleNamespace(
        zero=cone.zero,
        nonneg=cone.nonnegative,
        soc=cone.second_order,
        psd=cone.semidefinite,
        exp=cone.exponential,
        p3d=cone.power,
        pnd=(),
    )


def survey(count: int, seed: int = 0) -> list[Found]:
    """Judges programs of all kinds in turn."""
    rng = np.random.default_rng(seed)
    return [judge(MAKERS[index % len(MAKERS)](rng), rng) for index in range(count)]


def table(found: list[Found]) -> str:
    """One line for each kind: how many, how many flagged and why, how many without a reference."""
    lines = []
    for kind in dict.fromkeys(one.kind for one in found):
        mine = [one for one in found if one.kind == kind]
        flags = Counter(flag for one in mine for flag in one.flags)
        why = ", ".join(f"{name} {number}" for name, number in sorted(flags.items()))
        flagged, unsure = sum(bool(one.flags) for one in mine), sum(one.error is None for one in mine)
        worst = max((one.error for one in mine if one.error is not None and not one.flags), default=0.0)
        lines.append(
            f"{kind:16} {len(mine):5} programs, {flagged:4} flagged ({why}), {unsure:4} without reference, "
            f"worst unflagged error {worst:.1e}, silent {sum(one.silent for one in mine)}"
        )
    return "\n".join(lines)
