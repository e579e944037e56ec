"""Projections and their derivatives: against closed forms, inequalities that define the cones, and differences."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest

from cvxlayers.cones import (
    Cone,
    Exponential,
    NonNegative,
    Power,
    Product,
    SecondOrder,
    Semidefinite,
    Zero,
    derivative_dual,
    project_dual,
    second_derivative_dual,
)
from cvxlayers.cones.basis import smat, svec
from cvxlayers.errors import DerivativeError

ALPHAS = (0.04, 0.3, 0.5, 0.83, 0.97)
# How far from a cone a point may be, with entries of about one, and count as a point of it.
ROUNDING = 1e-13
SCALES = (1e-8, 1e-3, 1.0, 1e3, 1e8)
CONES = (
    Zero(3),
    NonNegative(4),
    SecondOrder(1, 3),
    SecondOrder(2),
    SecondOrder(5, 2),
    *(Semidefinite(order) for order in range(1, 6)),
    Semidefinite(3, 2),
    Exponential(2),
    Power(ALPHAS),
    Product(
        zero=2,
        nonnegative=2,
        second_order=(3, 2, 3, 1),
        semidefinite=(2, 4, 2),
        exponential=2,
        power=(0.3, 0.7, 0.3),
    ),
)
CONE = pytest.mark.parametrize("cone", CONES, ids=repr)
BENT = pytest.mark.parametrize("alpha", [None, *ALPHAS], ids=lambda alpha: "exp" if alpha is None else f"pow{alpha}")


def bent_cone(alpha: float | None) -> Cone:
    """The exponential cone, or a power cone."""
    return Exponential() if alpha is None else Power((alpha,))


def interior(cone: Cone) -> np.ndarray:
    """A point in the interior of the cone and of its dual; zero for the zero cone."""
    match cone:
        case Zero():
            return np.zeros(cone.dim)
        case NonNegative():
            return np.ones(cone.dim)
        case SecondOrder(size=size):
            return np.tile(np.eye(size)[0], cone.count)
        case Semidefinite(order=order):
            return np.tile(svec(np.eye(order)), cone.count)
        case Exponential():
            return np.tile([-1.0, 1.0, 2.0], cone.count)
        case Power(alphas=alphas):
            return np.tile([1.0, 1.0, 0.0], len(alphas))
        case Product():
            return np.concatenate([interior(part) for part, _ in cone.blocks()])
        case _:
            raise NotImplementedError(cone)


def outside_by(cone: Cone, v: np.ndarray) -> np.ndarray:
    """By how much each point violates the inequalities that define the cone, relative to its size."""
    match cone:
        case Zero():
            gaps = np.abs(v)
        case NonNegative():
            gaps = -v
        case SecondOrder(size=size):
            parts = v.reshape((*v.shape[:-1], -1, size))
            gaps = np.linalg.norm(parts[..., 1:], axis=-1) - parts[..., 0]
        case Semidefinite(order=order):
            gaps = -np.linalg.eigvalsh(smat(v.reshape((*v.shape[:-1], cone.count, -1)), order))
        case Exponential():
            x, y, z = np.moveaxis(v.reshape((*v.shape[:-1], -1, 3)), -1, 0)
            with np.errstate(all="ignore"):
                gaps = np.where(y > 0, y * np.exp(np.minimum(x / y, 700)) - z, np.maximum(np.maximum(x, -z), -y))
        case Power(alphas=alphas):
            x, y, z = np.moveaxis(v.reshape((*v.shape[:-1], -1, 3)), -1, 0)
            alpha = np.array(alphas)
            gaps = np.maximum(
                np.abs(z) - np.maximum(x, 0) ** alpha * np.maximum(y, 0) ** (1 - alpha), -np.minimum(x, y)
            )
        case Product():
            return np.max([outside_by(part, v[..., rows]) for part, rows in cone.blocks()], axis=0)
        case _:
            raise NotImplementedError(cone)
    worst = np.max(gaps.reshape((*v.shape[:-1], -1)), axis=-1)
    return worst / np.maximum(1.0, np.max(np.abs(v), axis=-1))


def outside_dual_by(cone: Cone, v: np.ndarray) -> np.ndarray:
    """The same of the dual cone."""
    match cone:
        case Zero():
            return np.zeros(v.shape[:-1])
        case Exponential():
            x, y, z = np.moveaxis(v.reshape((*v.shape[:-1], -1, 3)), -1, 0)
            with np.errstate(all="ignore"):
                bent = -x * np.exp(np.minimum(y / x - 1.0, 700)) - z
            gaps = np.where(x < 0, bent, np.maximum(np.maximum(x, -y), -z))
            return np.max(gaps, axis=-1) / np.maximum(1.0, np.max(np.abs(v), axis=-1))
        case Power(alphas=alphas):
            weights = np.stack([alphas, 1.0 - np.array(alphas), np.ones(len(alphas))], axis=-1)
            return outside_by(cone, (v.reshape((*v.shape[:-1], -1, 3)) / weights).reshape(v.shape))
        case Product():
            return np.max([outside_dual_by(part, v[..., rows]) for part, rows in cone.blocks()], axis=0)
        case _:
            return outside_by(cone, v)


def directional_difference(function, v: np.ndarray, direction: np.ndarray, step: float = 1e-3) -> np.ndarray:
    """The fourth-order central difference of a function along a direction."""
    near = function(v + step * direction) - function(v - step * direction)
    far = function(v + 2 * step * direction) - function(v - 2 * step * direction)
    return (8 * near - far) / (12 * step)


@CONE
def test_projects_into_the_cone_and_leaves_what_is_there(cone: Cone, rng):
    v = rng.normal(size=(200, cone.dim))
    projected = cone.project(v)
    assert np.max(outside_by(cone, projected + ROUNDING * interior(cone))) <= 0
    np.testing.assert_allclose(cone.project(projected), projected, rtol=0, atol=1e-13)


@CONE
def test_moreau_decomposition(cone: Cone, rng):
    v = rng.normal(size=(200, cone.dim))
    projected, dual = cone.project(v), project_dual(cone, -v)
    assert np.max(outside_dual_by(cone, dual + ROUNDING * interior(cone))) <= 0
    np.testing.assert_allclose(projected - dual, v, rtol=0, atol=1e-13)
    for part, rows in Product.blocks(cone) if isinstance(cone, Product) else [(cone, slice(None))]:
        product_of = np.sum(projected[:, rows] * dual[:, rows], axis=-1)
        assert np.max(np.abs(product_of)) <= 1e-12, part


@CONE
def test_scale_invariance(cone: Cone, rng):
    v, w = rng.normal(size=(2, 50, cone.dim))
    projected, moved = cone.project(v), cone.derivative(v).apply(w)
    for scale in SCALES:
        np.testing.assert_allclose(cone.project(scale * v) / scale, projected, rtol=0, atol=1e-13)
        np.testing.assert_allclose(cone.derivative(scale * v).apply(w), moved, rtol=0, atol=1e-9)


@CONE
def test_derivative_is_firmly_nonexpansive_symmetric_and_homogeneous(cone: Cone, rng):
    v, w, u = rng.normal(size=(3, 100, cone.dim))
    derivative = cone.derivative(v)
    assert np.all((derivative.eigenvalues >= 0) & (derivative.eigenvalues <= 1))
    left, right = np.sum(u * derivative.apply(w), axis=-1), np.sum(w * derivative.apply(u), axis=-1)
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-12)
    np.testing.assert_allclose(derivative.apply(v), cone.project(v), rtol=0, atol=1e-12)
    dual = derivative_dual(cone, -v)
    np.testing.assert_allclose(dual.apply(w) + derivative.apply(w), w, rtol=0, atol=1e-13)


@CONE
def test_basis_is_orthogonal_and_equal_to_its_triplets(cone: Cone, rng):
    v, w = rng.normal(size=(2, 7, cone.dim))
    derivative = cone.derivative(v)
    rows, cols, values = derivative.basis.triplets()
    dense = np.zeros((7, cone.dim, cone.dim))
    dense[:, rows, cols] = values
    identity = np.broadcast_to(np.eye(cone.dim), dense.shape)
    np.testing.assert_allclose(np.swapaxes(dense, 1, 2) @ dense, identity, rtol=0, atol=1e-13)
    rotated = np.swapaxes(dense, 1, 2) @ w[..., None]
    np.testing.assert_allclose(derivative.basis.rotate(w[..., None]), rotated, rtol=0, atol=1e-13)
    np.testing.assert_allclose(derivative.basis.unrotate(rotated), w[..., None], rtol=0, atol=1e-13)
    applied = dense @ (derivative.eigenvalues[..., None] * rotated)
    np.testing.assert_allclose(derivative.apply(w), applied[..., 0], rtol=0, atol=1e-13)
    some = derivative.item(np.array([4, 1]))
    np.testing.assert_array_equal(some.apply(w[[4, 1]]), derivative.apply(w)[[4, 1]])


@CONE
def test_batch_axes(cone: Cone, rng):
    v, w = rng.normal(size=(2, 2, 3, cone.dim))
    flat = cone.derivative(v.reshape(6, -1)).apply(w.reshape(6, -1))
    np.testing.assert_allclose(cone.derivative(v).apply(w), flat.reshape(v.shape), rtol=0, atol=1e-14)
    for index in np.ndindex(2, 3):
        np.testing.assert_allclose(cone.project(v)[index], cone.project(v[index]), rtol=0, atol=1e-14)
    assert cone.project(v[:0]).shape == (0, 3, cone.dim)
    assert cone.derivative(v[:0, 0]).eigenvalues.shape == (0, cone.dim)


@CONE
def test_not_a_number_stays_in_its_item(cone: Cone, rng):
    v = rng.normal(size=(3, cone.dim))
    clean = cone.project(v)
    v[1] = np.nan
    np.testing.assert_array_equal(cone.project(v)[[0, 2]], clean[[0, 2]])
    if not isinstance(cone, Zero):
        assert np.isnan(cone.project(v)[1]).any()


def test_product_is_its_blocks_wherever_they_stand(rng):
    cone = CONES[-1]
    assert isinstance(cone, Product)
    v, w = rng.normal(size=(2, 9, cone.dim))
    projected, moved = cone.project(v), cone.derivative(v).apply(w)
    for part, rows in cone.blocks():
        np.testing.assert_allclose(projected[:, rows], part.project(v[:, rows]), rtol=0, atol=1e-14)
        np.testing.assert_allclose(moved[:, rows], part.derivative(v[:, rows]).apply(w[:, rows]), rtol=0, atol=1e-12)


@dataclass(frozen=True)
class Face:
    """Points in the interior of one piece on which a projection is smooth, away from its ends by 0.2 and more."""

    cone: Cone
    name: str
    points: np.ndarray

    def __str__(self) -> str:
        return f"{self.cone!r}-{self.name}"


def _orthant_faces(rng: np.random.Generator) -> list[Face]:
    found = []
    for signs in product((-1, 1), repeat=3):
        points = np.array(signs) * rng.uniform(0.2, 2, size=(5, 3))
        found.append(Face(NonNegative(3), "".join("-+"[sign > 0] for sign in signs), points))
    return found


def _second_order_faces(size: int, rng: np.random.Generator) -> list[Face]:
    z = rng.normal(size=(5, size - 1))
    z /= np.linalg.norm(z, axis=1, keepdims=True) / rng.uniform(0.5, 2, size=(5, 1))
    norm = np.linalg.norm(z, axis=1, keepdims=True)
    heights = {"inside": 1.5 * norm, "polar": -1.5 * norm, "above": 0.6 * norm, "level": 0 * norm, "below": -0.6 * norm}
    return [Face(SecondOrder(size), name, np.hstack([height, z])) for name, height in heights.items()]


def _semidefinite_faces(order: int, rng: np.random.Generator) -> list[Face]:
    found = []
    for positive in range(order + 1):
        sizes = np.where(np.arange(order) < positive, 1, -1) * rng.uniform(0.3, 2, size=(4, order))
        # One pair of equal eigenvalues: nothing may be divided by their difference.
        sizes[0, 1:2] = sizes[0, :1] * np.sign(sizes[0, 1:2] * sizes[0, :1])
        Q = np.linalg.qr(rng.normal(size=(4, order, order)))[0]
        points = svec((Q * sizes[:, None, :]) @ np.swapaxes(Q, 1, 2))
        found.append(Face(Semidefinite(order), f"{positive}+{order - positive}-", points))
    return found


def _faces() -> list[Face]:
    rng = np.random.default_rng(0)
    rho = np.array([-2.0, -0.5, 0.0, 1.0, 2.0])
    found = [*_orthant_faces(rng), *(face for size in (2, 3, 6) for face in _second_order_faces(size, rng))]
    found += [face for order in range(1, 6) for face in _semidefinite_faces(order, rng)]
    found += [
        Face(Exponential(), "inside", np.array([[0.0, 1.0, 2.0], [-3.0, 1.0, 0.5], [1.0, 2.0, 5.0]])),
        Face(Exponential(), "polar", np.array([[1.0, 0.0, -1.0], [0.5, -2.0, -1.0], [1.0, 1.0, -2.0]])),
        Face(Exponential(), "face up", np.array([[-1.0, -1.0, 1.0], [-0.5, -2.0, 0.4]])),
        Face(Exponential(), "face down", np.array([[-1.0, -1.0, -1.0], [-0.5, -2.0, -0.4]])),
        Face(Exponential(), "curved", _exp_pair(rho)[0] + _exp_pair(rho)[1]),
    ]
    for alpha in ALPHAS:
        inside, polar = np.array([[2.0, 3.0, 1.0], [1.0, 1.0, -0.3]]), np.array([[-2.0, -3.0, 1.0], [-1.0, -1.0, -0.3]])
        curved = np.concatenate([sum(_power_pair(rho[1:4], alpha, sign)[:2]) for sign in (1, -1)])
        found += [
            Face(Power((alpha,)), name, points)
            for name, points in (("inside", inside), ("polar", polar), ("curved", curved))
        ]
    return found


def _exp_pair(rho, alpha=1.0, beta=1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A boundary point of the exponential cone, an orthogonal one of its polar, and their derivatives in ρ."""
    one, zero = np.ones_like(rho), np.zeros_like(rho)
    p = np.stack([rho, one, np.exp(rho)], axis=-1)
    n = np.stack([one, one - rho, -np.exp(-rho)], axis=-1)
    dp = np.stack([one, zero, np.exp(rho)], axis=-1)
    dn = np.stack([zero, -one, np.exp(-rho)], axis=-1)
    a, b = np.asarray(alpha)[..., None], np.asarray(beta)[..., None]
    return a * p, b * n, a * dp, b * dn


def _power_pair(t, exponent, sign, alpha=1.0, beta=1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The same of a power cone, whose boundary is the ray through (e^((1−α)t), e^(−αt), ±1), with derivatives in t."""
    zero, one = np.zeros_like(t), np.ones_like(t)
    x, y = np.exp((1 - exponent) * t), np.exp(-exponent * t)
    p = np.stack([x, y, sign * one], axis=-1)
    n = np.stack([-exponent / x, -(1 - exponent) / y, sign * one], axis=-1)
    dp = np.stack([(1 - exponent) * x, -exponent * y, zero], axis=-1)
    dn = np.stack([exponent * (1 - exponent) / x, -exponent * (1 - exponent) / y, zero], axis=-1)
    a, b = np.asarray(alpha)[..., None], np.asarray(beta)[..., None]
    return a * p, b * n, a * dp, b * dn


@pytest.mark.parametrize("face", _faces(), ids=str)
def test_derivative_in_every_face(face: Face, rng):
    for point in face.points:
        directions = rng.normal(size=(4, face.cone.dim))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        points = np.broadcast_to(point, directions.shape)
        got = face.cone.derivative(points).apply(directions)
        want = directional_difference(face.cone.project, points, directions)
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-9)


@pytest.mark.parametrize(
    "face", [face for face in _faces() if isinstance(face.cone, NonNegative | SecondOrder)], ids=str
)
def test_second_derivative_in_every_face(face: Face, rng):
    cone = face.cone
    for point in face.points:
        directions, w = rng.normal(size=(2, 4, cone.dim))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        points = np.broadcast_to(point, directions.shape)
        want = directional_difference(lambda v, w=w: cone.derivative(v).apply(w), points, directions)
        np.testing.assert_allclose(cone.second_derivative(points, directions, w), want, rtol=0, atol=1e-8)
        want = directional_difference(lambda v, w=w: derivative_dual(cone, v).apply(w), points, directions)
        np.testing.assert_allclose(second_derivative_dual(cone, points, directions, w), want, rtol=0, atol=1e-8)


def test_second_derivative_of_a_product(rng):
    cone = Product(zero=2, nonnegative=2, second_order=(3, 4, 3))
    v, w, dv = rng.normal(size=(3, 20, cone.dim))
    got = cone.second_derivative(v, dv, w)
    for part, rows in cone.blocks():
        want = part.second_derivative(v[:, rows], dv[:, rows], w[:, rows])
        np.testing.assert_allclose(got[:, rows], want, rtol=0, atol=1e-14)


@pytest.mark.parametrize("cone", [Semidefinite(2), Exponential(), Power((0.3,)), CONES[-1]], ids=repr)
def test_second_derivatives_that_are_not_offered_are_refused(cone: Cone, rng):
    with pytest.raises(DerivativeError, match="second derivatives are not offered for the"):
        cone.second_derivative(*rng.normal(size=(3, 2, cone.dim)))


def _hard_pairs(alpha: float | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Boundary points p, normals n and their derivatives along the boundary: near every end of the curve, p and n of
    sizes that differ by up to twelve orders."""
    along = [-300.0, -40.0, -10.0, -3.0, -1.0, -1e-3, 0.0, 1e-8, 0.5, 1.0, 2.0, 5.0, 15.0, 40.0]
    grid = np.array(list(product(along, (1e-6, 1.0, 1e6), (1e-6, 1.0, 1e6)))).T
    parts = _exp_pair(*grid) if alpha is None else _power_pair(grid[0], alpha, 1, grid[1], grid[2])
    p, n, dp, dn = parts
    size_p = np.linalg.norm(p, axis=-1, keepdims=True) / grid[1][:, None]
    size_n = np.linalg.norm(n, axis=-1, keepdims=True) / grid[2][:, None]
    return p / size_p, n / size_n, dp / size_p, dn / size_n


@BENT
def test_projection_in_the_hard_regions(alpha: float | None):
    p, n, _, _ = _hard_pairs(alpha)
    v = p + n
    error = np.linalg.norm(bent_cone(alpha).project(v) - p, axis=-1) / np.linalg.norm(v, axis=-1)
    assert np.max(error) <= 1e-14


@BENT
def test_derivative_in_the_hard_regions(alpha: float | None):
    """D p = p, D n = 0, and along the boundary D (dp + dn) = dp: three directions that span the space."""
    p, n, dp, dn = _hard_pairs(alpha)
    derivative = bent_cone(alpha).derivative(p + n)
    for direction, want in ((p, p), (n, 0 * n), (dp + dn, dp)):
        error = np.linalg.norm(derivative.apply(direction) - want, axis=-1)
        assert np.max(error / np.linalg.norm(p + n, axis=-1)) <= 1e-12
