"""What the layers of all frameworks share: how they are made of a problem, told of, checked and written."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from typing import Any, TypeVar

from cvxlayers import artifact
from cvxlayers.arrays import Array
from cvxlayers.build import assemble, with_keywords
from cvxlayers.describe import describe
from cvxlayers.differentiation import differentiation
from cvxlayers.gradcheck import GradientCheck, gradcheck
from cvxlayers.layer import Layer
from cvxlayers.ridge import add_ridge
from cvxlayers.spy import spy

L = TypeVar("L", bound="BaseLayer")


class BaseLayer:
    """A differentiable layer that solves a parametrised convex problem, but for how it is called.

    Attributes:
        layer: the compiled problem, and the methods chosen for it.
    """

    layer: Layer

    def __init__(
        self,
        problem: object,
        parameters: object,
        variables: object,
        *,
        gp: bool = False,
        freeze: object = (),
        solver: str | None = None,
        solver_args: Mapping[str, object] | None = None,
        on_failure: str = "raise",
        strict: bool = False,
        threads: int | None = None,
        check: bool = True,
        derivative: str = "exact",
        mu: float | None = None,
        ridge: float = 0.0,
        recognise: bool = True,
        cache: str | PathLike[str] | None = None,
    ) -> None:
        """Compiles a problem.

        Args:
            problem: a disciplined parametrised (DPP) CVXPY problem.
            parameters: its `cvxpy.Parameter`s, in the order in which a call passes their values.
            variables: what a call returns, in order: variables, and dual variables of constraints.
            gp: whether the problem is a geometric program.
            freeze: parameters that are not listed, and stay at the values that they have when the layer is made.
            solver: a solver by name, in any case; by default chosen from the program's class and size.
            solver_args: options of every call: `eps`, `max_iters`, `time_limit`, `verbose`, and the solver's own names.
            on_failure: what a call does about items that cannot be solved: "raise" `SolverError`, which compiled
                functions of JAX and TensorFlow wrap in errors of their own; "nan", return NaN for them; "mask", return
                their last finite iterate, or zeros, and an exactly zero gradient.
            strict: whether inaccurate solutions and doubtful derivatives raise instead of warning.
            threads: threads over the items of a batch; by default CVXLAYERS_THREADS, or the processors available.
            check: whether each call checks its values against the attributes of the parameters: sign, bounds, symmetry,
                definiteness, support.
            derivative: "exact"; "smoothed", the derivative of the point on the central path with s ∘ y = mu, and
                "lpgd", differences of solutions with perturbed costs: both inform also where the exact one is zero or
                undefined.
            mu: how strongly: the barrier parameter of "smoothed" (0.01), the size of lpgd's perturbation (0.1).
            ridge: weight of ½‖variables‖² that is added to the cost, in the solution and in its derivatives.
            recognise: whether programs of a form with a faster solution, such as a projection onto a simplex or a
                softmax, are solved and differentiated by it.
            cache: folder that keeps the compiled problem for the next process; by default CVXLAYERS_CACHE, none where
                that is unset.

        Raises:
            ProblemError: if the problem cannot become a layer; its subclass `DPPError` names the expression at fault.
            OptionError: if a solver or an option is unknown, or does not fit the problem.

        References:
            Agrawal, Amos, Barratt, Boyd, Diamond, Kolter, "Differentiable convex optimization layers" (2019); Agrawal,
            Barratt, Boyd, Busseti, Moursi, "Differentiating through a cone program" (2019); Healey, Nobel, Boyd,
            "Differentiating through a quadratic cone program" (2025), arXiv:2508.17522.
        """
        from cvxlayers.canonical import compile_problem

        how = differentiation(derivative, mu, ridge)
        compiled = compile_problem(problem, parameters, variables, gp=gp, freeze=freeze, cache=cache)
        layer = assemble(add_ridge(compiled, how.ridge), solver, recognise=recognise)
        layer = replace(layer, strict=strict, check=check, differentiation=how)
        self._take(with_keywords(layer, solver_args, on_failure, threads))

    @classmethod
    def from_layer(cls: type[L], layer: Layer) -> L:
        """Returns the same over a layer that is compiled already."""
        made = cls.__new__(cls)
        made._take(layer)
        return made

    def _take(self, layer: Layer) -> None:
        self.layer = layer

    @abstractmethod
    def _doubles(self, parameters: tuple[Any, ...]) -> list[Array]:
        """Returns the values of a call as arrays, of complex parameters their parts.

        Raises:
            InputError: if they do not fit.
        """

    def describe(self) -> str:
        """Says what the layer is made of: the program's class, sizes and cones, what parameters change, the methods."""
        return describe(self.layer)

    def spy(self, axes: Any = None) -> Any:
        """Draws the sparsity of the KKT system on matplotlib axes, new ones by default, and returns them."""
        return spy(self.layer, axes)

    def gradcheck(self, *parameters: Any, tolerance: float = 1e-5, seed: int = 0) -> GradientCheck:
        """Compares the layer's derivatives with finite differences, per parameter and item of the batch.

        The step of the differences follows from the accuracy of the solutions, and their own error is known: the result
        tells which of the two sides is unreliable. Print it; its `ok` says whether a derivative is wrong.

        Args:
            parameters: as in a call.
            tolerance: relative error up to which derivatives and differences agree.
            seed: of the random directions.
        """
        return gradcheck(self.layer, self._doubles(parameters), tolerance, seed=seed)

    def save(self, path: object) -> None:
        """Writes the compiled layer to a file that `cvxlayers.load` reads, also where CVXPY is not installed.

        Raises:
            ArtifactError: if an option of the layer is neither a number nor a text.
        """
        artifact.save(self.layer, path)
