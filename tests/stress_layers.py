"""Random layers of every recognised form and special method, in batches with troubled and impossible items.

Each layer is made of a cone program with a known solution: some entries of P, q, A and b are parameters, the rest are
constants, so that elimination, affine maps and kept factors have something to find. What is compared is the gradient
by the parameters, with that of the equations in `tests.stress`, and the solution with the known one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from cvxlayers.affine_map import AffineMap
from cvxlayers.build import assemble
from cvxlayers.compiled import CompiledProblem
from cvxlayers.cones import Product, project_dual
from cvxlayers.derivative import Method
from cvxlayers.errors import CvxlayersWarning
from cvxlayers.layer import Layer
from cvxlayers.linear_map import LinearMap
from cvxlayers.parameter_map import ParameterMap
from cvxlayers.program import ConeProgram, Status, Structure
from cvxlayers.solvers import SOLVERS
from cvxlayers.standard.form import Outputs
from cvxlayers.variable_map import Leaves, Owner
from tests.programs import pattern_of, values_of
from tests.stress import Array, Found, Trial, reference

Rng = np.random.Generator


@dataclass(frozen=True)
class Item:
    """One program, dense, and its solution; `possible` is false where it has none."""

    P: Array
    q: Array
    A: Array
    b: Array
    x: Array
    v: Array
    possible: bool = True


@dataclass(frozen=True)
class Family:
    """A batch of programs of one structure, and how they shall be solved.

    The programs of the layer are P = κ C P₀ C, q = κ C q₀, A = R A₀ C, b = R b₀ of the items, for positive diagonals.
    """

    kind: str
    cone: Product
    items: list[Item]
    constants: frozenset[str] = frozenset()
    solver: str | None = None
    method: Method | None = None
    columns: Array | float = 1.0
    rows: Array | float = 1.0
    cost: float = 1.0


def item(P: Array, A: Array, cone: Product, x: Array, v: Array) -> Item:
    """The program with these matrices whose solution is (x, v)."""
    y = project_dual(cone, v[None])[0]
    return Item(P, -P @ x - A.T @ y, A, A @ x + y - v, x, v)


def curvature(rng: Rng, n: int) -> Array:
    """A positive definite P, a singular one, or none."""
    rank = int(rng.choice([n, n, max(n // 2, 1), 0]))
    factor = rng.normal(size=(n, rank))
    return factor @ factor.T + (0.5 * np.eye(n) if rank == n else 0.0)


def trouble(rng: Rng, cone: Product, v: Array) -> Array:
    """Puts a point, now and then, on a kink: of an inequality or of a second-order or semidefinite cone."""
    v = v.copy()
    kind = rng.integers(8)
    if kind == 0 and cone.nonnegative:
        v[cone.zero] = 0.0
    for part, rows in cone.blocks():
        if kind == 1 and rows.start >= cone.zero + cone.nonnegative and type(part).__name__ == "SecondOrder":
            v[rows.start] = np.linalg.norm(v[rows.start + 1 : rows.stop]) * rng.choice([-1.0, 1.0])
        if kind == 2 and type(part).__name__ == "Semidefinite":
            v[rows] = 0.0
            v[rows.start] = rng.normal()
    return v


def _orders(rng: Rng, stop: int, fewest: int, most: int, start: int = 2) -> tuple[int, ...]:
    """Orders of semidefinite cones."""
    return tuple(rng.integers(start, stop, size=rng.integers(fewest, most)).tolist())


def condensed(rng: Rng) -> Family:
    """Dense programs over symmetric cones, with fewer variables than rows."""
    sizes = tuple(rng.integers(2, 7, size=rng.integers(1, 4)).tolist())
    orders = tuple(rng.integers(2, 4, size=rng.integers(0, 2)).tolist())
    cone = Product(int(rng.integers(0, 2)), int(rng.integers(0, 4)), sizes, orders)
    n = int(rng.integers(1, max(2, cone.dim // 2 + 1)))
    P, A = curvature(rng, n), rng.normal(size=(cone.dim, n))
    if rng.integers(6) == 0:
        A[-1] = A[-2]
    items = [item(P, A, cone, rng.normal(size=n), trouble(rng, cone, rng.normal(size=cone.dim))) for _ in range(4)]
    return Family("condensed", cone, items, solver="CONTINUATION", method=Method.CONDENSED)


def coordinates(rng: Rng) -> Family:
    """Each variable in one row of a cone, and few equalities."""
    sizes = tuple(rng.integers(2, 6, size=rng.integers(0, 3)).tolist())
    cone = Product(0, int(rng.integers(0, 4)), sizes, _orders(rng, 5, 1 - min(len(sizes), 1), 3))
    conic = cone.dim
    bare = rng.permutation(conic)[: int(rng.integers(0, conic // 4 + 1))]
    cone = replace(cone, zero=int(rng.integers(0, (conic - 2 * len(bare)) // 3 + 1)))
    n = conic - len(bare)
    rows = np.setdiff1d(np.arange(conic), bare)
    scale, rho = np.ones(conic), np.zeros(conic)
    for _, block in cone.blocks():
        if block.start >= cone.zero:
            part = slice(block.start - cone.zero, block.stop - cone.zero)
            rho[part] = rng.choice([0.0, 1.0, 2.0])
    if rng.integers(5) == 0:
        rho = rng.uniform(0.5, 2.0, size=conic)
    scale[:] = rng.choice([-1.0, 1.0, 2.0], size=conic)
    A = np.zeros((cone.dim, n))
    A[: cone.zero] = rng.normal(size=(cone.zero, n))
    A[cone.zero + rows, np.arange(n)] = scale[rows]
    P = np.diag(rho[rows] * scale[rows] ** 2)
    items = [item(P, A, cone, rng.normal(size=n), trouble(rng, cone, rng.normal(size=cone.dim))) for _ in range(4)]
    return Family("coordinates", cone, items, solver="CONTINUATION", method=Method.COORDINATES)


def pivoting(rng: Rng) -> Family:
    """A diagonal P over linear constraints; now and then two rows that contradict each other."""
    cone = Product(int(rng.integers(0, 3)), int(rng.integers(2, 7)))
    n = int(rng.integers(1, cone.dim + 5))
    A = rng.normal(size=(cone.dim, n)) * (rng.random((cone.dim, n)) < 0.5)
    A[:, 0] += A.any(axis=1) == 0
    kind, first = rng.integers(5), cone.zero
    if kind == 0:
        A[first + 1] = -A[first]
    elif kind == 1:
        A[first + 1] = A[first] * (1.0 + 1e-9 * rng.integers(0, 2))
    items = []
    for k in range(4):
        P = np.diag(rng.uniform(0.5, 2.0, size=n))
        P[0, 0] = rng.choice([P[0, 0], 1e-6, 0.0], p=[0.8, 0.1, 0.1])
        v = trouble(rng, cone, rng.normal(size=cone.dim))
        if kind == 1:
            v[first : first + 2] = np.abs(v[first])
        if kind == 0:
            v[first : first + 2] = -np.abs(v[first : first + 2])
        made = item(P, A, cone, rng.normal(size=n), v)
        if kind == 0 and k == 2:
            made.b[first + 1] = -made.b[first] - 1.0
            made = replace(made, possible=False)
        items.append(made)
    return Family("pivoting", cone, items, solver="PIVOTING", method=Method.SCHUR)


def eliminated(rng: Rng) -> Family:
    """A dense P over fewer linear rows than variables; now and then a bad P, dependent rows, or no feasible point."""
    n, batch = int(rng.integers(8, 13)), int(rng.integers(8, 11))
    cone = Product(int(rng.integers(0, 4)), int(rng.integers(2, 5)))
    first, shared, items = cone.zero, rng.integers(4), []
    P, A = curvature(rng, n), rng.normal(size=(cone.dim, n))
    for _ in range(batch):
        if shared:
            factor, A = rng.normal(size=(n, n)), rng.normal(size=(cone.dim, n))
            factor[0] *= rng.choice([1.0, 1e-2, 1e-4, 0.0], p=[0.7, 0.1, 0.1, 0.1])
            P = factor.T @ factor + rng.choice([0.5, 1e-3, 1e-7, 0.0], p=[0.7, 0.1, 0.1, 0.1]) * np.eye(n)
        kind, v = rng.integers(12), trouble(rng, cone, rng.normal(size=cone.dim))
        rows = A.copy()
        if kind < 4:
            rows[first + 1] = [-1.0, 1.0, 1.0, 1.0][kind] * rows[first]
            rows[first + 1] += [0.0, 0.0, 1e-4, 1e-7][kind] * rng.normal(size=n)
            v[first : first + 2] = np.array([-1.0, rng.choice([-1.0, 1.0])]) * np.abs(v[first : first + 2])
        if kind == 4 and first > 1:
            rows[1] = rows[0] * rng.choice([1.0, 1.0 + 1e-9])
        made = item(P, rows, cone, rng.normal(size=n), v)
        if kind == 0 and rng.integers(2):
            made.b[first + 1] = -made.b[first] - 1.0
            made = replace(made, possible=False)
        items.append(made)
    constants = frozenset() if shared else frozenset("P")
    return Family("eliminated", cone, items, constants, "LEAST_DISTANCE", Method.CHOLESKY)


def ball(rng: Rng) -> Family:
    """A projection on a ball, whose radius is a constant or the bound of a variable."""
    size, bounded = int(rng.integers(1, 8)), int(rng.integers(0, 2))
    cone = Product(0, bounded, (size + 1,))
    n = size + bounded
    A, P = np.zeros((cone.dim, n)), np.zeros((n, n))
    order, a = rng.permutation(size), rng.choice([-1.0, 1.0, 2.0], size=size)
    A[bounded + 1 + order, np.arange(size)] = a
    P[np.arange(size), np.arange(size)] = rng.uniform(0.5, 2.0) * a**2 * rng.choice([1.0, 1.0, 1.0, 1.5], size=size)
    if bounded:
        A[0, n - 1], A[bounded, n - 1] = rng.uniform(0.5, 2.0), -rng.uniform(0.5, 2.0)
    items = []
    for _ in range(4):
        v = trouble(rng, cone, rng.normal(size=cone.dim) * rng.choice([1.0, 1e-6, 1e6]))
        if bounded:
            # Stationarity in t, which has no cost unless now and then.
            y = project_dual(cone, v[None])[0]
            pull = -y[1] * A[1, n - 1] / A[0, n - 1]
            v[0] = pull if pull > 0 or rng.integers(4) == 0 else -abs(v[0])
        items.append(item(P, A, cone, rng.normal(size=n), v))
    return Family("ball", cone, items)


def projection(rng: Rng) -> Family:
    """A projection on second-order and semidefinite cones, and bounds."""
    sizes = tuple(rng.integers(1, 6, size=rng.integers(0, 3)).tolist())
    cone = Product(0, int(rng.integers(0, 3)), sizes, _orders(rng, 5, 1 - min(len(sizes), 1), 2, 1))
    n = cone.dim
    a, rho = rng.choice([-1.0, 1.0, 2.0], size=n), rng.uniform(0.5, 2.0) * np.ones(n)
    rho[: cone.nonnegative] = rng.uniform(0.5, 2.0, size=cone.nonnegative)
    order = rng.permutation(n)
    A = np.diag(a)[order]
    P = np.diag((A**2).T @ rho)
    items = [item(P, A, cone, rng.normal(size=n), trouble(rng, cone, rng.normal(size=n))) for _ in range(4)]
    return Family("projection", cone, items)


def bounded(rng: Rng) -> Family:
    """A diagonal P, bounds, and at most one row."""
    n, row, equation = int(rng.integers(1, 9)), int(rng.integers(0, 2)), int(rng.integers(0, 2))
    zero = row * equation
    below, above = (np.flatnonzero(rng.random(n) < 0.8) for _ in range(2))
    cone = Product(zero, row - zero + len(below) + len(above))
    A = np.zeros((cone.dim, n))
    A[:row] = rng.choice([-1.0, 1.0, 0.5], size=(row, n))
    A[row + np.arange(len(below)), below] = -1.0
    A[row + len(below) + np.arange(len(above)), above] = 1.0
    items = []
    for k in range(4):
        v = trouble(rng, cone, rng.normal(size=cone.dim))
        # A bound from either side holds, not both.
        for i, j in ((i, j) for i, at in enumerate(below) for j, other in enumerate(above) if at == other):
            lower, upper = row + i, row + len(below) + j
            if v[lower] > 0 and v[upper] > 0 and rng.integers(6):
                v[upper] = -v[upper]
        made = item(np.diag(rng.uniform(0.5, 2.0, size=n)), A, cone, rng.normal(size=n), v)
        both = np.intersect1d(below, above)
        if k == 1 and len(both) and rng.integers(2):
            lower, upper = (row + int(np.flatnonzero(below == both[0])[0]), 0)
            upper = row + len(below) + int(np.flatnonzero(above == both[0])[0])
            made.b[upper] = -made.b[lower] - 0.5
            made = replace(made, possible=False)
        items.append(made)
    return Family("bounded", cone, items)


def entropic(rng: Rng) -> Family:
    """Entropies of single variables over at most one row, and bounds."""
    n, row, equation = int(rng.integers(1, 6)), int(rng.integers(0, 2)), int(rng.integers(0, 2))
    zero, bounds = row * equation, np.flatnonzero(rng.random(n) < 0.3)
    two = int(rng.integers(3) == 0)
    cone = Product(zero, row - zero + len(bounds), exponential=n * (1 + two))
    A = np.zeros((cone.dim, n * (2 + two)))
    A[:row, :n] = rng.choice([1.0, 1.0, 0.5], size=(row, n))
    A[row + np.arange(len(bounds)), bounds] = 1.0
    start = row + len(bounds)
    for k in range(n * (1 + two)):
        A[start + 3 * k, n + k] = rng.choice([-1.0, 1.0], p=[0.95, 0.05])
        A[start + 3 * k + 1, k % n] = -1.0 if k < n else 1.0
    items = []
    for _ in range(4):
        v, x = trouble(rng, cone, rng.normal(size=cone.dim)), rng.normal(size=A.shape[1])
        for k in range(n * (1 + two)):
            rho, sigma, w = rng.uniform(-4.0, 4.0), rng.uniform(0.1, 2.0), rng.uniform(0.1, 2.0)
            s = sigma * np.array([rho, 1.0, np.exp(rho)])
            v[start + 3 * k : start + 3 * k + 3] = w * np.array([-1.0, rho - 1.0, np.exp(-rho)]) - s
        items.append(item(np.zeros((A.shape[1],) * 2), A, cone, x, v))
    return Family("entropic", cone, items)


def copies(rng: Rng) -> Family:
    """Variables that are others up to constants, fixed ones, and rows that are written twice."""
    n, count = int(rng.integers(2, 6)), int(rng.integers(1, 4))
    named, fixed, extra = count, int(rng.integers(0, 2)), int(rng.integers(1, 4))
    cone = Product(named + fixed, extra, tuple(rng.integers(2, 4, size=rng.integers(0, 2)).tolist()))
    width = n + named + fixed
    A = np.zeros((cone.dim, width))
    for k in range(named):
        A[k, n + k] = rng.choice([-1.0, 1.0, 2.0])
        others = rng.permutation(n)[: int(rng.choice([0, 1, 1, 2]))]
        A[k, others] = rng.choice([-1.0, 1.0, 0.5], size=len(others))
    A[named : named + fixed, width - fixed :] = 2.0 * np.eye(fixed)
    A[named + fixed :, :n] = rng.normal(size=(cone.dim - named - fixed, n))
    if fixed:
        A[named + fixed :, -1] = rng.normal(size=cone.dim - named - fixed)
    twice = extra > 1 and rng.integers(2)
    if twice:
        A[cone.zero + 1] = A[cone.zero]
    P, items = curvature(rng, width), []
    for _ in range(4):
        v = trouble(rng, cone, rng.normal(size=cone.dim))
        if twice:
            v[cone.zero + 1] = v[cone.zero] = -abs(v[cone.zero])
        items.append(item(P, A, cone, rng.normal(size=width), v))
    return Family("copies", cone, items, constants=frozenset("A" + str(rng.choice(["", "P"]))))


def equalities(rng: Rng) -> Family:
    """No inequality; with P and A constant, an affine map."""
    n = int(rng.integers(1, 8))
    cone = Product(zero=int(rng.integers(0, n + 1)))
    P, A = curvature(rng, n), rng.normal(size=(cone.dim, n))
    kind = rng.integers(6)
    if kind == 0 and cone.dim > 1:
        A[1] = A[0] + rng.choice([0.0, 1e-7, 1e-10, 1e-13]) * rng.normal(size=n)
    if kind == 1:
        P = P * 10.0 ** rng.uniform(-9, 0)
    items = [item(P, A, cone, rng.normal(size=n), rng.normal(size=cone.dim)) for _ in range(4)]
    return Family("equalities", cone, items, constants=frozenset(rng.choice(["", "PA", "PA", "P", "A"])))


def known(rng: Rng) -> Family:
    """Linear constraints, solved by an interior point and polished: the factors are kept."""
    cone = Product(int(rng.integers(0, 3)), int(rng.integers(1, 7)))
    n = int(rng.integers(1, cone.dim + 3))
    P, A = curvature(rng, n), rng.normal(size=(cone.dim, n))
    items = [item(P, A, cone, rng.normal(size=n), trouble(rng, cone, rng.normal(size=cone.dim))) for _ in range(4)]
    return Family("known factors", cone, items, solver=str(rng.choice(["PIQP", "DAQP", "CLARABEL"])))


FAMILIES: tuple[Callable[[Rng], Family], ...] = (
    condensed,
    coordinates,
    pivoting,
    ball,
    projection,
    bounded,
    entropic,
    copies,
    equalities,
    known,
    eliminated,
)


def scaled(family: Family, rng: Rng, decades: float) -> Family:
    """The family in other units: of each variable and linear row, of each curved cone, and of the cost."""
    size = family.items[0].A.shape[1]
    columns, rows = (2.0 ** np.round(rng.uniform(-3.3, 3.3, k) * decades) for k in (size, family.cone.dim))
    for _, block in family.cone.blocks():
        if block.start >= family.cone.zero + family.cone.nonnegative:
            rows[block] = rows[block.start]
    cost = float(2.0 ** np.round(rng.uniform(-3.3, 3.3) * decades))
    return replace(family, kind=f"{family.kind}, scaled", columns=columns, rows=rows, cost=cost)


def draw(rng: Rng, index: int) -> Family:
    """A family of the next kind; of every third the units are far apart, and some have one item alone."""
    family = FAMILIES[index % len(FAMILIES)](rng)
    if index // len(FAMILIES) % 3 == 2 and min(np.abs(one.v).max(initial=0.0) for one in family.items) > 1e-3:
        family = scaled(family, rng, float(rng.choice([2.0, 4.0])))
    return replace(family, items=family.items[:1]) if rng.integers(4) == 0 else family


@dataclass(frozen=True)
class Made:
    """A layer of a family, the values of its parameter, and where the parameter enters."""

    layer: Layer
    program: ConeProgram
    theta: Array
    maps: dict[str, Array]


def make(family: Family, rng: Rng, duals: bool, recognise: bool = True) -> Made:
    """Builds the layer, of one parameter for all entries that are not constant."""
    c, r, cost = (np.asarray(part, dtype=float) for part in (family.columns, family.rows, family.cost))
    P = np.array([cost * one.P * c * np.atleast_1d(c)[:, None] for one in family.items])
    A = np.array([one.A * c * np.atleast_1d(r)[:, None] for one in family.items])
    q, b = np.array([cost * c * one.q for one in family.items]), np.array([r * one.b for one in family.items])
    patterns = [pattern_of(np.any(np.concatenate([part, part[:1] * 0]) != 0, axis=0) * 1.0) for part in (P, A)]
    structure = Structure(*patterns, family.cone)
    values = {"P": values_of(patterns[0], P), "q": q, "A": values_of(patterns[1], A), "b": b}
    free = {name: _free(name, value, family, structure, rng) for name, value in values.items()}
    width = sum(map(len, free.values()))
    theta, maps, affine, start = np.zeros((len(q), width)), {}, {}, 0
    parameters = ParameterMap(("theta",), ((width,),), (False,))
    for name, value in values.items():
        columns, constant, matrix = free[name], value[0].copy(), np.zeros((value.shape[1], width))
        for k, entries in enumerate(columns):
            theta[:, start + k] = value[:, entries[0]]
            matrix[entries, start + k], constant[entries] = 1.0, 0.0
        start += len(columns)
        maps[name], affine[name] = matrix, AffineMap(LinearMap(sp.csr_array(matrix)), constant, parameters.blocks)
    n, m = structure.n, structure.m
    outputs = Outputs(("x", "y"), (n, m), sp.csr_array(sp.eye_array(n + m, m, k=-n))).variables()
    owners = tuple(Owner(index, (name,), dual=index > 0) for index, name in enumerate(("x", "y")))
    listed = outputs if duals else outputs.select([0])
    offset = AffineMap(LinearMap(sp.csr_array((1, width))), np.zeros(1), parameters.blocks)
    compiled = CompiledProblem(
        structure,
        parameters,
        listed,
        Leaves(outputs, owners, (0, 1) if duals else (0,)),
        *(affine[name] for name in "PqAb"),
        offset,
        maximise=False,
        gp=False,
    )
    layer = _assembled(compiled, family, recognise)
    return Made(layer, ConeProgram(structure, len(q), *values.values()), theta, maps)


def _free(name: str, value: Array, family: Family, structure: Structure, rng: Rng) -> list[Array]:
    """The entries that are parameters, each with its mirror image in P: all that differ, and some of the others."""
    differs = np.any(value != value[:1], axis=0)
    share = 0.0 if name in family.constants else float(rng.choice([0.0, 0.5, 1.0]))
    chosen = differs | (rng.random(value.shape[1]) < share)
    if name != "P":
        return [np.array([k]) for k in np.flatnonzero(chosen)]
    rows, cols = structure.P.rows, structure.P.cols
    keys = np.minimum(rows, cols) * structure.n + np.maximum(rows, cols)
    return [np.flatnonzero(keys == key) for key in np.unique(keys[chosen])]


def _assembled(compiled: CompiledProblem, family: Family, recognise: bool) -> Layer:
    """The layer with the solver and the method of the family, where what is left after elimination allows them."""
    layer = assemble(compiled, None, recognise=recognise)
    structure = layer.kernel.structure
    if family.solver is not None and SOLVERS[family.solver].refusal(structure) is None:
        layer = assemble(compiled, family.solver, recognise=recognise)
    method = family.method if recognise else None
    fits = {
        Method.SCHUR: structure.is_diagonal and structure.has_full_diagonal and structure.cone.polyhedral,
        Method.CHOLESKY: structure.has_full_diagonal and structure.cone.polyhedral and structure.m > 0,
        Method.CONDENSED: not structure.cone.polyhedral and not structure.cone.exponential,
        Method.COORDINATES: False,
    }
    if method is not None and fits[method] and layer.kernel.method is Method.DENSE:
        layer = replace(layer, kernel=replace(layer.kernel, method=method))
    return layer


def judge(family: Family, rng: Rng) -> list[Found]:
    """Solves and differentiates a batch, and compares each item."""
    duals = bool(rng.integers(2))
    made = make(family, rng, duals)
    layer, program = made.layer, made.program
    c, r, cost = family.columns, family.rows, family.cost
    n, m, batch = program.structure.n, program.structure.m, program.batch
    x_bar, y_bar = rng.normal(size=(batch, n)) * c, duals * rng.normal(size=(batch, m)) * r / cost
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        call = layer.forward([made.theta], replace(layer.options, on_failure="mask"))
        (gradient,), info = layer.vjp(call, [x_bar, y_bar][: 1 + duals])
    strange = [str(entry.message) for entry in said if not issubclass(entry.category, CvxlayersWarning)]
    assert not strange, strange
    solvers = call.found.outcome.solvers
    route = "affine" if call.affine is not None else str(layer.kernel.method.value)
    route = "closed form" if layer.kernel.closed is not None else route
    found = []
    for k, one in enumerate(family.items):
        kind = f"{solvers[k] or 'none'}/{route}"
        flags = [Status(int(call.status[k])).name.lower()] if call.status[k] > Status.SOLVED else []
        flags += [name for name in ("not_unique", "dependent", "weakly_active") if getattr(info, name)[k]]
        flags += ["residual"] if not info.residual[k] <= 1e-6 and not flags else []
        flags += ["condition"] if not info.reliable[k] and not flags else []
        error = _error(family, made, k, (x_bar[k], y_bar[k]), call.outputs[0][k], gradient[k])
        if not call.ok[k]:
            error = np.inf if gradient[k].any() else error
            flags = [] if gradient[k].any() else flags
        elif not one.possible:
            error = np.inf
        found.append(Found(kind, error, tuple(flags)))
    return found


def _error(
    family: Family, made: Made, k: int, cotangent: tuple[Array, Array], x: Array, gradient: Array
) -> float | None:
    """The largest error of the solution and of the gradient by each part; see `Found`."""
    one, c, r, cost = family.items[k], family.columns, family.rows, family.cost
    if not one.possible:
        return None
    structure, program = made.program.structure, made.program
    unscaled = ConeProgram(
        structure,
        1,
        values_of(structure.P, one.P[None]),
        one.q[None],
        values_of(structure.A, one.A[None]),
        one.b[None],
    )
    try:
        with np.errstate(all="ignore"):
            want = reference(Trial("", unscaled, one.x, one.v), cotangent[0] / c, cotangent[1] * cost / r)
    except ZeroDivisionError:
        # Where rows are redundant, the library chooses among their multipliers; the reference does not.
        return None if made.layer.kernel.redundant is not None and len(made.layer.kernel.redundant) else np.inf
    except ArithmeticError:
        return None
    c, r = np.broadcast_to(c, program.q.shape[1:]), np.broadcast_to(r, program.b.shape[1:])
    P, A = structure.P, structure.A
    units = {"P": (cost * np.outer(c, c))[P.rows, P.cols], "q": cost * c, "A": np.outer(r, c)[A.rows, A.cols], "b": r}
    wanted = {"P": want[0][P.rows, P.cols], "q": want[1], "A": want[2][A.rows, A.cols], "b": want[3]}
    errors = [np.abs(x * c - one.x).max() / max(1.0, np.abs(one.x).max())]
    # In the units of the program as it is, or as it was: one of them has no entries that drown in rounding.
    for unit in (units, {name: np.ones_like(part) for name, part in units.items()}):
        pairs = []
        for name, matrix in made.maps.items():
            columns = matrix.any(axis=0)
            share = (matrix / units[name][:, None]).sum(axis=0)[columns] / matrix.sum(axis=0)[columns]
            mine = (matrix.T @ (wanted[name] / unit[name]))[columns]
            other = gradient[columns] * (1.0 / share if unit is not units else 1.0)
            pairs.append((mine, other))
        errors.append(_relative(pairs, max(np.abs(wanted[name] / unit[name]).max(initial=0.0) for name in "PqAb")))
    return float(max(errors[0], min(errors[1:])))


def _relative(pairs: list[tuple[Array, Array]], size: float) -> float:
    """The largest difference, relative to the largest entry of its part or a thousandth of the size of all."""
    sizes = [np.abs(mine).max(initial=0.0) for mine, _ in pairs]
    gaps = [np.abs(mine - other).max(initial=0.0) for mine, other in pairs]
    scales = np.maximum(sizes, 1e-3 * size)
    return max(gap / scale if scale > 0 else gap for gap, scale in zip(gaps, scales, strict=True))


def survey(count: int, seed: int = 0) -> list[Found]:
    """Judges about so many programs of all families in turn."""
    found: list[Found] = []
    index = 0
    while len(found) < count:
        rng = np.random.default_rng([seed, index])
        found += judge(draw(rng, index), rng)
        index += 1
    return found
