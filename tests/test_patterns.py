"""Products with sparse matrices whose dense blocks are read where they lie, and the layouts of the KKT matrix."""

import numpy as np
import pytest

from cvxlayers.cones import Product
from cvxlayers.kkt.band import factorise_band, narrow_band
from cvxlayers.kkt.columns import columns_of
from cvxlayers.kkt.effort import stored
from cvxlayers.kkt.turn import turn_of
from cvxlayers.patterns.lines import find_lines
from cvxlayers.program import Structure
from tests.programs import pattern_of, values_of


def shape_of(name: str, rng: np.random.Generator) -> np.ndarray:
    """Returns a matrix of zeros and ones, by name."""
    full = np.ones((40, 7))
    sparse = rng.random((40, 30)) < 0.1
    tall = np.vstack([full, np.eye(7)])
    return {
        "full": full,
        "block above a diagonal": tall,
        "block below a diagonal": tall[::-1],
        "block beside sparse columns": np.hstack([sparse[:20], np.ones((20, 20)), sparse[20:]]),
        "block with little beside it": np.vstack([np.ones((40, 30)), np.zeros((1, 30)), np.eye(30)]),
        "block amid zeros": np.pad(np.ones((20, 20)), ((3, 2), (1, 4))),
        "columns of different heights": np.tril(np.ones((25, 25))),
        "diagonal": np.eye(30),
        "sparse": sparse.astype(float),
        "a row above two diagonals": np.vstack([np.ones((1, 60)), np.eye(60), -np.eye(60)]),
        "a diagonal beside a longer one": np.hstack([np.eye(61)[:, :60], np.eye(61)]),
        "a column beside a diagonal": np.hstack([np.eye(60), np.ones((60, 1)), 0 * np.eye(60)]),
        "diagonals that cross": np.fliplr(np.eye(61)) + np.eye(61),
        "rows that take turns": np.kron(np.eye(40), np.eye(3)[:, [0, 1]])[:, np.r_[0:80:2, 1:80:2]],
        "an empty row and column": np.pad(np.eye(5), ((1, 0), (0, 1))),
        "no rows": np.zeros((0, 4)),
        "no entries": np.zeros((3, 4)),
    }[name].astype(float)


SHAPES = [
    "full",
    "block above a diagonal",
    "block below a diagonal",
    "block beside sparse columns",
    "block with little beside it",
    "block amid zeros",
    "columns of different heights",
    "diagonal",
    "sparse",
    "a row above two diagonals",
    "a diagonal beside a longer one",
    "a column beside a diagonal",
    "diagonals that cross",
    "rows that take turns",
    "an empty row and column",
    "no rows",
    "no entries",
]


@pytest.mark.parametrize(("most", "speed"), [(2**20, 20.0), (0, 1e-9), (0, 1e9)])
@pytest.mark.parametrize("name", SHAPES)
def test_the_product_with_the_transpose_is_that_of_dense_matrices(name, most, speed, rng, monkeypatch):
    """Whether its entries are added up one by one, or are too many for that; of all rows, or, to the bit, of some."""
    monkeypatch.setattr("cvxlayers.patterns.gram._MOST", most)
    monkeypatch.setattr("cvxlayers.patterns.pattern._SPEED", speed)
    shape = shape_of(name, rng)
    pattern, weights, kept = pattern_of(shape), rng.uniform(1.0, 2.0, size=shape.shape[1]), rng.random(len(shape)) < 0.5
    values = rng.normal(size=(1, pattern.nnz))
    dense = pattern.dense(values)[0]
    whole, some = pattern.gram(values[0], weights), pattern.gram(values[0], weights, kept)
    np.testing.assert_allclose(whole, (dense * weights) @ dense.T, atol=1e-13)
    np.testing.assert_array_equal(some, whole[np.ix_(kept, kept)])
    np.testing.assert_array_equal(whole, whole.T)
    assert pattern.gram(values[0], weights, np.zeros(len(shape), dtype=bool)).shape == (0, 0)


@pytest.mark.parametrize("at_once", [1, 1000, 2**15])
@pytest.mark.parametrize("name", SHAPES)
def test_no_bit_of_a_product_depends_on_the_other_items(name, at_once, rng, monkeypatch):
    """Nor on how many are multiplied at once, or on whether they share a matrix."""
    monkeypatch.setattr("cvxlayers.patterns.products._AT_ONCE", at_once)
    monkeypatch.setattr("cvxlayers.patterns.pattern._WORTHWHILE", 300)
    shape = shape_of(name, rng)
    pattern, batch = pattern_of(shape), 7
    values = rng.normal(size=(batch, pattern.nnz))
    values[3] = values[5]
    for product, size in ((pattern.matvec, shape.shape[1]), (pattern.rmatvec, shape.shape[0])):
        v = rng.normal(size=(batch, size))
        v[5] = v[3]
        found = product(values, v)
        np.testing.assert_array_equal(found[3], found[5])
        for item in range(batch):
            np.testing.assert_array_equal(product(values[[item]], v[[item]])[0], found[item])
        np.testing.assert_array_equal(product(values[[3]], v)[[3, 5]], found[[3, 5]])
        np.testing.assert_array_equal(product(values, v[[3]])[[3, 5]], found[[3, 5]])
        assert product(values[:0], v[:0]).shape == (0, found.shape[1])


@pytest.mark.parametrize("name", ["sparse", "an empty row and column", "columns of different heights"])
def test_arrays_of_another_width_are_refused(name, rng):
    """The compiled loop would read beyond their end."""
    pattern = pattern_of(shape_of(name, rng))
    for product, size in ((pattern.matvec, pattern.shape[1]), (pattern.rmatvec, pattern.shape[0])):
        for nnz, width in ((pattern.nnz, size - 1), (pattern.nnz, size + 1), (pattern.nnz - 1, size)):
            with pytest.raises(ValueError, match="cannot reshape"):
                product(np.ones((2, nnz)), np.ones((2, width)))


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("diagonal", 1),
        ("a row above two diagonals", 3),
        ("a diagonal beside a longer one", 2),
        ("a column beside a diagonal", 2),
        ("rows that take turns", 2),
        ("diagonals that cross", None),
        ("sparse", None),
        ("an empty row and column", None),
    ],
)
def test_entries_on_few_lines_are_multiplied_line_by_line(name, lines, rng):
    pattern = pattern_of(shape_of(name, rng))
    found = find_lines(pattern.shape, pattern.indices, pattern.indptr)
    assert (None if found is None else len(found.forward.steps)) == lines


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", SHAPES)
def test_products_are_those_of_the_dense_matrix(name, batch, rng):
    shape = shape_of(name, rng)
    pattern = pattern_of(shape)
    M = rng.normal(size=(batch, *shape.shape)) * shape
    values = values_of(pattern, M)
    x, y = rng.normal(size=(3, shape.shape[1])), rng.normal(size=(3, shape.shape[0]))
    np.testing.assert_array_equal(pattern.dense(values), M)
    np.testing.assert_allclose(pattern.matvec(values, x), (M @ x[..., None])[..., 0], atol=1e-13)
    np.testing.assert_allclose(pattern.rmatvec(values, y), (np.swapaxes(M, 1, 2) @ y[..., None])[..., 0], atol=1e-13)
    outer = (y[:, :, None] * x[:, None, :])[:, pattern.rows, pattern.cols]
    np.testing.assert_array_equal(pattern.outer((y, x)), outer)
    np.testing.assert_allclose(pattern.outer((y, x), (2.0 * y, x), (y, -5.0 * x)), -2.0 * outer, atol=1e-13)


@pytest.mark.parametrize("name", ["block above a diagonal", "sparse", "an empty row and column", "no rows"])
def test_compressed_columns_hold_the_kkt_matrix(name, rng):
    shape = shape_of(name, rng)
    m, n = shape.shape
    diagonal = np.eye(n) * (rng.random(n) < 0.5)
    structure = Structure(pattern_of(diagonal), pattern_of(shape), Product(nonnegative=m))
    A, C = rng.normal(size=(2, m, n)) * shape, -rng.uniform(1, 2, size=(2, m))
    P = diagonal[None]
    expected = np.block([[P[0], A[0].T], [A[0], np.diag(C[0])]])
    values = values_of(structure.P, P), values_of(structure.A, A), C
    columns = columns_of(structure)
    entries = columns.assemble(*values)
    np.testing.assert_array_equal(columns.pattern.dense(entries)[0], expected)
    np.testing.assert_array_equal(columns.triangle.dense(entries[:, columns.upper])[0], np.triu(expected))


def test_a_band_is_solved_and_its_zero_pivots_are_seen(rng):
    n = 60
    P, A = np.eye(n), np.eye(n - 1, n) - np.eye(n - 1, n, k=1)
    structure = Structure(pattern_of(P), pattern_of(A), Product(zero=n - 1))
    band = narrow_band(structure)
    assert band is not None
    assert band.width <= 4
    K = np.block([[P, A.T], [A, np.zeros((n - 1, n - 1))]])
    zeros = np.zeros((1, n - 1))
    values = values_of(structure.P, P[None]), values_of(structure.A, A[None])
    (factors,) = factorise_band(band, band.assemble(*values, zeros))
    rhs = rng.normal(size=2 * n - 1)
    np.testing.assert_allclose(factors.solve(rhs), np.linalg.solve(K, rhs), atol=1e-11)
    (nothing,) = factorise_band(band, band.assemble(0 * values[0], 0 * values[1], zeros))
    assert nothing.singular


def test_a_turned_matrix_is_the_product(rng):
    cone = Product(zero=1, nonnegative=2, second_order=(3, 3), semidefinite=(2,))
    m, n = cone.dim, 5
    shape = (rng.random((m, n)) < 0.5).astype(float)
    structure = Structure(pattern_of(np.eye(n)), pattern_of(shape), cone)
    basis = cone.derivative(rng.normal(size=(2, m))).basis
    rows, cols, U = basis.triplets()
    A = rng.normal(size=(2, m, n)) * shape
    turn = turn_of(structure, rows, cols)
    dense = turn.pattern.dense(turn.apply(U, values_of(structure.A, A)))
    np.testing.assert_allclose(dense, basis.rotate(A), atol=1e-13)
    assert stored(structure) == structure.P.nnz + 2 * turn.pattern.nnz + m
