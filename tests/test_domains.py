"""Values that the attributes of a parameter do not allow are refused, by name and by item."""

from __future__ import annotations

from typing import Any

import cvxpy
import numpy as np
import pytest

from cvxlayers import CvxpyLayer, load
from cvxlayers.cli.sample import sample
from cvxlayers.errors import DomainError, InputError
from tests.problems import CASES, Case

cp: Any = cvxpy

# Attributes, an allowed value, and one that is not with what is said of it.
VALUES: dict[str, tuple[dict[str, object], object, object, str]] = {
    "nonneg": ({"nonneg": True}, [[1, 0], [0, 2]], [[1, 0], [-0.5, 2]], "nonneg=True.*by up to 0.5"),
    "pos": ({"pos": True}, np.ones((2, 2)), [[1, 1], [1, -1e-3]], "pos=True"),
    "nonpos": ({"nonpos": True}, np.zeros((2, 2)), [[-1, 0], [0, 0.25]], "nonpos=True.*by up to 0.25"),
    "neg": ({"neg": True}, -np.ones((2, 2)), np.ones((2, 2)), "neg=True.*by up to 1"),
    "bounds": ({"bounds": [-1, [[0, 1], [2, np.inf]]]}, [[0, 1], [2, 9]], [[0, 1], [3, 9]], "bounds=.*by up to 1"),
    "symmetric": ({"symmetric": True}, [[1, 2], [2, -1]], [[1, 2], [2.1, -1]], "symmetric=True.*not symmetric.*0.1"),
    "PSD": ({"PSD": True}, [[1, 1], [1, 1]], [[1, 2], [2, 1]], "PSD=True.*indefinite.*negative eigenvalues.*up to 1"),
    "PSD_symmetric": ({"PSD": True}, np.zeros((2, 2)), [[1, 1], [0, 1]], "PSD=True.*not symmetric"),
    "NSD": ({"NSD": True}, [[-1, 1], [1, -1]], [[-1, 2], [2, -1]], "NSD=True.*indefinite.*positive eigenvalues"),
    "diag": ({"diag": True}, np.diag([1, -2]), [[1, 0.5], [0, 1]], "diag=True.*must be zero, up to 0.5"),
    "integer": (
        {"integer": True},
        [[1, -2], [0, 3]],
        [[1, -2], [0.25, 3]],
        "integer=True.*off whole numbers.*by up to 0.25",
    ),
    "integer_some": ({"integer": ([0, 1], [1, 0])}, [[0.5, 2], [3, 0.5]], [[0.5, 2], [3.5, 0.5]], "integer=.*to 0.5"),
    "boolean": ({"boolean": True}, [[1, 0], [0, 1]], [[1, 0], [2, 0.25]], "boolean=True.*off 0 and 1 by up to 1"),
    "boolean_some": ({"boolean": ([0], [1])}, [[7, 1], [0.5, 7]], [[7, -0.1], [0.5, 7]], "boolean=.*by up to 0.1"),
    "sparsity": ({"sparsity": ([0, 1], [1, 1])}, [[0, 1], [0, 2]], [[3, 1], [0, 2]], "sparsity=.*up to 3"),
}
NAMES = pytest.mark.parametrize("name", list(VALUES))
pytestmark = pytest.mark.filterwarnings("ignore:.*sparse CVXPY expression")


def layer_of(attributes: dict[str, object], **keywords: Any) -> CvxpyLayer:
    parameter, x = cp.Parameter((2, 2), name="B", **attributes), cp.Variable((2, 2))
    return CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - parameter))), [parameter], [x], **keywords)


@NAMES
def test_what_is_allowed_passes(name):
    attributes, allowed, _, _ = VALUES[name]
    value = np.asarray(allowed, dtype=float)
    np.testing.assert_allclose(layer_of(attributes)(value)[0], value, atol=1e-9)


@NAMES
def test_what_is_not_is_refused_by_item(name):
    attributes, allowed, refused, words = VALUES[name]
    batch = np.stack([np.asarray(value, dtype=float) for value in (allowed, refused, allowed, refused)])
    layer = layer_of(attributes)
    with pytest.raises(DomainError, match=rf"'B' \(#0\) is declared {words}.*check=False") as raised:
        layer(batch)
    assert isinstance(raised.value, InputError)
    assert r"2 of 4 items ([1, 3])" in str(raised.value)
    with pytest.raises(DomainError, match="but its value is"):
        layer(batch[1])


@NAMES
def test_the_check_can_be_turned_off(name):
    attributes, _, refused, _ = VALUES[name]
    (value,) = layer_of(attributes, check=False)(np.asarray(refused, dtype=float))
    assert np.isfinite(value).all()


@NAMES
def test_rounding_of_single_precision_passes(name, rng):
    attributes, allowed, _, _ = VALUES[name]
    value = np.asarray(allowed, dtype=float)
    layer_of(attributes)(value + 1e-7 * np.abs(value).max() * rng.uniform(-1, 1, size=(5, 2, 2)))


def test_items_keep_their_numbers_in_large_batches():
    values = np.tile(np.eye(20), (300, 1, 1))
    values[[3, 150, 299], 0, 0] = -1.0
    P, x = cp.Parameter((20, 20), PSD=True), cp.Variable(20)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.quad_form(x, P) + cp.sum_squares(x - 1))), [P], [x])
    with pytest.raises(DomainError, match=r"3 of 300 items \(\[3, 150, 299\]\)"):
        layer(values)


def test_single_precision_products_are_definite_enough(rng):
    factor = rng.normal(size=(20, 30, 3)).astype(np.float32)
    P, x = cp.Parameter((30, 30), PSD=True), cp.Variable(30)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.quad_form(x, P) + cp.sum_squares(x - 1))), [P], [x])
    layer(factor @ factor.swapaxes(1, 2))


@pytest.mark.parametrize("case", CASES.values(), ids=str)
def test_the_values_of_the_catalogue_are_allowed(case: Case, rng):
    problem, parameters, variables = case.build()
    layer = CvxpyLayer(problem, parameters, variables, gp=case.gp).layer
    layer.compiled.parameters.check(case.sample(rng, (3,)))


def test_values_that_are_not_finite_are_left_to_the_solve():
    layer = layer_of({"PSD": True}, on_failure="nan")
    values = np.stack([np.eye(2), np.full((2, 2), np.nan), np.diag([np.inf, 1.0])])
    (x,) = layer(values)
    assert np.isfinite(x).all(axis=(1, 2)).tolist() == [True, False, False]


def test_an_empty_batch_passes():
    layer_of({"PSD": True}).layer.compiled.parameters.check([np.zeros((0, 2, 2))])


@pytest.mark.parametrize("on_failure", ["raise", "nan", "mask"])
@pytest.mark.parametrize("solver", ["DAQP", "PIQP", "CLARABEL"])
def test_an_indefinite_P_is_named_whoever_finds_it(solver, on_failure):
    P, x = cp.Parameter((2, 2), PSD=True), cp.Variable(2)
    problem = cp.Problem(cp.Minimize(cp.quad_form(x, P) - cp.sum(x)), [x <= 1, x >= -1])
    layer = CvxpyLayer(problem, [P], [x], solver=solver, on_failure=on_failure)
    values = np.stack([np.eye(2), np.diag([1.0, -1.0]), np.array([[1.0, 2.0], [2.0, 1.0]])])
    with pytest.raises(DomainError, match=r"2 of 3 items \(\[1, 2\]\) are indefinite"):
        layer(values)
    # What DAQP cannot factorise is allowed all the same.
    (found,) = layer(np.diag([1.0, 0.0]))
    np.testing.assert_allclose(found, [0.5, 1.0], rtol=0, atol=1e-9)


def test_the_parameters_that_a_definite_P_shows_to_be_definite():
    n = 3
    x, y = cp.Variable(n), cp.Variable(n)
    Q, R, c = cp.Parameter((n, n), PSD=True), cp.Parameter((n, n), PSD=True), cp.Parameter(n)

    def shown(objective: cp.Expression, parameters: list[cp.Parameter]) -> set[str]:
        problem = cp.Problem(cp.Minimize(objective + c @ x), [x <= y, y <= 1])
        compiled = CvxpyLayer(problem, [*parameters, c], [x]).layer.compiled
        return {"QR"[index] for index in compiled.blocks_of_P}

    square = cp.sum_squares(y)
    assert shown(cp.quad_form(x, Q) + square, [Q]) == {"Q"}
    assert shown(3 * cp.quad_form(y, Q) + cp.sum_squares(x), [Q]) == {"Q"}
    assert shown(cp.quad_form(x, Q) + cp.quad_form(y, R), [Q, R]) == {"Q", "R"}
    # P may be definite where these are not.
    assert shown(cp.quad_form(x, Q) + cp.sum_squares(x) + square, [Q]) == set()
    assert shown(cp.quad_form(x, Q) + cp.quad_form(x, R) + square, [Q, R]) == set()
    assert shown(cp.quad_form(x, Q) + cp.quad_form(y, Q), [Q]) == set()
    assert shown(cp.quad_form(x, Q + np.eye(n)) + square, [Q]) == set()


def test_large_whole_numbers_are_told_from_halves():
    layer = layer_of({"integer": True})
    values = np.array([[1e7, 3.0], [1e6 + 0.5, 2.0]])
    with pytest.raises(DomainError, match=r"off whole numbers by up to 0.5"):
        layer(values)
    layer(np.array([[1e7, 3.0], [1e6 + 0.005, 2.0]]))


def test_whole_numbers_among_large_entries_are_checked_by_themselves():
    with pytest.raises(DomainError, match=r"off whole numbers by up to 0.4"):
        layer_of({"integer": True})(np.array([[1e9, 0.0], [0.4, 1.0]]))


def test_complex_whole_numbers_are_checked(tmp_path):
    z, c = cp.Variable(2, complex=True), cp.Parameter(2, complex=True, integer=True, name="c")
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(z - c))), [c], [z])
    layer.save(tmp_path / "layer")
    for made in (layer, load(tmp_path / "layer")):
        np.testing.assert_allclose(made(np.array([1 + 2j, 3]))[0], [1 + 2j, 3], atol=1e-9)
        with pytest.raises(DomainError, match=r"'c' .#0. is declared integer=True.*off whole numbers by up to 0.3"):
            made(np.array([1 + 2.3j, 3]))


@pytest.mark.parametrize("name", ["integer_some", "boolean", "boolean_some"])
def test_saved_layers_check_whole_numbers(name, tmp_path):
    attributes, allowed, refused, words = VALUES[name]
    layer_of(attributes).save(tmp_path / "layer")
    layer = load(tmp_path / "layer")
    layer(np.asarray(allowed, dtype=float))
    with pytest.raises(DomainError, match=words):
        layer(np.asarray(refused, dtype=float))


@pytest.mark.parametrize("attributes", [{"integer": True}, {"boolean": True}, {"integer": True, "bounds": [2, 2.5]}])
def test_samples_are_whole_where_they_must_be(attributes, rng):
    layer = layer_of(attributes)
    (value,) = sample(layer.layer.compiled.parameters, [None], rng)
    layer(value)
