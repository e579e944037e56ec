"""What a user may get wrong, and the words that say so."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import cvxlayers
from cvxlayers import CvxpyLayer, SolverError
from cvxlayers.errors import (
    CvxlayersError,
    DeviceError,
    DPPError,
    DtypeError,
    InputError,
    OptionError,
    ProblemError,
    ShapeError,
    SignatureError,
)
from cvxlayers.result import WarmStart, start_of

torch = pytest.importorskip("torch")
door = pytest.importorskip("cvxlayers.torch")

x, y = cp.Variable(3, name="x"), cp.Variable(name="y")
q, M, stranger = cp.Parameter(3, name="q"), cp.Parameter((2, 3), name="M"), cp.Parameter(name="stranger")
PROBLEM = cp.Problem(cp.Minimize(cp.sum_squares(x) + q @ x), [M @ x <= 1])


@pytest.fixture(scope="module", params=["numpy", "torch"])
def build(request):
    """Both doors' constructors."""
    return CvxpyLayer if request.param == "numpy" else door.CvxpyLayer


@pytest.fixture(scope="module")
def call(build):
    """A layer of either door, called with numpy arrays of any dtype."""
    layer = build(PROBLEM, [q, M], [x])
    if build is CvxpyLayer:
        return layer
    return lambda *values, **keywords: layer(*(torch.as_tensor(value) for value in values), **keywords)


CALLS = {
    "count": (
        [np.ones(3)],
        ShapeError,
        ["A tensor must be provided for each CVXPY parameter", "received 1, expected 2"],
    ),
    "too many": ([np.ones(3), np.ones((2, 3)), np.ones(1)], ShapeError, ["received 3, expected 2 (q, M)"]),
    "order": ([np.ones((2, 3)), np.ones(3)], ShapeError, ["Invalid parameter dimensionality", "'M' (#1)"]),
    "axes": ([np.ones(3), np.ones(3)], ShapeError, ["Invalid parameter dimensionality", "'M'", "(3,)", "(2, 3)"]),
    "shape": ([np.ones(4), np.ones((2, 3))], ShapeError, ["Invalid parameter shape", "'q' (#0)", "(4,)", "(3,)"]),
    "transposed": ([np.ones(3), np.ones((3, 2))], ShapeError, ["Invalid parameter shape", "look transposed"]),
    "batch": (
        [np.ones((4, 3)), np.ones((5, 2, 3))],
        ShapeError,
        ["Inconsistent batch sizes", "'q': (4,)", "'M': (5,)"],
    ),
    "complex": ([np.ones(3) * 1j, np.ones((2, 3))], DtypeError, ["needs", "real", "complex128"]),
}


@pytest.mark.parametrize("name", CALLS)
def test_values_that_do_not_fit(call, name):
    values, error, words = CALLS[name]
    with pytest.raises(error) as raised:
        call(*values)
    assert isinstance(raised.value, ValueError)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(call, bad):
    values = np.ones((4, 3))
    values[[1, 3], 2] = bad
    with pytest.raises(
        SolverError, match=r"2 of 4 .* item 1: invalid input; item 3: .* infinite entries, from 'q'\."
    ) as e:
        call(values, np.ones((2, 3)))
    assert e.value.items == (1, 3)
    assert set(e.value.statuses) == {cvxlayers.Status.INVALID_INPUT}


def test_infeasible_items_are_named_with_the_way_out(build):
    b = cp.Parameter(name="b")
    layer = build(cp.Problem(cp.Minimize(cp.sum_squares(x)), [cp.sum(x) == b, x >= 0]), [b], [x])
    bounds = np.array([1.0, -1.0, 2.0])
    with pytest.raises(SolverError, match=r'1 of 3 .* item 1: infeasible .*relax .*on_failure="mask"'):
        layer(bounds if build is CvxpyLayer else torch.tensor(bounds))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool, torch.complex64], ids=str)
def test_tensors_that_cannot_be_differentiated(dtype):
    layer = door.CvxpyLayer(PROBLEM, [q, M], [x])
    with pytest.raises(DtypeError, match=f"parameter 'q' needs a real floating-point tensor, got {dtype}; convert it"):
        layer(torch.ones(3, dtype=dtype), torch.ones(2, 3))


def test_arrays_are_no_tensors():
    # The suite checks the types of arguments itself, before the layer could.
    with pytest.raises(DtypeError, match=r"parameter 'M' needs a torch\.Tensor, got ndarray; convert it by torch\.as_"):
        door._check_tensors(["q", "M"], [torch.ones(3), np.ones((2, 3))])


def test_sparse_tensors_are_named():
    with pytest.raises(DtypeError, match=r"parameter 'M' is a sparse tensor; convert it by \.to_dense\(\)"):
        door.CvxpyLayer(PROBLEM, [q, M], [x])(torch.ones(3), torch.ones(2, 3).to_sparse())


def test_nothing_is_no_array():
    jax_door = pytest.importorskip("cvxlayers.jax")
    with pytest.raises(DtypeError, match="parameter 'M' needs an array of real numbers"):
        jax_door.CvxpyLayer(PROBLEM, [q, M], [x])(np.ones(3), None)


def test_masks_of_arrays_are_not_ignored():
    layer, masked = CvxpyLayer(PROBLEM, [q, M], [x]), np.ma.masked_array(np.ones(3), [False, True, False])
    with pytest.raises(DtypeError, match=r"parameter 'q' is a masked array with masked entries"):
        layer(masked, np.ones((2, 3)))
    np.testing.assert_array_equal(
        layer(np.ma.masked_array(np.ones(3)), np.ones((2, 3))), layer(np.ones(3), np.ones((2, 3)))
    )


def test_devices_may_not_mix():
    layer = door.CvxpyLayer(PROBLEM, [q, M], [x])
    with pytest.raises(DeviceError, match=r"'q' is on cpu, parameter 'M' on meta; move it by \.to\('cpu'\)"):
        layer(torch.ones(3), torch.ones((2, 3), device="meta"))


def test_text_is_no_number():
    with pytest.raises(DtypeError, match="needs real numbers"):
        CvxpyLayer(PROBLEM, [q, M], [x])(["a", "b", "c"], np.ones((2, 3)))


SIGNATURES = {
    "missing": ([q], [x], "must exactly match problem.parameters"),
    "foreign": ([q, M, stranger], [x], "not in the problem: stranger"),
    "twice": ([q, M, M], [x], "listed twice: M"),
    "no list": (q, [x], "must be provided as a list or tuple"),
    "variable": ([q, M], [y], "must be a subset of problem.variables"),
    "no variables": ([q, M], [], "list at least one variable"),
    "one variable": ([q, M], x, "must be provided as a list or tuple"),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_lists_that_do_not_fit_the_problem(build, name):
    parameters, variables, words = SIGNATURES[name]
    with pytest.raises(SignatureError) as raised:
        build(PROBLEM, parameters, variables)
    assert words in str(raised.value)
    assert isinstance(raised.value, ValueError)


def test_a_problem_that_is_not_dpp_is_explained(build):
    product = cp.Problem(cp.Minimize(cp.sum_squares(x) + q @ cp.multiply(q, x)))
    with pytest.raises(DPPError) as raised:
        build(product, [q], [x])
    message = str(raised.value)
    for word in ("Problem must be DPP.", "q", "param"):
        assert word in message
    assert isinstance(raised.value, ValueError)


def test_a_problem_that_is_not_convex_or_has_no_variable(build):
    with pytest.raises(ProblemError, match="convex"):
        build(cp.Problem(cp.Maximize(cp.sum_squares(x) + q @ x)), [q], [x])
    with pytest.raises(ProblemError, match="no variables"):
        build(cp.Problem(cp.Minimize(q @ np.ones(3))), [q], [])


OPTIONS = {
    "solver": ({"solver": "CLARABELL"}, "did you mean 'CLARABEL'?"),
    "unfit solver": ({"solver": "DIRECT"}, "DIRECT does not fit"),
    "option": ({"solver_args": {"max_iter_s": 3}}, "did you mean 'max_iters'?"),
    "failure": ({"on_failure": "masked"}, "did you mean 'mask'?"),
    "threads": ({"threads": 0}, "positive whole number"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_are_unknown(build, name):
    keywords, words = OPTIONS[name]
    with pytest.raises(OptionError) as raised:
        build(PROBLEM, [q, M], [x], **keywords)
    assert words in str(raised.value)
    assert isinstance(raised.value, ValueError)


def test_options_of_a_call(call):
    with pytest.raises(OptionError, match="did you mean 'eps'"):
        call(np.ones(3), np.ones((2, 3)), solver_args={"epss": 1e-9})
    with pytest.raises(OptionError, match="on_failure must be one of"):
        call(np.ones(3), np.ones((2, 3)), on_failure="ignore")


def test_every_error_is_of_one_tree():
    for error in (DPPError, SignatureError, ShapeError, DtypeError, DeviceError, OptionError, SolverError):
        assert issubclass(error, CvxlayersError)
    for error in (ShapeError, DtypeError, DeviceError):
        assert issubclass(error, InputError)


def test_a_warm_start_that_is_no_result_is_named():
    with pytest.raises(OptionError, match="a LayerResult, got WarmStart"):
        start_of(WarmStart(np.zeros((1, 2)), np.zeros((1, 2))))
