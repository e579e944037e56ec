"""What users' own tests may ask of a layer."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from cvxlayers.gradcheck import GradientCheck, Verdict

__all__ = ["GradientCheck", "Verdict", "assert_gradients"]


@runtime_checkable
class _Checkable(Protocol):
    """A layer of any framework."""

    def gradcheck(self, *parameters: Any, tolerance: float = ..., seed: int = ...) -> GradientCheck:
        """Compares derivatives with differences."""
        ...


def assert_gradients(
    layer: _Checkable, *parameters: Any, tolerance: float = 1e-5, seed: int = 0, conclusive: bool = False
) -> GradientCheck:
    """Asserts that no derivative of a layer differs from a reliable finite difference, and returns the comparison.

    Args:
        layer: a layer of any framework.
        parameters: one value per parameter, as in a call.
        tolerance: relative error up to which derivatives and differences agree.
        seed: of the random directions.
        conclusive: whether every derivative has to agree: no item may be unsolved, degenerate, or at a kink.

    Raises:
        AssertionError: if one differs; it names the parameters, the items and by how much.
    """
    found = layer.gradcheck(*parameters, tolerance=tolerance, seed=seed)
    worst = Verdict.AGREES if conclusive else Verdict.DERIVATIVE_UNRELIABLE
    if (found.verdict > worst).any():
        raise AssertionError(f"derivatives and finite differences do not agree to {tolerance:g}:\n{found}")
    return found
