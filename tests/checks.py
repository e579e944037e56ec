"""Assertions that the tests share: each says what was compared, by how much it is off, and how much is allowed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.reference import Difference

Arrays = Sequence[np.ndarray]

# Below this part of the whole gradient, the gradient of one parameter is compared with the whole: rounding of the
# large parts enters the small ones.
_SMALL_PART = 1e-2


def inner(left: Arrays, right: Arrays) -> float:
    """The inner product of two lists of arrays."""
    return float(sum(np.sum(a * b) for a, b in zip(left, right, strict=True)))


def cotangents_of(outputs: Arrays, rng: np.random.Generator) -> list[np.ndarray]:
    """Random cotangents of the outputs."""
    return [rng.normal(size=output.shape) for output in outputs]


def assert_close(got: Arrays, want: Arrays, tolerance: float, what: str) -> None:
    """Asserts equal shapes, and a largest difference within `tolerance` times 1 + the largest entry."""
    for index, (a, b) in enumerate(zip(got, want, strict=True)):
        assert a.shape == b.shape, f"{what} #{index}: shape {a.shape}, expected {b.shape}"
        if not a.size:
            continue
        error = np.max(np.abs(a - b)) / (1 + np.max(np.abs(b)))
        assert error <= tolerance, f"{what} #{index}: error {error:.1e} above {tolerance:.0e}; got {a}, expected {b}"


def assert_same_bits(got: Arrays, want: Arrays, what: str) -> None:
    """Asserts that nothing differs, not even by rounding."""
    for index, (a, b) in enumerate(zip(got, want, strict=True)):
        assert a.shape == b.shape, f"{what} #{index}: shape {a.shape}, expected {b.shape}"
        differing = np.flatnonzero(a.ravel() != b.ravel())
        assert not len(differing), f"{what} #{index}: entries {differing[:8]} differ, by {np.max(np.abs(a - b)):.1e}"


def assert_gradients(
    gradients: Arrays, cotangents: Arrays, differences: Sequence[Difference], tolerance: float
) -> None:
    """Asserts that gradients of ⟨cotangents, outputs⟩ agree with differences along all directions, per parameter."""
    want = np.array([inner(cotangents, difference.outputs) for difference in differences])
    got = np.array([np.sum(gradients[difference.slot] * difference.direction) for difference in differences])
    slots = np.array([difference.slot for difference in differences])
    whole = np.linalg.norm(want)
    for slot in range(len(gradients)):
        mine = slots == slot
        assert mine.any(), f"no direction for parameter #{slot}"
        scale = max(float(np.linalg.norm(want[mine])), _SMALL_PART * float(whole))
        error = float(np.linalg.norm(got[mine] - want[mine]))
        assert error <= tolerance * scale, (
            f"gradient of parameter #{slot}: relative error {error / scale:.1e} above {tolerance:.0e}; along its "
            f"directions got {got[mine]}, differences {want[mine]}"
        )


def assert_tangents(tangents: Arrays, difference: Difference, tolerance: float) -> None:
    """Asserts that tangents of all outputs agree with differences along one direction."""
    size = max(1e-3, *(float(np.max(np.abs(output), initial=0.0)) for output in difference.outputs))
    for index, (got, want) in enumerate(zip(tangents, difference.outputs, strict=True)):
        assert got.shape == want.shape, f"tangent #{index}: shape {got.shape}, expected {want.shape}"
        error = float(np.max(np.abs(got - want), initial=0.0)) / size
        assert error <= tolerance, f"tangent #{index}: error {error:.1e} above {tolerance:.0e}; {got}, {want}"
