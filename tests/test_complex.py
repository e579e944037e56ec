"""Complex parameters and variables: CVXPY's solutions, and gradients in the convention of each framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy
import numpy as np
import pytest

from cvxlayers import CvxpyLayer
from cvxlayers.errors import DomainError, DtypeError, ProblemError, ShapeError
from tests.checks import assert_close

cp: Any = cvxpy

Built = tuple[Any, list[Any], list[Any]]
CASES: dict[str, Callable[[], Built]] = {}


def case(build: Callable[[], Built]) -> Callable[[], Built]:
    CASES[build.__name__] = build
    return build


@case
def vector() -> Built:
    """Least squares with a complex matrix, and an equality whose dual is complex."""
    A, b, c = cp.Parameter((3, 4), complex=True), cp.Parameter(3, complex=True), cp.Parameter(4, complex=True)
    z = cp.Variable(4, complex=True)
    rows = [A @ z == b]
    return cp.Problem(cp.Minimize(cp.sum_squares(z - c)), rows), [A, b, c], [z, *rows]


@case
def mixed() -> Built:
    """Real and complex leaves in one problem, with parts and absolute values."""
    c, r, w = cp.Parameter(2, complex=True), cp.Parameter(2), cp.Parameter(nonneg=True)
    z, x = cp.Variable(2, complex=True), cp.Variable(2)
    objective = cp.sum_squares(cp.real(z) - x) + cp.sum_squares(z - c) + w * cp.sum(cp.abs(z)) + cp.sum_squares(x - r)
    return cp.Problem(cp.Minimize(objective), [cp.imag(z) <= 0.4, x >= -2]), [w, c, r], [x, z]


@case
def scalar() -> Built:
    """No axes: the projection on a disc."""
    c, radius = cp.Parameter(complex=True), cp.Parameter(pos=True)
    z = cp.Variable(complex=True)
    return cp.Problem(cp.Minimize(cp.abs(z - c) ** 2 + cp.abs(z)), [cp.abs(z) <= radius]), [c, radius], [z]


@case
def imaginary() -> Built:
    """Leaves without a real part."""
    c, z = cp.Parameter(3, imag=True), cp.Variable(3, imag=True)
    return cp.Problem(cp.Minimize(cp.sum_squares(cp.imag(z - c)) + cp.sum_squares(cp.diff(cp.imag(z))))), [c], [z]


@case
def hermitian() -> Built:
    """A Hermitian variable near a Hermitian parameter, with a given trace."""
    H, trace, X = cp.Parameter((3, 3), hermitian=True), cp.Parameter(), cp.Variable((3, 3), hermitian=True)
    B = np.array([[1, 1j, 0], [0, 2, 1], [1j, 0, 1]])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(B @ (X - H))), [cp.real(cp.trace(X)) == trace])
    return problem, [H, trace], [X]


@case
def hermitian_alone() -> Built:
    """A Hermitian variable by itself in a square."""
    H, X = cp.Parameter((2, 2), hermitian=True), cp.Variable((2, 2), hermitian=True)
    return cp.Problem(cp.Minimize(cp.sum_squares(X) + cp.real(cp.trace(H @ X)))), [H], [X]


@case
def semidefinite() -> Built:
    """The nearest density matrix."""
    H, X = cp.Parameter((3, 3), hermitian=True), cp.Variable((3, 3), hermitian=True)
    return cp.Problem(cp.Minimize(cp.sum_squares(X - H)), [X >> 0, cp.real(cp.trace(X)) == 1]), [H], [X]


@case
def batch_of_axes() -> Built:
    """A complex matrix variable, and a rectangle of parameters."""
    A, B = cp.Parameter((2, 3), complex=True), cp.Parameter((2, 2), complex=True)
    Z = cp.Variable((3, 2), complex=True)
    return cp.Problem(cp.Minimize(cp.sum_squares(Z) + cp.norm(A @ Z - B, "fro"))), [A, B], [Z]


NAMES = pytest.mark.parametrize("name", list(CASES))


def allowed(parameter: Any, draw: np.ndarray) -> np.ndarray:
    """The part of a complex array that the attributes of a parameter allow."""
    if not parameter.is_complex():
        return draw.real.copy()
    if parameter.attributes["imag"]:
        return 1j * draw.imag
    return 0.5 * (draw + draw.swapaxes(-1, -2).conj()) if parameter.attributes["hermitian"] else draw


def draw(parameters: list[Any], rng: np.random.Generator, batch: tuple[int, ...] = ()) -> list[np.ndarray]:
    shapes = [(*batch, *parameter.shape) for parameter in parameters]
    values = [
        allowed(p, rng.normal(size=shape) + 1j * rng.normal(size=shape))
        for p, shape in zip(parameters, shapes, strict=True)
    ]
    return [np.abs(v) + 0.3 if p.is_nonneg() else v for p, v in zip(parameters, values, strict=True)]


def inner(left: list[np.ndarray], right: list[np.ndarray]) -> float:
    return float(sum(np.sum((np.conj(a) * b).real) for a, b in zip(left, right, strict=True)))


@NAMES
def test_values_are_cvxpys(name, rng):
    problem, parameters, variables = CASES[name]()
    values = draw(parameters, rng)
    outputs = CvxpyLayer(problem, parameters, variables)(*values)
    for parameter, value in zip(parameters, values, strict=True):
        parameter.value = value
    problem.solve(solver=cp.CLARABEL)
    for output, leaf in zip(outputs, variables, strict=True):
        want = leaf.dual_value if hasattr(leaf, "dual_value") else leaf.value
        assert np.iscomplexobj(output) == leaf.is_complex()
        np.testing.assert_allclose(output, want, atol=2e-4)


@NAMES
def test_gradients_match_differences(name, rng):
    problem, parameters, variables = CASES[name]()
    layer = CvxpyLayer(problem, parameters, variables)
    values, step = draw(parameters, rng), 1e-5
    cotangents = [
        rng.normal(size=out.shape) + (1j * rng.normal(size=out.shape) if np.iscomplexobj(out) else 0)
        for out in layer(*values)
    ]
    gradients, _ = layer.vjp(values, cotangents)
    for slot, parameter in enumerate(parameters):
        shape = parameter.shape
        along = allowed(parameter, rng.normal(size=shape) + 1j * rng.normal(size=shape))
        ends = [layer(*(v + sign * step * along if i == slot else v for i, v in enumerate(values))) for sign in (1, -1)]
        want = (inner(cotangents, ends[0]) - inner(cotangents, ends[1])) / (2 * step)
        assert inner([gradients[slot]], [along]) == pytest.approx(want, rel=1e-5, abs=1e-7)
        assert np.iscomplexobj(gradients[slot]) == parameter.is_complex()
        np.testing.assert_allclose(gradients[slot], allowed(parameter, gradients[slot] + 0j), atol=1e-12)
        tangents = [along if i == slot else None for i in range(len(values))]
        pushed, _ = layer.jvp(values, tangents)
        assert inner(cotangents, list(pushed)) == pytest.approx(want, rel=1e-5, abs=1e-7)


@NAMES
def test_a_batch_is_its_items(name, rng):
    problem, parameters, variables = CASES[name]()
    layer = CvxpyLayer(problem, parameters, variables)
    values = draw(parameters, rng, (2, 3))
    outputs = layer(*values)
    for index in np.ndindex(2, 3):
        assert_close([out[index] for out in outputs], list(layer(*(value[index] for value in values))), 1e-9, "item")


def test_the_dual_of_a_complex_semidefinite_constraint_is_unique(rng):
    H, X = cp.Parameter((3, 3), hermitian=True), cp.Variable((3, 3), hermitian=True)
    rows = [X >> 0]
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(X - H)), rows), [H], rows)
    (value,) = draw([H], rng)
    weights, vectors = np.linalg.eigh(value)
    want = (vectors * np.maximum(-2 * weights, 0)) @ vectors.conj().T
    np.testing.assert_allclose(layer(value)[0], want, atol=1e-8)
    cotangent, along = (allowed(H, rng.normal(size=(3, 3)) + 1j * rng.normal(size=(3, 3))) for _ in range(2))
    (gradient,), _ = layer.vjp([value], [cotangent])
    ends = [layer(value + sign * 1e-4 * along)[0] for sign in (1, -1)]
    want = inner([cotangent], [ends[0] - ends[1]]) / 2e-4
    assert inner([gradient], [along]) == pytest.approx(want, rel=1e-5)


def test_the_projection_on_density_matrices_is_known(rng):
    _, parameters, _ = built = CASES["semidefinite"]()
    (H,) = draw(parameters, rng)
    (X,) = CvxpyLayer(*built)(H)
    weights, vectors = np.linalg.eigh(H)
    excess = np.sort(weights)[::-1]
    sums = (np.cumsum(excess) - 1) / np.arange(1, 4)
    shift = sums[np.flatnonzero(excess > sums)[-1]]
    np.testing.assert_allclose(X, (vectors * np.maximum(weights - shift, 0)) @ vectors.conj().T, atol=1e-7)


@NAMES
def test_tensors(name, rng):
    torch = pytest.importorskip("torch")
    door = pytest.importorskip("cvxlayers.torch")
    problem, parameters, variables = CASES[name]()
    layer, neutral = door.CvxpyLayer(problem, parameters, variables), CvxpyLayer(problem, parameters, variables)
    values = draw(parameters, rng, (2,))
    tensors = [torch.tensor(value, requires_grad=True) for value in values]
    outputs = layer(*tensors)
    assert_close([out.detach().numpy() for out in outputs], list(neutral(*values)), 1e-12, "value")
    cotangents = [rng.normal(size=out.shape) + (1j if out.is_complex() else 0) for out in outputs]
    torch.autograd.backward(
        outputs, [torch.tensor(cotangent).to(out.dtype) for cotangent, out in zip(cotangents, outputs, strict=True)]
    )
    want, _ = neutral.vjp(values, cotangents)
    assert_close([tensor.grad.numpy() for tensor in tensors], list(want), 1e-12, "gradient")
    result = layer.solve(*tensors)
    assert_close([v.detach().numpy() for v in result.variables], [v.detach().numpy() for v in outputs], 1e-12, "solve")


def test_gradcheck_in_torchs_convention(rng):
    torch = pytest.importorskip("torch")
    door = pytest.importorskip("cvxlayers.torch")
    for name in ("vector", "mixed", "scalar"):
        problem, parameters, variables = CASES[name]()
        layer = door.CvxpyLayer(problem, parameters, variables)
        tensors = [torch.tensor(value, requires_grad=True) for value in draw(parameters, rng)]
        assert torch.autograd.gradcheck(lambda *t, layer=layer: layer(*t), tensors, eps=1e-5, atol=1e-5)


def test_precision_and_real_tensors(rng):
    torch = pytest.importorskip("torch")
    door = pytest.importorskip("cvxlayers.torch")
    problem, parameters, variables = CASES["mixed"]()
    layer, neutral = door.CvxpyLayer(problem, parameters, variables), CvxpyLayer(problem, parameters, variables)
    w, c, r = draw(parameters, rng)
    single = [torch.tensor(w).float(), torch.tensor(c).to(torch.complex64), torch.tensor(r).float()]
    assert [out.dtype for out in layer(*single)] == [torch.float32, torch.complex64]
    assert [out.dtype for out in neutral(*(value.numpy() for value in single))] == [np.float32, np.complex64]
    conjugated = [single[0], torch.conj(single[1]), single[2]]
    assert_close([out.numpy() for out in layer(*conjugated)], list(neutral(w, c.conj(), r)), 1e-5, "conjugate")
    real = layer(torch.tensor(w), torch.tensor(c.real), torch.tensor(r))
    assert_close([out.numpy() for out in real], list(neutral(w, c.real, r)), 1e-12, "real")


def test_what_is_refused(rng):
    problem, parameters, variables = CASES["mixed"]()
    layer = CvxpyLayer(problem, parameters, variables)
    w, c, r = draw(parameters, rng)
    with pytest.raises(DtypeError, match="needs real numbers, got an array of complex128"):
        layer(w, c, r + 1j)
    with pytest.raises(ShapeError, match=r"got \(3,\), expected \(2,\) or \(\*batch, 2\)"):
        layer(w, np.ones(3) + 1j, r)
    with pytest.raises(ShapeError, match=r"cotangent #1 has shape \(3,\), expected \(2,\)"):
        layer.vjp((w, c, r), [None, np.ones(3)])
    hermitian, H, _ = CASES["hermitian"]()
    with pytest.raises(DomainError, match="hermitian=True, but its value is not Hermitian, off by up to 2"):
        CvxpyLayer(hermitian, H, hermitian.variables())(1j * np.eye(3), np.array(1.0))
    imaginary, (c,), _ = CASES["imaginary"]()
    with pytest.raises(DomainError, match="imag=True, but its value is with a real part, up to 1"):
        CvxpyLayer(imaginary, [c], imaginary.variables())(1j + np.ones(3))


def test_a_complex_tensor_for_a_real_parameter_is_refused():
    torch = pytest.importorskip("torch")
    door = pytest.importorskip("cvxlayers.torch")
    problem, parameters, variables = CASES["mixed"]()
    with pytest.raises(DtypeError, match=r"needs a real floating-point tensor, got torch\.complex128"):
        door.CvxpyLayer(problem, parameters, variables)(
            torch.tensor(1.0), torch.zeros(2), torch.zeros(2, dtype=torch.complex128)
        )


def test_what_cvxpy_cannot_write_in_real_numbers_is_refused():
    c, z = cp.Parameter(3, imag=True), cp.Variable(3, imag=True)
    with pytest.raises(ProblemError, match=r"with complex arguments in real numbers.*cp\.real and cp\.imag"):
        CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(z - c))), [c], [z])


def test_complex_parameters_can_be_frozen(rng):
    problem, (A, b, c), variables = CASES["vector"]()
    values = draw([A, b, c], rng)
    A.value = values[0]
    (got, _), (want, _) = (
        CvxpyLayer(problem, [b, c], variables, freeze=[A])(*values[1:]),
        CvxpyLayer(problem, [A, b, c], variables)(*values),
    )
    np.testing.assert_allclose(got, want, atol=1e-8)


def test_a_description_names_what_is_complex():
    assert "param" in CvxpyLayer(*CASES["vector"]()).describe()
    assert "(4,) complex" in CvxpyLayer(*CASES["vector"]()).describe()


@NAMES
def test_jax_has_gradients_in_its_own_convention(name, rng):
    jax = pytest.importorskip("jax")
    problem, parameters, variables = CASES[name]()
    neutral = CvxpyLayer(problem, parameters, variables)
    values = draw(parameters, rng, (2,))
    with jax.enable_x64(True):
        layer, arrays = neutral.to_jax(), [jax.numpy.asarray(value) for value in values]
        outputs, pull = jax.vjp(jax.jit(lambda *v: layer(*v)), *arrays)
        assert_close([np.asarray(out) for out in outputs], list(neutral(*values)), 1e-12, "value")
        cotangents = [
            rng.normal(size=out.shape) + (1j * rng.normal(size=out.shape) if np.iscomplexobj(out) else 0)
            for out in outputs
        ]
        pulled = pull(
            tuple(jax.numpy.asarray(cotangent, out.dtype) for cotangent, out in zip(cotangents, outputs, strict=True))
        )
        # JAX pulls back conjugates: of a real function its gradient is ∂/∂Re − i ∂/∂Im.
        want, _ = neutral.vjp(values, [np.conj(cotangent) for cotangent in cotangents])
        assert_close(
            [np.asarray(found) for found in pulled], [np.conj(gradient) for gradient in want], 1e-12, "gradient"
        )
        solved = layer.solve(*arrays).variables
        assert_close([np.asarray(v) for v in solved], [np.asarray(v) for v in outputs], 1e-12, "solve")


@NAMES
def test_tensorflow_has_gradients_in_its_own_convention(name, rng):
    tf = pytest.importorskip("tensorflow")
    problem, parameters, variables = CASES[name]()
    neutral = CvxpyLayer(problem, parameters, variables)
    values = draw(parameters, rng, (2,))
    layer, tensors = neutral.to_tensorflow(), [tf.constant(value) for value in values]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        outputs = layer(*tensors)
    assert_close([out.numpy() for out in outputs], list(neutral(*values)), 1e-12, "value")
    cotangents = [
        rng.normal(size=out.shape) + (1j * rng.normal(size=out.shape) if out.dtype.is_complex else 0) for out in outputs
    ]
    # As PyTorch's: ∂/∂Re + i ∂/∂Im.
    found = tape.gradient(
        outputs, tensors, [tf.constant(c, out.dtype) for c, out in zip(cotangents, outputs, strict=True)]
    )
    want, _ = neutral.vjp(values, cotangents)
    assert_close([gradient.numpy() for gradient in found], list(want), 1e-12, "gradient")
    solved = layer.solve(*tensors).variables
    assert_close([v.numpy() for v in solved], [v.numpy() for v in outputs], 1e-12, "solve")


@pytest.mark.parametrize("door", ["jax", "tensorflow"])
def test_a_complex_array_for_a_real_parameter_is_refused(door):
    pytest.importorskip(door)
    z, c = cp.Variable(2), cp.Parameter(2)
    layer = getattr(CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(z - c))), [c], [z]), f"to_{door}")()
    with pytest.raises(DtypeError, match="needs real numbers, got complex"):
        layer(np.zeros(2, dtype=complex))
