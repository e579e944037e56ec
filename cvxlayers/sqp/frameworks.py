"""The frameworks by their names, each imported when it is asked for."""

from __future__ import annotations

from cvxlayers.errors import InputError
from cvxlayers.sqp.autodiff import Autodiff


def autodiff_of(framework: str, traced: bool) -> Autodiff:
    """Returns a framework by its name.

    Raises:
        InputError: if there is none of this name.
    """
    if framework == "torch":
        from cvxlayers.sqp.torch_autodiff import TorchAutodiff

        return TorchAutodiff(traced)
    if framework == "jax":
        from cvxlayers.sqp.jax_autodiff import JaxAutodiff

        return JaxAutodiff()
    raise InputError(f"framework is 'torch' or 'jax'; got {framework!r}")
