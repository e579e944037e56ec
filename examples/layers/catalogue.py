"""Every small layer with its closed form and a point to compare them at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float

from cvxlayers.torch import CvxpyLayer
from examples.layers.activations import relu_layer, sigmoid_layer
from examples.layers.isotonic import isotonic, isotonic_layer
from examples.layers.lasso import lasso, lasso_layer
from examples.layers.softmax import constrained_softmax, constrained_softmax_layer, softmax, softmax_layer
from examples.layers.sparsemax import constrained_sparsemax, constrained_sparsemax_layer, sparsemax, sparsemax_layer
from examples.layers.top_k import top_k, top_k_layer
from examples.layers.total_variation import total_variation, total_variation_layer
from examples.layers.transport import sinkhorn, transport_layer

Arguments = tuple[Float[torch.Tensor, "..."], ...]


@dataclass(frozen=True)
class Small:
    """A layer, its closed form, and arguments drawn for both."""

    name: str
    layer: CvxpyLayer
    closed_form: Callable[..., Float[torch.Tensor, "..."]]
    sample: Callable[[torch.Generator], Arguments]

    def errors(self, arguments: Arguments) -> tuple[float, float]:
        """Returns the largest error of the value and of the Jacobian."""
        every = tuple(range(len(arguments)))
        value = self.layer(*arguments)[0] - self.closed_form(*arguments)
        ours = torch.func.jacrev(lambda *given: self.layer(*given)[0], argnums=every)(*arguments)
        theirs = torch.autograd.functional.jacobian(self.closed_form, arguments)
        differences = [(a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True)]
        return value.abs().max().item(), max(differences)


def catalogue(n: int = 6) -> list[Small]:
    """Returns all small layers, of size n."""
    k, entropy = 2, 0.5
    return [
        Small("softmax", softmax_layer(n), softmax, _normals(n)),
        Small("constrained_softmax", constrained_softmax_layer(n), constrained_softmax, _with_bounds(n)),
        Small("sparsemax", sparsemax_layer(n), sparsemax, _normals(n)),
        Small("constrained_sparsemax", constrained_sparsemax_layer(n), constrained_sparsemax, _with_bounds(n)),
        Small("top_k", top_k_layer(n, k), lambda x: top_k(x, k), _normals(n)),
        Small("relu", relu_layer(n), torch.relu, _normals(n)),
        Small("sigmoid", sigmoid_layer(n), torch.sigmoid, _normals(n)),
        Small("isotonic", isotonic_layer(n), isotonic, _normals(n)),
        Small("total_variation", total_variation_layer(n), total_variation, _with_penalty(n)),
        Small("transport", transport_layer(3, 4, entropy), lambda C, a, b: sinkhorn(C, a, b, entropy), _plans(3, 4)),
        Small("lasso", lasso_layer(n + 2, 4), lasso, _regression(n + 2, 4)),
    ]


def _normals(n: int) -> Callable[[torch.Generator], Arguments]:
    return lambda generator: (_normal(generator, n),)


def _with_bounds(n: int) -> Callable[[torch.Generator], Arguments]:
    """Bounds of a sum between 1.2 and 2, so that some hold and the sum of one can be reached."""
    return lambda generator: (_normal(generator, n), (1.2 + 0.8 * _uniform(generator, n)) / n)


def _with_penalty(n: int) -> Callable[[torch.Generator], Arguments]:
    return lambda generator: (_normal(generator, n), 0.2 + 0.3 * _uniform(generator, 1)[0])


def _plans(rows: int, columns: int) -> Callable[[torch.Generator], Arguments]:
    def sample(generator: torch.Generator) -> Arguments:
        a, b = (torch.softmax(_normal(generator, size), dim=0) for size in (rows, columns))
        return _uniform(generator, rows, columns), a, b

    return sample


def _regression(rows: int, n: int) -> Callable[[torch.Generator], Arguments]:
    return lambda generator: (_normal(generator, rows, n), _normal(generator, rows), 0.2 + _uniform(generator, n))


def _normal(generator: torch.Generator, *shape: int) -> Float[torch.Tensor, "..."]:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _uniform(generator: torch.Generator, *shape: int) -> Float[torch.Tensor, "..."]:
    return torch.rand(*shape, dtype=torch.float64, generator=generator)
