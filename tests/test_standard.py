"""Programs by their data: the numbers of the compiled layer, differentiable in every block."""

from __future__ import annotations

from typing import Any

import cvxpy
import numpy as np
import pytest
import scipy.sparse as sp

from cvxlayers import CvxpyLayer, Status, solve_conic, solve_qp
from cvxlayers.errors import DerivativeError, DomainError, DtypeError, OptionError, ShapeError, SolverError
from tests.checks import assert_close

cp: Any = cvxpy

N, EQUALITIES, INEQUALITIES = 6, 2, 4
# What the same arithmetic in another order may change.
SAME = 1e-12


def blocks_of(rng: np.random.Generator, batch: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """Data of feasible programs with active and inactive rows of each kind; `lb` and `ub` are shared."""
    factor = rng.normal(size=(*batch, N, N))
    point = rng.uniform(-0.5, 0.5, size=N)
    A, G = rng.normal(size=(*batch, EQUALITIES, N)), rng.normal(size=(*batch, INEQUALITIES, N))
    return {
        "P": factor @ factor.swapaxes(-1, -2) + np.eye(N),
        "q": 6 * rng.normal(size=(*batch, N)),
        "A": A,
        "b": A @ point,
        "G": G,
        "h": G @ point + rng.uniform(0.01, 0.3, size=(*batch, INEQUALITIES)),
        "lb": np.full(N, -0.8),
        "ub": np.full(N, 0.7),
    }


def layer_of(blocks: dict[str, np.ndarray]) -> CvxpyLayer:
    """The same form through CVXPY, with all dual variables."""
    x = cp.Variable(N)
    p = {name: cp.Parameter(value.shape, PSD=name == "P") for name, value in blocks.items()}
    rows = [p["A"] @ x == p["b"], p["G"] @ x <= p["h"], x >= p["lb"], x <= p["ub"]]
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, p["P"]) + p["q"] @ x), rows)
    return CvxpyLayer(problem, list(p.values()), [x, *rows])


def item_of(blocks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value[(0,) * (value.ndim - (2 if name in "PAG" else 1))] for name, value in blocks.items()}


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_the_numbers_are_those_of_the_compiled_layer(batch, rng):
    blocks = blocks_of(rng, batch)
    layer = layer_of(item_of(blocks))
    x, y, z, lower, upper = layer(*blocks.values())
    solution = solve_qp(**blocks)
    got = [solution.x, solution.y, solution.z, solution.z_box]
    assert_close(got, [x, y, z, upper - lower], SAME, "output")
    assert np.count_nonzero(solution.z_box)
    assert_close([solution.result.objective], [layer.solve(*blocks.values()).objective], SAME, "optimal value")
    weights = [rng.normal(size=output.shape) for output in got]
    gradients, info = solution.vjp(weights[0], y=weights[1], z=weights[2], z_box=weights[3])
    want, _ = layer.vjp(list(blocks.values()), [*weights[:3], -weights[3], weights[3]])
    assert list(gradients) == list(blocks)
    assert_close(list(gradients.values()), want, SAME, "gradient")
    assert info.residual.shape == batch


@pytest.mark.parametrize("name", ["P", "q", "A", "b", "G", "h", "lb", "ub"])
def test_gradients_match_differences(name, rng):
    blocks = blocks_of(rng)
    weight, direction, step = rng.normal(size=N), rng.normal(size=blocks[name].shape), 1e-5
    if name == "P":
        direction = direction + direction.T
    ends = [solve_qp(**{**blocks, name: blocks[name] + sign * step * direction}) for sign in (1, -1)]
    gradients, _ = solve_qp(**blocks).vjp(weight)
    want = weight @ (ends[0].x - ends[1].x) / (2 * step)
    assert np.sum(gradients[name] * direction) == pytest.approx(want, rel=1e-6, abs=1e-8)
    gradients, _ = solve_qp(**blocks).vjp(objective=np.array(1.0))
    want = (ends[0].result.objective - ends[1].result.objective) / (2 * step)
    assert np.sum(gradients[name] * direction) == pytest.approx(want, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("given", [(), ("A", "b"), ("G", "h"), ("lb",), ("ub",), ("G", "h", "ub")], ids=str)
def test_any_block_may_be_missing(given, rng):
    blocks = blocks_of(rng, (3,))
    solution = solve_qp(blocks["P"], blocks["q"], **{name: blocks[name] for name in given})
    duals = {"y": EQUALITIES if "A" in given else 0, "z": INEQUALITIES if "G" in given else 0}
    assert solution.y.shape == (3, duals["y"])
    assert solution.z.shape == (3, duals["z"])
    assert solution.z_box.shape == (3, N)
    stationary = np.einsum("...ij,...j->...i", blocks["P"], solution.x) + blocks["q"] + solution.z_box
    for matrix, dual in (("A", solution.y), ("G", solution.z)):
        if matrix in given:
            stationary = stationary + np.einsum("...ji,...j->...i", blocks[matrix], dual)
    np.testing.assert_allclose(stationary, 0, atol=1e-8)


def test_a_linear_program_has_no_P():
    solution = solve_qp(None, np.array([1.0, -2.0]), lb=0.0, ub=np.array([3.0, 4.0]))
    np.testing.assert_allclose(solution.x, [0, 4], atol=1e-8)
    np.testing.assert_allclose(solution.z_box, [-1, 2], atol=1e-8)
    np.testing.assert_allclose(solution.vjp(np.ones(2))[0]["ub"], [0, 1], atol=1e-8)


def test_one_number_bounds_all_entries(rng):
    blocks = blocks_of(rng, (3,))
    numbers = {**blocks, "lb": -0.8, "ub": 0.7}
    weight = rng.normal(size=(3, N))
    both = [solve_qp(**blocks), solve_qp(**numbers)]
    assert_close([both[1].x], [both[0].x], SAME, "x")
    gradients = [solution.vjp(weight)[0]["ub"] for solution in both]
    assert gradients[1].shape == ()
    assert gradients[1] == pytest.approx(gradients[0].sum(), abs=1e-10)


def test_infinite_bounds_bind_nobody(rng):
    blocks = blocks_of(rng)
    blocks["lb"][:3], blocks["h"][1] = -np.inf, np.inf
    free = {**blocks, "lb": np.where(np.isinf(blocks["lb"]), -100, blocks["lb"])}
    free["h"] = np.where(np.isinf(blocks["h"]), 100, blocks["h"])
    solution, other = solve_qp(**blocks), solve_qp(**free)
    np.testing.assert_allclose(solution.x, other.x, atol=1e-9)
    np.testing.assert_allclose(solution.z, other.z, atol=1e-8)
    gradients, _ = solution.vjp(np.ones(N))
    assert not gradients["lb"][:3].any()
    assert not gradients["h"][1]


def test_a_bound_that_is_infinite_in_some_items_fails_there(rng):
    blocks = blocks_of(rng, (2,))
    blocks["h"][1, 0] = np.inf
    result = solve_qp(**blocks, on_failure="nan").result
    assert result.status.tolist() == [Status.SOLVED, Status.INVALID_INPUT]


def sparse_of(block: np.ndarray, layout: str) -> Any:
    return sp.csr_array(block) if layout == "csr" else sp.coo_array(block) if layout == "coo" else sp.csc_array(block)


@pytest.mark.parametrize("layout", ["csr", "csc", "coo"])
def test_sparse_blocks_are_as_dense_ones(layout, rng):
    blocks = blocks_of(rng)
    mask = rng.uniform(size=(INEQUALITIES, N)) < 0.6
    blocks["P"], blocks["G"] = np.diag(np.diag(blocks["P"])) + np.eye(N, k=1) + np.eye(N, k=-1), blocks["G"] * mask
    patterns = {name: sparse_of(blocks[name], layout) for name in ("P", "G")}
    dense = solve_qp(**blocks)
    thin = solve_qp(**{**blocks, **patterns})
    assert_close([thin.x, thin.z], [dense.x, dense.z], 1e-10, "output")
    weight = rng.normal(size=N)
    want, got = dense.vjp(weight)[0], thin.vjp(weight)[0]
    for name, pattern in patterns.items():
        rows, cols = pattern.tocoo().coords
        np.testing.assert_allclose(got[name], want[name][rows, cols], atol=1e-9)
    factors = np.array([1.0, 2.0])[:, None]
    pairs = {name: (pattern, factors * pattern.data) for name, pattern in patterns.items()}
    batch = solve_qp(**{**blocks, **pairs})
    twice = solve_qp(**{**blocks, "P": 2 * blocks["P"], "G": 2 * blocks["G"]})
    assert_close([batch.x], [np.stack([dense.x, twice.x])], 1e-9, "batch")


@pytest.mark.parametrize("rank", [8, 3])
@pytest.mark.parametrize("largest", [128, 0])
def test_an_indefinite_sparse_P_is_refused(rank, largest, rng, monkeypatch):
    """Every other item has an eigenvalue further below zero than rounding is allowed to move it."""
    monkeypatch.setattr("cvxlayers.standard.sparse_cost._DENSE", largest)
    factor = rng.normal(size=(12, 8, rank)) * (rng.random((8, rank)) < 0.5)
    P = factor @ factor.mT + np.diag(np.arange(8.0) if rank == 8 else np.zeros(8))
    size, lowest = np.abs(P).max(axis=(1, 2)), np.linalg.eigvalsh(P)[:, 0]
    P -= (lowest + np.where(np.arange(12) % 2, 2e-5, 0.5e-5) * size)[:, None, None] * np.eye(8)
    pattern, q = sp.csr_array((np.abs(P).sum(axis=0) > 0).astype(float)), np.ones(8)
    rows, cols = pattern.tocoo().coords
    wanted = r"a sparse P must be positive semidefinite, but 6 of 12 items \(\[1, 3, 5, 7, 9, 11\]\) are indefinite"
    with pytest.raises(DomainError, match=wanted):
        solve_qp((pattern, P[:, rows, cols]), q, lb=-1.0, ub=1.0)
    solve_qp((pattern, P[::2, rows, cols]), q, lb=-1.0, ub=1.0, on_failure="nan")
    P[2] = np.nan
    found = solve_qp((pattern, P[::2, rows, cols]), q, lb=-1.0, ub=1.0, on_failure="nan").result.status
    assert np.flatnonzero(found == Status.INVALID_INPUT).tolist() == [1]
    for edge in (np.diag([1.0, -2e-5]), np.array([[-1e-5, 1.0], [1.0, -1e-5]])):
        with pytest.raises(DomainError, match="its value is indefinite"):
            solve_qp(sp.csr_array(edge), np.ones(2), lb=-1.0, ub=1.0)
    solve_qp((pattern, P[1, rows, cols]), q, lb=-1.0, ub=1.0, on_failure="nan", check=False)


def test_the_circles_of_a_dominant_sparse_P_tell_that_it_is_definite(monkeypatch):
    monkeypatch.setattr("cvxlayers.standard.sparse_cost._DENSE", 0)
    monkeypatch.setattr("cvxlayers.standard.sparse_cost.splu", None)
    P = sp.diags_array([-np.ones(4), 2 * np.ones(5), -np.ones(4)], offsets=[-1, 0, 1])
    np.testing.assert_allclose(solve_qp(P, -np.ones(5)).x, np.linalg.solve(P.toarray(), np.ones(5)))


def test_what_does_not_fit_is_refused(rng):
    blocks = blocks_of(rng, (2,))
    P, q = blocks["P"], blocks["q"]
    with pytest.raises(ShapeError, match="G and h belong together"):
        solve_qp(P, q, G=blocks["G"])
    with pytest.raises(ShapeError, match=r"A has shape \(2, 5\) where the other blocks want \(2, 6\)"):
        solve_qp(P, q, A=blocks["A"][..., 1:], b=blocks["b"])
    with pytest.raises(ShapeError, match=r"P has shape"):
        solve_qp(P[..., 1:, 1:], q)
    with pytest.raises(ShapeError, match=r"q must be given"):
        solve_qp(P, 1.0)
    with pytest.raises(ShapeError, match=r"broadcast"):
        solve_qp(P, q[[0, 1, 0]])
    with pytest.raises(DtypeError, match="q needs real numbers"):
        solve_qp(P, q * 1j)
    with pytest.raises(DomainError, match=r"'P'.*1 of 2 items \(\[1\]\) are indefinite"):
        solve_qp(np.stack([P[0], -P[1]]), q)
    with pytest.raises(DomainError, match="not symmetric"):
        solve_qp(P + np.triu(P), q)
    with pytest.raises(DomainError, match=r"both triangles.*P \+ triu\(P, 1\)\.T"):
        solve_qp(sp.triu(sp.csc_array(P[0])), q)
    with pytest.raises(ShapeError, match="h cannot be sparse"):
        solve_qp(P, q, G=blocks["G"], h=sp.csr_array(np.ones((1, 4))))
    with pytest.raises(OptionError, match="unknown solver"):
        solve_qp(P, q, solver="nobody")
    with pytest.raises(OptionError, match="on_failure"):
        solve_qp(P, q, on_failure="ignore")
    with pytest.raises(ShapeError, match="a cotangent has shape"):
        solve_qp(P, q).vjp(np.ones(N))
    with pytest.raises(TypeError):
        solve_qp(P, q, blocks["A"], blocks["b"])  # pyright: ignore[reportCallIssue]


def test_keywords_are_those_of_a_layer(rng):
    blocks = blocks_of(rng, (3,))
    blocks["b"][1] = 100.0
    with pytest.raises(SolverError, match=r"item 1: infeasible"):
        solve_qp(**blocks)
    solution = solve_qp(**blocks, on_failure="nan", solver="PIQP", solver_args={"eps": 1e-9}, threads=1)
    assert np.isnan(solution.x).all(axis=1).tolist() == [False, True, False]
    assert solution.result.ok.tolist() == [True, False, True]
    fine = blocks_of(rng, (3,))
    warm = solve_qp(**fine, warm_start=solve_qp(**fine))
    assert set(warm.result.info.solver) == {""}


def test_single_precision_stays(rng):
    single = {name: value.astype(np.float32) for name, value in blocks_of(rng).items()}
    assert solve_qp(**single).x.dtype == np.float32


CONES = {"zero": 1, "nonnegative": 2, "second_order": [3], "exponential": 1, "power": [0.3]}


def conic_data(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A program with a point strictly inside all cones."""
    inside = np.array([0, 1, 1, 2, 0.5, 0.5, 0.1, 1, 2.5, 1, 1, 0.2])
    A = rng.normal(size=(len(inside), 5))
    return {"P": np.eye(5), "q": 5 * rng.normal(size=5), "A": A, "b": A @ rng.normal(size=5) + inside}


def test_cone_programs_are_those_of_cvxpy(rng):
    data = conic_data(rng)
    solution = solve_conic(**data, cones=CONES)
    x = cp.Variable(5)
    s = data["b"] - data["A"] @ x
    rows = [s[:1] == 0, s[1:3] >= 0, cp.SOC(s[3], s[4:6]), cp.ExpCone(s[6], s[7], s[8])]
    rows.append(cp.PowCone3D(s[9], s[10], s[11], 0.3))
    cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x) + data["q"] @ x), rows).solve(solver=cp.CLARABEL)
    np.testing.assert_allclose(solution.x, x.value, atol=1e-4)
    np.testing.assert_allclose(data["A"].T @ solution.y + solution.x + data["q"], 0, atol=1e-8)


@pytest.mark.parametrize("name", ["P", "q", "A", "b"])
def test_gradients_of_cone_programs_match_differences(name, rng):
    data = conic_data(rng)
    weight, direction, step = rng.normal(size=5), rng.normal(size=data[name].shape), 1e-5
    direction = direction + direction.T if name == "P" else direction
    ends = [solve_conic(**{**data, name: data[name] + sign * step * direction}, cones=CONES).x for sign in (1, -1)]
    gradients, _ = solve_conic(**data, cones=CONES).vjp(weight)
    want = weight @ (ends[0] - ends[1]) / (2 * step)
    assert np.sum(gradients[name] * direction) == pytest.approx(want, rel=1e-5, abs=1e-7)


def test_semidefinite_rows_are_the_scaled_upper_triangle(rng):
    C = rng.normal(size=(3, 3))
    C = C + C.T
    rows, cols = np.triu_indices(3)
    order = np.lexsort((rows, cols))
    scale = np.where(rows == cols, 1, np.sqrt(2))[order]
    packed = (C[rows, cols])[order] * scale
    # The nearest semidefinite matrix: minimise ½|x − c|² with x in the cone.
    solution = solve_conic(sp.eye_array(6), -packed, -sp.eye_array(6), np.zeros(6), {"semidefinite": [3]})
    values, vectors = np.linalg.eigh(C)
    nearest = (vectors * np.maximum(values, 0)) @ vectors.T
    np.testing.assert_allclose(solution.x, nearest[rows, cols][order] * scale, atol=1e-7)


def test_cones_that_do_not_fit_are_refused(rng):
    data = conic_data(rng)
    with pytest.raises(OptionError, match=r"unknown cone 'second-order' \(did you mean 'second_order'\?\)"):
        solve_conic(**data, cones={"second-order": [12]})
    with pytest.raises(ShapeError, match="the cones have 4 rows together, A has 12"):
        solve_conic(**data, cones={"nonnegative": 4})
    with pytest.raises(ShapeError, match="b must be given"):
        solve_conic(data["P"], data["q"], data["A"], None, {"nonnegative": 12})  # pyright: ignore[reportArgumentType]


def test_tensors_have_the_same_values_and_gradients(rng):
    torch = pytest.importorskip("torch")
    door = pytest.importorskip("cvxlayers.torch")
    blocks = blocks_of(rng, (3,))
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in blocks.items()}
    weight = rng.normal(size=(3, N))
    solution = door.solve_qp(**tensors)
    (solution.x * torch.tensor(weight)).sum().backward()
    want = solve_qp(**blocks)
    assert_close([solution.x.detach().numpy()], [want.x], SAME, "x")
    gradients = [tensor.grad.numpy() for tensor in tensors.values()]
    assert_close(gradients, list(want.vjp(weight)[0].values()), SAME, "gradient")
    assert solution.result.objective.requires_grad
    with pytest.raises(DerivativeError, match="for numpy arrays"):
        solution.vjp(weight)


def test_sparse_values_and_plain_numbers_as_tensors(rng):
    torch = pytest.importorskip("torch")
    door = pytest.importorskip("cvxlayers.torch")
    pattern = sp.csr_array(np.eye(3) + np.eye(3, k=1) + np.eye(3, k=-1) + np.eye(3))
    values = torch.tensor(pattern.data, requires_grad=True)
    q = torch.tensor([-1.0, -9.0, 2.0], dtype=torch.float64, requires_grad=True)
    shift = torch.eye(3, dtype=torch.float64)

    def solve(values, q):
        return door.solve_qp((pattern, values), q, G=shift, h=torch.ones(3).double(), lb=-2.0, check=False).x

    assert torch.autograd.gradcheck(solve, (values, q), eps=1e-5)
    assert door.solve_qp(pattern, q.float(), ub=1).x.dtype == torch.float32
    cones = door.solve_conic(pattern, q, shift, torch.ones(3).double(), {"nonnegative": 3})
    np.testing.assert_allclose(cones.x.detach(), solve_qp(pattern, q.detach().numpy(), ub=1).x, atol=1e-9)
    with pytest.raises(DtypeError, match="sparse tensors are not taken"):
        door.solve_qp(shift.to_sparse(), q)
    with pytest.raises(DtypeError, match=r"q needs a torch\.Tensor, got list"):
        door.solve_qp(shift, [1.0, 2.0, 3.0])


# The problems of qpth's own tests (locuslab/qpth, test.py): equalities, inequalities, and the scale of Q, G and A.
QPTH = {"q": (2, 3, 100.0), "G": (0, 3, 1.0), "h": (0, 3, 1.0), "A": (3, 1, 100.0), "b": (3, 1, 100.0)}


@pytest.mark.parametrize("name", list(QPTH))
def test_the_problems_of_qpth(name):
    equalities, inequalities, scale = QPTH[name]
    state = np.random.RandomState(1)
    factor, G, point = state.randn(10, 10), scale * state.randn(inequalities, 10), state.randn(10)
    slack, A = state.rand(inequalities), scale * state.randn(equalities, 10)
    q, target = state.randn(10), state.randn(10)
    blocks = {"P": scale * factor @ factor.T, "q": q, "A": A, "b": A @ point, "G": G, "h": G @ point + slack}
    if not equalities:
        del blocks["A"], blocks["b"]

    def loss(**changed: np.ndarray) -> float:
        x = solve_qp(**{**blocks, **changed}).x
        return 0.5 * np.sum((x - target) ** 2)

    solution = solve_qp(**blocks)
    gradients, _ = solution.vjp(x=solution.x - target)
    want = central_differences(loss, name, blocks[name])
    # qpth asks of itself 1e-4, and 1e-2 beside zero.
    np.testing.assert_allclose(gradients[name], want, rtol=1e-6, atol=1e-8 * np.abs(want).max())


def central_differences(loss: Any, name: str, at: np.ndarray) -> np.ndarray:
    """Differences of fourth order, entry by entry."""
    step, slopes = 1e-4 * max(1.0, np.abs(at).max()), np.zeros(at.size)
    for entry in range(at.size):
        unit = np.zeros(at.size)
        unit[entry] = step
        ahead = [loss(**{name: at + k * unit.reshape(at.shape)}) for k in (1, 2, -1, -2)]
        slopes[entry] = (8 * (ahead[0] - ahead[2]) - (ahead[1] - ahead[3])) / (12 * step)
    return slopes.reshape(at.shape)


def test_jax_has_the_same_values_and_gradients(rng):
    jax = pytest.importorskip("jax")
    from cvxlayers.jax import solve_qp as jax_solve_qp

    blocks = blocks_of(rng, (3,))
    weights = rng.normal(size=(3, N))
    solution = solve_qp(**blocks)
    want, _ = solution.vjp(x=weights)
    with jax.enable_x64(True):
        arrays = {name: jax.numpy.asarray(value) for name, value in blocks.items()}
        plain = jax_solve_qp(**arrays)
        assert_close([np.asarray(plain.x), np.asarray(plain.z_box)], [solution.x, solution.z_box], SAME, "plain")
        np.testing.assert_array_equal(np.asarray(plain.result.status), Status.SOLVED)

        @jax.jit
        @jax.grad
        def gradient(arrays):
            return (jax_solve_qp(**arrays).x * weights).sum()

        found = gradient(arrays)
        assert_close([np.asarray(found[name]) for name in blocks], [want[name] for name in blocks], SAME, "gradient")
        # A bound that is not known to bind nobody is data like all others.
        with pytest.raises(Exception, match=r"invalid|not finite"):
            gradient({**arrays, "ub": arrays["ub"].at[0].set(np.inf)})


def test_tensorflow_has_the_same_values_and_gradients(rng):
    tf = pytest.importorskip("tensorflow")
    from cvxlayers.tensorflow import solve_qp as tensorflow_solve_qp

    blocks = blocks_of(rng, (3,))
    weights = rng.normal(size=(3, N))
    solution = solve_qp(**blocks)
    want, _ = solution.vjp(x=weights)

    def gradient(tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            x = tensorflow_solve_qp(**tensors).x
            loss = tf.reduce_sum(x * weights)
        return x, tape.gradient(loss, tensors)

    tensors = {name: tf.constant(value) for name, value in blocks.items()}
    for run in (gradient, tf.function(gradient)):
        x, found = run(tensors)
        assert_close([x.numpy()], [solution.x], SAME, "value")
        assert_close([found[name].numpy() for name in blocks], [want[name] for name in blocks], SAME, "gradient")


@pytest.mark.parametrize("door", ["jax", "tensorflow"])
def test_cone_programs_go_through_every_door(door, rng):
    pytest.importorskip(door)
    from importlib import import_module

    solve = import_module(f"cvxlayers.{door}").solve_conic
    q, A, b = np.array([1.0, 0.5]), -np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([1.0, 0.0, 0.0])
    x = np.asarray(solve(None, q.astype(np.float32), A, b, {"second_order": (3,)}).x)
    np.testing.assert_allclose(x, -q / np.linalg.norm(q), rtol=0, atol=1e-5)
    with pytest.raises(DtypeError, match="real numbers"):
        solve(None, q * 1j, A, b, {"second_order": (3,)})
